"""The accepted forms of data, each with the function that reads it as a set."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from contam.batch import Domain, Shift
from contam.data.image_tree import ImageTree, image_tree, unlabeled_tree
from contam.data.images import FolderDomain, pixels, read
from contam.inputs.image_conversion import change_notes
from contam.inputs.image_sizes import one_size
from contam.inputs.indexed import IndexedReader, numbers_of, one_worker, reader_of
from contam.inputs.labels import choose_domain
from contam.inputs.lazy_files import LazyFolderDomain
from contam.inputs.parts import (
    KEYS,
    Parts,
    as_labels,
    as_masks,
    converted_inputs,
    parts,
    pick,
    some_of,
)
from contam.inputs.pixel_range import PixelRange, Transform
from contam.inputs.table_files import ImageTable, table_of
from contam.inputs.tables import RawSet, read_batches, read_files, read_numbered
from contam.inputs.unlabeled import without_labels
from contam.rng import generator_for

ACCEPTED = (
    "a folder, a table, a DataLoader, a Dataset, a Domain, a Shift, a pair (x, y) of tensors, or "
    "batches of (x, y)"
)
"""The accepted forms, for messages."""


READ_PER_KEPT = 20
"""How many examples of a stream are read, at most, for each one that the budget keeps."""


@dataclass(frozen=True)
class Options:
    """Options for reading data."""

    transform: Transform | None = None
    """Function from an image to the network's input; by default pixels of one size."""
    classes: tuple[str, ...] | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    """Names of the parts of dicts that `KEYS` does not list."""
    budget: int | None = None
    """Maximum number of examples of a set; they are drawn at random."""
    seed: int = 0
    """Random seed of the budget's draw."""
    limit: int | None = None
    """Number of examples after which no further batch of a stream is read."""
    domain: str | int | None = None
    """Name or number of the metadata column that is the domain."""
    natural: bool = False
    """Whether class folders are sorted as timm sorts them."""
    outputs: int | None = None
    """Number of logits, if it is known."""
    one_size: Transform | None = None
    """Transform of image files where the user gives none; by default, each set has its own."""
    size: tuple[int, int] | None = None
    """Width and height that image files should have where there is no transform."""
    workers: int | None = None
    """Number of threads that decode image files, or of processes that read a dataset."""
    labeled: bool = True
    """Whether labels are read; otherwise they are ignored, and the label of all examples is 0."""

    @property
    def threads(self) -> int:
        """Number of threads that decode image files."""
        return 4 if self.workers is None else self.workers

    def __post_init__(self) -> None:
        if not isinstance(self.keys, Mapping):
            raise ValueError(
                f"keys= is a {type(self.keys).__name__}; expected a dict such as {{'x': 'scan'}}"
            )
        unknown = sorted(set(self.keys) - set(KEYS))
        if unknown:
            raise ValueError(f"keys= has {unknown[0]!r}; expected some of {list(KEYS)}")
        if isinstance(self.domain, str) and "domain" not in self.keys:
            object.__setattr__(self, "keys", {**self.keys, "domain": self.domain})


def named_sets(data: Any) -> list[tuple[str | None, Any]]:
    """Return one or several data sets with their names; a set without a name has None.

    Args:
        data: a data set, a list or a dict of data sets, a `Shift` (its OOD sets), or None. Several
            sets of tensors need a dict, because a list of pairs (x, y) is one set in batches.

    Returns:
        Pairs of name and data set.

    >>> named_sets({"sketch": "data/sketch"})
    [('sketch', 'data/sketch')]
    """
    if data is None or (isinstance(data, list | tuple) and not data):
        return []
    if isinstance(data, Shift):
        return [(None, domain) for domain in data.ood_tests]
    if isinstance(data, Mapping) and not _is_set(data):
        return [(str(name), value) for name, value in data.items()]
    several = isinstance(data, list | tuple) and not is_pair(data) and all(map(_is_set, data))
    # A list of pairs of tensors, or of dicts of them, is one set in batches.
    if several and not all(is_pair(part) or is_whole_dict(part) for part in data):
        return [(None, value) for value in data]
    return [(None, data)]


