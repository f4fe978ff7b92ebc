"""Any network as measures need it: a tensor goes in, logits (batch, classes) come out."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contam.inputs.pixel_range import PixelRange
from contam.models.probabilities import (
    OutputKind,
    ProbabilityTrace,
    logits_of_probabilities,
    output_kind,
)

LOGITS = ("logits", "out", "output", "outputs", "y_hat", "scores")
"""The names under which a dict of a network's outputs may hold its logits."""


class LogitsAdapter(nn.Module):
    """A network whose inputs and outputs have one form, with its own layers under their names.

    It shares the children, parameters and buffers of the network, so no layer is renamed and the
    network itself has no hook. Outputs become logits (batch, classes): a tensor, `.logits`, a tuple
    that begins with them, or a dict that names them; where the number of labels is known, the first
    tensor of a tuple or dict that has as many columns. One number for each example is the logit of
    the second of two classes. Probabilities (the results of a sigmoid or softmax) become logits;
    the first batch decides.

    Args:
        network: any module.
        pixel_range: the values that the network takes for black and white; its inputs are then
            pictures in [0, 1].
        classes: columns of the logits to return, in this order; None returns all.
        allow_nan: whether logits may hold NaN.
        labels: number of classes that the labels have; None if it is not known.

    Source: ours, since networks return records and work in half precision, too.

    >>> adapter = LogitsAdapter(nn.Linear(2, 3), classes=[0, 2])
    >>> adapter(torch.zeros(4, 2)).shape
    torch.Size([4, 2])
    """

    network: nn.Module

    def __init__(
        self,
        network: nn.Module,
        pixel_range: PixelRange | None = None,
        classes: Sequence[int] | None = None,
        *,
        allow_nan: bool = False,
        labels: int | None = None,
    ) -> None:
        super().__init__()
        check_module(network)
        # Not as a child, which would be a layer around all others.
        self.__dict__["network"] = network
        self._modules = network._modules
        self._parameters = network._parameters
        self._buffers = network._buffers
        self.pixel_range = pixel_range
        self.classes = None if classes is None else torch.tensor(classes)
        self.allow_nan = allow_nan
        self.labels = labels
        self._choice = ""
        self.outputs: Mapping[Any, int] = {}
        """Columns of each tensor that the network returns, if it returns several."""
        self.width: int | None = None
        self.output: OutputKind | None = None
        """What the network returns; None before the first batch."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what the network returns besides logits, after the first batch."""
        notes = [self._choice] if self._choice else []
        if self.output not in (None, "logits"):
            notes.append(
                f"The network returns probabilities (of a {self.output}); they were converted to "
                "logits."
            )
        return tuple(notes)

    @property
    def training(self) -> bool:
        """The mode of the network, so that restoring the adapter's restores the network's."""
        return self.__dict__["network"].training

    @training.setter
    def training(self, mode: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        # torch's constructor sets the mode before there is a network.
        if "network" in self.__dict__:
            self.__dict__["network"].training = mode

    def train(self, mode: bool = True) -> "LogitsAdapter":
        # An exported program has one mode only, and raises.
        with suppress(NotImplementedError):
            self.network.train(mode)
        return self

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        """Logits in single precision.

        Raises:
            ValueError: the network raises, or returns no tensor of logits, not one row for each
                example, another number of classes than before, or NaN where it is not allowed.
        """
        weights = next((p for p in self.network.parameters() if p.is_floating_point()), None)
        if self.pixel_range is not None:
            x = self.pixel_range.inputs(x)
        if weights is not None and x.is_floating_point():
            x = x.to(weights.dtype)
        trace = None if self.output else ProbabilityTrace()
        with trace or nullcontext():
            logits = logits_of(self._run(x))
        if logits.ndim > 2 and logits[0, 0].numel() == 1:
            logits = logits.flatten(1)
        if logits.ndim == 1 and len(logits) == len(x):
            logits = logits[:, None]
        if logits.ndim != 2 or len(logits) != len(x):
            raise ValueError(
                f"the network returned a tensor of shape {tuple(logits.shape)} for {len(x)} "
                "examples; expected logits (batch, classes)"
            )
        if trace is not None:
            self.output = output_kind(logits.detach(), trace.holds(logits))
        if self.output != "logits":
            logits = logits_of_probabilities(logits, exclusive=self.output == "softmax")
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        if self.width not in (None, logits.shape[1]):
            raise ValueError(
                f"the network returned {self.width} logits for an example, and then "
                f"{logits.shape[1]}; expected the same number for every batch"
            )
        self.width = logits.shape[1]
        logits = logits.float()
        if not self.allow_nan and logits.isnan().any():
            raise ValueError(
                "the network's output holds NaN; check its weights, its inputs and its precision"
            )
        return logits if self.classes is None else logits[:, self.classes.to(logits.device)]

    def _run(self, x: Tensor) -> Any:
        """What the network returns; its own exceptions become one line."""
        try:
            output = self.network(x)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the network's code is the user's
            message = " ".join(str(error).split())[:200]
            if "allocate memory" in message:
                raise torch.OutOfMemoryError(message) from error
            raise ValueError(
                f"the network can't be run on inputs of shape {tuple(x.shape)}, it raised "
                f"{type(error).__name__}: {message}; give data as it was trained on, or transform="
            ) from error
        if self.labels is None:
            if self.width is None:
                self.outputs = {name: _columns(part) for name, part in _tensors(output).items()}
            return output
        output, self._choice = fitting_output(output, self.labels)
        return output


class PixelEncoder(nn.Module):
    """A reference encoder that takes the pictures in [0, 1] that another network takes.

    Args:
        encoder: returns (batch, width) features, in any of the forms of `LogitsAdapter`.
        pixel_range: the values that the encoder takes for black and white.
        side: pixels of the square that pictures are resized to; None leaves them as they are.
        at_once: number of pictures that the encoder takes at once; None for whole batches. On a
            CPU, convolutions of a few pictures stay in its cache.
    """

    def __init__(
        self,
        encoder: nn.Module,
        pixel_range: PixelRange | None,
        side: int | None,
        at_once: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.pixel_range, self.side = encoder, pixel_range, side
        self.at_once = at_once

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch width"]:
        if self.side is not None and x.ndim == 4:
            if x.shape[1] == 1:
                x = x.expand(-1, 3, -1, -1)
            size = (self.side, self.side)
            x = F.interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 1)
        x = x if self.pixel_range is None else self.pixel_range.inputs(x)
        parts = x.split(self.at_once or max(len(x), 1))
        return torch.cat([logits_of(self.encoder(part)).flatten(1).float() for part in parts])


def output_tensor(output: Any) -> Any:
    """The tensor of logits in a record, dict or tuple; anything else is returned unchanged.

    >>> output_tensor({"loss": 0.0, "logits": torch.ones(1, 2)}).tolist()
    [[1.0, 1.0]]
    """
    logits = getattr(output, "logits", output)
    if isinstance(logits, Mapping):
        return next((logits[name] for name in LOGITS if name in logits), logits)
    if isinstance(logits, Sequence) and len(logits) and isinstance(logits[0], Tensor):
        return logits[0]
    return logits


def fitting_output(output: Any, labels: int) -> tuple[Any, str]:
    """The tensor of a tuple or dict that has as many columns as there are labels.

    Args:
        output: what a network returned.
        labels: number of classes that the labels have.

    Returns:
        The first tensor that fits, or else the output itself; and a sentence about the choice,
        which is empty where the output is one tensor or names its logits.

    Source: ours, since many networks return their features, too.

    >>> features, logits = torch.ones(1, 8), torch.zeros(1, 3)
    >>> fitting_output((features, logits), 3)[0].tolist()
    [[0.0, 0.0, 0.0]]
    """
    tensors = _tensors(output)
    if not tensors:
        return output, ""
    fitting = [name for name, part in tensors.items() if _columns(part) == labels]
    shapes = ", ".join(str(tuple(part.shape[1:])) for part in tensors.values())
    said = f"The network returns {len(tensors)} tensors, of shapes {shapes} for each example"
    if not fitting:
        return output, f"{said}; none has a column for each of the {labels} classes."
    chosen = fitting[0]
    which = f"number {chosen + 1}" if isinstance(chosen, int) else repr(chosen)
    more = f"; {len(fitting) - 1} more would fit" if len(fitting) > 1 else ""
    return tensors[chosen], f"{said}; {which} is taken for the logits{more}."


def _tensors(output: Any) -> dict[Any, Tensor]:
    """The tensors of an output that has several and does not name its logits."""
    parts: Mapping[Any, Any] = {}
    if isinstance(output, Mapping) and output_tensor(output) is output:
        parts = output
    elif isinstance(output, Sequence) and not hasattr(output, "logits"):
        parts = dict(enumerate(output))
    tensors = {
        name: part
        for name, part in parts.items()
        if isinstance(part, Tensor) and part.is_floating_point() and part.ndim >= 1
    }
    return tensors if len(tensors) > 1 else {}


def check_module(model: Any) -> None:
    """Raise unless this is a network.

    Args:
        model: what was given for a network.

    Raises:
        ValueError: it is no module.

    >>> check_module(None)
    Traceback (most recent call last):
        ...
    ValueError: the model is a NoneType; expected a torch.nn.Module
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}; expected a torch.nn.Module")


def _columns(part: Tensor) -> int:
    """The classes that a tensor has logits for; one number for each example means two."""
    return max(2, part[0].numel()) if len(part) else 0


def logits_of(output: Any) -> Tensor:
    """The logits in whatever a network returned.

    Raises:
        ValueError: there is no tensor of floating-point numbers.

    >>> logits_of({"logits": torch.zeros(2, 3)}).shape
    torch.Size([2, 3])
    """
    logits = output_tensor(output)
    if isinstance(logits, Tensor) and logits.ndim < 2 and not logits.is_floating_point():
        raise ValueError(
            "the model returned one class for each example; expected a score for each class, "
            "(batch, classes), such as logits, probabilities or one-hot rows"
        )
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise ValueError(
            f"the network returned a {type(output).__name__}; expected logits as a tensor of "
            "numbers, as .logits, first in a tuple, or in a dict under 'logits'"
        )
    return logits


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside the wrappers of `torch.compile` and data-parallel training.

    >>> network = nn.Linear(1, 1)
    >>> unwrapped(nn.DataParallel(network)) is network
    True
    """
    kinds = ("OptimizedModule", "DataParallel", "DistributedDataParallel")
    while type(model).__name__ in kinds:
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    return model
