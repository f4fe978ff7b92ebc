"""Observe a network: show it batches, and get what each layer made of them.

A reading says which numbers are kept of a layer's output: one per neuron for every example, never
the maps themselves, so that a pass over any number of images needs the memory of one batch.

Layers have the names that `model.named_modules()` gives. A layer that runs several times in one
pass has a name for each run, `layer1.0.relu#0`, `layer1.0.relu#1`; its plain name means the last.
An activation that is called as a function has a name too: `layer1.0.relu()` is `F.relu`,
`torch.relu` or `Tensor.relu` called by `layer1.0`.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.batch import Batch
from contam.inputs import as_batches
from contam.models.hooks import LayerError, LayerRecorder, forward_once
from contam.models.logits_adapter import check_module
from contam.models.readings import Reading, over_space

TRIED = 2, 3
"""Numbers of examples on which layers are tried: an axis as long in both is no axis of examples."""


class Observation(NamedTuple):
    """A batch, and what the network made of it."""

    batch: Batch
    """The batch, on the network's device."""
    logits: Tensor
    """(batch, classes): what the network returned; features where it is an encoder."""
    layers: dict[str, Tensor]
    """(batch, neurons) for each layer, in the order in which they ran; for moments, (batch, 2,
    neurons)."""
    head: Tensor | None = None
    """(batch, width): the representation that the linear head reads. None where it was not
    requested, or where the logits are not the output of a linear map."""
    left_out: tuple[str, ...] = ()
    """Sentences about activations that can't be observed; empty where layers were named."""


class Observer:
    """Shows batches to a network, one call each.

    The first batch also records calls of functions. Where that adds nothing, because the network's
    activations and linear maps are modules, later batches need only a few hooks.

    Args:
        model: the network; between two calls it is unchanged.
        layers: names of layers, or `auto` for every activation.
        reduce: what to keep of each output, or `moments`.
        head: whether to record the representation that the linear head reads, too.

    Source: ours, the state behind `observe`.

    Raises:
        ValueError: `layers` or `reduce` is of another kind.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Collection[str] | Literal["auto"] = "auto",
        reduce: Reading | Literal["moments"] = over_space,
        *,
        head: bool = False,
    ) -> None:
        check_module(model)
        if isinstance(reduce, str) and reduce != "moments":
            raise ValueError(
                f"reduce is a function of a layer's output, or 'moments', not {reduce!r}"
            )
        if isinstance(layers, str) and layers != "auto":
            raise ValueError(
                f"layers is a list of names, or 'auto'; for one layer give [{layers!r}]"
            )
        self.model, self.layers, self.head = model, layers, head
        self.reduce: Reading | Literal["moments"] = reduce
        modules = {name for name, _ in model.named_modules()}
        named = layers != "auto" and {name.partition("#")[0] for name in layers} <= modules
        self._functions = not named or head or (bool(layers) and reduce == "moments")
        self._settled = False
        self._faulty: frozenset[str] = frozenset()
        self._left_out: tuple[str, ...] = ()

    def __call__(self, batch: Batch) -> Observation:
        """Run one forward pass.

        Raises:
            ValueError: a layer did not run, returned no tensor or not one row for each example.
        """
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        batch = Batch(*(part.to(device) for part in batch))
        tried = self._try(batch.x) if not self._settled and len(batch.x) else None
        logits, recorder = forward_once(
            self.model, batch.x, self.layers, self.reduce,
            head=self.head, functions=self._functions,
        )  # fmt: skip
        if not self._settled:
            self._settled = True
            if tried is not None:
                faults = tried.faults | recorder.faults
                self._faulty, self._left_out = frozenset(faults), _left_out(tried, faults)
            self._functions &= recorder.needs_functions
            # What one batch has no head for, the others have none for either.
            self.head &= recorder.head is not None
        layers = {name: v for name, v in recorder.outputs.items() if name not in self._faulty}
        return Observation(batch, logits, layers, recorder.head, self._left_out)

    def _try(self, x: Tensor) -> LayerRecorder | None:
        """Another number of examples than the batch has; None where layers were named.

        An axis that is as long as both numbers is no axis of a layer's own.
        """
        if self.layers != "auto":
            return None
        some = _repeated(x, 3 if len(x) == 2 else 2)
        return forward_once(self.model, some, "auto", "moments")[1]


def observe(
    model: nn.Module,
    data: Any,
    layers: Collection[str] | Literal["auto"] = "auto",
    reduce: Reading | Literal["moments"] = over_space,
    *,
    head: bool = False,
    batch_size: int = 256,
) -> Iterator[Observation]:
    """Show data to a network in evaluation mode, and yield what each layer made of them.

    Layers, moments, logits and the head's input come from one forward pass. Between two batches,
    also when the iteration stops early or an error interrupts it, the model is as it was: its
    modes, hooks, gradients and the random state. Only the model's own forward pass can change it
    (batch statistics do not move).

    Args:
        model: any network; records, dicts and tuples of logits are understood.
        data: batches, or data of any form of `contam.inputs`; loaders keep their own batches.
        layers: names of layers, or `auto` for every ReLU, GELU and similar activation whose output
            has one row for each example.
        reduce: what to keep of each output. `moments` reads each neuron's mean and how often it is
            positive, wherever a layer has its neurons: on the second axis, as convolutions put
            them, or on the last one, as linear maps do.
        head: whether to record the representation that the linear head reads, too.
        batch_size: examples that are shown at a time, where the data have no batches.

    Returns:
        An iterator over observations, one for each batch.

    Source: ours, the only place with hooks.

    Raises:
        ValueError: no such layer or reading; or a layer that did not run, returned no tensor or
            not one row for each example.

    >>> [observation] = observe(nn.Sequential(nn.ReLU()), (torch.tensor([[1.0], [-1.0]]), [0, 1]))
    >>> observation.layers["0"].tolist()
    [[1.0], [0.0]]
    """
    return map(Observer(model, layers, reduce, head=head), as_batches(data, batch_size))


class FoundLayers(NamedTuple):
    """The layers of a network that can be observed."""

    names: tuple[str, ...]
    """In the order in which they run."""
    left_out: tuple[str, ...] = ()
    """Sentences about layers that can't be observed, and why."""