def _is_column(data: Any) -> bool:
    """Whether this is one value for each of several examples."""
    if isinstance(data, list):
        return not data or not (isinstance(data[0], Mapping) or is_pair(data[0]))
    return isinstance(data, Tensor | np.ndarray) or hasattr(data, "to_numpy")


def _is_set(data: Any) -> bool:
    """Whether something is a whole data set and not a batch."""
    if isinstance(data, Mapping):
        return hasattr(data, "column_names") or is_whole_dict(data)
    kinds = (str, Path, ImageTable, DataLoader, Domain, Shift, Dataset)
    if type(data).__name__ == "DataFrame":
        return True
    return isinstance(data, kinds) or is_pair(data) or hasattr(data, "column_names")


def is_pair(data: Any) -> TypeGuard[Sequence[Any]]:
    """Return whether this is (x, y) or (x, y, domain), each for all examples.

    >>> is_pair((torch.zeros(2, 3), [0, 1])), is_pair([(torch.zeros(3), 0), (torch.zeros(3), 1)])
    (True, False)
    """
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        return False
    x, y = data[:2]
    if isinstance(data, list):
        # A list of tensors can't be a list of batches.
        return isinstance(x, Tensor) and isinstance(y, Tensor)
    if isinstance(y, tuple) and hasattr(x, "shape") and len(x) == len(y):
        return True
    return (isinstance(x, Mapping) or (_is_column(x) and not isinstance(x, list))) and _is_column(y)


def is_indexed(data: Any) -> bool:
    """Return whether examples can be read by number.

    >>> is_indexed(torch.utils.data.TensorDataset(torch.zeros(2, 3))), is_indexed(iter([]))
    (True, False)
    """
    if isinstance(data, IterableDataset | list | tuple | Mapping):
        return False
    return hasattr(data, "__getitem__") and _has_length(data)


def _has_length(data: Any) -> bool:
    try:
        return len(data) >= 0
    except Exception:  # The class of the data is the user's.
        return False


def read_raw(name: str | None, data: Any, role: str, options: Options) -> RawSet:
    """Read a data set of any accepted form.

    Args:
        name: name of the set; by default that of the folder or `Domain`.
        data: the data set.
        role: name of a set that has no other.
        options: options for reading.

    Returns:
        The set with its labels unconverted.

    Raises:
        ValueError: the form is not accepted, or there is no readable example.

    >>> read_raw(None, (torch.zeros(2, 3), ["cat", "dog"]), "ID", Options()).y
    ['cat', 'dog']
    """
    if isinstance(data, Shift):
        data = data.id_test
    if not options.labeled:
        data = without_labels(data, options.keys)
    table = table_of(data)
    if table is not None:
        return _table(table, name, options)
    if isinstance(data, str | Path | ImageTree | Domain):
        return _named(data, name, options)
    name = name or role
    several = named_sets(data)
    if len(several) > 1:
        raise ValueError(
            f"{name!r} is {len(several)} sets; give one, such as their ConcatDataset, or their "
            "batches in one list"
        )
    if isinstance(data, Mapping) and hasattr(data, "column_names"):
        raise ValueError(
            f"{name!r} holds the splits {some_of(sorted(map(str, data)))}; give one of them"
        )
    if is_whole_dict(data) or is_pair(data):
        return _arrays(parts(data, options.keys), name, options)
    if isinstance(data, DataLoader) and is_indexed(data.dataset):
        reader = reader_of(data, options.keys, options.transform or pixels)
        reader = replace(reader, labeled=options.labeled)
        return _indexed(name, reader, numbers_of(data), options)
    if is_indexed(data):
        transform = options.transform or pixels
        reader = IndexedReader(
            data, options.keys, transform, workers=options.workers or 0, labeled=options.labeled
        )
        return _indexed(name, reader, list(range(len(data))), options)
    if isinstance(data, Iterable) and not isinstance(data, Mapping):
        return _streamed(data, name, options)
    if hasattr(data, "__getitem__") and not isinstance(data, Mapping):
        raise ValueError(
            f"{name!r} is a {type(data).__name__} without a length; give it __len__, or make it "
            "an IterableDataset"
        )
    raise ValueError(f"{name!r} is a {type(data).__name__}; expected {ACCEPTED}")


