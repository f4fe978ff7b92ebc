"""What is audited: a network and its data sets, in the one form that all evidence is taken from."""

from dataclasses import dataclass, field

from torch import nn

from contam.inputs.input_set import InputSet

Sample = InputSet
"""A data set of an audit. Pictures (n, 1 or 3, height, width) lie in [0, 1], whatever the network
takes: its `LogitsAdapter` converts them."""


@dataclass(frozen=True, eq=False)
class AuditInputs:
    """A network under audit, and the data that it is shown."""

    name: str
    model: nn.Module = field(repr=False)
    """Returns logits (batch, classes)."""
    classes: tuple[str, ...]
    id: InputSet
    ood: tuple[InputSet, ...] = ()
    layers: tuple[str, ...] = ()
    """Names as `observe` has them, in the order in which they run."""
    reference: nn.Module | None = field(default=None, repr=False)
    """An encoder of the same inputs, used to test whether the images lack information."""
    reference_name: str = ""
    untrained: nn.Module | None = field(default=None, repr=False)
    """The same network with random weights: the control of every number."""
    seed: int = 0
    domains: tuple[str, ...] = ()
    """Names of the domains by their index, where the user gave some."""
    batch_size: int = 64
    """Examples that go through the network at a time; halved when memory runs out."""

    @property
    def chance(self) -> float:
        """The accuracy of a random guess."""
        return 1 / len(self.classes)
