"""The one place that looks inside networks: it yields what a network made of each batch.

A layer's output is read the moment it exists, because a ReLU that works in place overwrites what
came before it. A reading says which numbers are kept: for every example one per neuron, never the
maps themselves, so that a pass over any number of images needs the memory of one batch.

Layers have the names that `model.named_modules()` gives. A layer that runs several times in one
pass has a name for each run, `layer1.0.relu#0`, `layer1.0.relu#1`; its plain name means the last.
An activation that is called as a function has a name too: `layer1.0.relu()` is `F.relu`,
`torch.relu` or `Tensor.relu` called by `layer1.0`.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from contam.batch import Batch

Reading = Callable[[Tensor], Tensor]
"""What to keep of a layer's output: one row for each example."""

ACTIVATIONS = ("elu", "silu", "swish", "mish")
"""Functions and classes whose name contains one of these are activations: ReLU, GELU, SiLU, kin."""

ADDITIONS = ("add", "iadd", "radd")
"""What `+`, `+=` and `torch.add` are called inside torch."""

AT_ONCE = 2**18
"""Values of which `moments` takes two sums at a time in each thread, so that they stay in cache."""


class Observation(NamedTuple):
    """A batch, and what the network made of it."""

    batch: Batch
    """As it came, but where the network is."""
    logits: Tensor
    """(batch, classes): what the network returned."""
    layers: dict[str, Tensor]
    """(batch, neurons) for each layer, in the order in which they ran; for moments, (batch, 2,
    neurons)."""


def over_space(maps: Float[Tensor, "batch neurons ..."]) -> Float[Tensor, "batch neurons"]:
    """The mean over space of maps with their channels first; vectors stay as they are.

    Raises:
        ValueError: three axes, which is how a sequence of tokens comes, with its neurons last.
    """
    if maps.ndim == 3:
        raise ValueError(
            f"an output of shape {tuple(maps.shape)} looks like a sequence of tokens, neurons "
            "last; read it with over_tokens"
        )
    return maps.flatten(2).mean(dim=2) if maps.ndim > 2 else maps


def over_tokens(tokens: Float[Tensor, "batch ... neurons"]) -> Float[Tensor, "batch neurons"]:
    """The mean over tokens, or over any positions of an output with its neurons last."""
    return tokens.flatten(1, -2).mean(dim=1) if tokens.ndim > 2 else tokens


def rate_over_space(maps: Float[Tensor, "batch neurons ..."]) -> Float[Tensor, "batch neurons"]:
    """The share of positions at which a channel is positive; channels first."""
    return over_space((maps > 0).float())


def rate_over_tokens(tokens: Float[Tensor, "batch ... neurons"]) -> Float[Tensor, "batch neurons"]:
    """The share of tokens at which a neuron is positive; neurons last."""
    return over_tokens((tokens > 0).float())


def moments_over_space(
    maps: Float[Tensor, "batch neurons ..."],
) -> Float[Tensor, "batch 2 neurons"]:
    """What `over_space` and `rate_over_space` give, mean first, from reading the maps once.

    In single precision or better, without gradients. Much faster than both of them: on a CPU, most
    of their time goes into moving large maps to and from memory.

    Raises:
        ValueError: three axes, which is how a sequence of tokens comes, with its neurons last.
    """
    if maps.ndim == 3:
        raise ValueError(
            f"an output of shape {tuple(maps.shape)} looks like a sequence of tokens, neurons "
            "last; read it with moments_over_tokens"
        )
    return _moments(maps)


def moments_over_tokens(
    tokens: Float[Tensor, "batch ... neurons"],
) -> Float[Tensor, "batch 2 neurons"]:
    """What `over_tokens` and `rate_over_tokens` give, mean first, from reading the tokens once.

    In single precision or better, without gradients.
    """
    return _moments(tokens.movedim(-1, 1))


def _moments(maps: Tensor) -> Tensor:
    """Mean and rate over all axes but the first two."""
    examples, neurons = maps.shape[:2]
    maps = maps.detach().flatten(2) if maps.ndim > 2 else maps.detach()[:, :, None]
    kind = torch.promote_types(maps.dtype, torch.float32)
    found = maps.new_empty(examples, 2, neurons, dtype=kind)
    few = AT_ONCE * torch.get_num_threads() // max(1, maps[:1].numel())
    size = max(1, few if maps.device.type == "cpu" else examples)
    fires = torch.empty_like(maps[:size], dtype=kind)
    for some, into in zip(maps.split(size), found.split(size), strict=True):
        torch.sum(some, 2, dtype=kind, out=into[:, 0])
        # Truth values written as numbers add up several times as fast.
        torch.sum(torch.gt(some, 0, out=fires[: len(some)]), 2, out=into[:, 1])
    return found.div_(maps.shape[2])