def check_used(
    sets: Sequence[Any],
    transform: Transform | None,
    keys: Mapping[str, str] | None,
    domain: str | int | None = None,
) -> None:
    """Raise an error if an option would have no effect on any of the data sets.

    Args:
        sets: the data sets.
        transform: the user's function from an image to the network's input.
        keys: the user's names of the parts of dicts.
        domain: the metadata column that is the domain.

    Raises:
        ValueError: all sets are tensors, and there is a transform; none has dicts, and there are
            keys; or all are folders, and there is a domain.

    >>> check_used([(torch.zeros(2, 3), [0, 1])], torch.relu, None)
    Traceback (most recent call last):
        ...
    ValueError: transform= is for images, and the sets are tensors; apply it to them before
    """
    pairs = [data for data in sets if is_pair(data) or type(data) is Domain]
    whole = [data for data in sets if is_whole_dict(data)]
    if transform is not None and len(pairs) + len(whole) == len(sets):
        raise ValueError(
            "transform= is for images, and the sets are tensors; apply it to them before"
        )
    if keys and len(pairs) == len(sets):
        raise ValueError(
            f"keys= names the parts of dicts such as {next(iter(keys.values()))!r}, and the sets "
            "are tensors (x, y); leave it out"
        )
    if domain is not None and all(
        isinstance(data, str | Path) and table_of(data) is None for data in sets
    ):
        raise ValueError(
            f"domain= {domain!r} names a column of metadata, and folders have none; leave it out "
            "(the domains of domain/class/image are the first folders)"
        )


def is_whole_dict(data: Any) -> TypeGuard[Mapping[str, Any]]:
    """Return whether this is a dict of inputs and labels, each for all examples.

    >>> is_whole_dict({"x": torch.zeros(2, 3), "y": [0, 1]}), is_whole_dict({"night": "images"})
    (True, False)
    """
    if not isinstance(data, Mapping) or hasattr(data, "column_names"):
        return False
    values = [v for v in data.values() if _is_column(v) or isinstance(v, tuple)]
    return len(values) > 1 and not all(map(is_pair, values))


def _named(data: str | Path | ImageTree | Domain, name: str | None, options: Options) -> RawSet:
    """Read a set that has a name of its own."""
    if isinstance(data, Domain):
        return _domain(data, name or data.name, options)
    return _folder(tree_of(data, name, options), name, options)


def _domain(data: Domain, name: str, options: Options) -> RawSet:
    raw = _of_domain(data, name, options)
    raw.classes = data.classes
    return raw


def _of_domain(data: Domain, name: str, options: Options) -> RawSet:
    if len(data) == 0:
        raise ValueError(f"{name!r} has no examples: it is empty")
    own_reader = True
    if isinstance(data, LazyFolderDomain) and data.pixel_range is None:
        decoder = data.decoder
        own_reader = decoder.reader is not None
        data = FolderDomain(
            data.name, decoder.files, data.labels, data.origins, decoder.transform,
            workers=decoder.workers, reader=decoder.reader or read,
        )  # fmt: skip
    if isinstance(data, FolderDomain):
        picked = data.pick(torch.arange(len(data)), name)
        return _files(picked, None, options, own_reader=own_reader)
    if type(data) is Domain:
        return _arrays(Parts(*data.data), name, options, declared=True)
    raw = read_batches(name, data.batches(64), options.keys, None)
    choose_domain(raw, None, declared=True)
    return _within_budget(raw, options)


