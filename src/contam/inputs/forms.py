"""Data of any kind as a table of examples."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from contam.batch import Domain, Shift
from contam.data.folders import classes_in, folders_in, images_in
from contam.data.images import FolderDomain, centered, pixels
from contam.inputs.indexed import Reader, numbers_of, reader_of
from contam.inputs.parts import as_inputs, as_labels, pick, some_of
from contam.inputs.pixel_range import PixelRange, Transform
from contam.inputs.reading import (
    Table,
    read_batches,
    read_files,
    read_numbered,
)
from contam.rng import generator_for

KINDS = (
    "a folder, a DataLoader, a Dataset, a Domain, a Shift, a pair (x, y) of tensors, or batches "
    "of (x, y)"
)
"""What can be audited, in words."""


@dataclass(frozen=True)
class Options:
    """How data are read."""

    transform: Transform | None = None
    """From an image to what the network sees; where it is absent, pixels of one size."""
    classes: tuple[str, ...] | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    """Names of the parts of dicts, where they are unusual."""
    budget: int | None = None
    """Examples of a set that are looked at, at most."""
    seed: int = 0


def several(ood: Any) -> list[tuple[str | None, Any]]:
    """OOD sets with their names, where they have some; one set or none will do."""
    if ood is None:
        return []
    if isinstance(ood, Shift):
        return [(None, domain) for domain in ood.ood_tests]
    if isinstance(ood, Mapping) and not _is_set(ood):
        return [(str(name), data) for name, data in ood.items()]
    if isinstance(ood, list | tuple) and not _is_pair(ood) and all(map(_is_set, ood)):
        return [(None, data) for data in ood]
    return [(None, ood)]


def _is_set(data: Any) -> bool:
    """Whether something is a whole data set and not a batch."""
    if isinstance(data, Mapping):
        return hasattr(data, "column_names")
    kinds = (str, Path, DataLoader, Domain, Shift, torch.utils.data.Dataset)
    return isinstance(data, kinds) or _is_pair(data) or hasattr(data, "column_names")


def _is_pair(data: Any) -> TypeGuard[tuple[Any, ...]]:
    """Whether this is (x, y) or (x, y, domain), each for all examples."""
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        return False
    x, y = data[:2]
    return isinstance(x, Tensor | np.ndarray | Mapping) and isinstance(
        y, Tensor | np.ndarray | list
    )


def read_set(name: str | None, data: Any, role: str, options: Options) -> Table:
    """A data set of any kind as a table.

    Raises:
        ValueError: it is of no kind that is known, empty, or its examples can't be read.
    """
    if isinstance(data, Shift):
        data = data.id_test
    if isinstance(data, str | Path):
        return _folder(Path(data), name, options)
    if isinstance(data, Domain):
        return _domain(data, name or data.name, options)
    name = name or role
    if isinstance(data, Mapping) and hasattr(data, "column_names"):
        raise ValueError(
            f"{name!r} holds the splits {some_of(sorted(map(str, data)))}; give one of them"
        )
    if _is_pair(data):
        return _arrays(data, name, options)
    loader = data if isinstance(data, DataLoader) else None
    inner = data if loader is None else loader.dataset
    by_number = hasattr(inner, "__getitem__") and hasattr(inner, "__len__")
    if isinstance(data, list | tuple) or isinstance(inner, IterableDataset) or not by_number:
        if not isinstance(data, Iterable):
            raise ValueError(f"{name!r} is a {type(data).__name__}; want {KINDS}")
        return _picked(read_batches(name, data, options.keys, options.transform), options)
    transform = options.transform or pixels
    if loader is not None:
        reader = reader_of(loader, options.keys, transform)
        return _indexed(name, reader, numbers_of(loader), options)
    return _indexed(name, Reader(data, options.keys, transform), list(range(len(data))), options)


def _domain(data: Domain, name: str, options: Options) -> Table:
    if len(data) == 0:
        raise ValueError(f"{name!r} has no examples: it is empty")
    if isinstance(data, FolderDomain):
        return _files(data.pick(torch.arange(len(data)), name), None, options)
    if type(data) is Domain:
        return _arrays(tuple(data.data), name, options)
    return _picked(read_batches(name, data.batches(64), options.keys, None), options)


def _indexed(name: str, reader: Reader, numbers: list[int], options: Options) -> Table:
    if not numbers:
        raise ValueError(f"{name!r} has no examples: it is empty")
    kept = _budgeted(len(numbers), name, options)
    table = read_numbered(name, reader, [numbers[i] for i in kept.tolist()], len(numbers))
    table.classes = _classes_of(reader.dataset, options.keys)
    _say_budget(table, len(numbers), options)
    table.total = len(reader.dataset)
    return table


def _classes_of(dataset: Any, keys: Mapping[str, str]) -> tuple[str, ...] | None:
    """The class names that a dataset knows: torchvision's `classes`, or those of a column."""
    while isinstance(dataset, torch.utils.data.Subset):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    features = getattr(dataset, "features", None)
    if names is None and isinstance(features, Mapping):
        column = keys.get("y") or next((k for k in ("label", "labels") if k in features), None)
        names = getattr(features.get(column), "names", None)
    if not isinstance(names, Sequence) or isinstance(names, str) or len(names) < 2:
        return None
    return tuple(map(str, names))


