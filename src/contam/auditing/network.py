"""Any network as an audit needs it: pictures in [0, 1] go in, one tensor of logits comes out."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from contam.auditing.pictures import PixelRange, Transform
from contam.models.classifier import Classifier
from contam.models.observe import layers_of, look
from contam.models.sources import Source, fill, load, read_weights, what_to_fetch
from contam.rng import preserve_rng, seeded

LOGITS = ("logits", "out", "output", "outputs", "y_hat", "scores")
"""Under which of these names a network that returns a dict has its logits."""
AROUND = ("_orig_mod", "module")
"""Where `torch.compile` and data-parallel training keep the network that they wrap."""
FULL = ("open_clip", "timm", "torchvision")
"""Kinds of sources whose files of weights hold a head, or nothing that a head could be made of."""


class LogitsAdapter(nn.Module):
    """A network behind what it is asked and answered in, with its own layers under their names.

    It has the children, parameters and buffers of the network itself, so no layer is renamed and
    nothing is hooked into. Several kinds of answers become logits (batch, classes): a tensor,
    `.logits`, a tuple that begins with them, a dict that names them; one number for each example
    is read as the logit of the second of two classes.

    Raises:
        ValueError: no tensor, no row for each example, or another width than before.
    """

    network: nn.Module

    def __init__(self, network: nn.Module, span: PixelRange | None = None) -> None:
        super().__init__()
        # Not as a child, which would be seen as a layer around all others.
        self.__dict__["network"] = network
        self._modules = network._modules
        self._parameters = network._parameters
        self._buffers = network._buffers
        self.span = span
        self.width: int | None = None
        self.training = network.training

    def train(self, mode: bool = True) -> "LogitsAdapter":
        # An exported program has one mode alone, and says so.
        with suppress(NotImplementedError):
            self.network.train(mode)
        self.training = mode
        return self

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch width"]:
        own = next((p for p in self.network.parameters() if p.is_floating_point()), None)
        if self.span is not None:
            x = self.span.inputs(x)
        if own is not None and x.is_floating_point():
            x = x.to(own.dtype)
        answer = _tensor(self._asked(x))
        if answer.ndim > 2 and answer[0, 0].numel() == 1:
            answer = answer.flatten(1)
        if answer.ndim == 1 and len(answer) == len(x):
            answer = answer[:, None]
        if answer.ndim != 2 or len(answer) != len(x):
            raise ValueError(
                f"the network returned a tensor of shape {tuple(answer.shape)} for {len(x)} "
                "examples; want logits (batch, classes)"
            )
        if answer.shape[1] == 1:
            answer = torch.cat([torch.zeros_like(answer), answer], dim=1)
        if self.width not in (None, answer.shape[1]):
            raise ValueError(
                f"the network returned {self.width} logits for an example, and then "
                f"{answer.shape[1]}; want as many for every batch"
            )
        self.width = answer.shape[1]
        answer = answer.float()
        if answer.isnan().any():
            raise ValueError(
                "the network's answer holds NaN; look at its weights, at its inputs, and at its "
                "precision"
            )
        return answer

    def _asked(self, x: Tensor) -> Any:
        """What the network returns; what it raises is told in one line."""
        try:
            return self.network(x)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # it is anybody's code
            told = " ".join(str(error).split())[:200]
            if "allocate memory" in told:
                raise torch.OutOfMemoryError(told) from error
            raise ValueError(
                f"the network can't be run on inputs of shape {tuple(x.shape)}, it raised "
                f"{type(error).__name__}: {told}; give data as it was trained on, or transform="
            ) from error


def _tensor(answer: Any) -> Tensor:
    """The logits in whatever a network returned."""
    found = getattr(answer, "logits", answer)
    if isinstance(found, Mapping):
        found = next((found[name] for name in LOGITS if name in found), found)
    elif isinstance(found, Sequence) and len(found) and isinstance(found[0], Tensor):
        found = found[0]
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise ValueError(
            f"the network returned a {type(answer).__name__}; want logits as a tensor of numbers, "
            "as .logits, first in a tuple, or in a dict under 'logits'"
        )
    return found


@dataclass(frozen=True)
class Found:
    """A network, and how its images are to be prepared where that is known."""

    name: str
    model: nn.Module
    transform: Transform | None = None


def find_network(
    model: Any, weights: str | Path | None = None, transform: Transform | None = None
) -> Found:
    """The network that was meant: a module, or one by name with its weights from a file.

    What `torch.compile` or data-parallel training wrapped is taken out. A file of weights may hold
    a `Classifier` (`encoder.*` and `head.*`) of any encoder by name.

    Raises:
        ValueError: neither; weights that don't fit; or a network that can't be run as it is.
    """
    if isinstance(model, str):
        return _named(model, weights, transform)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"the model is a {type(model).__name__}; want a torch.nn.Module, or a name such as "
            "'timm:resnet50' with weights="
        )
    if weights is not None:
        raise ValueError(
            "weights= belongs to a network by name; load them into your module, or give its name"
        )
    while inner := next((a for a in AROUND if _wraps(model, a)), None):
        model = getattr(model, inner)
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            "a TorchScript network can't be looked into; give the module that it was made from, or "
            "what torch.export makes of it"
        )
    held = [*model.named_parameters(), *model.named_buffers()]
    for name, value in held:
        if isinstance(value, UninitializedParameter) or value.is_meta:
            raise ValueError(
                f"{name!r} of the network has no values yet; load its weights, or run it once"
            )
    if len({value.device for _, value in held}) > 1:
        raise ValueError("the network lies on several devices; move it to one with model.to(...)")
    return Found(type(model).__name__, model, transform or _own_transform(model))


def _wraps(model: nn.Module, attribute: str) -> bool:
    kinds = ("OptimizedModule", "DataParallel", "DistributedDataParallel")
    return type(model).__name__ in kinds and isinstance(getattr(model, attribute, None), nn.Module)


def _own_transform(model: nn.Module) -> Transform | None:
    """How a network of timm wants its images, which it says itself."""
    about = getattr(model, "pretrained_cfg", None)
    if not isinstance(about, Mapping) or not {"input_size", "mean", "std"} <= set(about):
        return None
    from contam.models.preparation import Preparation

    side = about["input_size"][-1]
    return Preparation(
        int(side / about.get("crop_pct", 1.0)), side, about["mean"], about["std"],
        about.get("interpolation", "bicubic"),
    )  # fmt: skip


def _named(name: str, weights: str | Path | None, transform: Transform | None) -> Found:
    if weights is not None:
        state = read_weights(weights)
        inside = all(key.startswith(("encoder.", "head.")) for key in state)
        if inside and "head.weight" in state:
            classes, width = state["head.weight"].shape
            seed = 0 if name.partition(":")[0] in FULL else None
            source = load(name, seed=seed)
            model = source.encoder
            # A function of the user's may also return the whole classifier.
            if model.state_dict().keys() != state.keys():
                model = Classifier(source.encoder, classes, width)
            fill(model, state, name)
            return Found(name, model.eval(), transform or source.transform)
    elif name.partition(":")[0] in FULL:
        raise ValueError(
            f"no weights for {name}: fetch {what_to_fetch(name)}, and give its path as weights= or "
            "after --weights"
        )
    source = load(name, weights=weights)
    return Found(name, _with_head(source), transform or source.transform)


def _with_head(source: Source) -> nn.Module:
    """Encoder and head; an exported program is both."""
    if source.head is None:
        if source.name.endswith(".pt2"):
            return source.encoder
        raise ValueError(
            f"{source.name} came without a head, so it names no class; want weights with one "
            f"({what_to_fetch(source.name)}, or a Classifier's), or audit its features"
        )
    model = Classifier(source.encoder, source.head.out_features, source.head.in_features)
    model.head = source.head
    return model.eval()


class Encoder(nn.Module):
    """A reference encoder as a `Subject` wants it: it takes the pictures that the network takes."""

    def __init__(self, encoder: nn.Module, span: PixelRange | None, side: int | None) -> None:
        super().__init__()
        self.encoder, self.span, self.side = encoder, span, side

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch width"]:
        if self.side is not None and x.ndim == 4:
            if x.shape[1] == 1:
                x = x.expand(-1, 3, -1, -1)
            size = (self.side, self.side)
            x = F.interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 1)
        features = _tensor(self.encoder(x if self.span is None else self.span.inputs(x)))
        return features.flatten(1).float()


def untrained(model: LogitsAdapter, seed: int) -> tuple[nn.Module | None, str]:
    """A copy with weights drawn anew, and what has to be said about it.

    Weights are drawn by the `reset_parameters` of their modules; those of other modules stay as
    they are and are named. There is none if nothing can be drawn or the network can't be copied.
    """
    try:
        # On the CPU, where alone a seed says what is drawn.
        drawn = copy.deepcopy(model).cpu()
    except Exception as error:  # whatever a network holds may refuse to be copied in its own way
        told = " ".join(str(error).split())[:120]
        return None, f"No control by an untrained network: this one can't be copied ({told})."
    reset: set[int] = set()
    with seeded(seed, "audit/untrained"):
        for module in drawn.network.modules():
            draw = getattr(module, "reset_parameters", None) or getattr(
                module, "_reset_parameters", None
            )
            if callable(draw):
                draw()
                reset |= {id(value) for value in module.parameters(recurse=False)}
    kept = [name for name, value in drawn.named_parameters() if id(value) not in reset]
    if not reset:
        return None, (
            "No control by an untrained network: none of its modules has reset_parameters; give "
            "one as untrained=."
        )
    some = ", ".join(kept[:3]) + (f" and {len(kept) - 3} more" if len(kept) > 3 else "")
    said = f"The untrained network keeps {some}, which nothing draws anew." if kept else ""
    place = next((value.device for value in model.parameters()), torch.device("cpu"))
    return drawn.requires_grad_(False).to(place), said


def find_layers(
    model: nn.Module, x: Float[Tensor, "batch ..."], layers: Sequence[str] | str
) -> tuple[str, ...]:
    """The layers that are meant, in the order in which they run; `auto` takes all activations.

    A network without activations has its linear maps and convolutions taken.

    Raises:
        ValueError: no such layer; the nearest names are offered.
    """
    if layers == "auto":
        found = layers_of(model, x)
        if found:
            return tuple(found)
        weighed = (nn.Linear, nn.modules.conv._ConvNd)
        names = [name for name, each in model.named_modules() if isinstance(each, weighed)]
        _, sight = look(model, x, "auto", _row)
        return tuple(name for name in names if sight.calls[name])
    wanted = (layers,) if isinstance(layers, str) else tuple(layers)
    _, sight = look(model, x, wanted, _row)
    return tuple(sight.seen)


def _row(output: Tensor) -> Tensor:
    return output.new_empty(len(output), 0)


@contextmanager
def left_as_found(*models: nn.Module) -> Iterator[None]:
    """Afterwards modes, gradients, what wants them, and all random states are as before.

    Also after an error or Ctrl-C. torch's states on every accelerator that was used count too.
    """
    modes = {module: module.training for model in models for module in model.modules()}
    values = [value for model in models for value in model.parameters()]
    wanted = [(value, value.requires_grad, value.grad) for value in values]
    with preserve_rng():
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            for value, wants, gradient in wanted:
                if value.requires_grad != wants:
                    value.requires_grad_(wants)
                value.grad = gradient