def _streamed(data: Iterable[Any], name: str, options: Options) -> RawSet:
    """Read batches or examples that come one after another."""
    remarks = []
    if isinstance(data, DataLoader):
        if data.num_workers > 1:
            remarks.append(
                f"{name!r} is a stream, which {data.num_workers} workers can each read whole; it "
                "was read by one."
            )
        data = one_worker(data)
    if isinstance(data, Sequence):
        raw = read_batches(
            name, data, options.keys, options.transform, options.limit, labeled=options.labeled
        )
        raw = _within_budget(raw, options)
    else:
        limit = options.limit
        if limit is None and options.budget is not None:
            limit = READ_PER_KEPT * options.budget
        raw = read_batches(
            name, data, options.keys, options.transform, limit, budget=options.budget,
            seed=options.seed, labeled=options.labeled,
        )  # fmt: skip
    raw.remarks += remarks
    choose_domain(raw, options.domain)
    return raw


def _indexed(name: str, reader: IndexedReader, numbers: list[int], options: Options) -> RawSet:
    if not numbers:
        raise ValueError(f"{name!r} has no examples: it is empty")
    kept = _drawn(len(numbers), name, options)
    raw = read_numbered(name, reader, [numbers[i] for i in kept.tolist()])
    choose_domain(raw, options.domain)
    raw.classes = classes_of(reader.dataset, options.keys)
    _note_budget(raw, len(numbers), options)
    raw.total = len(reader.dataset)
    return raw


