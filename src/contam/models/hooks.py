"""One forward pass with hooks: what the chosen layers returned, and what the linear head read.

A layer's output is read the moment it exists, because a ReLU that works in place overwrites what
came before it. Hooks on modules see most networks whole. Activations and linear maps that a network
calls as functions (`F.relu`, `torch.relu`, `Tensor.relu`, `F.linear`) are seen by a
`TorchFunctionMode`, which costs time at every operation and is entered only where it is needed.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from contam.models.logits_adapter import LogitsAdapter, output_tensor
from contam.models.preserve import evaluating
from contam.models.probabilities import OutputKind
from contam.models.readings import Reading, channel_moments

ACTIVATIONS = ("elu", "silu", "swish", "mish")
"""Functions and classes whose name contains one of these are activations: ReLU, GELU, SiLU, kin."""

ADDITIONS = ("add", "iadd", "radd")
"""What `+`, `+=` and `torch.add` are called inside torch."""

POSITIONS = {"linear": slice(1, -1), "conv2d": slice(2, None)}
"""Axes of positions in the output of the maps that can be a linear head."""


class LayerError(ValueError):
    """Layers that can't be observed on a batch."""

    def __init__(self, message: str, layers: Sequence[str]) -> None:
        super().__init__(message)
        self.layers = tuple(layers)
        """All of them; the message explains the first."""


def forward_once(
    model: nn.Module,
    x: Tensor,
    layers: Collection[str] | Literal["auto"],
    reduce: Reading | Literal["moments"],
    *,
    head: bool = False,
    functions: bool = True,
) -> tuple[Tensor, "LayerRecorder"]:
    """Run one forward pass in evaluation mode and record the chosen layers.

    Args:
        model: the network; its modes, hooks and the random state are restored afterwards.
        x: (batch, ...) inputs, on the model's device.
        layers: names of layers, or `auto` for every activation.
        reduce: what to keep of each output, or `moments`.
        head: whether to record the representation that the linear head reads.
        functions: whether calls of functions are recorded, too; without, only modules are.

    Returns:
        The network's logits (or whatever tensor it returns), and the recorder.

    Source: ours, the one pass behind `observe`.

    Raises:
        LayerError: no such layer; or layers that did not run, returned no tensor or not one row
            for each example.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> logits, recorder = forward_once(model, torch.ones(4, 2), ["1"], lambda values: values)
    >>> logits.shape, recorder.outputs["1"].shape
    (torch.Size([4, 2]), torch.Size([4, 3]))
    """
    wanted = None if layers == "auto" else frozenset(layers)
    recorder = LayerRecorder(wanted, reduce, len(x), head=head)
    with evaluating(model), recorder.recording(model, functions=functions):
        logits = output_tensor(model(x))
    kind = model.output if isinstance(model, LogitsAdapter) else None
    recorder.finish(logits, getattr(model, "classes", None), kind)
    missing = [name for name in wanted or () if name not in recorder.outputs]
    if missing:
        faulty = [name for name in missing if name in recorder.faults]
        if faulty:
            raise LayerError(recorder.faults[faulty[0]], missing)
        raise LayerError(_missing_layer(missing[0], model, recorder), missing)
    return logits, recorder


