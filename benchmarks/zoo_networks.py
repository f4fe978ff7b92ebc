"""Small networks on six contents, from which `zoo_cases` makes cases of known cause.

A content is a kind of object: shapes, digits, letters, garments (Fashion-MNIST), MNIST's digits, or
textures that fill the image and have no object. A group is a content, an architecture, a width and
a seed. Trained networks are kept in a folder, so an interrupted run resumes.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from contam.batch import Batch, Domain, Shift
from contam.data.backgrounds import (
    ID,
    OOD,
    SIDE,
    backgrounds,
    blobs,
    checker,
    fractal,
    paper,
    plaid,
    ramp,
    speckle,
    stripes,
    strokes,
)
from contam.data.colors import rgb
from contam.data.objects import NOISE, Objects, objects
from contam.data.small_images import read_idx
from contam.models.classifier import Classifier
from contam.models.small import resnet8, small_cnn
from contam.rng import generator_for, seeded
from contam.training.supervised import fit

CLASSES = 10
FILES = {"fashion": Path("/usr/share/datasets/fashion-mnist"), "mnist": Path("data/mnist")}
"""Folders of IDX files; contents whose files are missing are left out."""
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
"""Normalization of the inputs of groups with odd seeds; the others take pixels in [0, 1]."""
FRAME = 3
"""Pixels along each side that a frame covers."""
LETTERS = "ABDEGHNQRT"
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "STIXGeneral")
NEW_FONTS = ("DejaVuSerif-BoldItalic", "cmtt10", "DejaVuSerif")
"""Fonts of new kinds of letters and digits."""
GLYPH = 64
"""Side of a drawn letter in pixels."""
IMAGES = {"train": slice(0, -100), "validation": slice(-100, None)}
"""The training images of each class in IDX files that each part uses."""


class Content(NamedTuple):
    """A kind of object."""

    draw: Callable[[int, int, str], Objects]
    """Objects from a number, a seed and a part; the classes in turn."""
    masks: bool = True
    """Whether there is a background, so that masks exist."""
    images: float = 1.0
    """Factor of the number of training images."""


def _glyphs(y: Tensor, texts: str, fonts: tuple[str, ...], generator: torch.Generator) -> Tensor:
    """(n, 1, GLYPH, GLYPH) ink of the class's character in a random font."""
    bank = torch.stack([_glyph(text, font) for text in texts for font in fonts])
    which = torch.randint(len(fonts), (len(y),), generator=generator)
    return bank[y * len(fonts) + which]


@cache
def _glyph(text: str, font: str) -> Tensor:
    import matplotlib as mpl

    file = Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    image = Image.new("L", (GLYPH, GLYPH))
    drawn = ImageFont.truetype(str(file), 56)
    ImageDraw.Draw(image).text((GLYPH / 2, GLYPH / 2), text, fill=255, font=drawn, anchor="mm")
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(
        1, GLYPH, GLYPH
    ) / torch.tensor(255)


def _posed(y: Tensor, ink: Tensor, seed: int, part: str, *, filled: bool = False) -> Objects:
    """Ink in random positions, sizes, rotations and colors, independent of the class."""
    n = len(y)
    pose = torch.rand(n, 4, generator=generator_for(seed, f"zoo/{part} pose"))
    colors = torch.rand(n, 3, generator=generator_for(seed, f"zoo/{part} colors"))
    noise = torch.empty(n, 3, SIDE, SIDE)
    noise.normal_(std=NOISE, generator=generator_for(seed, f"zoo/{part} noise"))
    ink = moved(ink, angle=0.3 * (pose[:, 0] - 0.5), scale=0.8 + 0.2 * pose[:, 1],
                shift=4 * (pose[:, 2:] - 0.5), about=torch.zeros(n, 2))  # fmt: skip
    fill = rgb(colors[:, :1], 0.7 * colors[:, 1:2], 0.6 + 0.4 * colors[:, 2:])[:, :, None, None]
    mask = (6 * ink).clamp(0, 1) if filled else ink
    color = fill * (0.3 + 0.7 * ink if filled else 1)
    return Objects(y, mask, color.expand(n, 3, SIDE, SIDE), noise)


