"""What flows through the house: examples, the distributions they come from, and an OOD problem."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Examples, with the domain that each one came from."""

    x: Tensor
    """(batch, ...) inputs."""
    y: Tensor
    """(batch,) class index, int64."""
    domain: Tensor
    """(batch,) index of the domain, int64."""

    def pick(self, which: Tensor | slice) -> "Batch":
        """The examples that a slice, a mask or an index tensor picks."""
        return Batch(self.x[which], self.y[which], self.domain[which])


@dataclass(frozen=True, eq=False)
class Domain:
    """One distribution, as a finite sample of it.

    This one holds its examples in memory. `contam.data.images.FolderDomain` reads them from files.
    """

    name: str
    data: Batch = field(repr=False)

    def __post_init__(self) -> None:
        x, y, domain = self.data
        if not len(x) == len(y) == len(domain):
            raise ValueError(
                f"domain {self.name!r}: {len(x)} inputs, {len(y)} labels and {len(domain)} "
                "domain indices; every example needs one of each"
            )

    @property
    def y(self) -> Tensor:
        """(n,) class index of every example, without its input."""
        return self.data.y

    @property
    def augments(self) -> bool:
        """Whether what `fetch` gives depends on the draws."""
        return False

    def __len__(self) -> int:
        return len(self.y)

    def fetch(self, picks: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """A batch for each pair of examples' numbers and as many draws, as training asks for them.

        A domain that augments its examples makes each of the same draw (below 2**62) the same.
        """
        for which, _ in picks:
            yield self.data.pick(which)

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """One pass over the examples, `size` at a time (the last batch may be smaller).

        In order without a generator, in an order drawn from it with one.
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
    """An OOD problem: where a model learns, where it is chosen, and where it is judged.

    All domains share one list of classes. `id_val` may be absent when nothing is selected.
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