class LayerRecorder(TorchFunctionMode):
    """Reduces the outputs of the wanted layers during one forward pass.

    Args:
        wanted: names of layers; None records every activation.
        reduce: what to keep of each output, or `moments`.
        examples: rows that every reading must have.
        head: whether to look for the representation that the linear head reads.

    Source: ours, the only hooks outside Grad-CAM.
    """

    def __init__(
        self,
        wanted: frozenset[str] | None,
        reduce: Reading | Literal["moments"],
        examples: int,
        *,
        head: bool = False,
    ) -> None:
        super().__init__()
        self.wanted = wanted
        self.reduce = reduce
        self.examples = examples
        self.outputs: dict[str, Tensor] = {}
        """The readings by layer, in the order in which the layers ran."""
        self.enclosing: dict[str, tuple[str, ...]] = {}
        """The modules inside which a layer ran, outermost first."""
        self.adders: set[str] = set()
        """The modules that added two tensors of one shape, as residual blocks do."""
        self.calls: Counter[str] = Counter()
        """How often each layer ran."""
        self.faults: dict[str, str] = {}
        """Why the output of a layer could not be read, by layer."""
        self.scripted: list[str] = []
        """The outermost modules that TorchScript runs, without hooks."""
        self.head: Tensor | None = None
        """(batch, width): the input of the linear map whose output the logits are, before a closing
        sigmoid or softmax; averaged over positions where that is a convolution whose maps are
        averaged."""
        self.needs_functions = False
        """Whether hooks on modules alone would have recorded something else."""
        self._find_head = head
        self._last_linear: tuple[Tensor, Tensor, bool] | None = None
        """Input and output of the last linear map of one position; whether it was a function."""
        self._last_maps: tuple[Tensor, Tensor, bool] | None = None
        """The same of the last 1 x 1 convolution."""
        self._stack: list[tuple[str, bool]] = []
        """The running modules, outermost first; whether each is a linear map or a convolution."""
        self._paused = 0
        """Above 0 inside an activation module or a reading, whose functions are no layers."""
        self._weights: tuple[int, int] | None = None
        """The axis of neurons in the last output of weights, 1 or -1, and their number."""

    @contextmanager
    def recording(self, model: nn.Module, *, functions: bool) -> Iterator[None]:
        """Hook into the model's modules; with `functions`, record calls of functions as well."""
        wanted = None if self.wanted is None else {n.partition("#")[0] for n in self.wanted}
        with ExitStack() as hooks:
            for name, module in model.named_modules():
                if isinstance(module, torch.jit.ScriptModule):
                    if not any(name.startswith(f"{outer}.") for outer in self.scripted):
                        self.scripted.append(name)
                    continue
                activation = is_activation(type(module).__name__) and not any(module.children())
                weights = _weights_of(module)
                recorded = activation if wanted is None else name in wanted
                if functions:
                    hooks.callback(
                        module.register_forward_pre_hook(
                            self._enter(name, activation=activation, weights=bool(weights))
                        ).remove
                    )
                if functions or recorded or (weights and (wanted != set() or self._find_head)):
                    hooks.callback(
                        module.register_forward_hook(
                            self._leave(
                                name, activation=activation, weights=weights, stacked=functions
                            ),
                            with_kwargs=True,
                        ).remove
                    )
            with self if functions else nullcontext():
                yield

    def _enter(self, name: str, *, activation: bool, weights: bool) -> Callable[..., None]:
        def enter(_module: nn.Module, _inputs: Any) -> None:
            self._stack.append((name, weights))
            self._paused += activation

        return enter

    def _leave(
        self, name: str, *, activation: bool, weights: str, stacked: bool
    ) -> Callable[..., None]:
        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if stacked:
                self._stack.pop()
                self._paused -= activation
            if weights and not self._paused:
                kernel = getattr(module, "kernel_size", ())
                self._record_weights(weights, args, kwargs, output, kernel, function=False)
            self._record(name, output, activation=activation)

        return leave

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        # Exported programs call `relu_.default`.
        name = getattr(func, "__name__", "").partition(".")[0].strip("_")
        # A linear map or convolution is recorded by the hook of its module.
        weights = (name == "linear" or name.startswith("conv")) and not (
            self._stack and self._stack[-1][1]
        )
        if weights and not self._paused and isinstance(output, Tensor):
            # Quantized maps have packed weights, of which the kernel is not known.
            weight = (*args, kwargs.get("weight"))[1] if args else kwargs.get("weight")
            kernel = weight.shape[2:] if isinstance(weight, Tensor) else ()
            self._record_weights(name, args, kwargs, output, kernel, function=True)
        if self._paused or not self._stack:
            return output
        here = self._stack[-1][0]
        if is_activation(name):
            self._record(f"{here}.{name}()".lstrip("."), output, activation=True, function=True)
        elif name in ADDITIONS and _of_one_shape(args):
            self.adders.add(here)
        return output

    def _record_weights(
        self,
        name: str,
        args: Any,
        kwargs: Any,
        output: Tensor,
        kernel: Sequence[int],
        *,
        function: bool,
    ) -> None:
        """Note where a linear map or convolution puts its neurons, and keep it if it may be the
        head.
        """
        axis = -1 if name == "linear" else 1
        self._weights = (axis, output.shape[axis])
        self.needs_functions |= function and self.reduce == "moments" and self.wanted != frozenset()
        positions = POSITIONS.get(name)
        if not self._find_head or positions is None or output.is_quantized:
            return
        entered = args[0] if args else kwargs["input"]
        if name == "conv2d" and set(kernel) == {1}:
            # Maps are not copied: after the head, nothing but an activation overwrites them.
            self._last_maps = (entered, output, function)
        if output.shape[positions].numel() > 1:
            return
        if entered.shape[positions].numel() == 1:
            # A later layer may overwrite either in place.
            self._last_linear = (entered.clone(), output.clone(), function)

    def finish(self, logits: Any, columns: Any = None, kind: OutputKind | None = None) -> None:
        """Name the layers, and decide whether the last linear map is the head of these logits.

        Args:
            logits: the network's output.
            columns: (classes,) the outputs of the head that `logits` are; None for all.
            kind: what the network returned, where `logits` were made of it; None for a network's
                own output.
        """
        if self.wanted is None:
            # A name with a number is needed only where a layer ran more than once.
            once = {f"{name}#0": name for name, calls in self.calls.items() if calls == 1}
            self.outputs = {once.get(name, name): value for name, value in self.outputs.items()}
            self.enclosing = {once.get(name, name): s for name, s in self.enclosing.items()}
            self.faults = {once.get(name, name): fault for name, fault in self.faults.items()}
        last, maps = self._last_linear, self._last_maps
        self._last_linear, self._last_maps = None, None
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            return
        if last is not None:
            entered, left, function = last
            left = left.flatten(1)
            some = _picked(left.to(logits.dtype), columns)
            # One logit for two classes may have got a column of zeros before it.
            same = some.shape[1] <= logits.shape[-1] and some.equal(logits[..., -some.shape[1] :])
            if same or (len(left) == len(logits) and _closes(left, logits, columns, kind)):
                self.head = entered.flatten(1)
                self.needs_functions |= function
                return
        if maps is not None and len(maps[1]) == len(logits):
            entered, left, function = maps
            for values in (left, left.relu()):
                pooled = _pooled(values)
                some = _picked(pooled.to(logits.dtype), columns)
                same = some.shape[1] <= logits.shape[-1] and torch.allclose(
                    some, logits[..., -some.shape[1] :], rtol=1e-3, atol=1e-4
                )
                if same or _closes(pooled, logits, columns, kind):
                    self.head = _pooled(entered)
                    self.needs_functions |= function

    def _record(self, name: str, output: Any, *, activation: bool, function: bool = False) -> None:
        """Reduce one output under the names by which it is wanted."""
        numbered = f"{name}#{self.calls[name]}"
        self.calls[name] += 1
        if self.wanted is None:
            names = {numbered} if activation else set()
        else:
            names = self.wanted & {name, numbered}
        if not names:
            return
        self.needs_functions |= function
        try:
            value = self._reading(name, output)
        except LayerError as error:
            # Inside the network's forward pass, its own handlers could catch the error.
            self.faults |= dict.fromkeys(names, str(error))
            for wanted in names:
                self.outputs.pop(wanted, None)
            return
        for wanted in names:
            self.faults.pop(wanted, None)
            self.outputs.pop(wanted, None)
            self.outputs[wanted] = value
            self.enclosing[wanted] = tuple(module for module, _ in self._stack)

    def _reading(self, name: str, output: Any) -> Tensor:
        """What is kept of an output.

        Raises:
            LayerError: the output is no tensor, or has not one row for each example.
        """
        if not isinstance(output, Tensor):
            raise LayerError(
                f"layer {name!r} returns a {type(output).__name__}, not a tensor; "
                "observe a layer inside it",
                [name],
            )
        if output.is_quantized:
            output = output.dequantize()
        if output.ndim == 0:
            raise LayerError(f"layer {name!r} returns a single number", [name])
        # A reading may be a view of the output, and a later layer may overwrite that in place.
        self._paused += 1
        if isinstance(self.reduce, str):
            if output.ndim < 2:
                raise LayerError(
                    f"layer {name!r} returns a tensor of shape {tuple(output.shape)}, which has "
                    "no axis of neurons; observe another layer, or give a reading of your own",
                    [name],
                )
            value = channel_moments(self._neurons_second(output))
        else:
            value = self.reduce(output).clone()
        self._paused -= 1
        if len(value) != self.examples:
            raise LayerError(
                f"the reading of layer {name!r} has {len(value)} rows for {self.examples} "
                f"examples; its output has shape {tuple(output.shape)}, so give a reading that "
                "puts the examples first",
                [name],
            )
        return value

    def _neurons_second(self, output: Tensor) -> Tensor:
        """A view with the neurons on the second axis.

        They are on the axis that is as long as the last weights have neurons. Where both axes or
        neither is (of a stack of maps, say), they are where those weights put them.
        """
        axis, width = self._weights or (-1 if output.ndim == 3 else 1, -1)
        if output.ndim < 3 or (output.shape[1] == width != output.shape[-1]):
            axis = 1
        elif output.shape[1] != width == output.shape[-1]:
            axis = -1
        return output.movedim(axis, 1)


