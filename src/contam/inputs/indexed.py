"""Map-style datasets, read in a fixed order with fixed random draws."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    get_worker_info,
)

from contam.batch import Batch, Domain
from contam.inputs.parts import Parts, as_input, as_inputs, as_labels, converted_input, parts
from contam.inputs.pixel_range import PixelRange, Transform
from contam.inputs.unlabeled import input_parts
from contam.rng import generator_for, seeded

CHUNK = 64
"""Number of examples that are read at a time."""


class Unreadable(NamedTuple):
    """An example that was left out."""

    index: int
    reason: str
    """A verb and what follows it, such as `holds values that are not finite`."""
    file: str = ""
    """Name of its file, if it has one."""

    def __str__(self) -> str:
        named = f"{self.index} ({self.file})" if self.file else f"{self.index}"
        return f"number {named}, {self.reason}"


@dataclass(frozen=True, eq=False)
class IndexedReader:
    """Reads examples of a map-style dataset by number, and reports those that raise.

    Args:
        dataset: anything with `__getitem__` and `__len__`.
        keys: names of the parts of dicts that `KEYS` does not list.
        transform: function from an image to a tensor.
        collate: function from items to a batch; None stacks them.
        workers: number of worker processes; 0 reads in this process.
        worker_init: function of a worker's number that each worker calls first, such as one that
            opens files.
        context: how worker processes start; None is Python's default.
        labeled: whether the examples have labels; otherwise the label of all is 0.

    Source: ours, so that an audit and a monitor read the same examples in every pass.
    """

    dataset: Any
    keys: Mapping[str, str]
    transform: Transform | None = None
    collate: Callable[[list[Any]], Any] | None = None
    workers: int = 0
    worker_init: Callable[[int], None] | None = None
    context: Any = None
    labeled: bool = True

    def __getitem__(self, number: int) -> tuple[int, Any]:
        with seeded(0, f"audit/example {number}"):
            try:
                item = self.dataset[number]
                if item is None:
                    return number, Unreadable(number, "is None")
                if self.collate is None:
                    item = self._parts(item)
                    mask = None if item.mask is None else as_input(item.mask, self.transform)
                    x, change = converted_input(item.x, self.transform)
                    item = item._replace(x=x, mask=mask, change=change)
            except Exception as error:  # The dataset is the user's; its example is left out.
                message = " ".join(str(error).split())[:200]
                return number, Unreadable(number, f"gives {type(error).__name__}: {message}")
        return number, item

    def _parts(self, item: Any) -> Parts:
        """Return the parts of an example."""
        if self.labeled:
            return parts(item, self.keys)
        return input_parts(item, self.keys, several=False)

    def _batch_or_none(self, batch: Any) -> Parts | None:
        """Return the parts of a batch, or None for an empty one."""
        if batch is None or (isinstance(batch, Sequence) and not len(batch)):
            return None
        if self.labeled:
            example = parts(batch, self.keys)
        else:
            example = input_parts(batch, self.keys, several=True)
        return example if len(as_labels(example.y)) else None

    def collated(
        self, items: list[tuple[int, Any]]
    ) -> tuple[list[int], Parts | str | None, list[Unreadable]]:
        """Make a batch of the readable items, or a message if they can't be combined."""
        readable = [(number, item) for number, item in items if not isinstance(item, Unreadable)]
        unreadable = [item for _, item in items if isinstance(item, Unreadable)]
        numbers, rows = [number for number, _ in readable], [item for _, item in readable]
        if not rows:
            return numbers, None, unreadable
        try:
            if self.collate is not None:
                return self._collated(numbers, rows, unreadable)
            columns = [list(column) for column in zip(*rows, strict=True)]
            complete = [c if all(v is not None for v in c) else None for c in columns]
            return numbers, Parts(as_inputs(complete[0]), *complete[1:]), unreadable
        except Exception as error:
            return numbers, " ".join(str(error).split()), unreadable

    def _collated(
        self, numbers: list[int], rows: list[Any], unreadable: list[Unreadable]
    ) -> tuple[list[int], Parts | None, list[Unreadable]]:
        """Make a batch with the user's function, which can drop items."""
        assert self.collate is not None
        with seeded(0, f"audit/batch {numbers[0]}"):
            batch = self._batch_or_none(self.collate(rows))
        if batch is not None and len(as_labels(batch.y)) == len(rows):
            return numbers, batch, unreadable
        kept = []
        for place, row in enumerate(rows):
            with seeded(0, f"audit/batch {numbers[place]}"):
                single = self._batch_or_none(self.collate([row]))
            if single is None or len(as_labels(single.y)) != 1:
                dropped = Unreadable(numbers[place], "was dropped by the collate function")
                unreadable = [*unreadable, dropped]
            else:
                kept.append(place)
        if batch is None or len(as_labels(batch.y)) != len(kept):
            raise ValueError(
                f"the collate function makes {0 if batch is None else len(as_labels(batch.y))} "
                f"examples of {len(rows)}; expected one for each, or None"
            )
        return [numbers[place] for place in kept], batch, unreadable

    def read(
        self, numbers: Sequence[int], size: int
    ) -> Iterator[tuple[list[int], Parts | None, list[Unreadable]]]:
        """Read the examples with these numbers, `size` at a time.

        Yields:
            Numbers of the readable examples, their batch, and the unreadable examples.

        Raises:
            ValueError: the examples of a batch can't be combined.
        """
        groups = [list(numbers[i : i + size]) for i in range(0, len(numbers), size)]
        loader = DataLoader(
            self, batch_sampler=groups, collate_fn=self.collated, num_workers=self.workers,  # pyright: ignore[reportArgumentType], lists do
            generator=generator_for(0, "audit/workers"),
            worker_init_fn=partial(_start_worker, self.worker_init),
            multiprocessing_context=self.context if self.workers else None,
        )  # fmt: skip
        for kept, batch, unreadable in loader:
            if isinstance(batch, str):
                raise ValueError(f"no batch can be made of examples {kept[:3]}...: {batch}")
            if batch is not None or unreadable:
                yield kept, batch, unreadable


