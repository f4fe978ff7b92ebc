"""Sets of examples as they were read, before their labels are numbered alike.

A set is read once in a fixed order and kept in memory where it fits. Examples that can't be read or
hold non-finite values are left out, and a note says how many. What a dataset draws at random is the
same in each pass.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contam.batch import Batch, Domain
from contam.data.images import FolderDomain
from contam.inputs.indexed import CHUNK, DatasetDomain, IndexedReader, Unreadable
from contam.inputs.lazy_files import MAX_BYTES, FileDecoder, LazyFolderDomain
from contam.inputs.parts import (
    Parts,
    as_domains,
    as_input,
    as_inputs,
    as_labels,
    is_single,
    parts,
)
from contam.inputs.pixel_range import PixelRange, Transform, pixel_range_of
from contam.rng import seeded

Column = Tensor | list[str]
"""Numbers or names, one for each example."""
MakeDomain = Callable[[Tensor, Tensor, PixelRange | None], Domain]
"""Makes a domain from labels, domain indices, and the pixel range of the inputs."""


@dataclass
class RawSet:
    """A set of examples as it was read."""

    name: str
    y: Column
    make_domain: MakeDomain
    shape: tuple[int, ...]
    """Of one input."""
    numbers: Tensor
    """The examples' positions in what was given, without those that were left out."""
    classes: tuple[str, ...] | None = None
    origin: Column | None = None
    background: Column | None = None
    masks: Tensor | None = None
    low: Tensor | None = None
    """Smallest value of each channel; None for inputs that are no pictures."""
    high: Tensor | None = None
    total: int = 0
    """Examples that were given."""
    files: tuple[Path, ...] = ()
    root: Path | None = None
    transform: Transform | None = None
    notes: list[str] = field(default_factory=list)
    """What was left out when the set was read, in sentences."""
    budget_note: str = ""
    decoder: FileDecoder | None = None
    """Decodes the files of a set that is read when it is first shown."""

    def __len__(self) -> int:
        return len(self.y)

    def left_out(self) -> list[str]:
        """What was left out so far, when the set was read and while files were decoded."""
        return [*self.notes, *(self.decoder.notes if self.decoder else [])]

    def all_notes(self) -> list[str]:
        """What was left out, and how many examples the budget allowed."""
        return [*self.left_out(), *([self.budget_note] if self.budget_note else [])]

    def refuse_left_out(self) -> None:
        """Raise if something was left out, or when a file can't be decoded later.

        Raises:
            ValueError: an example can't be read or holds non-finite values.
        """
        if self.left_out():
            raise ValueError(self.left_out()[0])
        if self.decoder is not None:
            self.decoder.strict = True

    def read_positions(self) -> Tensor:
        """(n,) rows of this set that are in the domain, once all files were decoded."""
        if self.decoder is None:
            return torch.arange(len(self))
        self.decoder.read_all()
        return self.decoder.positions