def _picked(left: Tensor, columns: Any) -> Tensor:
    """The chosen neurons of an output (batch, neurons, ...)."""
    if isinstance(columns, Tensor) and int(columns.max()) < left.shape[1]:
        return left[:, columns.to(left.device)]
    return left


def _closes(left: Tensor, logits: Tensor, columns: Any, kind: OutputKind | None) -> bool:
    """Whether a network's output is a sigmoid or softmax of the output of its last linear map.

    Args:
        left: (batch, neurons) output of the linear map.
        logits: (batch, classes) the network's output, or the logits that were made of it.
        columns: (classes,) the neurons that `logits` are; None for all.
        kind: what the network returned; None where `logits` are its own output.
    """
    if left.shape[1] == 1 and kind != "sigmoid" and logits.shape[-1] == 2:
        # One neuron for two probabilities, 1 - p and p.
        left = torch.cat([torch.zeros_like(left), left], dim=1)
    logits = logits.float()
    if kind == "sigmoid":
        pairs = [(_picked(left.sigmoid(), columns), logits.sigmoid())]
    elif kind == "softmax":
        pairs = [(_picked(left, columns).softmax(1), logits.softmax(-1))]
    else:
        closings = (left.log_softmax(1), left.sigmoid(), left.softmax(1))
        pairs = [(_picked(closed, columns), logits) for closed in closings]
    return any(
        closed.shape[1] <= logits.shape[-1]
        and torch.allclose(
            closed.float(), target[..., -closed.shape[1] :], rtol=1e-3, atol=1e-4 / len(closed[0])
        )
        for closed, target in pairs
    )