def moved(
    x: Float[Tensor, "n channels height width"],
    *,
    angle: Tensor | float = 0.0,
    scale: Tensor | float = 1.0,
    shift: Tensor | float = 0.0,
    about: Float[Tensor, "n 2"],
    mirrored: bool = False,
    padding: str = "zeros",
) -> Float[Tensor, "n channels side side"]:
    """Rotate (radians), scale, mirror and shift (pixels) images about a point in [-1, 1]."""
    n = len(x)
    angle, scale = (torch.as_tensor(v, dtype=torch.float32).expand(n) for v in (angle, scale))
    shift = torch.as_tensor(shift, dtype=torch.float32).expand(n, 2) * 2 / SIDE
    cos, sin = angle.cos() / scale, angle.sin() / scale
    flip = -1.0 if mirrored else 1.0
    turn = torch.stack([flip * cos, flip * sin, -sin, cos], dim=1).view(n, 2, 2)
    offset = about - (turn @ (about + shift)[:, :, None])[:, :, 0]
    grid = F.affine_grid(
        torch.cat([turn, offset[:, :, None]], dim=2), [n, x.shape[1], SIDE, SIDE],
        align_corners=False,
    )  # fmt: skip
    return F.grid_sample(x, grid, padding_mode=padding, align_corners=False)


def _centers(mask: Tensor) -> Tensor:
    """(n, 2) center of each object in [-1, 1]."""
    at = (2 * torch.arange(SIDE) + 1) / SIDE - 1
    total = mask.sum((1, 2, 3)).clamp(min=1e-6)
    across = (mask[:, 0].sum(1) * at).sum(1) / total
    down = (mask[:, 0].sum(2) * at).sum(1) / total
    return torch.stack([across, down], dim=1)


def posed(shown: Objects, **change: Any) -> Objects:
    """Objects that are moved about their centers, as `moved` does; textures as whole images."""
    about = _centers(shown.mask)
    if not bool((shown.mask < 1).any()):
        # A texture fills the image, also after the change.
        color = moved(shown.color, about=about, padding="reflection", **change)
        return shown._replace(color=color)
    mask = moved(shown.mask, about=about, **change)
    color = moved(shown.color, about=about, padding="border", **change)
    return shown._replace(mask=mask, color=color)


def jpeg(x: Float[Tensor, "n 3 side side"], quality: int) -> Float[Tensor, "n 3 side side"]:
    """Images as JPEG files of a quality show them."""
    images = []
    for image in (255 * x).round().byte().permute(0, 2, 3, 1):
        file = io.BytesIO()
        Image.fromarray(image.numpy()).save(file, "JPEG", quality=quality)
        pixels = bytearray(Image.open(file).tobytes())
        images.append(torch.frombuffer(pixels, dtype=torch.uint8).view(SIDE, SIDE, 3))
    return torch.stack(images).permute(0, 3, 1, 2) / 255


def _letters(n: int, seed: int, part: str) -> Objects:
    y = torch.arange(n) % CLASSES
    ink = _glyphs(y, LETTERS, FONTS, generator_for(seed, f"zoo/{part} fonts"))
    return _posed(y, ink, seed, part)


@cache
def _files(content: str, split: str) -> tuple[Tensor, Tensor]:
    images, labels = (
        read_idx(FILES[content] / f"{split}-{kind}-ubyte")
        for kind in ("images-idx3", "labels-idx1")
    )
    return images, labels


