"""Sets of examples as they were read, before their labels are converted to common class indices.

A set is read once in a fixed order and kept in memory if it fits. Examples that can't be read or
contain non-finite values are left out with a note. Random draws of a dataset are the same in every
pass.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from contam.batch import Batch, Domain
from contam.data.images import FolderDomain
from contam.inputs.duplicates import fingerprints
from contam.inputs.image_conversion import change_notes
from contam.inputs.indexed import CHUNK, DatasetDomain, IndexedReader, Unreadable
from contam.inputs.lazy_files import MAX_BYTES, FileDecoder, LazyFolderDomain
from contam.inputs.parts import (
    Parts,
    as_input,
    as_labels,
    as_masks,
    converted_input,
    converted_inputs,
    groupings,
    is_single,
    listed,
    parts,
)
from contam.inputs.pixel_range import PixelRange, Transform, pixel_range_of
from contam.inputs.unlabeled import input_parts
from contam.rng import generator_for, seeded

Column = Tensor | list[str]
"""One number or name per example."""
MAX_EXAMPLES = 2**20
"""Maximum number of examples that are read of a stream, which can be endless."""
SORTED = 50
"""How many times the limit is read of streams that are sorted by class."""
MakeDomain = Callable[[Tensor, Tensor, PixelRange | None], Domain]
"""Makes a domain from labels, domain indices, and the pixel range of the inputs."""


@dataclass
class RawSet:
    """A set of examples as it was read."""

    name: str
    y: Column
    make_domain: MakeDomain
    shape: tuple[int, ...]
    """Shape of one input."""
    numbers: Tensor
    """(n,) positions of the readable examples in the user's data."""
    classes: tuple[str, ...] | None = None
    origin: Column | None = None
    groupings: dict[str, Column] = field(default_factory=dict)
    """Columns of the metadata; `choose_domain` makes one of them the domain."""
    domain_column: str = ""
    """Name of the column that is the domain; empty if it has none."""
    background: Column | None = None
    masks: Tensor | None = None
    low: Tensor | None = None
    """(channels,) smallest values; None for inputs other than images."""
    high: Tensor | None = None
    total: int = 0
    """Number of examples in the user's data."""
    files: tuple[Path, ...] = ()
    root: Path | None = None
    transform: Transform | None = None
    notes: list[str] = field(default_factory=list)
    """Sentences about what was left out when the set was read."""
    remarks: list[str] = field(default_factory=list)
    """Sentences about what was changed, guessed or drawn."""
    decoder: FileDecoder | None = None
    """Decoder of a set of files, which are read in the first pass."""

    def __len__(self) -> int:
        return len(self.y)

    def left_out(self) -> list[str]:
        """Return sentences about what was left out so far, including undecodable files."""
        return [*self.notes, *(self.decoder.left_out if self.decoder else [])]

    def refuse_left_out(self) -> None:
        """Raise if an example was left out; later, raise for a file that can't be decoded.

        Raises:
            ValueError: an example can't be read or contains non-finite values.
        """
        if self.left_out():
            raise ValueError(self.left_out()[0])
        if self.decoder is not None:
            self.decoder.strict = True

    def read_positions(self) -> Tensor:
        """Decode all files; return the (n,) rows of this set that are in the domain."""
        if self.decoder is None:
            return torch.arange(len(self))
        self.decoder.read_all()
        return self.decoder.positions


class ClassRuns:
    """Finds out whether labels come sorted by class.

    >>> runs = ClassRuns()
    >>> runs.add(["cat", "cat", "dog"])
    >>> runs.sorted
    True
    """

    def __init__(self) -> None:
        self._classes: set[Any] = set()
        self._last: Any = None
        self.sorted = True
        """Whether the examples of every class came one after another."""

    def add(self, labels: Iterable[Any]) -> None:
        """Add the labels of more examples."""
        for label in labels:
            if label != self._last and label in self._classes:
                self.sorted = False
            self._classes.add(label)
            self._last = label


