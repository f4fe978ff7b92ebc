"""Small networks whose cause of failure is known, because it was built in.

A group is a kind of object, an architecture, a width and a seed. Each of its cases is a network
and the data of its audit. Trained networks are kept in a folder, so an interrupted run resumes.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from contam.auditing.audit_inputs import AuditInputs, Sample
from contam.batch import Batch, Domain, Shift
from contam.data.backgrounds import DIVERSE, ID, OOD, backgrounds
from contam.data.colors import rgb
from contam.data.objects import CORES, Core, Objects, objects
from contam.data.shapes import Scenes, placed
from contam.models.classifier import Classifier
from contam.models.small import resnet8, small_cnn
from contam.rng import generator_for
from contam.training.probe import extract, fit_probe
from contam.training.supervised import fit

CLASSES = 10
TRAIN, EPOCHS = 3000, 12
MINIBATCH, RATE = 50, 6e-3
FEW = 200
"""Training examples of an undertrained network, and of a head with too few labels."""
AUDITED = 800
"""Images of the ID sample and of the OOD sample."""
BIAS = 4.0
"""What a biased head adds to the logits of every second class."""
FRAME = 3
"""Pixels along each side that a frame covers."""
TEN = (*ID, *OOD, "any grain")
"""As many families as classes."""
BLURS = {"blur": 15, "soft blur": 7}
"""Pixels along the side of the square that is averaged over, twice."""
REFERENCE = 4500, 16
"""Training images and epochs of the reference encoder."""


@dataclass(frozen=True)
class Group:
    """Networks that are alike in everything but their cause."""

    core: Core
    architecture: str
    width: int
    seed: int

    @property
    def name(self) -> str:
        """Its name in tables and files."""
        return f"{self.core}-{self.architecture}-{self.width}-{self.seed}"


@dataclass(frozen=True)
class ImageSpec:
    """How the images of a data set are made."""

    families: tuple[str, ...]
    link: str = ""
    """What is correlated with the class: `hue`, `frame`, `family` or nothing."""
    share: float = 0.0
    """Share of images in which it follows the class; in the others it is random."""
    spoiled: str = ""
    """What hides the object."""

    @property
    def purpose(self) -> str:
        """The name of its random draws, which must not change."""
        return (
            f"Look(families={self.families!r}, link={self.link!r}, share={self.share!r}, "
            f"spoiled={self.spoiled!r})"
        )


def images(spec: ImageSpec, core: Core, n: int, *, seed: int, part: str, first: int = 0) -> Scenes:
    """Images of `n` objects of a part, the classes in turn."""
    shown = objects(first + n, seed=seed, part=part, core=core).pick(slice(first, None))
    shown = SPOILED[spec.spoiled](shown)
    draws = generator_for(seed, f"zoo/{part} {spec.purpose}")
    linked = torch.rand(n, generator=draws) < spec.share
    sign = torch.where(linked, shown.y, torch.randint(CLASSES, (n,), generator=draws))
    turn = torch.arange(n) // CLASSES % len(spec.families)
    if spec.link == "family":
        turn = sign
    behind = torch.empty(n, 3, *shown.mask.shape[2:])
    for k, family in enumerate(spec.families):
        here = turn == k
        behind[here] = backgrounds(family, int(here.sum()), seed=seed + first, part=part)
    if spec.link == "hue":
        level = behind.mean(dim=1, keepdim=True)
        behind = (0.25 + level) * _hues(sign)
    if spec.link == "frame":
        inner = torch.zeros_like(behind[:1, :1])
        inner[..., FRAME:-FRAME, FRAME:-FRAME] = 1
        behind = torch.where(inner == 1, behind, 0.7 * _hues(sign))
    made = placed(shown, behind.clamp(0, 1), turn)
    if spec.spoiled in BLURS:
        blurred = _blurred(made.x, BLURS[spec.spoiled])
        made = Scenes(blurred, made.y, made.domain, made.mask)
    return made


def _hues(sign: Tensor) -> Float[Tensor, "n 3 1 1"]:
    one = torch.ones(len(sign), 1)
    return rgb(sign[:, None] / CLASSES, 0.8 * one, one)[:, :, None, None]


def _blurred(x: Float[Tensor, "n 3 height width"], side: int) -> Float[Tensor, "n 3 height width"]:
    for _ in range(2):
        x = F.avg_pool2d(F.pad(x, (side // 2,) * 4, mode="reflect"), side, stride=1)
    return x


def _faint(shown: Objects) -> Objects:
    return shown._replace(mask=0.05 * shown.mask)


def _tiny(shown: Objects) -> Objects:
    """Three or four pixels of it."""
    few = F.interpolate(shown.mask, size=(6, 6), mode="area")
    middle = torch.zeros_like(shown.mask)
    middle[..., 13:19, 13:19] = few
    # A shape's dark rim is gone with its outline.
    color = shown.color.amax(dim=(2, 3), keepdim=True).expand_as(shown.color)
    return shown._replace(mask=middle, color=color)


def _covered(shown: Objects) -> Objects:
    """A disk of the object's color in front of it."""
    pixels = torch.arange(shown.mask.shape[-1]) - (shown.mask.shape[-1] - 1) / 2
    near = (pixels[:, None] ** 2 + pixels**2 < 14**2).float()
    color = shown.color.amax(dim=(2, 3), keepdim=True).expand_as(shown.color)
    return shown._replace(mask=near.expand_as(shown.mask), color=color)


