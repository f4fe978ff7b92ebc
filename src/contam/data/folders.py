"""Trees of folders whose names are classes: as domains, as an OOD problem, and split in parts."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from contam.batch import Shift
from contam.data.images import FolderDomain, Transform
from contam.rng import generator_for

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Names that end so, in either case, are images; a folder's other files are passed over."""


def folders_in(root: Path) -> tuple[str, ...]:
    """The names of the folders in a folder, sorted; hidden ones are passed over.

    Raises:
        ValueError: there is no such folder.
    """
    if not Path(root).is_dir():
        raise ValueError(f"no folder {root}; give the one that holds the data set's folders")
    with os.scandir(root) as entries:
        return tuple(sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")))


def images_in(folder: Path) -> list[Path]:
    """The image files in a folder, sorted by name; hidden ones are passed over.

    Raises:
        ValueError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"no folder {folder}; it should hold images")
    with os.scandir(folder) as entries:
        names = sorted(
            e.name
            for e in entries
            if e.name.lower().endswith(SUFFIXES) and not e.name.startswith(".")
        )
    return [Path(folder) / name for name in names]


def classes_in(root: Path) -> tuple[str, ...]:
    """The class names of a tree `root/class/image`, sorted.

    Raises:
        ValueError: there is no such folder, or it holds no folder.
    """
    classes = folders_in(root)
    if not classes:
        raise ValueError(f"{root} holds no folders; wanted one folder of images for each class")
    return classes


def image_folder(
    root: Path,
    transform: Transform,
    *,
    name: str | None = None,
    index: int = 0,
    classes: Sequence[str] | None = None,
    workers: int = 4,
    skip_unreadable: bool = False,
) -> FolderDomain:
    """A tree `root/class/image` as a domain; classes are numbered in the order of `classes`.

    The order is that of the folders' names unless given. `skip_unreadable` reads every file once
    and leaves out those that can't be read; `skipped` of the domain names them.

    Source: ours, the layout that most tools share.

    Raises:
        ValueError: the folders are not those of the classes, or one has no image.
    """
    root = Path(root)
    found = classes_in(root)
    classes = found if classes is None else tuple(classes)
    if set(found) != set(classes):
        raise ValueError(_unlike(root, found, classes))
    files: list[Path] = []
    y: list[int] = []
    for label, folder in enumerate(classes):
        images = images_in(root / folder)
        if not images:
            raise ValueError(
                f"class {folder!r} in {root} has no images; put some there, or remove the folder"
            )
        files += images
        y += [label] * len(images)
    domain = FolderDomain(
        name or root.name, files, torch.tensor(y), index, transform, workers=workers
    )
    return domain.readable() if skip_unreadable else domain


def image_domains(
    root: Path, transform: Transform, *, workers: int = 4, skip_unreadable: bool = False
) -> tuple[tuple[str, ...], tuple[FolderDomain, ...]]:
    """The classes and the domains of a tree `root/domain/class/image`, both sorted by name.

    Raises:
        ValueError: there are no domains, their classes differ, or one has no image of a class.
    """
    names = classes_in(root)
    classes = classes_in(Path(root) / names[0])
    return classes, tuple(
        image_folder(
            Path(root) / name, transform, index=index, classes=classes,
            workers=workers, skip_unreadable=skip_unreadable,
        )
        for index, name in enumerate(names)
    )  # fmt: skip


def image_shift(
    train: Path,
    id_test: Path,
    ood_tests: Mapping[str, Path],
    transform: Transform,
    *,
    id_val: Path | None = None,
    name: str = "images",
    workers: int = 4,
    skip_unreadable: bool = False,
) -> Shift:
    """An OOD problem of trees `root/class/image`, all with the classes of `train`.

    Raises:
        ValueError: a tree is missing, lacks a class or an image of it, or has other classes.
    """
    classes = classes_in(train)
    numbers = iter(range(1, len(ood_tests) + 1))

    def domain(root: Path, title: str, index: int) -> FolderDomain:
        return image_folder(
            root, transform, name=title, index=index, classes=classes,
            workers=workers, skip_unreadable=skip_unreadable,
        )  # fmt: skip

    return Shift(
        name=name,
        classes=classes,
        train=(domain(train, "training", 0),),
        id_val=None if id_val is None else domain(id_val, "ID validation", 0),
        id_test=domain(id_test, "ID test", 0),
        ood_tests=tuple(domain(root, title, next(numbers)) for title, root in ood_tests.items()),
    )


def _unlike(root: Path, found: Sequence[str], classes: Sequence[str]) -> str:
    """What keeps a folder's classes from being those that are wanted."""
    lacks = sorted(set(classes) - set(found))
    more = sorted(set(found) - set(classes))
    faults = [f"lacks {_some(lacks)}"] if lacks else []
    faults += [f"also has {_some(more)}"] if more else []
    return f"{root} {' and '.join(faults)}; all trees need the same {len(classes)} classes"


def _some(names: Sequence[str], most: int = 5) -> str:
    told = ", ".join(map(repr, names[:most]))
    return told if len(names) <= most else f"{told} and {len(names) - most} more"


def merged(name: str, domains: Sequence[FolderDomain]) -> FolderDomain:
    """Several domains read as one, with the first one's transform; each image keeps its origin."""
    first = domains[0]
    return FolderDomain(
        name,
        [path for domain in domains for path in domain.files],
        torch.cat([domain.y for domain in domains]),
        torch.cat([domain.origin for domain in domains]),
        first.transform,
        workers=first.workers,
        skipped=tuple(path for domain in domains for path in domain.skipped),
    )


def parted(domain: FolderDomain, shares: Sequence[float], *, seed: int) -> list[FolderDomain]:
    """Disjoint random parts of a domain; what the shares leave goes to one more part, the last.

    The draw depends on the seed, the domain's name and its size, and on nothing else.
    """
    order = torch.randperm(
        len(domain), generator=generator_for(seed, f"images/parts of {domain.name}")
    )
    sizes = [int(share * len(domain)) for share in shares]
    sizes.append(len(domain) - sum(sizes))
    # In the folder's order, so that neighbors on disk are read as neighbors.
    return [domain.pick(part.sort().values) for part in order.split(sizes)]


def leave_one_out(
    name: str,
    classes: tuple[str, ...],
    domains: Sequence[FolderDomain],
    ood: str,
    *,
    seed: int = 0,
    third: bool = True,
) -> Shift:
    """Learn on all domains but one, and be judged on all of that one.

    As DomainBed does, 80 % of each other domain is for training. DomainBed selects and reports on
    the remaining 20 % alike; here one half of it is `id_val` and the other `id_test`, so that the
    ID test took no part in the selection. `third=False` gives both the whole of it.

    Source: App. E.4; Gulrajani & Lopez-Paz (2021). The third part is ours.

    Raises:
        ValueError: there is no such domain to leave out, or no other to learn on.
    """
    names = [domain.name for domain in domains]
    if ood not in names or len(names) < 2:
        near = difflib.get_close_matches(ood, names, n=3) or names
        raise ValueError(f"no domain {ood!r} to leave out beside others; choose from {near}")
    held = next(domain for domain in domains if domain.name == ood)
    shares = (0.8, 0.1) if third else (0.8,)
    parts = [parted(domain, shares, seed=seed) for domain in domains if domain is not held]
    return Shift(
        name=f"{name}, {ood} left out",
        classes=classes,
        train=tuple(part[0] for part in parts),
        id_val=merged("ID validation", [part[1] for part in parts]),
        id_test=merged("ID test", [part[-1] for part in parts]),
        ood_tests=(held,),
    )