class RawSetBuilder:
    """Collects batches of examples; leaves out non-finite inputs."""

    def __init__(self, grouping_names: Sequence[str] = ()) -> None:
        self.grouping_names = grouping_names
        self.inputs: list[Tensor] | None = []
        self.bytes = 0
        self.columns: dict[str, list[Any]] = {name: [] for name in ("y", "background", "mask")}
        self.groupings: dict[str, list[Any]] = {}
        self.changes: list[str] = []
        self.prints: list[Tensor] = []
        self.numbers: list[int] = []
        self.unreadable: list[Unreadable] = []
        self.shape: tuple[int, ...] | None = None
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def add(self, numbers: Sequence[int], batch: Parts) -> None:
        """Add a batch of examples.

        Args:
            numbers: positions of the examples in the user's data.
            batch: the parts of the examples.

        Raises:
            ValueError: the numbers of inputs and labels differ, or inputs differ in shape.
        """
        (x, change), y = converted_inputs(batch.x), as_labels(batch.y)
        if x.ndim < 2 or len(x) != len(y) or len(x) != len(numbers):
            raise ValueError(
                f"a batch has inputs of shape {tuple(x.shape)} and {len(y)} labels; expected one "
                "label for each input"
            )
        if self.shape not in (None, tuple(x.shape[1:])):
            raise ValueError(
                f"inputs have the shape {self.shape}, and then {tuple(x.shape[1:])}; expected one "
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
            "y": y,
            "background": None if batch.background is None else as_labels(batch.background),
            "mask": None if batch.mask is None else as_masks(batch.mask),
        }  # fmt: skip
        for name, values in columns.items():
            if values is not None:
                self.columns[name] += [values[i] for i in kept]
        for name, values in groupings(batch.domain, self.grouping_names).items():
            self.groupings.setdefault(name, []).extend(values[i] for i in kept)
        single = batch.change if isinstance(batch.change, list) else [change] * len(y)
        self.changes += [single[i] for i in kept]
        self.bytes += x.numel() * x.element_size()
        self.prints.append(fingerprints(x))
        if self.inputs is not None:
            self.inputs.append(x)

    def keep_smallest(self, places: Sequence[float], count: int) -> list[float]:
        """Keep the examples with the smallest of the given numbers, in the order they were read.

        Args:
            places: a number for each example so far.
            count: number of examples to keep.

        Returns:
            The numbers of the examples that were kept.
        """
        kept = torch.tensor(places).argsort()[:count].sort().values
        if self.inputs is not None:
            self.inputs = [torch.cat(self.inputs)[kept]]
            self.bytes = self.inputs[0].numel() * self.inputs[0].element_size()
        for columns in (self.columns, self.groupings):
            for name, values in columns.items():
                whole = len(values) == len(self.numbers)
                columns[name] = [values[i] for i in kept.tolist()] if whole else []
        self.changes = [self.changes[i] for i in kept.tolist()]
        self.numbers = [self.numbers[i] for i in kept.tolist()]
        return [places[i] for i in kept.tolist()]

    def _widen(self, x: Tensor) -> None:
        """Widen the range of values by these inputs."""
        if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point():
            return
        low, high = x.amin((0, 2, 3)), x.amax((0, 2, 3))
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    def column(self, name: str) -> Column | None:
        """Return a column, or None if an example lacks it."""
        return self._complete(self.columns[name])

    def _complete(self, values: list[Any]) -> Column | None:
        if not values or len(values) != len(self.numbers):
            return None
        return values if isinstance(values[0], str) else torch.stack(values)

    def build(self, name: str, make_domain: MakeDomain, total: int) -> RawSet:
        """Return the set of all examples so far.

        Args:
            name: name of the set.
            make_domain: makes its domain.
            total: number of examples in the user's data.

        Raises:
            ValueError: there is no example.
        """
        if not self.numbers:
            reason = "it is empty"
            if self.unreadable:
                reason = f"none could be read; the first, {self.unreadable[0]}"
            raise ValueError(f"{name!r} has no examples: {reason}")
        y, masks = self.column("y"), self.column("mask")
        assert y is not None and self.shape is not None
        notes = []
        if self.unreadable:
            first = self.unreadable[0]
            notes.append(
                f"{len(self.unreadable)} of {total} examples of {name!r} were left out; the first, "
                f"{first}."
            )
        columns = {name: self._complete(values) for name, values in self.groupings.items()}
        return RawSet(
            name, y, make_domain, self.shape, torch.tensor(self.numbers), None,
            background=self.column("background"),
            masks=masks if isinstance(masks, Tensor) else None,
            low=self.low, high=self.high, total=total, notes=notes,
            remarks=change_notes(name, self.changes, total),
            groupings={name: c for name, c in columns.items() if c is not None},
        )  # fmt: skip