def _start_worker(init: Callable[[int], None] | None, number: int) -> None:
    """Start a worker with the user's dataset in `get_worker_info`, which opens files in it."""
    info: Any = get_worker_info()
    # A frozen record; without this, users would get the reader around their dataset.
    object.__setattr__(info, "dataset", info.dataset.dataset)
    if init is not None:
        init(number)


class DatasetDomain(Domain):
    """A domain of a map-style dataset that is too large for memory; each pass reads it again."""

    reader: IndexedReader
    numbers: Tensor
    labels: Tensor
    origins: Tensor
    pixel_range: PixelRange | None
    prints: Tensor | None
    """(n, cells) fingerprints of the examples."""

    def __init__(  # noqa: PLR0917, the fields in their order
        self, name: str, reader: IndexedReader, numbers: Tensor, y: Tensor, origin: Tensor,
        pixel_range: PixelRange | None = None, prints: Tensor | None = None,
    ) -> None:  # fmt: skip
        # The fields of a frozen record are set once.
        vars(self).update(
            name=name, reader=reader, numbers=numbers, labels=y, origins=origin,
            pixel_range=pixel_range, prints=prints,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"DatasetDomain({self.name!r}, {len(self)} examples)"

    @property
    def y(self) -> Tensor:
        """(n,) class index of every example, without reading it."""
        return self.labels

    @property
    def origin(self) -> Tensor:
        """(n,) index of the domain of every example, without reading it."""
        return self.origins

    @property
    def data(self) -> Batch:
        """All examples in one batch, read again at each access."""
        return Batch(*(torch.cat(column) for column in zip(*self.batches(CHUNK), strict=True)))

    def pick(self, which: Tensor, name: str | None = None) -> "DatasetDomain":
        """Return the examples with these indices, in this order, optionally under another name."""
        return DatasetDomain(
            name or self.name, self.reader, self.numbers[which], self.labels[which],
            self.origin[which], self.pixel_range,
            None if self.prints is None else self.prints[which],
        ).with_classes(self.classes)  # fmt: skip

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Make one pass over the examples, in order or in an order drawn from the generator.

        Raises:
            ValueError: an example that could be read before can't be read now.
        """
        if size < 1:
            raise ValueError(f"batch size must be at least 1, not {size}")
        order = torch.arange(len(self))
        if generator is not None:
            order = torch.randperm(len(self), generator=generator)
        yield from self._read(order, size)

    def fetch(self, picks: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Batch]:
        """Yield a batch for each pair of (n,) indices and (n,) draws; the draws are not used."""
        for which, _ in picks:
            yield from self._read(which, max(1, len(which)))

    def _read(self, indices: Tensor, size: int) -> Iterator[Batch]:
        start = 0
        for kept, batch, unreadable in self.reader.read(self.numbers[indices].tolist(), size):
            if unreadable or batch is None:
                raise ValueError(
                    f"example {unreadable[0].index} of {self.name!r} {unreadable[0].reason}; "
                    "before, it could be read"
                )
            x = as_inputs(batch.x)
            here = indices[start : start + len(kept)]
            start += len(kept)
            x = x if self.pixel_range is None else self.pixel_range.pictures(x)
            yield Batch(x, self.labels[here], self.origin[here])


def reader_of(
    loader: DataLoader, keys: Mapping[str, str], transform: Transform | None
) -> IndexedReader:
    """Return a reader of a loader's dataset, without the loader's order.

    Args:
        loader: a loader of a map-style dataset; its collate function and workers are used.
        keys: names of the parts of dicts.
        transform: function from an image to a tensor.

    Returns:
        A reader with at most as many workers as there are processor cores.

    >>> pairs = torch.utils.data.TensorDataset(torch.arange(4.0)[:, None], torch.arange(4))
    >>> reader = reader_of(DataLoader(pairs, batch_size=2, shuffle=True), {}, None)
    >>> [numbers for numbers, _, _ in reader.read([0, 1, 2, 3], 3)]
    [[0, 1, 2], [3]]
    """
    defaults = (torch.utils.data.default_collate, torch.utils.data.default_convert)
    collate = None if loader.collate_fn in defaults else loader.collate_fn
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return IndexedReader(
        loader.dataset, keys, transform, collate, min(loader.num_workers, cores),
        loader.worker_init_fn, loader.multiprocessing_context if loader.num_workers else None,
    )  # fmt: skip


def one_worker(loader: DataLoader) -> DataLoader:
    """Return a loader of a stream that reads with at most one worker process.

    Several workers would each read the whole stream, unless its dataset divides it among them.

    Args:
        loader: the user's loader.

    Returns:
        The loader itself if it has at most one worker or its dataset has a length.

    >>> class Stream(torch.utils.data.IterableDataset):
    ...     def __iter__(self):
    ...         yield from range(3)
    >>> one_worker(DataLoader(Stream(), num_workers=2)).num_workers
    1
    """
    if loader.num_workers < 2 or not isinstance(loader.dataset, IterableDataset):
        return loader
    return DataLoader(
        loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn, num_workers=1,
        worker_init_fn=loader.worker_init_fn, generator=loader.generator, timeout=loader.timeout,
        multiprocessing_context=loader.multiprocessing_context,
    )  # fmt: skip


def numbers_of(loader: DataLoader) -> list[int]:
    """Return the numbers of a loader's examples, in the dataset's order.

    Args:
        loader: a loader of a map-style dataset.

    Returns:
        All numbers for a plain or shuffled loader; for another sampler, those that it draws.

    >>> sampler = torch.utils.data.SubsetRandomSampler([2, 0])
    >>> numbers_of(DataLoader(["a", "b", "c"], sampler=sampler))
    [0, 2]
    """
    total = len(loader.dataset)  # pyright: ignore[reportArgumentType], a map-style dataset
    sampler, grouped = loader.sampler, loader.batch_sampler
    if grouped is None and isinstance(sampler, BatchSampler):
        sampler, grouped = sampler.sampler, sampler
    if grouped is None or type(grouped) is BatchSampler:
        shuffled = isinstance(sampler, RandomSampler) and sampler._num_samples is None
        if shuffled or isinstance(sampler, SequentialSampler):
            return list(range(total))
        drawn: Iterable[Any] = sampler
    else:
        drawn = (number for group in grouped for number in group)
    with seeded(0, "audit/sampler"):
        # A sampler can be infinite.
        numbers = [int(number) for number, _ in zip(drawn, range(total), strict=False)]
    return sorted(set(numbers))