SPOILED: dict[str, Callable[[Objects], Objects]] = {
    "": lambda shown: shown,
    "blur": lambda shown: shown,
    "faint": _faint,
    "tiny": _tiny,
    "covered": _covered,
    "soft blur": lambda shown: shown,
}
"""Ways to hide the object."""


def _hidden(spec: ImageSpec, by: str) -> ImageSpec:
    return replace(spec, spoiled=by)


def _free(spec: ImageSpec) -> ImageSpec:
    """The same without a correlation with the class."""
    return replace(spec, share=0.0)


NETWORKS: dict[str, ImageSpec] = {
    "all": ImageSpec((*ID, *OOD)),
    "diverse": ImageSpec((*DIVERSE, *ID)),
    "plain": ImageSpec(ID),
    "more": ImageSpec((*ID, "checker", "blobs")),
    "hue": ImageSpec(ID, "hue", 0.95),
    "mild hue": ImageSpec(ID, "hue", 0.8),
    "frame": ImageSpec(ID, "frame", 0.95),
    "family": ImageSpec(TEN, "family", 0.9),
}
"""The images of each full training."""
SHORT = {"few": (FEW, EPOCHS), "short": (2000, 2)}
"""Images and epochs of undertrained networks, with the families of `all`."""
BUILDERS = {"resnet8": resnet8, "small_cnn": small_cnn}