def _arrays(data: tuple[Any, ...], name: str, options: Options) -> Table:
    """A set that is in memory already."""
    x, y, *rest = data
    x, y = as_inputs(x), as_labels(y)
    if len(x) != len(y) or (rest and rest[0] is not None and len(rest[0]) != len(x)):
        raise ValueError(
            f"{name!r} has {len(x)} inputs and {len(y)} labels; every example needs one of each"
        )
    if len(x) == 0:
        raise ValueError(f"{name!r} has no examples: it is empty")
    domain = rest[0] if rest else None
    step = range(0, len(x), 64)
    batches = (
        (x[i : i + 64], y[i : i + 64], None if domain is None else domain[i : i + 64]) for i in step
    )
    return _picked(read_batches(name, batches, {}, None), options)


def _folder(root: Path, name: str | None, options: Options) -> Table:
    """A tree root/class/image, or root/domain/class/image."""
    above = classes_in(root)
    # Where the folders of a tree hold folders and no images, they are domains.
    domains = [d for d in above if not images_in(root / d) and folders_in(root / d)]
    if len(domains) == len(above):
        trees = {domain: root / domain for domain in above}
    else:
        trees = {name or root.name: root}
    classes = options.classes or tuple(sorted({c for t in trees.values() for c in classes_in(t)}))
    files: list[Path] = []
    y: list[int] = []
    origin: list[str] = []
    for domain, tree in trees.items():
        strange = [each for each in classes_in(tree) if each not in classes]
        if strange:
            raise ValueError(
                f"{tree} has a folder {strange[0]!r}, which is none of the {len(classes)} classes "
                f"{some_of(classes)}; rename it, or give classes= in the order of the logits"
            )
        for label, folder in enumerate(classes):
            images = images_in(tree / folder) if (tree / folder).is_dir() else []
            files += images
            y += [label] * len(images)
            origin += [domain] * len(images)
    if not files:
        raise ValueError(f"{root} holds no images; want root/class/image")
    transform = options.transform or _one_size(files)
    number = {domain: index for index, domain in enumerate(trees)}
    found = FolderDomain(
        name or root.name, files, torch.tensor(y), torch.tensor([number[o] for o in origin]),
        transform,
    )  # fmt: skip
    table = _files(found, root, options)
    table.classes = classes
    if len(trees) > 1:
        assert isinstance(table.origin, Tensor)
        table.origin = [list(trees)[i] for i in table.origin.tolist()]
    else:
        table.origin = None
    return table


def _one_size(files: Sequence[Path]) -> Transform:
    """Pixels as they are where all images have one size; else the middle of 224."""
    sizes = set()
    for file in files:
        try:
            with Image.open(file) as image:  # reads its first bytes alone
                sizes.add(image.size)
        except OSError:  # told when it is read
            continue
        if len(sizes) > 1:
            return centered(224)
    return pixels


def _budgeted(count: int, name: str, options: Options) -> Tensor:
    """Which examples are looked at, in their order."""
    if options.budget is None or options.budget >= count:
        return torch.arange(count)
    drawn = torch.randperm(count, generator=generator_for(options.seed, f"audit/budget of {name}"))
    return drawn[: options.budget].sort().values


def _files(domain: FolderDomain, root: Path | None, options: Options) -> Table:
    """As many of the files as the budget allows."""
    kept = _budgeted(len(domain), domain.name, options)
    table = read_files(domain.pick(kept), root)
    table.numbers, table.total = kept[table.numbers], len(domain)
    _say_budget(table, len(domain), options)
    return table


def _say_budget(table: Table, count: int, options: Options) -> None:
    if options.budget is not None and options.budget < count:
        table.notes.append(
            f"Of {count} examples of {table.name!r}, {options.budget} were drawn (budget)."
        )


def _picked(table: Table, options: Options) -> Table:
    """The part of a table in memory that the budget allows."""
    kept = _budgeted(len(table), table.name, options)
    if len(kept) == len(table):
        return table
    whole = table.made

    def made(y: Tensor, origin: Tensor, span: PixelRange | None) -> Domain:
        every = whole(torch.zeros(count, dtype=torch.int64), torch.zeros(count).long(), span)
        return Domain(table.name, every.data.pick(kept)._replace(y=y, domain=origin))

    count = len(table)
    cut = replace(
        table, made=made, numbers=table.numbers[kept], y=pick(table.y, kept),
        origin=pick(table.origin, kept), background=pick(table.background, kept),
        masks=pick(table.masks, kept),
    )  # fmt: skip
    _say_budget(cut, count, options)
    return cut
