"""What is audited: a network and its data sets, in the one form that all evidence is taken from."""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.batch import Domain


@dataclass(frozen=True, eq=False)
class Sample:
    """A data set of an audit: its examples, in an order that does not change, and their extras."""

    name: str
    domain: Domain
    """`domain.batches(size)` without a generator gives the examples in order, again and again.

    Pictures (n, 1 or 3, height, width) lie in [0, 1], whatever the user's network wants: the intake
    puts in front of it what turns them into that.
    """
    masks: Float[Tensor, "n 1 height width"] | None = field(default=None, repr=False)
    """Share of each pixel that the object covers, at the size of the network's input."""
    background: Int[Tensor, " n"] | None = field(default=None, repr=False)
    """Declared label of each example's background."""

    def __len__(self) -> int:
        return len(self.domain)


@dataclass(frozen=True, eq=False)
class AuditInputs:
    """A network under audit, and the data that it is looked at with."""

    name: str
    model: nn.Module = field(repr=False)
    """Returns logits (batch, classes); it stays as it was found."""
    classes: tuple[str, ...]
    id: Sample
    ood: tuple[Sample, ...] = ()
    layers: tuple[str, ...] = ()
    """Names as `observe` knows them, in the order in which they run."""
    reference: nn.Module | None = field(default=None, repr=False)
    """An encoder of the same inputs, to tell whether information is missing from the images."""
    reference_name: str = ""
    untrained: nn.Module | None = field(default=None, repr=False)
    """The same network with drawn weights: the control of every number."""
    seed: int = 0
    domains: tuple[str, ...] = ()
    """Names of the domains by their index, where the user gave some."""
    batch_size: int = 64
    """Examples that go through the network at a time; halved when memory runs out."""

    @property
    def chance(self) -> float:
        """The accuracy of guessing."""
        return 1 / len(self.classes)
