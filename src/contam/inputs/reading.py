"""Sets of examples, read once in an order that does not change: kept in memory where they fit.

What can't be read is left out and told of. A dataset that is too large for memory is read again in
each pass; what it draws at random is then the same in each.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contam.batch import Batch, Domain
from contam.data.images import FolderDomain
from contam.inputs.indexed import TOGETHER, DatasetDomain, Lost, Reader
from contam.inputs.parts import Parts, as_domains, as_input, as_inputs, as_labels, parts
from contam.inputs.pixel_range import PixelRange, Transform
from contam.rng import seeded

HELD = 2**29
"""Bytes of inputs up to which a set is kept in memory."""
Names = Tensor | list[str]


@dataclass
class Table:
    """A set of examples as it was read."""

    name: str
    y: Names
    made: Callable[[Tensor, Tensor, PixelRange | None], Domain]
    """The domain, given labels, domain indices and the span of its inputs."""
    shape: tuple[int, ...]
    """Of one input."""
    numbers: Tensor
    """The examples' places in what was given, without those that were left out."""
    classes: tuple[str, ...] | None = None
    origin: Names | None = None
    background: Names | None = None
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

    def __len__(self) -> int:
        return len(self.y)


class Rows:
    """What is known of the examples so far; non-finite inputs are left out."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] | None = []
        self.bytes = 0
        self.beside: dict[str, list[Any]] = {name: [] for name in Parts._fields[1:]}
        self.numbers: list[int] = []
        self.lost: list[Lost] = []
        self.shape: tuple[int, ...] | None = None
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def add(self, numbers: Sequence[int], some: Parts) -> None:
        x, y = as_inputs(some.x), as_labels(some.y)
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
            self.lost += [Lost(n, "holds values that are not finite") for n in bad]
        kept = [i for i, fine in enumerate(finite) if fine]
        x = x[kept]
        if not len(x):
            return
        self.numbers += [numbers[i] for i in kept]
        self._widen(x)
        beside = {
            "y": y, "domain": as_domains(some.domain),
            "background": None if some.background is None else as_labels(some.background),
            "mask": None if some.mask is None else as_inputs(some.mask),
        }  # fmt: skip
        for name, values in beside.items():
            if values is not None:
                picked = [values[i] for i in kept]
                self.beside[name] += picked
        self.bytes += x.numel() * x.element_size()
        if self.inputs is not None:
            self.inputs.append(x)

    def _widen(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point():
            return
        low, high = x.amin((0, 2, 3)), x.amax((0, 2, 3))
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    def column(self, name: str) -> Names | None:
        """A column that every example has."""
        values = self.beside[name]
        if not values or len(values) != len(self.numbers):
            return None
        return values if isinstance(values[0], str) else torch.stack(values)

    def table(self, name: str, made: Callable[..., Domain], total: int) -> Table:
        """All that was read, once at least one example was."""
        if not self.numbers:
            told = (
                f"none could be read; the first {self.lost[0].why}" if self.lost else "it is empty"
            )
            raise ValueError(f"{name!r} has no examples: {told}")
        y, masks = self.column("y"), self.column("mask")
        assert y is not None and self.shape is not None
        notes = []
        if self.lost:
            first = self.lost[0]
            notes.append(
                f"{len(self.lost)} of {total} examples of {name!r} were left out; the first, "
                f"number {first.number}, {first.why}."
            )
        return Table(
            name, y, made, self.shape, torch.tensor(self.numbers), None, self.column("domain"),
            self.column("background"), masks if isinstance(masks, Tensor) else None,
            self.low, self.high, total, notes=notes,
        )  # fmt: skip


def in_memory(
    name: str, inputs: Sequence[Tensor]
) -> Callable[[Tensor, Tensor, PixelRange | None], Domain]:
    """How a domain of inputs that are kept is made."""

    def made(y: Tensor, origin: Tensor, span: PixelRange | None) -> Domain:
        shown = inputs if span is None else [span.pictures(some) for some in inputs]
        return Domain(name, Batch(torch.cat(list(shown)), y, origin))

    return made


def read_numbered(name: str, reader: Reader, numbers: Sequence[int], total: int) -> Table:
    """A set that is indexed by number, read once.

    Raises:
        ValueError: no example can be read, or they don't belong together.
    """
    rows = Rows()
    for kept, some, lost in reader.read(numbers, TOGETHER):
        rows.lost += lost
        if some is not None:
            rows.add(kept, some)
        if rows.bytes > HELD:
            rows.inputs = None

    def made(y: Tensor, origin: Tensor, span: PixelRange | None) -> Domain:
        if rows.inputs is not None:
            return in_memory(name, rows.inputs)(y, origin, span)
        return DatasetDomain(name, reader, torch.tensor(rows.numbers), y, origin, span)

    return rows.table(name, made, len(numbers))


def read_batches(
    name: str, batches: Iterable[Any], keys: Mapping[str, str], transform: Transform | None
) -> Table:
    """A set that comes in batches or one by one, kept in memory as far as that goes.

    Raises:
        ValueError: nothing comes, or what comes is no set of examples.
    """
    rows, notes, total = Rows(), [], 0
    with seeded(0, "audit/batches"):
        given = iter(batches)
        while rows.bytes <= HELD:
            try:
                item = next(given)
            except StopIteration:
                break
            except Exception as error:  # anybody's code; what came before it is of use
                told = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                if not rows.numbers:
                    raise ValueError(f"{name!r} can't be read; it raised {told}") from error
                notes.append(f"Only the first {total} examples of {name!r}, which raised {told}.")
                break
            found = parts(item, keys)
            if _single(found):
                mask = None if found.mask is None else as_input(found.mask, transform)[None]
                domain, background = (
                    None if v is None else [v] for v in (found.domain, found.background)
                )
                found = Parts(
                    as_input(found.x, transform)[None], [found.y], domain, background, mask
                )
            count = len(as_labels(found.y))
            rows.add(range(total, total + count), found)
            total += count
        else:
            notes.append(f"Only the first {total} examples of {name!r}: more don't fit in memory.")
    table = rows.table(name, in_memory(name, rows.inputs or []), total)
    table.notes += notes
    return table


def _single(found: Parts) -> bool:
    """Whether these are the parts of one example."""
    return isinstance(found.y, str | int | float) or getattr(found.y, "ndim", 1) == 0


def read_files(domain: FolderDomain, root: Path | None = None) -> Table:
    """A domain of image files, without those that can't be read.

    Raises:
        ValueError: none can be read, or they differ in shape.
    """
    good = domain.readable()
    rows, at = Rows(), 0
    rows.lost = [Lost(domain.files.index(f), f"{f.name}, can't be read") for f in good.skipped]
    shown = {file: place for place, file in enumerate(domain.files)}
    places = [shown[file] for file in good.files]
    for batch in good.batches(TOGETHER):
        rows.add(places[at : at + len(batch.y)], Parts(batch.x, batch.y, batch.domain))
        at += len(batch.y)
        if rows.bytes > HELD:
            rows.inputs = None
    files = tuple(domain.files[number] for number in rows.numbers)

    def made(y: Tensor, origin: Tensor, span: PixelRange | None) -> Domain:
        if rows.inputs is not None:
            return in_memory(domain.name, rows.inputs)(y, origin, span)
        plain = domain.transform
        transform = plain if span is None else lambda image: span.pictures(plain(image))
        return FolderDomain(domain.name, files, y, origin, transform, workers=domain.workers)

    table = rows.table(domain.name, made, len(domain))
    table.files, table.root, table.transform = files, root, domain.transform
    return table
