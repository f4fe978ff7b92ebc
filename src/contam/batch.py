"""Examples, the distributions they come from, and OOD problems made of distributions."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Examples with their labels and domains.

    >>> y = torch.tensor([0, 1])
    >>> Batch(torch.zeros(2, 3), y, y).pick(y == 1).x.shape
    torch.Size([1, 3])
    """

    x: Tensor
    """(batch, ...) inputs."""
    y: Tensor
    """(batch,) class index, int64."""
    domain: Tensor
    """(batch,) index of the domain, int64."""

    def pick(self, which: Tensor | slice) -> "Batch":
        """The examples that a slice, a mask or an index tensor selects."""
        return Batch(self.x[which], self.y[which], self.domain[which])


@dataclass(frozen=True, eq=False)
class Domain:
    """A finite sample of one distribution, in memory.

    `contam.data.images.FolderDomain` is a sample in files.

    Args:
        name: the name in messages and results.
        data: the examples.
        classes: names of the classes by index, if they are known.

    Raises:
        ValueError: inputs, labels and domain indices differ in number.

    >>> y = torch.tensor([0, 1, 1])
    >>> domain = Domain("photo", Batch(torch.zeros(3, 2), y, torch.zeros_like(y)))
    >>> [len(batch.y) for batch in domain.batches(2)]
    [2, 1]
    """

    name: str
    data: Batch = field(repr=False)
    classes: tuple[str, ...] | None = None
    """Names of the classes by index, if they are known."""

    def __post_init__(self) -> None:
        x, y, domain = self.data
        if not len(x) == len(y) == len(domain):
            raise ValueError(
                f"domain {self.name!r}: {len(x)} inputs, {len(y)} labels and {len(domain)} "
                "domain indices; every example needs one of each"
            )

    @property
    def y(self) -> Tensor:
        """(n,) class index of every example, without reading its input."""
        return self.data.y

    @property
    def origin(self) -> Tensor:
        """(n,) index of the domain of every example, without reading its input."""
        return self.data.domain

    def pick(self, which: Tensor, name: str | None = None) -> "Domain":
        """Return the examples with these indices, in this order.

        Args:
            which: (m,) indices.
            name: name of the result; by default that of this sample.

        >>> y = torch.arange(3)
        >>> Domain("photo", Batch(y.float(), y, y)).pick(torch.tensor([2, 0])).y.tolist()
        [2, 0]
        """
        return Domain(name or self.name, self.data.pick(which), self.classes)

    def with_classes(self, classes: Sequence[str] | None) -> Self:
        """The same sample with names of its classes.

        Args:
            classes: names by index; None if they are not known.

        >>> y = torch.tensor([0, 1])
        >>> Domain("photo", Batch(torch.zeros(2, 2), y, y)).with_classes(["cat", "dog"]).classes
        ('cat', 'dog')
        """
        named = copy.copy(self)
        object.__setattr__(named, "classes", None if classes is None else tuple(classes))
        return named

    @property
    def augments(self) -> bool:
        """Whether the examples of `fetch` depend on the draws."""
        return False

    def __len__(self) -> int:
        return len(self.y)

    def fetch(self, picks: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """A batch for each pair of example indices and as many random draws.

        Args:
            picks: pairs of (k,) indices and (k,) draws below 2**62; a domain that augments its
                examples augments an example with the same draw in the same way.
        """
        for which, _ in picks:
            yield self.data.pick(which)

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """One pass over the examples, `size` at a time (the last batch may be smaller).

        Args:
            size: examples of a batch.
            generator: draws the order; without it examples come in order.

        Raises:
            ValueError: `size` is below 1.
        """
        if size < 1:
            raise ValueError(f"batch size must be at least 1, not {size}")
        if generator is None:
            for start in range(0, len(self), size):
                yield self.data.pick(slice(start, start + size))
            return
        for picked in torch.randperm(len(self), generator=generator).split(size):
            yield self.data.pick(picked)


@dataclass(frozen=True)
class Shift:
    """An OOD problem: domains for training, for selection and for testing.

    Args:
        name: the name in messages and results.
        classes: names of the classes, one list for all domains.
        train: training domains.
        id_test: ID test data.
        ood_tests: OOD test data.
        id_val: ID validation data; absent where nothing is selected.

    Raises:
        ValueError: a domain has no examples, or a label that is none of the classes.

    >>> examples = Batch(torch.rand(4, 3), torch.tensor([0, 1, 0, 1]), torch.zeros(4).long())
    >>> day, night = Domain("day", examples), Domain("night", examples)
    >>> shift = Shift("driving", ("car", "bus"), train=(day,), id_test=day, ood_tests=(night,))
    >>> [domain.name for domain in shift.ood_tests]
    ['night']
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Domain, ...]
    id_test: Domain
    ood_tests: tuple[Domain, ...]
    id_val: Domain | None = None

    def __post_init__(self) -> None:
        validation = () if self.id_val is None else (self.id_val,)
        for domain in (*self.train, *validation, self.id_test, *self.ood_tests):
            if len(domain) == 0:
                raise ValueError(f"shift {self.name!r}: domain {domain.name!r} has no examples")
            lowest, highest = int(domain.y.min()), int(domain.y.max())
            if lowest < 0 or highest >= len(self.classes):
                raise ValueError(
                    f"shift {self.name!r}: domain {domain.name!r} has labels {lowest}..{highest}, "
                    f"but the {len(self.classes)} classes are numbered from 0"
                )
