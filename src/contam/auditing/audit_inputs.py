"""The inputs of an audit: a network and its data sets, as every kind of evidence reads them.

Images (n, 1 or 3, height, width) lie in [0, 1]; the network's `LogitsAdapter` converts them to its
pixel range.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from contam.inputs.input_set import InputSet


@dataclass(frozen=True, eq=False)
class AuditInputs:
    """A network and its data sets."""

    name: str
    model: nn.Module = field(repr=False)
    """Returns logits (batch, classes)."""
    classes: tuple[str, ...]
    id: InputSet
    ood: tuple[InputSet, ...] = ()
    layers: tuple[str, ...] = ()
    """Names of the layers, as in `observe`, in the order in which they run."""
    reference: nn.Module | None = field(default=None, repr=False)
    """An encoder of the same inputs, used to test whether the images lack information."""
    reference_name: str = ""
    untrained: nn.Module | None = field(default=None, repr=False)
    """The same network with random weights: the control of every number."""
    calibrated: bool = False
    """Whether its batch norms get the statistics of ID examples before it is measured."""
    seed: int = 0
    domains: tuple[str, ...] = ()
    """Names of the domains by index; empty if they have no names."""
    batch_size: int = 64
    """Number of examples in a forward pass; halved when memory runs out."""
    base: nn.Module | Mapping[str, Tensor] | None = field(default=None, repr=False)
    """The network that this one was fine-tuned from, or its weights."""
    unlabeled: tuple[InputSet, ...] = ()
    """Sets without labels; the class index of all their examples is 0."""

    @property
    def chance(self) -> float:
        """The accuracy of a random guess."""
        return 1 / len(self.classes)