def layers_of(model: nn.Module, x: Float[Tensor, "batch ..."]) -> list[str]:
    """The activations that run when the model gets `x`, in order: what `auto` observes.

    Activations whose output does not have one row for each example are left out.

    >>> layers_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.zeros(1, 2))
    ['1']
    """
    return list(_activations(model, x).names)


def find_layers(
    model: nn.Module, x: Float[Tensor, "batch ..."], layers: Sequence[str] | str = "auto"
) -> FoundLayers:
    """The layers that the names mean, in the order in which they run.

    Args:
        model: the network.
        x: inputs, on the model's device; only the first example is used.
        layers: names, or `auto` for all activations; for a network without activations, its linear
            maps and convolutions.

    Returns:
        The names, and sentences about what can't be observed.

    Raises:
        ValueError: no such layer, or one that can't be observed; the message names similar ones.

    >>> find_layers(nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 2)).names
    ('0',)
    """
    if layers != "auto":
        names = (layers,) if isinstance(layers, str) else tuple(layers)
        for times in TRIED:
            _, recorder = forward_once(model, _repeated(x, times), names, _no_values)
            names = tuple(recorder.outputs)
        return FoundLayers(names)
    activations = _activations(model, x)
    most = _repeated(x, TRIED[-1])
    logits, recorder = forward_once(model, most, (), _no_values, functions=False)
    notes = list(activations.left_out)
    if isinstance(logits, Tensor) and not torch.allclose(
        logits.float(), activations.logits.float(), rtol=1e-3, atol=1e-4, equal_nan=True
    ):
        change = float((logits.float() - activations.logits.float()).abs().max())
        notes.append(
            f"The logits change by up to {change:.2g} while layers are observed, because the "
            "network runs in another way when it has hooks; its layers may be measured wrongly."
        )
    if activations.names:
        return FoundLayers(activations.names, tuple(notes))
    weights = (nn.Linear, nn.modules.conv._ConvNd)
    _, recorder = forward_once(model, most, "auto", _no_values)
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, weights) and recorder.calls[name]
    ]
    faulty: list[str] = []
    while True:
        try:
            names = list(find_layers(model, x, names).names)
        except LayerError as error:
            faulty += error.layers
            names = [name for name in names if name not in error.layers]
        else:
            return FoundLayers(tuple(names), (*notes, *_faults(faulty)))


class _Activations(NamedTuple):
    """The activations of a network, tried on two numbers of examples."""

    names: tuple[str, ...]
    """Those whose outputs have one row for each example."""
    left_out: tuple[str, ...]
    """Sentences about the others."""
    logits: Any
    """What the network returned for three examples."""


def _activations(model: nn.Module, x: Tensor) -> _Activations:
    tries = [forward_once(model, _repeated(x, times), "auto", "moments") for times in TRIED]
    (_, fewer), (logits, more) = tries
    names = tuple(name for name in fewer.outputs if name in more.outputs)
    return _Activations(names, _left_out(more, fewer.faults | more.faults), logits)


def _repeated(x: Tensor, times: int) -> Tensor:
    """The first example, several times."""
    return torch.cat([x[:1]] * times)


def _left_out(recorder: LayerRecorder, faults: Collection[str]) -> tuple[str, ...]:
    """Sentences about what can't be observed."""
    notes = _faults([*faults])
    if recorder.scripted:
        few = _few(recorder.scripted)
        notes.append(f"Layers inside {few} are left out, because TorchScript calls no hooks.")
    return tuple(notes)


def _faults(names: Sequence[str]) -> list[str]:
    """A sentence about layers that can't be observed."""
    if not names:
        return []
    what = "1 layer is left out, because its output does"
    if len(names) > 1:
        what = f"{len(names)} layers are left out, because their outputs do"
    return [f"{what} not have one row for each example: {_few(names)}."]


def _few(names: Sequence[str]) -> str:
    """The first of these names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _no_values(output: Tensor) -> Tensor:
    return output.new_empty(len(output), 0)