def is_activation(name: str) -> bool:
    """Whether a function or class of this name is an activation.

    >>> is_activation("LeakyReLU"), is_activation("Linear")
    (True, False)
    """
    return any(kind in name.lower() for kind in ACTIVATIONS)


def _weights_of(module: nn.Module) -> str:
    """The function that a linear map or convolution calls; empty for all other modules."""
    forward = getattr(type(module), "forward", None)
    if forward is nn.Linear.forward:
        return "linear"
    names = {nn.Conv1d.forward: "conv1d", nn.Conv2d.forward: "conv2d", nn.Conv3d.forward: "conv3d"}
    return names.get(forward, "")


def _of_one_shape(args: Any) -> bool:
    shapes = [value.shape for value in args if isinstance(value, Tensor)]
    return len(shapes) == 2 and shapes[0] == shapes[1]


def _pooled(maps: Tensor) -> Tensor:
    return maps.flatten(2).mean(dim=2)


def _missing_layer(name: str, model: nn.Module, recorder: LayerRecorder) -> str:
    """Why a layer was not recorded, and which names are near."""
    calls = recorder.calls
    plain = name.partition("#")[0]
    for outer in recorder.scripted:
        if plain == outer or plain.startswith(f"{outer}."):
            return f"layer {name!r} is run by TorchScript, which calls no hooks; choose another"
    if name in dict(model.named_modules()):
        return f"layer {name!r} did not run on this batch; choose one that the forward pass calls"
    if plain in calls:
        return (
            f"layer {plain!r} ran {calls[plain]} times, numbered from #0 to #{calls[plain] - 1}; "
            f"there is no {name!r}"
        )
    near = difflib.get_close_matches(name, calls, n=3, cutoff=0.4) or sorted(calls)[:10]
    return f"no layer {name!r}; did you mean one of {near}?"