def in_memory(name: str, inputs: Sequence[Tensor]) -> MakeDomain:
    """Return a function that makes a domain with its inputs in memory.

    Args:
        name: name of the domain.
        inputs: (n, ...) batches of inputs.

    >>> make_domain = in_memory("ID", [torch.zeros(1, 2), torch.ones(1, 2)])
    >>> make_domain(torch.tensor([0, 1]), torch.tensor([0, 0]), None).data.x.tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """

    def make_domain(y: Tensor, origin: Tensor, pixel_range: PixelRange | None) -> Domain:
        shown = inputs if pixel_range is None else [pixel_range.pictures(x) for x in inputs]
        return Domain(name, Batch(torch.cat(list(shown)), y, origin))

    return make_domain


def _grouping_names(dataset: Any) -> Sequence[str]:
    """Return the names of the columns of metadata in a WILDS dataset or a part of one."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    names = getattr(dataset, "metadata_fields", None)
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


def read_numbered(name: str, reader: IndexedReader, numbers: Sequence[int]) -> RawSet:
    """Read examples of a map-style dataset.

    Args:
        name: name of the set.
        reader: reads the dataset.
        numbers: numbers of the examples.

    Returns:
        The set; its inputs are kept in memory up to `MAX_BYTES` and read again otherwise.

    Raises:
        ValueError: no example can be read, or examples differ in shape.

    >>> reader = IndexedReader([([0.5], "cat"), ([0.1], "dog")], {})
    >>> read_numbered("ID", reader, [1]).y
    ['dog']
    """
    builder = RawSetBuilder(_grouping_names(reader.dataset))
    for kept, batch, unreadable in reader.read(numbers, CHUNK):
        builder.unreadable += unreadable
        if batch is not None:
            builder.add(kept, batch)
        if builder.bytes > MAX_BYTES:
            builder.inputs = None

    def make_domain(y: Tensor, origin: Tensor, pixel_range: PixelRange | None) -> Domain:
        if builder.inputs is not None:
            return in_memory(name, builder.inputs)(y, origin, pixel_range)
        numbers, prints = torch.tensor(builder.numbers), torch.cat(builder.prints)
        return DatasetDomain(name, reader, numbers, y, origin, pixel_range, prints)

    return builder.build(name, make_domain, len(numbers))


def read_batches(
    name: str,
    batches: Iterable[Any],
    keys: Mapping[str, str],
    transform: Transform | None,
    limit: int | None = None,
    *,
    budget: int | None = None,
    seed: int = 0,
    labeled: bool = True,
) -> RawSet:
    """Read batches or single examples until the memory limit is reached.

    With a limit, reading stops there. If the labels come sorted by class until then, reading goes
    on, up to `SORTED` times the limit, so that more than the first classes are read.

    Args:
        name: name of the set, for messages.
        batches: batches or single examples, in any form of `parts`.
        keys: names of the parts of dicts.
        transform: function from an image to a tensor.
        limit: number of examples after which no further batch is read.
        budget: maximum number of examples to keep; they are drawn at random from those read.
        seed: random seed of the draw.
        labeled: whether there are labels; otherwise the label of all is 0.

    Returns:
        The set in memory; a note says if it is incomplete.

    Raises:
        ValueError: there is no readable example, or the form is not accepted.

    >>> read_batches("ID", [(torch.zeros(2, 3), [0, 1])] * 3, {}, None, limit=4).y
    tensor([0, 1, 0, 1])
    """
    builder, notes, total, runs = RawSetBuilder(), [], 0, ClassRuns()
    drawn = generator_for(seed, f"audit/budget of {name}")
    places: list[float] = []
    remarks: list[str] = []
    with seeded(0, "audit/batches"):
        iterator = iter(batches)
        while builder.bytes <= MAX_BYTES and total < MAX_EXAMPLES:
            if limit is not None and total >= limit * (SORTED if labeled and runs.sorted else 1):
                break
            try:
                item = next(iterator)
            except StopIteration:
                limit = None
                break
            except Exception as error:  # The iterator is the user's; keep the examples before.
                message = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                if not builder.numbers:
                    raise ValueError(f"{name!r} can't be read; it raised {message}") from error
                notes.append(
                    f"Only the first {total} examples of {name!r}, which raised {message}."
                )
                break
            if item is None:  # A collate function dropped all examples of a batch.
                remarks.append(f"Empty batches of {name!r} were passed over.")
                continue
            batch = as_batch(parts(item, keys) if labeled else input_parts(item, keys), transform)
            y = as_labels(batch.y)
            runs.add(listed(y))
            builder.add(range(total, total + len(y)), batch)
            total += len(y)
            if budget is not None:
                more = len(builder.numbers) - len(places)
                places += torch.rand(more, generator=drawn, dtype=torch.float64).tolist()
                if len(places) > 2 * budget:
                    places = builder.keep_smallest(places, budget)
        else:
            notes.append(
                f"Only the first {total} examples of {name!r}: more don't fit in memory. Give "
                "budget= to draw fewer."
            )
    if budget is not None and len(places) > budget:
        builder.keep_smallest(places, budget)
    if limit is not None or (budget is not None and total > budget):
        kept = f", and {budget} of them were drawn (budget)" if budget and total > budget else ""
        remarks.append(f"The first {total} examples of {name!r} were read{kept}.")
    raw = builder.build(name, in_memory(name, builder.inputs or []), total)
    raw.notes += notes
    raw.remarks += dict.fromkeys(remarks)
    return raw


def as_batch(item: Parts, transform: Transform | None) -> Parts:
    """Convert the parts of one example to a batch of one; a batch is returned unchanged.

    Args:
        item: the parts.
        transform: function from an image to a tensor.

    >>> as_batch(Parts([0.5, 0.1], 1), None).x.shape
    torch.Size([1, 2])
    """
    if not is_single(item):
        return item
    mask = None if item.mask is None else as_input(item.mask, transform)[None]
    domain, background = (None if v is None else [v] for v in (item.domain, item.background))
    x, change = converted_input(item.x, transform)
    return Parts(x[None], [item.y], domain, background, mask, [change])


def read_files(
    files: FolderDomain, root: Path | None = None, *, own_reader: bool = False
) -> RawSet:
    """Make a set of labeled image files that are decoded in the first pass.

    They are decoded at once only if `pixel_range_of` their transform is unknown, because then the
    range of their values has to be measured.

    Args:
        files: the files.
        root: root of their folder tree.
        own_reader: whether files are read as the domain reads them, and not as users' images.

    Returns:
        The set.

    Raises:
        ValueError: no file can be read, or inputs differ in shape.

    >>> from PIL import Image
    >>> from contam.data.images import pixels
    >>> Image.new("RGB", (4, 4)).save("cat.png")
    >>> zero = torch.zeros(1, dtype=torch.long)
    >>> read_files(FolderDomain("ID", [Path("cat.png")], zero, zero, pixels)).shape
    (3, 4, 4)
    """
    decoder = FileDecoder(
        files.name, files.files, files.transform, workers=files.workers,
        reader=files.reader if own_reader else None,
    )  # fmt: skip
    if pixel_range_of(files.transform) is None:
        decoder.read_all()
    elif next(decoder.read(range(len(files)), 1), None) is None:
        decoder.read_all()  # raises with the reason
    assert decoder.shape is not None

    def make_domain(y: Tensor, origin: Tensor, pixel_range: PixelRange | None) -> Domain:
        return LazyFolderDomain(decoder, y, origin, pixel_range)

    return RawSet(
        files.name, files.labels, make_domain, decoder.shape, torch.arange(len(files)),
        origin=files.origin, low=decoder.low, high=decoder.high, total=len(files),
        files=files.files, root=root, transform=files.transform, decoder=decoder,
    )  # fmt: skip