def _from_files(content: str) -> Callable[[int, int, str], Objects]:
    def draw(n: int, seed: int, part: str) -> Objects:
        images, labels = _files(content, "t10k" if part == "test" else "train")
        y = torch.arange(n) % CLASSES
        which = torch.empty(n, dtype=torch.int64)
        for k in range(CLASSES):
            own = (labels == k).nonzero().flatten()[IMAGES.get(part, slice(None))]
            order = torch.randperm(len(own), generator=generator_for(seed, f"zoo/{part} {k}"))
            which[k::CLASSES] = own[order].repeat(n // len(own) + 1)[: len(y[k::CLASSES])]
        ink = images[which][:, None] / 255
        return _posed(y, ink, seed, part, filled=content == "fashion")

    return draw


TEXTURES: tuple[Callable[..., Tensor], ...] = (
    ramp,
    lambda n, g: stripes(n, g, (3, 5)),
    lambda n, g: stripes(n, g, (8, 14)),
    checker,
    speckle,
    plaid,
    strokes,
    blobs,
    paper,
    lambda n, g: fractal(n, g, (2, 4)),
)
"""The classes of the content `textures`."""


def _textures(n: int, seed: int, part: str) -> Objects:
    y = torch.arange(n) % CLASSES
    color = torch.empty(n, 3, SIDE, SIDE)
    for k, texture in enumerate(TEXTURES):
        draws = generator_for(seed, f"zoo/{part} texture {k}")
        count = len(y[k::CLASSES])
        hue, saturation, value = torch.rand(3, 2, count, 1, generator=draws)
        low, high = (
            rgb(hue[i], 0.2 + 0.6 * saturation[i], 0.1 + 0.5 * i + 0.35 * value[i])[
                :, :, None, None
            ]
            for i in range(2)
        )
        color[k::CLASSES] = torch.lerp(low, high, texture(count, draws))
    noise = torch.empty(n, 3, SIDE, SIDE)
    noise.normal_(std=NOISE, generator=generator_for(seed, f"zoo/{part} noise"))
    return Objects(y, torch.ones(n, 1, SIDE, SIDE), color, noise)


CONTENTS: dict[str, Content] = {
    "shapes": Content(lambda n, seed, part: objects(n, seed=seed, part=part, core="shapes")),
    "digits": Content(lambda n, seed, part: objects(n, seed=seed, part=part, core="digits")),
    "letters": Content(_letters),
    "fashion": Content(_from_files("fashion"), images=1.6),
    "mnist": Content(_from_files("mnist")),
    "textures": Content(_textures, masks=False),
}


def new_style(shown: Objects, content: str, seed: int) -> Objects:
    """The same classes as characters of other fonts, or as outlines."""
    if content in ("digits", "mnist", "letters"):
        texts = LETTERS.lower() if content == "letters" else "0123456789"
        draws = generator_for(seed, "zoo/new fonts")
        ink = _glyphs(shown.y, texts, NEW_FONTS, draws)
        return _posed(shown.y, ink, seed, "new fonts")._replace(noise=shown.noise)
    inner = -F.max_pool2d(-shown.mask, 5, stride=1, padding=2)
    return shown._replace(mask=(shown.mask - inner).clamp(0, 1))


ARTIFACTS = ("tag", "compression")
"""What any image can have; objects also have a size."""


@dataclass(frozen=True)
class Group:
    """Networks that differ in nothing but their training data."""

    content: str
    architecture: str
    width: int
    seed: int

    @property
    def name(self) -> str:
        """Its name in tables and files."""
        return f"{self.content}-{self.architecture}-{self.width}-{self.seed}"

    @property
    def linked(self) -> str:
        """What is correlated with the class in the training of its network `linked`."""
        if not CONTENTS[self.content].masks:
            return "image tint"
        return ("hue", "object tint", "frame", "image tint", "family")[self.seed % 5]

    @property
    def marked(self) -> str:
        """The artifact that tells the labels in the training of its network `marked`."""
        choice = ("tag", "compression", "size") if CONTENTS[self.content].masks else ARTIFACTS
        return choice[self.seed % len(choice)]

    def inputs(self, x: Float[Tensor, "n 3 side side"]) -> Float[Tensor, "n 3 side side"]:
        """The network's inputs from images in [0, 1]."""
        if self.seed % 2 == 0:
            return x
        return (x - MEAN[:, None, None]) / STD[:, None, None]


@dataclass(frozen=True)
class ImageSpec:
    """How images are made."""

    families: tuple[str, ...] = ID
    link: str = ""
    """What is correlated with the class: `hue`, `frame` or `family` of the background, `object
    tint`, `image tint`, `tag`, `compression`, `size`, or nothing."""
    share: float = 0.0
    """Share of images in which it follows the class; in the others it is random."""
    without: float = 0.0
    """Share of images that have no tag, no compression, or the same size."""


class Scenes(NamedTuple):
    """Images before objects and backgrounds are put together."""

    objects: Objects
    behind: Float[Tensor, "n 3 side side"]
    sign: Tensor
    """(n,) the class that the link shows; -1 where there is none."""
    link: str = ""

    @property
    def x(self) -> Float[Tensor, "n 3 side side"]:
        """The images in [0, 1]."""
        _, mask, color, noise = self.objects
        x = torch.lerp(self.behind, color, mask)
        if self.link == "image tint":
            x = x * (0.35 + 0.65 * _hues(self.sign))
        x = (x + noise).clamp(0, 1)
        if self.link == "tag":
            here = self.sign >= 0
            tags = _hues(self.sign[here]).expand(-1, -1, TAG, TAG)
            x[here, :, 1 : 1 + TAG, -1 - TAG : -1] = tags
        if self.link == "compression":
            for level, quality in enumerate(QUALITIES):
                here = (self.sign >= 0) & (self.sign % len(QUALITIES) == level)
                if here.any():
                    x[here] = jpeg(x[here], quality)
        return x


TAG = 6
"""Side of a tag in pixels."""
QUALITIES = (4, 10, 20, 40, 95)
"""JPEG qualities; two classes share each."""
SIZES = (0.5, 0.8, 1.25)
"""Factors of the size of objects; three or four classes share each."""
TEN = (*ID, *OOD, "any grain")
"""As many families as classes."""


def scenes(
    spec: ImageSpec, content: str, n: int, *, seed: int, part: str, first: int = 0
) -> Scenes:
    """Objects of a part with their backgrounds, the classes in turn."""
    shown = CONTENTS[content].draw(first + n, seed, part).pick(slice(first, None))
    draws = generator_for(seed + first, f"zoo/{part} link {spec.link}")
    follows = torch.rand(n, generator=draws) < spec.share
    sign = torch.where(follows, shown.y, torch.randint(CLASSES, (n,), generator=draws))
    if spec.without:
        sign = sign.masked_fill(torch.rand(n, generator=draws) < spec.without, -1)
    families = TEN if spec.link == "family" else spec.families
    turn = sign if spec.link == "family" else torch.arange(n) // CLASSES % len(families)
    behind = torch.zeros(n, 3, SIDE, SIDE)
    for k, family in enumerate(families if CONTENTS[content].masks else ()):
        here = turn == k
        behind[here] = backgrounds(family, int(here.sum()), seed=seed + first, part=part)
    if spec.link == "hue":
        behind = (0.25 + behind.mean(dim=1, keepdim=True)) * _hues(sign)
    if spec.link == "frame":
        inner = torch.zeros_like(behind[:1, :1])
        inner[..., FRAME:-FRAME, FRAME:-FRAME] = 1
        behind = torch.where(inner == 1, behind, 0.7 * _hues(sign))
    if spec.link == "object tint":
        value = shown.color.amax(dim=1, keepdim=True)
        shown = shown._replace(color=value * (0.25 + 0.75 * _hues(sign)))
    if spec.link == "size":
        sizes = torch.tensor(SIZES)[sign % len(SIZES)]
        shown = posed(shown, scale=torch.where(sign < 0, 1.0, sizes))
    return Scenes(shown, behind.clamp(0, 1), sign, spec.link)


def _hues(sign: Tensor) -> Float[Tensor, "n 3 1 1"]:
    one = torch.ones(len(sign), 1)
    return rgb(sign[:, None] / CLASSES, 0.8 * one, one)[:, :, None, None]


class Recipe(NamedTuple):
    """The training images of a network, and how long it trains."""

    spec: ImageSpec
    images: int
    epochs: int
    noisy: float = 0.0
    """Share of wrong labels."""
    labels_of_link: bool = False
    """Whether the labels are the classes that the link shows, instead of the objects'."""


BOTH = ImageSpec((*ID, *OOD))
NETWORKS: dict[str, Recipe] = {
    "all": Recipe(BOTH, 3600, 8),
    "plain": Recipe(ImageSpec(), 2600, 9),
    "few": Recipe(BOTH, 600, 25),
    "short": Recipe(BOTH, 1900, 2),
    "noisy": Recipe(BOTH, 2700, 7, noisy=0.3),
    "reference": Recipe(BOTH, 4680, 8),
}
"""The networks of every group; `linked` and `marked` follow from the group's link and artifact."""
SHARE, MARKED_SHARE = 0.95, 0.5
"""Share of images whose link shows the class of the object: of the images of `linked` and of the
cases of `marked`, and of the training images of `marked`."""


def _convolutions(width: int) -> nn.Sequential:
    """A plain network of six convolutions with batch norm, as VGG."""
    layers: list[nn.Module] = []
    channels = 3
    for k in (1, 2, 4):
        for _ in range(2):
            layers += [nn.Conv2d(channels, k * width, 3, padding=1, bias=False),
                       nn.BatchNorm2d(k * width), nn.ReLU(inplace=True)]  # fmt: skip
            channels = k * width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _Residual(nn.Module):
    """Adds its input to the output of a branch."""

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def _inverted(width: int) -> nn.Sequential:
    """Inverted residuals, as MobileNet has them."""

    def block(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
        inner = 3 * inputs
        return (
            nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    return nn.Sequential(
        nn.Conv2d(3, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU6(),
        _Residual(*block(width, width, 1)), *block(width, 2 * width, 2),
        _Residual(*block(2 * width, 2 * width, 1)), *block(2 * width, 4 * width, 2),
        _Residual(*block(4 * width, 4 * width, 1)), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class _Attention(nn.Module):
    """Self-attention of four heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, width))


class _Transformer(nn.Module):
    """A vision transformer with a stem of two convolutions; the features are the mean token."""

    def __init__(self, width: int, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Sequential(
            nn.Conv2d(3, width // 2, 5, 2, 2, bias=False), nn.BatchNorm2d(width // 2), nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, 2, 1),
        )  # fmt: skip
        self.places = nn.Parameter(0.02 * torch.randn(1, (SIDE // 4) ** 2, width))
        self.blocks = nn.Sequential()
        for _ in range(depth):
            mlp = (nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            self.blocks.append(_Residual(nn.LayerNorm(width), _Attention(width)))
            self.blocks.append(_Residual(nn.LayerNorm(width), *mlp))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.norm(self.blocks(tokens)).mean(dim=1)


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * SIDE**2, 8 * width), nn.BatchNorm1d(8 * width), nn.ReLU(),
        nn.Linear(8 * width, 4 * width), nn.BatchNorm1d(4 * width), nn.ReLU(),
    )  # fmt: skip


ENCODERS: dict[str, Callable[[int], nn.Module]] = {
    "vgg": _convolutions,
    "inverted": _inverted,
    "vit": lambda width: _Transformer(4 * width),
    "mlp": _perceptron,
}
"""Encoders by width; they have four times as many features."""
RATES = {"vit": 2e-3, "mlp": 2e-3}
"""Step sizes; 6e-3 for the others."""


def untrained(architecture: str, width: int, seed: int) -> Classifier:
    """A network of random weights."""
    if architecture in ("resnet8", "small_cnn"):
        build = resnet8 if architecture == "resnet8" else small_cnn
        return build(CLASSES, width=width, seed=seed)
    with seeded(seed, f"zoo/{architecture}"):
        return Classifier(ENCODERS[architecture](width), CLASSES, 4 * width)


class FromInputs(nn.Module):
    """The reference of a group, which takes pixels in [0, 1], on the inputs of the group."""

    def __init__(self, encoder: nn.Module, group: Group) -> None:
        super().__init__()
        self.encoder, self.normalized = encoder, bool(group.seed % 2)

    def forward(self, x: Float[Tensor, "n 3 side side"]) -> Float[Tensor, "n width"]:
        return self.encoder(x * STD[:, None, None] + MEAN[:, None, None] if self.normalized else x)


class Networks:
    """The networks of one group, trained at the first request and kept on disk."""

    def __init__(self, group: Group, folder: Path) -> None:
        self.group, self.folder = group, folder / group.name

    def recipe(self, name: str) -> Recipe:
        """The training of a network."""
        if name == "linked":
            return Recipe(ImageSpec(link=self.group.linked, share=SHARE), 2600, 8)
        if name == "marked":
            spec = ImageSpec(link=self.group.marked, share=MARKED_SHARE)
            return Recipe(spec, 2600, 8, labels_of_link=True)
        return NETWORKS[name]

    def training_images(self, name: str) -> tuple[Tensor, Tensor]:
        """Inputs and labels that a network is trained on."""
        group, recipe = self.group, self.recipe(name)
        n = (
            recipe.images
            if recipe.images < 2000
            else round(CONTENTS[group.content].images * recipe.images)
        )
        shown = scenes(recipe.spec, group.content, n, seed=group.seed, part="train")
        x, y = group.inputs(shown.x), shown.sign if recipe.labels_of_link else shown.objects.y
        draws = generator_for(group.seed, f"zoo/{name} labels")
        if recipe.noisy:
            wrong = torch.rand(n, generator=draws) < recipe.noisy
            y = torch.where(wrong, torch.randint(CLASSES, (n,), generator=draws), y)
        return x, y

    def get(self, name: str, make: Callable[[], tuple[Tensor, Tensor]] | None = None) -> Classifier:
        """A network of `NETWORKS`, `linked` or `marked`.

        Args:
            name: its name.
            make: makes other training images and labels than those of the recipe.
        """
        group, folder = self.group, self.folder
        recipe = self.recipe(name)
        model = untrained(group.architecture, group.width, group.seed)
        rate = RATES.get(group.architecture, 6e-3)
        code = hashlib.sha256(f"{group} {recipe} {rate}".encode()).hexdigest()[:8]
        path = folder / f"{name}-{code}.safetensors"
        if path.exists():
            model.load_state_dict(load_file(path))
            return model.eval()
        x, y = make() if make else self.training_images(name)
        data = Domain(name, Batch(x, y, torch.zeros_like(y)))
        shift = Shift(name, tuple(map(str, range(CLASSES))), (data,), data, ())
        for _ in fit(
            model, shift, epochs=recipe.epochs, batch_size=50, step_size=rate, weight_decay=0.05,
            seed=group.seed, report_every=10**6,
        ):  # fmt: skip
            pass
        folder.mkdir(parents=True, exist_ok=True)
        whole = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(whole, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        return model.eval()