class Networks:
    """The networks of one group, trained at the first request and kept on disk."""

    def __init__(self, group: Group, folder: Path) -> None:
        self.group = group
        self.folder = folder / group.name

    def get(self, name: str) -> Classifier:
        """A network of `NETWORKS`, `SHORT`, or the reference of the group's objects."""
        group = self.group
        build, width = BUILDERS[group.architecture], group.width
        spec, (n, epochs) = NETWORKS.get(name, NETWORKS["all"]), SHORT.get(name, (TRAIN, EPOCHS))
        seed, folder = group.seed, self.folder
        if name == "reference":
            build, width, seed = resnet8, 16, 1000
            (n, epochs), folder = REFERENCE, self.folder.parent / f"{group.core}-reference"
        model = build(CLASSES, width=width, seed=seed)
        # Networks of another recipe have another name.
        recipe = f"({spec.purpose}, {n}, {epochs}, {RATE}, {MINIBATCH})"
        recipe = hashlib.sha256(recipe.encode()).hexdigest()[:8]
        path = folder / f"{name.replace(' ', '-')}-{recipe}.safetensors"
        if path.exists():
            model.load_state_dict(load_file(path))
            return model.eval()
        n -= n % (CLASSES * len(spec.families))
        seen = images(spec, group.core, n, seed=seed, part="train").batch
        shift = Shift(name, CORES[group.core], (Domain(name, seen),), Domain(name, seen), ())
        for _ in fit(
            model, shift, epochs=epochs, batch_size=MINIBATCH, step_size=RATE, weight_decay=0.05,
            seed=seed, report_every=10**6,
        ):  # fmt: skip
            pass
        folder.mkdir(parents=True, exist_ok=True)
        whole = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(whole, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        return model.eval()


def with_bad_head(kind: str, model: Classifier, group: Group) -> Classifier:
    """The network with a bad head instead of its own; the encoder is the same."""
    model = copy.deepcopy(model)
    if kind == "biased":
        # Every second class is answered too often: by as much as logits usually differ.
        with torch.no_grad():
            model.head.bias[::2] += BIAS
        return model
    n, wrong = {"few": (30, 0.0), "noisy": (FEW, 0.5), "imbalanced": (FEW, 0.0)}[kind]
    seen = images(NETWORKS["all"], group.core, TRAIN, seed=group.seed, part="validation")
    draws = generator_for(group.seed, f"zoo/head {kind}")
    rare = seen.y % 2 == 0
    keep = torch.rand(len(seen.y), generator=draws)
    if kind == "imbalanced":
        keep = torch.where(rare, 0.05 * keep, keep)
    which = keep.topk(n).indices
    drawn = torch.randint(CLASSES, (n,), generator=draws)
    y = torch.where(torch.rand(n, generator=draws) < wrong, drawn, seen.y[which])
    some = Domain(kind, Batch(seen.x[which], y, y))
    probe = fit_probe(extract(model.encoder, some), y, classes=CLASSES)
    weight = probe.weight / probe.scale
    with torch.no_grad():
        model.head.weight.copy_(weight)
        model.head.bias.copy_(probe.bias - weight @ probe.mean)
    return model


@dataclass(frozen=True)
class Plan:
    """A network of known cause, and the data of its audit."""

    kind: str
    strength: str
    """`strong`, `mild`, `mixed`, or `near` to another cause: not judged."""
    cause: str
    network: str
    inside: ImageSpec
    outside: ImageSpec
    head: str = ""
    """What is wrong with the head."""
    behind: str | None = None
    """The second cause of a mixed case."""


KNOWN, NEW, NEARER, UNSEEN = (
    ImageSpec(families)
    for families in (ID, OOD, ("strokes", "blobs"), ("speckle", "plaid", "strokes"))
)
HUE, MILD_HUE, FRAMED, FAMILY = (NETWORKS[name] for name in ("hue", "mild hue", "frame", "family"))
PLANS = (
    Plan("all families", "strong", "healthy", "all", KNOWN, NEW),
    Plan("another family", "mild", "healthy", "all", KNOWN, ImageSpec(("cool",))),
    Plan("the same families", "strong", "healthy", "plain", KNOWN, KNOWN),
    Plan("few families", "strong", "contaminated", "plain", KNOWN, NEW),
    Plan("few, nearer ones", "mild", "contaminated", "plain", KNOWN, NEARER),
    Plan("more families", "near", "contaminated", "more", KNOWN, UNSEEN),
    Plan("few images", "strong", "undertrained", "few", KNOWN, NEW),
    Plan("few epochs", "mild", "undertrained", "short", KNOWN, NEW),
    Plan("soft blur", "mild", "core information missing", "all", KNOWN, _hidden(NEW, "soft blur")),
)
"""Cases of every group."""
EVEN = (
    Plan("hue", "strong", "spurious correlation", "hue", HUE, _free(HUE)),
    Plan("family", "strong", "spurious correlation", "family", FAMILY, _free(FAMILY)),
    Plan("hue, new families", "mixed", "spurious correlation", "hue", HUE, NEW),
    Plan("blur", "strong", "core information missing", "all", KNOWN, _hidden(NEW, "blur")),
    Plan("tiny", "strong", "core information missing", "plain", KNOWN, _hidden(KNOWN, "tiny")),
    Plan("few labels", "strong", "head", "all", KNOWN, NEW, "few"),
    Plan("bias", "mild", "head", "all", KNOWN, NEW, "biased"),
    Plan("few labels, few families", "mixed", "head", "plain", KNOWN, NEW, "few", "contaminated"),
    Plan(
        "few labels, tiny", "mixed", "core information missing", "all",
        KNOWN, _hidden(NEW, "tiny"), "few", "head",
    ),
)  # fmt: skip
"""Cases of groups with even seeds."""
ODD = (
    Plan("hue", "mild", "spurious correlation", "mild hue", MILD_HUE, _free(MILD_HUE)),
    Plan("frame", "strong", "spurious correlation", "frame", FRAMED, _free(FRAMED)),
    Plan("hue, new families", "mixed", "spurious correlation", "mild hue", MILD_HUE, NEW),
    Plan("covered", "strong", "core information missing", "all", KNOWN, _hidden(NEW, "covered")),
    Plan("faint", "strong", "core information missing", "plain", KNOWN, _hidden(KNOWN, "faint")),
    Plan("noisy labels", "strong", "head", "all", KNOWN, NEW, "noisy"),
    Plan("rare classes", "mild", "head", "all", KNOWN, NEW, "imbalanced"),
    Plan("noise, few families", "mixed", "head", "plain", KNOWN, NEW, "noisy", "contaminated"),
    Plan(
        "noisy labels, faint", "mixed", "core information missing", "all",
        KNOWN, _hidden(NEW, "faint"), "noisy", "head",
    ),
)  # fmt: skip
"""Cases of groups with odd seeds."""


def plans(group: Group) -> tuple[Plan, ...]:
    """The cases of a group."""
    return (*PLANS, *(ODD if group.seed % 2 else EVEN))


def cases(group: Group, folder: Path) -> Iterator[tuple[Plan, AuditInputs]]:
    """All cases of a group; missing networks are trained."""
    of = Networks(group, folder)
    for plan in plans(group):
        model = of.get(plan.network)
        if plan.head:
            model = with_bad_head(plan.head, model, group)
        yield plan, AuditInputs(
            f"{group.name}, {plan.kind}", model, CORES[group.core],
            _sample("ID", plan.inside, group, 0), (_sample("OOD", plan.outside, group, AUDITED),),
            reference=of.get("reference").encoder, reference_name="reference", seed=group.seed,
        )  # fmt: skip


def _sample(name: str, spec: ImageSpec, group: Group, first: int) -> Sample:
    """A data set of the audit; its objects begin at `first`, so that the sets share none."""
    n = AUDITED - AUDITED % (CLASSES * len(spec.families))
    seen = images(spec, group.core, n, seed=group.seed, part="test", first=first)
    return Sample(name, Domain(name, seen.batch), seen.mask)