def flat(values: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch neurons"]:
    """Every position of every channel as a neuron of its own."""
    return values.flatten(1)


def observe(
    model: nn.Module,
    batches: Iterable[Batch],
    layers: Collection[str] | Literal["auto"] = "auto",
    reduce: Reading | Literal["moments"] = over_space,
) -> Iterator[Observation]:
    """Show the batches to the model in evaluation mode, and yield what each layer made of them.

    `auto` takes every ReLU, GELU and their kin. `moments` reads each neuron's mean and how often it
    is positive, wherever a layer has its neurons: first, as convolutions put them, or last, as
    linear maps do. Between two batches, also when the iteration stops early or an error interrupts
    it, the model is as it was found: its mode, hooks, gradients and the random state. Only the
    model's own forward pass can change it (batch statistics do not move).

    Source: ours, the only place with hooks.

    Raises:
        ValueError: no such layer or reading; or a layer that did not run, gave no tensor or no row
            per example.
    """
    if isinstance(reduce, str) and reduce != "moments":
        raise ValueError(f"reduce is a function of a layer's output, or 'moments', not {reduce!r}")
    if isinstance(layers, str) and layers != "auto":
        raise ValueError(f"layers is a list of names, or 'auto'; for one layer give [{layers!r}]")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for batch in batches:
        here = Batch(*(part.to(device) for part in batch))
        logits, sight = look(model, here.x, layers, reduce)
        yield Observation(here, logits, sight.seen)


def observe_head(model: nn.Module, batches: Iterable[Batch]) -> Iterator[Observation]:
    """As `observe`, with the representation that the model's linear head reads as layer `head`.

    The head is the last linear map of a forward pass, also a convolution of maps of one pixel, if
    the logits are its output, unchanged. Where they are not, there is no layer `head`.

    Source: ours, a head can be exchanged only where it is known.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for batch in batches:
        here = Batch(*(part.to(device) for part in batch))
        last = _LastLinear()
        with as_found(model, here.x.device), last:
            logits = model(here.x)
        read = last.read_by(logits)
        yield Observation(here, logits, {} if read is None else {"head": read})


class _LastLinear(TorchFunctionMode):
    """Remembers what went into the last linear map, and what came out."""

    def __init__(self) -> None:
        super().__init__()
        self.entered: Tensor | None = None
        self.left: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = getattr(func, "__name__", "").partition(".")[0]
        # Over many positions it is no map of one representation, and copies would be dear.
        axes = {"linear": slice(1, -1), "conv2d": slice(2, None)}.get(name)
        if axes is not None and output.shape[axes].numel() == 1:
            entered = args[0] if args else kwargs["input"]
            if entered.shape[axes].numel() == 1:
                # A later layer may overwrite either in place.
                self.entered, self.left = entered.clone(), output.clone()
        return output

    def read_by(self, logits: Any) -> Tensor | None:
        """(batch, width): the input of the map, if these logits are its output."""
        if self.entered is None or self.left is None or not isinstance(logits, Tensor):
            return None
        left = self.left.flatten(1).to(logits.dtype)
        # One logit for two classes may have got a column of zeros before it.
        return self.entered.flatten(1) if torch.equal(left, logits[:, -left.shape[1] :]) else None


def layers_of(model: nn.Module, x: Float[Tensor, "batch ..."]) -> list[str]:
    """The activations that run when the model sees `x`, in their order: what `auto` observes."""
    return list(look(model, x, "auto", _nothing)[1].seen)


def _nothing(output: Tensor) -> Tensor:
    return output.new_empty(len(output), 0)


def look(
    model: nn.Module,
    x: Tensor,
    layers: Collection[str] | Literal["auto"],
    reduce: Reading | Literal["moments"],
) -> tuple[Tensor, "Sight"]:
    """One forward pass: what the network returned, and what was seen on the way.

    Source: ours, what `observe` does with each batch.

    Raises:
        ValueError: as `observe`.
    """
    sight = Sight(None if layers == "auto" else frozenset(layers), reduce, len(x))
    with as_found(model, x.device), ExitStack() as hooks:
        for name, module in model.named_modules():
            activation = _is_activation(type(module).__name__) and not any(module.children())
            enter, leave = sight.around(name, activation=activation)
            hooks.callback(module.register_forward_pre_hook(enter).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        with sight:
            logits = model(x)
    if layers == "auto":
        # A name with a number is needed only where a layer ran more than once.
        once = {f"{name}#0": name for name, calls in sight.calls.items() if calls == 1}
        sight.seen = {once.get(name, name): value for name, value in sight.seen.items()}
        sight.within = {once.get(name, name): stack for name, stack in sight.within.items()}
        return logits, sight
    missing = [name for name in layers if name not in sight.seen]
    if missing:
        modules = {name for name, _ in model.named_modules()}
        raise ValueError(_lost(missing[0], modules, sight.calls))
    return logits, sight


class Sight(TorchFunctionMode):
    """Reads wanted outputs during one forward pass; also sees activations called as functions."""

    def __init__(
        self,
        wanted: frozenset[str] | None,
        reduce: Reading | Literal["moments"],
        examples: int,
    ) -> None:
        super().__init__()
        self.wanted = wanted
        self.reduce = reduce
        self.examples = examples
        self.seen: dict[str, Tensor] = {}
        """The readings, keyed by layer."""
        self.within: dict[str, tuple[str, ...]] = {}
        """The modules in which a layer ran, outermost first."""
        self.adders: set[str] = set()
        """The modules that added two tensors of one shape, as residual blocks do."""
        self.calls: Counter[str] = Counter()
        self.inside: list[str] = []
        """The modules that are running, outermost first."""
        self.busy = 0
        """Above 0 inside an activation module or a reading, whose functions are no layers."""
        self.weighed: tuple[int, int] | None = None
        """Where the last weights put their neurons, 1 or -1, and how many."""

    def around(self, name: str, *, activation: bool) -> tuple[Callable, Callable]:
        """The hooks before and after a module."""

        def enter(_module: nn.Module, _inputs: Any) -> None:
            self.inside.append(name)
            self.busy += activation

        def leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self.inside.pop()
            self.busy -= activation
            self.read(name, output, activation=activation)

        return enter, leave

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.busy or not self.inside:
            return output
        # Exported programs call `relu_.default`.
        name = getattr(func, "__name__", "").partition(".")[0].strip("_")
        if _is_activation(name):
            where = f"{self.inside[-1]}.{name}()".lstrip(".")
            self.read(where, output, activation=True)
        elif name == "linear":
            self.weighed = (-1, output.shape[-1])
        elif name.startswith("conv"):
            self.weighed = (1, output.shape[1])
        elif name in ADDITIONS and _of_one_shape(args):
            self.adders.add(self.inside[-1])
        return output

    def neurons_first(self, output: Tensor) -> Tensor:
        """A view with the neurons on the second axis.

        They are on the axis that has as many places as the last weights made neurons. Where both
        or neither have (of a stack of maps, say), they are where those weights put them.
        """
        axis, width = self.weighed or (-1 if output.ndim == 3 else 1, -1)
        if output.ndim < 3 or (output.shape[1] == width != output.shape[-1]):
            axis = 1
        elif output.shape[1] != width == output.shape[-1]:
            axis = -1
        return output.movedim(axis, 1)

    def read(self, name: str, output: Any, *, activation: bool) -> None:
        """Reduce one output to what was asked for, under the names by which it was asked for."""
        numbered = f"{name}#{self.calls[name]}"
        self.calls[name] += 1
        if self.wanted is None:
            names = {numbered} if activation else set()
        else:
            names = self.wanted & {name, numbered}
        if not names:
            return
        if not isinstance(output, Tensor):
            raise ValueError(
                f"layer {name!r} returns a {type(output).__name__}, not a tensor; "
                "observe a layer inside it"
            )
        # A reading may be a view of the output, and a later layer may overwrite that in place.
        self.busy += 1
        if isinstance(self.reduce, str):
            if output.ndim < 2:
                raise ValueError(
                    f"layer {name!r} returns a tensor of shape {tuple(output.shape)}, which has "
                    "no axis of neurons; observe another layer, or give a reading of your own"
                )
            value = _moments(self.neurons_first(output))
        else:
            value = self.reduce(output).clone()
        self.busy -= 1
        if len(value) != self.examples:
            raise ValueError(
                f"the reading of layer {name!r} has {len(value)} rows for {self.examples} "
                f"examples; its output has shape {tuple(output.shape)}, so give a reading that "
                "puts the examples first"
            )
        for wanted in names:
            self.seen.pop(wanted, None)
            self.seen[wanted] = value
            self.within[wanted] = tuple(self.inside)


@contextmanager
def as_found(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards the modes and the random state are restored."""
    modes = {module: module.training for module in model.modules()}
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.no_grad():
        try:
            model.eval()
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


def _is_activation(name: str) -> bool:
    return any(kind in name.lower() for kind in ACTIVATIONS)


def _of_one_shape(args: Any) -> bool:
    shapes = [each.shape for each in args if isinstance(each, Tensor)]
    return len(shapes) == 2 and shapes[0] == shapes[1]


def _lost(name: str, modules: Collection[str], calls: Counter[str]) -> str:
    """Why a layer was not seen, and which ones are near."""
    if name in modules:
        return f"layer {name!r} did not run on this batch; choose one that the forward pass calls"
    plain = name.partition("#")[0]
    if plain in calls:
        return (
            f"layer {plain!r} ran {calls[plain]} times, numbered from #0 to #{calls[plain] - 1}; "
            f"there is no {name!r}"
        )
    near = difflib.get_close_matches(name, calls, n=3, cutoff=0.4) or sorted(calls)[:10]
    return f"no layer {name!r}; did you mean one of {near}?"
