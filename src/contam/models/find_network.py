"""The network that a user means: a module, or one by name with its weights from a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from contam.data.images import Transform
from contam.models.black_box import black_box, takes_a_batch
from contam.models.checkpoint_folders import INDEX
from contam.models.checkpoints import fill, read_weights
from contam.models.classifier import Classifier
from contam.models.logits_adapter import unwrapped
from contam.models.onnx_file import load_onnx
from contam.models.preparation import Preparation
from contam.models.sources import Source, called, imported, load, what_to_fetch
from contam.rng import seeded

WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
"""Suffixes of files of weights."""
WITH_HEAD = ("open_clip", "timm", "torchvision")
"""Kinds of sources whose files of weights hold a head, or nothing that a head could be made of."""


@dataclass(frozen=True)
class FoundNetwork:
    """A network, and how its images are to be prepared where that is known."""

    name: str
    model: nn.Module
    transform: Transform | None = None
    notes: tuple[str, ...] = ()
    """Sentences about what was guessed or ignored."""


def find_network(
    model: Any, weights: str | Path | None = None, transform: Transform | None = None
) -> FoundNetwork:
    """The network that was meant, without the wrappers of `torch.compile` or parallel training.

    Args:
        model: a module, a function from a batch to scores, an object with `predict_proba`, the
            path of an ONNX file, a name such as `timm:resnet50` (see `contam.models.sources.load`),
            or `package.module:object`: one of the above, or a function that returns it.
        weights: a file or folder for a network by name (see `read_weights`); it may hold a
            `Classifier` (`encoder.*`, `head.*`).
        transform: from an image to the network's input, where the network's own is not wanted.

    Raises:
        ValueError: neither a module nor a name; weights that don't fit; or a network that can't be
            run as it is.

    >>> find_network(nn.Linear(2, 2)).name
    'Linear'
    """
    if isinstance(model, str):
        return _by_name(model, weights, transform)
    if not isinstance(model, nn.Module):
        opaque = black_box(model)
        if opaque is None:
            kind = "class" if isinstance(model, type) else type(model).__name__
            raise ValueError(
                f"the model is a {kind}; expected a torch.nn.Module, a function from a batch to "
                "scores, or a name such as 'timm:resnet50' with weights="
            )
        if weights is not None:
            raise ValueError("weights= belongs to a network by name, not to a predict function")
        return FoundNetwork(opaque.name, opaque, transform)
    if weights is not None:
        raise ValueError(
            "weights= belongs to a network by name; load them into your module, or give its name"
        )
    model = unwrapped(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            "a TorchScript network can't be looked into; give the module that it was made from, or "
            "what torch.export makes of it"
        )
    values = [*model.named_parameters(), *model.named_buffers()]
    for name, value in values:
        if isinstance(value, UninitializedParameter) or value.is_meta:
            raise ValueError(
                f"{name!r} of the network has no values yet; load its weights, or run it once"
            )
    if len({value.device for _, value in values}) > 1:
        raise ValueError("the network lies on several devices; move it to one with model.to(...)")
    return FoundNetwork(type(model).__name__, model, transform or _timm_transform(model))


def _timm_transform(model: nn.Module) -> Transform | None:
    """Return the preprocessing of images from the configuration of a timm network."""
    config = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or not {"input_size", "mean", "std"} <= set(config):
        return None
    side = config["input_size"][-1]
    return Preparation(
        int(side / config.get("crop_pct", 1.0)), side, config["mean"], config["std"],
        config.get("interpolation", "bicubic"),
    )  # fmt: skip


def _by_name(name: str, weights: str | Path | None, transform: Transform | None) -> FoundNetwork:
    kind = "folder" if Path(name).is_dir() else "file"
    if kind == "folder" or Path(name).suffix in WEIGHTS or name.endswith(INDEX):
        raise ValueError(
            f"{name} is a {kind} of weights; give the network by name, such as timm:resnet50 or "
            f"package.module:function, and this {kind} as weights="
        )
    if name.endswith(".onnx"):
        if weights is not None:
            raise ValueError(f"{name} has its own weights; leave out weights=")
        opaque, resizing = load_onnx(name)
        return FoundNetwork(opaque.name, opaque, transform or resizing)
    if ":" in name and name.partition(":")[0] not in WITH_HEAD and not name.endswith(".pt2"):
        of_user = _of_user(name, weights, transform)
        if of_user is not None:
            return of_user
    if weights is not None:
        checkpoint = read_weights(weights)
        state = checkpoint.state
        classifier = all(key.startswith(("encoder.", "head.")) for key in state)
        if classifier and "head.weight" in state:
            classes, width = state["head.weight"].shape
            seed = 0 if name.partition(":")[0] in WITH_HEAD else None
            source = load(name, seed=seed)
            model = source.encoder
            # A user's function may also return the whole classifier.
            if model.state_dict().keys() != state.keys():
                model = Classifier(source.encoder, classes, width)
            notes = fill(model, checkpoint, name)
            return FoundNetwork(
                name, model.eval(), transform or source.transform, (*source.notes, *notes)
            )
    elif name.partition(":")[0] in WITH_HEAD:
        raise ValueError(
            f"no weights for {name}: fetch {what_to_fetch(name)}, and give its path as weights= or "
            "after --weights"
        )
    source = load(name, weights=weights)
    return FoundNetwork(name, _with_head(source), transform or source.transform, source.notes)


def _of_user(
    name: str, weights: str | Path | None, transform: Transform | None
) -> FoundNetwork | None:
    """A user's network or predict function; None for a function that returns a `Source`."""
    model = imported(name)
    if callable(model) and not isinstance(model, nn.Module) and not takes_a_batch(model):
        with seeded(0, f"load/{name}"):
            model = called(model, name)
    if isinstance(model, Source):
        return None
    if isinstance(model, str):
        raise ValueError(f"{name} gives the text {model!r}; expected a network or a function")
    notes: Sequence[str] = ()
    if isinstance(model, nn.Module) and weights is not None:
        notes = fill(model, read_weights(weights), name)
    network = find_network(model, None if isinstance(model, nn.Module) else weights, transform)
    return replace(network, name=name, model=network.model.eval(), notes=(*network.notes, *notes))


def _with_head(source: Source) -> nn.Module:
    """Encoder and head; an exported program is both."""
    if source.network is not None:
        return source.network.eval()
    if source.head is None:
        if source.name.endswith(".pt2"):
            return source.encoder
        raise ValueError(
            f"{source.name} came without a head, so it names no class; expected weights with one "
            f"({what_to_fetch(source.name)}, or a Classifier's), or audit its features"
        )
    model = Classifier(source.encoder, source.head.out_features, source.head.in_features)
    model.head = source.head
    return model.eval()