class RawSetBuilder:
    """Collects batches of examples; leaves out non-finite inputs."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] | None = []
        self.bytes = 0
        self.columns: dict[str, list[Any]] = {name: [] for name in Parts._fields[1:]}
        self.numbers: list[int] = []
        self.unreadable: list[Unreadable] = []
        self.shape: tuple[int, ...] | None = None
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def add(self, numbers: Sequence[int], batch: Parts) -> None:
        """Add a batch of examples with these numbers.

        Raises:
            ValueError: inputs and labels don't fit together, or inputs differ in shape.
        """
        x, y = as_inputs(batch.x), as_labels(batch.y)
        if x.ndim < 2 or len(x) != len(y) or len(x) != len(numbers):
            raise ValueError(
                f"a batch has inputs of shape {tuple(x.shape)} and {len(y)} labels; want one label "
                "for each input"
            )
        if self.shape not in (None, tuple(x.shape[1:])):
            raise ValueError(
                f"inputs have the shape {self.shape}, and then {tuple(x.shape[1:])}; want one "
                "shape, so resize them in the transform"
            )
        self.shape = tuple(x.shape[1:])
        finite = x.flatten(1).isfinite().all(1).tolist()
        if not all(finite):
            bad = [n for n, fine in zip(numbers, finite, strict=True) if not fine]
            self.unreadable += [Unreadable(n, "holds values that are not finite") for n in bad]
        kept = [i for i, fine in enumerate(finite) if fine]
        x = x[kept]
        if not len(x):
            return
        self.numbers += [numbers[i] for i in kept]
        self._widen(x)
        columns = {
            "y": y, "domain": as_domains(batch.domain),
            "background": None if batch.background is None else as_labels(batch.background),
            "mask": None if batch.mask is None else as_inputs(batch.mask),
        }  # fmt: skip
        for name, values in columns.items():
            if values is not None:
                self.columns[name] += [values[i] for i in kept]
        self.bytes += x.numel() * x.element_size()
        if self.inputs is not None:
            self.inputs.append(x)

    def _widen(self, x: Tensor) -> None:
        """Widen the range of values by these inputs."""
        if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point():
            return
        low, high = x.amin((0, 2, 3)), x.amax((0, 2, 3))
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    def column(self, name: str) -> Column | None:
        """A column, if every example has it."""
        values = self.columns[name]
        if not values or len(values) != len(self.numbers):
            return None
        return values if isinstance(values[0], str) else torch.stack(values)

    def build(self, name: str, make_domain: MakeDomain, total: int) -> RawSet:
        """The set of all examples so far.

        Raises:
            ValueError: there is none.
        """
        if not self.numbers:
            reason = "it is empty"
            if self.unreadable:
                reason = f"none could be read; the first {self.unreadable[0].reason}"
            raise ValueError(f"{name!r} has no examples: {reason}")
        y, masks = self.column("y"), self.column("mask")
        assert y is not None and self.shape is not None
        notes = []
        if self.unreadable:
            first = self.unreadable[0]
            notes.append(
                f"{len(self.unreadable)} of {total} examples of {name!r} were left out; the first, "
                f"number {first.index}, {first.reason}."
            )
        return RawSet(
            name, y, make_domain, self.shape, torch.tensor(self.numbers), None,
            self.column("domain"), self.column("background"),
            masks if isinstance(masks, Tensor) else None,
            self.low, self.high, total, notes=notes,
        )  # fmt: skip


def in_memory(name: str, inputs: Sequence[Tensor]) -> MakeDomain:
    """A maker of domains that keep their inputs in memory."""

    def make_domain(y: Tensor, origin: Tensor, pixel_range: PixelRange | None) -> Domain:
        shown = inputs if pixel_range is None else [pixel_range.pictures(x) for x in inputs]
        return Domain(name, Batch(torch.cat(list(shown)), y, origin))

    return make_domain


def read_numbered(name: str, reader: IndexedReader, numbers: Sequence[int]) -> RawSet:
    """Read the examples of a map-style dataset that have these numbers.

    Raises:
        ValueError: no example can be read, or they don't belong together.
    """
    builder = RawSetBuilder()
    for kept, batch, unreadable in reader.read(numbers, CHUNK):
        builder.unreadable += unreadable
        if batch is not None:
            builder.add(kept, batch)
        if builder.bytes > MAX_BYTES:
            builder.inputs = None

    def make_domain(y: Tensor, origin: Tensor, pixel_range: PixelRange | None) -> Domain:
        if builder.inputs is not None:
            return in_memory(name, builder.inputs)(y, origin, pixel_range)
        return DatasetDomain(name, reader, torch.tensor(builder.numbers), y, origin, pixel_range)

    return builder.build(name, make_domain, len(numbers))


def read_batches(
    name: str,
    batches: Iterable[Any],
    keys: Mapping[str, str],
    transform: Transform | None,
    limit: int | None = None,
) -> RawSet:
    """Read a set that comes in batches or one by one, until memory is full.

    Args:
        name: what messages call the set.
        batches: batches or single examples, in any form of `parts`.
        keys: names of the parts of dicts.
        transform: from an image to a tensor.
        limit: examples after which no further batch is read.

    Raises:
        ValueError: nothing comes, or what comes is no set of examples.
    """
    builder, notes, total = RawSetBuilder(), [], 0
    with seeded(0, "audit/batches"):
        iterator = iter(batches)
        while builder.bytes <= MAX_BYTES and (limit is None or total < limit):
            try:
                item = next(iterator)
            except StopIteration:
                break
            except Exception as error:  # the iterator is the user's; what came before is of use
                message = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                if not builder.numbers:
                    raise ValueError(f"{name!r} can't be read; it raised {message}") from error
                notes.append(
                    f"Only the first {total} examples of {name!r}, which raised {message}."
                )
                break
            batch = as_batch(parts(item, keys), transform)
            count = len(as_labels(batch.y))
            builder.add(range(total, total + count), batch)
            total += count
        else:
            if builder.bytes > MAX_BYTES:
                notes.append(
                    f"Only the first {total} examples of {name!r}: more don't fit in memory."
                )
    raw = builder.build(name, in_memory(name, builder.inputs or []), total)
    raw.notes += notes
    return raw


def as_batch(item: Parts, transform: Transform | None) -> Parts:
    """A batch of the parts of one example; a batch is returned unchanged."""
    if not is_single(item):
        return item
    mask = None if item.mask is None else as_input(item.mask, transform)[None]
    domain, background = (None if v is None else [v] for v in (item.domain, item.background))
    return Parts(as_input(item.x, transform)[None], [item.y], domain, background, mask)


def read_files(files: FolderDomain, root: Path | None = None) -> RawSet:
    """Image files whose labels are known, to be decoded when the domain is first shown.

    They are decoded now only if their transform does not say what it makes of black and white,
    because the range of their values has to be measured then.

    Raises:
        ValueError: no file can be read, or inputs differ in shape.
    """
    decoder = FileDecoder(files.name, files.files, files.transform, workers=files.workers)
    if pixel_range_of(files.transform) is None:
        decoder.read_all()
    elif next(decoder.read(range(len(files)), 1), None) is None:
        decoder.read_all()  # which says why there is none
    assert decoder.shape is not None

    def make_domain(y: Tensor, origin: Tensor, pixel_range: PixelRange | None) -> Domain:
        return LazyFolderDomain(decoder, y, origin, pixel_range)

    return RawSet(
        files.name, files.labels, make_domain, decoder.shape, torch.arange(len(files)),
        origin=files.origin, low=decoder.low, high=decoder.high, total=len(files),
        files=files.files, root=root, transform=files.transform, decoder=decoder,
    )  # fmt: skip
