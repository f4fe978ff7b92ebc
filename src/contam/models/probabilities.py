"""Find out whether a network returns probabilities instead of logits, and convert them."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

SOURCES = ("sigmoid", "sigmoid_", "_softmax", "_safe_softmax")
"""Operations that return probabilities."""
KEPT = (
    "add", "cat", "clamp", "clamp_", "clamp_max", "clamp_min", "clone", "_to_copy", "div", "index",
    "index_select", "mean", "mul", "rsub", "stack", "sub",
)  # fmt: skip
"""Operations that return probabilities if all tensors that they take are probabilities."""
OutputKind = Literal["logits", "sigmoid", "softmax"]
NEAR = 1e-3
"""Largest difference of a sum of probabilities from 1 in single precision."""
SMALLEST = 1e-6
"""Smallest probability of one of two outcomes; its logit is -13.8."""


class ProbabilityTrace(TorchDispatchMode):
    """Records which tensors are results of a sigmoid or softmax while a network runs.

    Views share their memory with the result, so they are recognized by it.

    >>> with ProbabilityTrace() as trace:
    ...     p = torch.zeros(2, 1).sigmoid()
    >>> trace.holds(p[:, 0]), trace.holds(torch.zeros(2))
    (True, False)
    """

    def __init__(self) -> None:
        super().__init__()
        # Weak references, because large maps of attention are freed in between.
        self._found: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if isinstance(result, Tensor) and (name in SOURCES or (name in KEPT and self._all(args))):
            reference = StorageWeakRef(result.untyped_storage())
            self._found[reference.cdata] = reference
        return result

    def _all(self, args: Any) -> bool:
        flat = [a for arg in args for a in (arg if isinstance(arg, list | tuple) else [arg])]
        tensors = [value for value in flat if isinstance(value, Tensor) and value.ndim]
        floating = [value for value in tensors if value.is_floating_point()]
        return bool(floating) and all(map(self.holds, floating))

    def holds(self, x: Tensor) -> bool:
        """Whether a tensor is the result of a sigmoid or softmax, or a view of one."""
        return StorageWeakRef(x.untyped_storage()).cdata in self._found


def output_kind(output: Float[Tensor, "batch classes"], traced: bool) -> OutputKind:
    """Return whether the outputs of a network are logits or probabilities.

    They are probabilities if they lie in [0, 1] and are known to come from a sigmoid or softmax, or
    if each row sums to 1 without being one-hot.

    Args:
        output: (batch, classes), or (batch, 1) for one of two classes.
        traced: whether they are known to come from a sigmoid or softmax.

    Returns:
        `softmax` if the probabilities of the classes sum to 1, and else `sigmoid` or `logits`.

    Source: ours, because losses and probes of logits are wrong for probabilities.

    >>> output_kind(torch.tensor([[0.2, 0.8]]), False), output_kind(torch.tensor([[0.2]]), True)
    ('softmax', 'sigmoid')
    """
    if not len(output) or not ((output >= 0) & (output <= 1)).all():
        return "logits"
    near = max(NEAR, 8 * torch.finfo(output.dtype).eps)
    exclusive = output.shape[1] > 1 and bool(((output.float().sum(1) - 1).abs() < near).all())
    one_hot = bool(((output == 0) | (output == 1)).all())
    if exclusive and (traced or not one_hot):
        return "softmax"
    return "sigmoid" if traced else "logits"


def logits_of_probabilities(
    output: Float[Tensor, "batch classes"], *, exclusive: bool
) -> Float[Tensor, "batch classes"]:
    """Return the logits of probabilities.

    Args:
        output: (batch, classes) probabilities.
        exclusive: whether the probabilities of the classes sum to 1 (softmax), so that their
            logarithms are logits. Otherwise each has its own logit (sigmoid).

    Returns:
        (batch, classes) finite logits.

    >>> logits_of_probabilities(torch.tensor([[0.5, 1.0]]), exclusive=False)
    tensor([[ 0.0000, 13.8155]])
    """
    output = output.float()
    if exclusive:
        return output.clamp(min=torch.finfo(output.dtype).tiny).log()
    return output.double().logit(eps=SMALLEST).float()