def classes_of(dataset: Any, keys: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the class names of a dataset: torchvision's `classes`, or those of a column.

    Args:
        dataset: any dataset, or a part of one.
        keys: names of the parts of dicts.

    >>> dataset = torch.utils.data.TensorDataset(torch.zeros(2, 3))
    >>> dataset.classes = ["cat", "dog"]
    >>> classes_of(torch.utils.data.Subset(dataset, [0]), {})
    ('cat', 'dog')
    """
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    features = getattr(dataset, "features", None)
    if names is None and isinstance(features, Mapping):
        column = keys.get("y") or next((k for k in ("label", "labels") if k in features), None)
        names = getattr(features.get(column), "names", None)
    if not isinstance(names, Sequence) or isinstance(names, str) or len(names) < 2:
        return None
    return tuple(map(str, names))


def _arrays(data: Parts, name: str, options: Options, *, declared: bool = False) -> RawSet:
    """Read a set that is in memory; `declared` metadata are known to be domains."""
    (x, change), y = converted_inputs(data.x), as_labels(data.y)
    mask = None if data.mask is None else as_masks(data.mask)
    beside = [data.domain, data.background, mask]
    beside = [c.to_numpy() if hasattr(c, "to_numpy") else c for c in beside]
    if len(x) != len(y) or any(c is not None and len(c) != len(x) for c in beside):
        raise ValueError(
            f"{name!r} has {len(x)} inputs and {len(y)} labels; every example needs one of each"
        )
    if len(x) == 0:
        raise ValueError(f"{name!r} has no examples: it is empty")
    chunks = (slice(start, start + 64) for start in range(0, len(x), 64))
    batches = ({"x": x[c], "y": y[c], **{
        part: column[c] for part, column in zip(("domain", "background", "mask"), beside,
                                                strict=True) if column is not None
    }} for c in chunks)  # fmt: skip
    raw = read_batches(name, batches, {}, None)
    raw.remarks = [*change_notes(name, [change] * len(x), len(x)), *raw.remarks]
    choose_domain(raw, options.domain, declared=declared)
    return _within_budget(raw, options)


def tree_of(data: str | Path | ImageTree, name: str | None, options: Options) -> ImageTree:
    """Return the images of a folder with their labels, if these are read; no file is opened.

    Args:
        data: the folder.
        name: name of the set in notes.
        options: options for reading.

    Raises:
        ValueError: as for `contam.data.image_tree.image_tree`.

    >>> for name in ("cat", "dog"):
    ...     Path("pair", name).mkdir(parents=True)
    ...     Path("pair", name, "0.png").touch()
    >>> tree_of("pair", None, Options()).classes
    ('cat', 'dog')
    """
    if isinstance(data, ImageTree):
        return data
    if not options.labeled:
        return unlabeled_tree(Path(data), name=name)
    return image_tree(
        Path(data), name=name, classes=options.classes, natural=options.natural,
        outputs=options.outputs,
    )  # fmt: skip


def _folder(tree: ImageTree, name: str | None, options: Options) -> RawSet:
    """Read a tree root/class/image or root/domain/class/image."""
    name, root = name or tree.root.name, tree.root
    transform, notes = options.transform or options.one_size, [[]]
    if transform is None:
        transform, notes = one_size([(name, root, tree.files)])
    raw = _files(
        FolderDomain(
            name, tree.files, tree.labels, tree.origins, transform, workers=options.threads
        ), root, options,
    )  # fmt: skip
    raw.classes = tree.classes
    assert isinstance(raw.origin, Tensor)
    names = tree.domains
    raw.origin = [names[i] for i in raw.origin.tolist()] if len(names) > 1 else None
    raw.remarks = [*tree.notes, *notes[0], *raw.remarks]
    return raw


def _table(table: ImageTable, name: str | None, options: Options) -> RawSet:
    """Read the images of a table."""
    rows = table.rows(options.keys, options.classes, labeled=options.labeled)
    name = name or table.name
    transform, sizes = options.transform or options.one_size, [[]]
    if transform is None:
        transform, sizes = one_size([(name, rows.root, rows.files)], options.size)
    none = torch.zeros(len(rows.files), dtype=torch.int64)
    domain = FolderDomain(name, rows.files, none, none, transform, workers=options.threads)
    raw = _files(domain, rows.root, options)
    columns = (pick(column, raw.numbers) for column in (rows.y, rows.domain, rows.background))
    raw.y, groups, raw.background = columns
    if groups is not None:
        named = table.domain is not None or "domain" in options.keys
        raw.groupings = {rows.domain_column: groups}
        choose_domain(raw, None, declared=named)
    raw.groupings |= {name: pick(column, raw.numbers) for name, column in rows.others.items()}
    raw.notes += rows.notes
    raw.remarks += sizes[0]
    return raw


def _drawn(count: int, name: str, options: Options) -> Tensor:
    """Draw the examples within the budget, in increasing order."""
    if options.budget is None or options.budget >= count:
        return torch.arange(count)
    drawn = torch.randperm(count, generator=generator_for(options.seed, f"audit/budget of {name}"))
    return drawn[: options.budget].sort().values


def _files(
    domain: FolderDomain, root: Path | None, options: Options, *, own_reader: bool = False
) -> RawSet:
    """Read the files within the budget."""
    kept = _drawn(len(domain), domain.name, options)
    raw = read_files(domain.pick(kept), root, own_reader=own_reader)
    raw.numbers, raw.total = kept[raw.numbers], len(domain)
    _note_budget(raw, len(domain), options)
    return raw


def _note_budget(raw: RawSet, count: int, options: Options) -> None:
    if options.budget is not None and options.budget < count:
        raw.remarks.append(
            f"Of {count} examples of {raw.name!r}, {options.budget} were drawn (budget)."
        )


def _within_budget(raw: RawSet, options: Options) -> RawSet:
    """Return the part of a set in memory that is within the budget."""
    count = len(raw)
    kept = _drawn(count, raw.name, options)
    if len(kept) == count:
        return raw
    make_whole = raw.make_domain

    def make_domain(y: Tensor, origin: Tensor, pixel_range: PixelRange | None) -> Domain:
        whole = make_whole(torch.zeros(count).long(), torch.zeros(count).long(), pixel_range)
        return Domain(raw.name, whole.data.pick(kept)._replace(y=y, domain=origin))

    part = replace(
        raw, make_domain=make_domain, numbers=raw.numbers[kept], y=pick(raw.y, kept),
        origin=pick(raw.origin, kept), remarks=list(raw.remarks),
        background=pick(raw.background, kept), masks=pick(raw.masks, kept),
        groupings={name: pick(column, kept) for name, column in raw.groupings.items()},
    )  # fmt: skip
    _note_budget(part, count, options)
    return part
