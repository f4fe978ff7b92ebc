"""The untrained control: the same network with weights drawn anew."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from contam.models.logits_adapter import LogitsAdapter
from contam.rng import seeded

ITERATIONS = 20
"""Power iterations after which the norm of a new spectrally normalized weight is right."""
MOST_KEPT = 0.5
"""Share of the weights that can't be drawn above which there is no control."""


def untrained(model: LogitsAdapter, seed: int) -> tuple[nn.Module | None, str]:
    """A copy of a network with weights drawn anew, and a note on what could not be drawn.

    Weights are drawn by the `reset_parameters` of their modules, those of parametrized modules
    (weight norm, spectral norm, pruning) through their parametrization. The weights of other
    modules stay as they are, and the note names them.

    Args:
        model: the network; unchanged.
        seed: random seed of the weights.

    Returns:
        The copy, or None where most weights can't be drawn or the network can't be copied; and the
        note, which may be empty.

    Source: ours, the control of every number about learning.

    >>> model = LogitsAdapter(nn.Linear(3, 2))
    >>> control, note = untrained(model, seed=0)
    >>> torch.equal(control.network.weight, model.network.weight), note
    (False, '')
    """
    scripted = [n for n, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]
    if scripted:
        return None, (
            f"No control by an untrained network: TorchScript runs {scripted[0]}, whose weights "
            "can't be drawn; give one as untrained=."
        )
    try:
        # On the CPU, where a seed determines the weights on every machine.
        control = copy.deepcopy(model).cpu()
    except Exception as error:  # a user's network may refuse to be copied in its own way
        message = " ".join(str(error).split())[:120]
        return None, f"No control by an untrained network: this one can't be copied ({message})."
    drawn: set[int] = set()
    with seeded(seed, "audit/untrained"), torch.no_grad():
        for module in control.network.modules():
            reset = _reset_of(module)
            if reset is not None:
                drawn |= {id(value) for value in _drawn(module, reset)}
    weights = dict(control.named_parameters())
    kept = [name for name, value in weights.items() if id(value) not in drawn]
    if not drawn:
        return None, (
            "No control by an untrained network: none of its modules has reset_parameters; give "
            "one as untrained=."
        )
    some = ", ".join(kept[:3]) + (f" and {len(kept) - 3} more" if len(kept) > 3 else "")
    total = sum(value.numel() for value in weights.values())
    if sum(weights[name].numel() for name in kept) > MOST_KEPT * total:
        return None, (
            f"No control by an untrained network: most weights can't be drawn anew ({some}); give "
            "one as untrained=."
        )
    note = f"The untrained network keeps {some}, which nothing draws anew." if kept else ""
    device = next((value.device for value in model.parameters()), torch.device("cpu"))
    return control.requires_grad_(False).to(device), note


def _reset_of(module: nn.Module) -> Callable[[], Any] | None:
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    return reset if callable(reset) else None


def _drawn(module: nn.Module, reset: Callable[[], Any]) -> Iterator[Tensor]:
    """Draw the weights of one module, and yield the parameters that have new values."""
    computed = _computed(module)
    if computed:
        yield from _drawn_through(module, computed)
        return
    own = list(module.parameters(recurse=False))
    before = [(value._version, value.clone()) for value in own]
    reset()
    for value, (version, old) in zip(own, before, strict=True):
        # A new value may equal the old one, as zeros do; a hidden write leaves no version.
        if value._version != version or not torch.equal(value, old):
            yield value


def _computed(module: nn.Module) -> list[str]:
    """The names of the weights that a module computes from other parameters."""
    names = [*_parametrizations(module)]
    hooks = [hook for hook in module._forward_pre_hooks.values() if _name_of(hook)]
    return names + [_name_of(hook) for hook in hooks]


def _parametrizations(module: nn.Module) -> dict[str, nn.Module]:
    """The parametrizations of a module's weights by name."""
    if not parametrize.is_parametrized(module):
        return {}
    return dict(cast(nn.ModuleDict, module.parametrizations).items())


def _name_of(hook: Any) -> str:
    """The weight that a hook of weight norm, spectral norm or pruning computes."""
    known = type(hook).__module__.startswith("torch.nn.utils.")
    name = getattr(hook, "_tensor_name", None) or getattr(hook, "name", None)
    return name if known and isinstance(name, str) else ""


def _drawn_through(module: nn.Module, computed: list[str]) -> Iterator[Tensor]:
    """Draw a plain copy of a module, and set the originals of its computed weights from it."""
    plain = _plain(module, computed)
    reset = _reset_of(plain)
    assert reset is not None
    own = dict(plain.named_parameters(recurse=False))
    reset()
    for name, value in module.named_parameters(recurse=False):
        if name in own and own[name].shape == value.shape:
            value.copy_(own[name])
            yield value
    for name in computed:
        yield from _set(module, name, own[name].detach())


def _plain(module: nn.Module, computed: list[str]) -> nn.Module:
    """A module of the original class in which the computed weights are parameters."""
    kind: Any = parametrize.type_before_parametrizations(module)
    plain = kind.__new__(kind)
    vars(plain).update(vars(module))
    own = {name: value for name, value in module.named_parameters(recurse=False)}
    own |= {name: getattr(module, name) for name in computed}
    vars(plain)["_parameters"] = {
        name: nn.Parameter(value.detach().clone()) for name, value in own.items()
    }
    for name in computed:
        vars(plain).pop(name, None)
    return plain


def _set(module: nn.Module, name: str, value: Tensor) -> Iterator[Tensor]:
    """Set a computed weight by its originals, and yield those."""
    originals = _parametrizations(module).get(name)
    if originals is not None:
        training = originals.training
        try:
            setattr(module, name, value)
            originals.train()
            # Each evaluation in training mode is a step of the power iteration.
            for _ in range(ITERATIONS):
                getattr(module, name)
        except (NotImplementedError, RuntimeError, ValueError):
            return  # it has no inverse, so its originals keep their values
        finally:
            originals.train(training)
        yield from originals.parameters()
        return
    parameters = dict(module.named_parameters(recurse=False))
    if f"{name}_g" in parameters:  # weight norm: length and direction
        length, direction = parameters[f"{name}_g"], parameters[f"{name}_v"]
        direction.copy_(value)
        whole = length.ndim == 0
        over = [axis for axis in range(value.ndim) if whole or length.shape[axis] == 1]
        length.copy_(torch.linalg.vector_norm(value, dim=over).reshape(length.shape))
        yield from (length, direction)
    elif f"{name}_orig" in parameters:  # spectral norm, and pruning, which keeps its mask
        parameters[f"{name}_orig"].copy_(value)
        for hook in module._forward_pre_hooks.values():
            if _name_of(hook) == name and hasattr(hook, "n_power_iterations"):
                for _ in range(ITERATIONS):
                    cast(Any, hook).compute_weight(module, do_power_iteration=True)
        yield parameters[f"{name}_orig"]
