"""Datasets that are indexed by number, read in an order and with draws that do not change."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from contam.batch import Batch, Domain
from contam.inputs.parts import Parts, as_input, as_inputs, parts
from contam.inputs.pixel_range import PixelRange, Transform
from contam.rng import generator_for, seeded

TOGETHER = 64
"""Examples that are read at a time."""


class Lost(NamedTuple):
    """An example that could not be had."""

    number: int
    why: str


@dataclass(frozen=True, eq=False)
class Reader:
    """How examples are taken out of what is indexed by number, as torch datasets are."""

    dataset: Any
    keys: Mapping[str, str]
    transform: Transform | None = None
    collate: Callable[[list[Any]], Any] | None = None
    """What makes a batch of items; None stacks them."""
    workers: int = 0
    """Processes; 0 reads in this one."""

    def __getitem__(self, number: int) -> tuple[int, Any]:
        with seeded(0, f"audit/example {number}"):
            try:
                item = self.dataset[number]
                if self.collate is None:
                    found = parts(item, self.keys)
                    mask = None if found.mask is None else as_input(found.mask, self.transform)
                    item = found._replace(x=as_input(found.x, self.transform), mask=mask)
            except Exception as error:  # anybody's code; the example is left out, and this is told
                told = " ".join(str(error).split())[:200]
                return number, Lost(number, f"gives {type(error).__name__}: {told}")
        return number, item

    def together(self, items: list[tuple[int, Any]]) -> tuple[list[int], Any, list[Lost]]:
        """A batch of what was had, and what was not; a fault of the batch in words."""
        had = [(number, item) for number, item in items if not isinstance(item, Lost)]
        lost = [item for _, item in items if isinstance(item, Lost)]
        numbers, rows = [number for number, _ in had], [item for _, item in had]
        if not rows:
            return numbers, None, lost
        try:
            if self.collate is not None:
                with seeded(0, f"audit/batch {numbers[0]}"):
                    return numbers, parts(self.collate(rows), self.keys), lost
            columns = [list(column) for column in zip(*rows, strict=True)]
            whole = [c if all(v is not None for v in c) else None for c in columns]
            x = as_inputs(whole[0])
            return numbers, Parts(x, *whole[1:]), lost
        except Exception as error:
            return numbers, " ".join(str(error).split()), lost

    def read(
        self, numbers: Sequence[int], size: int
    ) -> Iterator[tuple[list[int], Parts | None, list[Lost]]]:
        """The examples with these numbers, `size` at a time.

        Raises:
            ValueError: a batch can't be made of its examples.
        """
        groups = [list(numbers[i : i + size]) for i in range(0, len(numbers), size)]
        loader = DataLoader(
            self, batch_sampler=groups, collate_fn=self.together, num_workers=self.workers,  # pyright: ignore[reportArgumentType], lists do
            generator=generator_for(0, "audit/workers"),
        )  # fmt: skip
        for kept, some, lost in loader:
            if isinstance(some, str):
                raise ValueError(f"no batch can be made of examples {kept[:3]}...: {some}")
            if some is not None or lost:
                yield kept, some, lost


class DatasetDomain(Domain):
    """A domain that reads what is indexed by number whenever it is looked at."""

    reader: Reader
    numbers: Tensor
    labels: Tensor
    origin: Tensor
    span: PixelRange | None

    def __init__(  # noqa: PLR0917, the fields in their order
        self, name: str, reader: Reader, numbers: Tensor, y: Tensor, origin: Tensor,
        span: PixelRange | None = None,
    ) -> None:  # fmt: skip
        # The fields of a frozen record are set once, here.
        vars(self).update(
            name=name, reader=reader, numbers=numbers, labels=y, origin=origin, span=span
        )

    def __repr__(self) -> str:
        return f"DatasetDomain({self.name!r}, {len(self)} examples)"

    @property
    def y(self) -> Tensor:
        """(n,) class index of every example, without reading it."""
        return self.labels

    @property
    def data(self) -> Batch:
        """Every example at once, read anew at each look."""
        return Batch(*(torch.cat(column) for column in zip(*self.batches(TOGETHER), strict=True)))

    def pick(self, which: Tensor) -> "DatasetDomain":
        """The examples with these places, in this order."""
        return DatasetDomain(
            self.name, self.reader, self.numbers[which], self.labels[which], self.origin[which],
            self.span,
        )  # fmt: skip

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """One pass over the examples, in order or in one drawn from the generator.

        Raises:
            ValueError: an example that could be read can't be any more.
        """
        if size < 1:
            raise ValueError(f"batch size must be at least 1, not {size}")
        order = torch.arange(len(self))
        if generator is not None:
            order = torch.randperm(len(self), generator=generator)
        yield from self._read(order, size)

    def fetch(self, picks: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """A batch for each pair of examples' places and as many draws, which change nothing."""
        for which, _ in picks:
            yield from self._read(which, max(1, len(which)))

    def _read(self, places: Tensor, size: int) -> Iterator[Batch]:
        start = 0
        for kept, some, lost in self.reader.read(self.numbers[places].tolist(), size):
            if lost or some is None:
                raise ValueError(
                    f"example {lost[0].number} of {self.name!r} {lost[0].why}; before, it could be "
                    "read"
                )
            x = as_inputs(some.x)
            here = places[start : start + len(kept)]
            start += len(kept)
            x = x if self.span is None else self.span.pictures(x)
            yield Batch(x, self.labels[here], self.origin[here])


def reader_of(loader: DataLoader, keys: Mapping[str, str], transform: Transform | None) -> Reader:
    """How a loader reads its dataset, without its order."""
    own = (torch.utils.data.default_collate, torch.utils.data.default_convert)
    collate = None if loader.collate_fn in own else loader.collate_fn
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return Reader(loader.dataset, keys, transform, collate, min(loader.num_workers, cores))


def numbers_of(loader: DataLoader) -> list[int]:
    """Which examples a loader gives, in the dataset's order.

    All of them, unless it has a sampler of its own kind; then those that it draws.
    """
    total = len(loader.dataset)  # pyright: ignore[reportArgumentType], map-style by now
    sampler, grouped = loader.sampler, loader.batch_sampler
    if grouped is None or type(grouped) is BatchSampler:
        shuffled = isinstance(sampler, RandomSampler) and sampler._num_samples is None
        all_of_it = shuffled or isinstance(sampler, SequentialSampler)
        if all_of_it:
            return list(range(total))
        drawn: Iterable[Any] = sampler
    else:
        drawn = (number for group in grouped for number in group)
    with seeded(0, "audit/sampler"):
        # A sampler without an end would never stop.
        found = [int(number) for number, _ in zip(drawn, range(total), strict=False)]
    return sorted(set(found))
