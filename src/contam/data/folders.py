"""Folders of published image sets, one per class, and their splits into OOD problems."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from contam.batch import Shift
from contam.data.images import FolderDomain, Transform
from contam.rng import generator_for

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".apng", ".bmp", ".gif", ".ppm", ".pgm",
    ".tif", ".tiff", ".webp", ".avif",
)  # fmt: skip
"""Suffixes of image files, in lower or upper case; other files are ignored."""


def folders_in(root: Path) -> tuple[str, ...]:
    """Return the sorted names of the folders in a folder, without hidden ones.

    Args:
        root: the folder.

    Raises:
        ValueError: the folder does not exist.

    >>> for name in ("photo", "art", ".cache"):
    ...     Path("styles", name).mkdir(parents=True)
    >>> folders_in(Path("styles"))
    ('art', 'photo')
    """
    if not Path(root).is_dir():
        raise ValueError(f"no folder {root}; give the folder that contains the data set's folders")
    with os.scandir(root) as entries:
        return tuple(sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")))


def images_in(folder: Path) -> list[Path]:
    """Return the image files in a folder, sorted by name, without hidden ones.

    Args:
        folder: the folder.

    Raises:
        ValueError: the folder does not exist.

    >>> for name in ("b.PNG", "a.jpg", "notes.txt"):
    ...     Path(name).touch()
    >>> [path.name for path in images_in(Path("."))]
    ['a.jpg', 'b.PNG']
    """
    if not Path(folder).is_dir():
        raise ValueError(f"no folder {folder}; it should contain images")
    with os.scandir(folder) as entries:
        names = sorted(
            e.name
            for e in entries
            if e.name.lower().endswith(SUFFIXES) and not e.name.startswith(".")
        )
    return [Path(folder) / name for name in names]


def classes_in(root: Path) -> tuple[str, ...]:
    """Return the sorted class names of a tree `root/class/image`.

    Args:
        root: the folder of the class folders.

    Raises:
        ValueError: the folder does not exist or contains no folder.

    >>> for name in ("dog", "cat"):
    ...     Path("pets", name).mkdir(parents=True)
    >>> classes_in(Path("pets"))
    ('cat', 'dog')
    """
    classes = folders_in(root)
    if not classes:
        raise ValueError(f"{root} contains no folders; expected one folder of images per class")
    return classes


def published_folder(
    root: Path,
    transform: Transform,
    classes: Sequence[str],
    *,
    name: str | None = None,
    index: int = 0,
    workers: int = 4,
) -> FolderDomain:
    """Return a complete tree `root/class/image` of a published data set as a domain.

    Folders of users are read by `contam.inputs`, which knows more layouts.

    Args:
        root: the folder of the class folders.
        transform: function from a Pillow image to a tensor.
        classes: class names in the order of the labels.
        name: name of the domain; by default that of the folder.
        index: domain index of every image.
        workers: number of threads that decode images.

    Raises:
        ValueError: the folders are not those of the classes, or a class has no image.

    Source: ours, so that an incomplete copy of a data set is rejected.

    >>> from PIL import Image
    >>> from contam.data.images import pixels
    >>> for label in ("cat", "dog"):
    ...     Path("images", label).mkdir(parents=True)
    ...     Image.new("RGB", (4, 4)).save(f"images/{label}/0.png")
    >>> domain = published_folder(Path("images"), pixels, ("cat", "dog"))
    >>> domain.name, domain.y.tolist()
    ('images', [0, 1])
    """
    root = Path(root)
    folders = classes_in(root)
    if set(folders) != set(classes):
        raise ValueError(_difference(root, folders, classes))
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
    return FolderDomain(
        name or root.name, files, torch.tensor(y), index, transform, workers=workers
    )


def _difference(root: Path, folders: Sequence[str], classes: Sequence[str]) -> str:
    """Return how a folder's classes differ from the expected ones."""
    lacks = sorted(set(classes) - set(folders))
    more = sorted(set(folders) - set(classes))
    faults = [f"lacks {_some(lacks)}"] if lacks else []
    faults += [f"also has {_some(more)}"] if more else []
    return f"{root} {' and '.join(faults)}; all trees need the same {len(classes)} classes"


def _some(names: Sequence[str], most: int = 5) -> str:
    text = ", ".join(map(repr, names[:most]))
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def merged(name: str, domains: Sequence[FolderDomain]) -> FolderDomain:
    """Merge domains into one; images keep their domain indices.

    Args:
        name: name of the merged domain.
        domains: the domains; the transform of the first is used.

    >>> from contam.data.images import pixels
    >>> files, y = [Path("0.png")], torch.tensor([0])
    >>> one, two = (FolderDomain("a", files, y, index, pixels) for index in (0, 1))
    >>> merged("both", [one, two]).origin.tolist()
    [0, 1]
    """
    first = domains[0]
    return FolderDomain(
        name,
        [path for domain in domains for path in domain.files],
        torch.cat([domain.y for domain in domains]),
        torch.cat([domain.origin for domain in domains]),
        first.transform,
        workers=first.workers,
    )


def parted(domain: FolderDomain, shares: Sequence[float], *, seed: int) -> list[FolderDomain]:
    """Split a domain at random into disjoint parts.

    The split depends only on the seed, the domain's name and its size.

    Args:
        domain: the domain.
        shares: share of each part; the remaining images form one more part.
        seed: random seed.

    Returns:
        The parts, with images in the order of the domain.

    >>> from contam.data.images import pixels
    >>> files = [Path(f"{number}.png") for number in range(10)]
    >>> domain = FolderDomain("photo", files, torch.arange(10) % 2, 0, pixels)
    >>> [len(part) for part in parted(domain, (0.8,), seed=0)]
    [8, 2]
    """
    order = torch.randperm(
        len(domain), generator=generator_for(seed, f"images/parts of {domain.name}")
    )
    sizes = [int(share * len(domain)) for share in shares]
    sizes.append(len(domain) - sum(sizes))
    # In the order of the folder, so that disk reads are sequential.
    return [domain.pick(part.sort().values) for part in order.split(sizes)]


def leave_one_out(
    name: str,
    classes: tuple[str, ...],
    domains: Sequence[FolderDomain],
    ood: str,
    *,
    seed: int = 0,
    third: bool = True,
    held_share: float = 1.0,
) -> Shift:
    """Return the problem of training on all domains except one and testing on that one.

    As in DomainBed, 80 % of each training domain is for training. DomainBed selects and reports on
    the remaining 20 %. Here one half of it is `id_val` and the other half `id_test`, so that the ID
    test is not used for selection.

    Args:
        name: name of the problem.
        classes: class names in the order of the labels.
        domains: all domains.
        ood: name of the domain to leave out.
        seed: random seed of the split.
        third: whether to split the 20 %; False uses all of it for both, as DomainBed does.
        held_share: the share of the left-out domain that is the OOD test. DomainBed reports on
            0.8, its in-split.

    Raises:
        ValueError: the domain is unknown, or there is no other one.

    Source: App. E.4; Gulrajani & Lopez-Paz (2021). The third part is ours.

    >>> from contam.data.images import pixels
    >>> files = [Path(f"{number}.png") for number in range(10)]
    >>> y = torch.arange(10) % 2
    >>> domains = [FolderDomain(name, files, y, 0, pixels) for name in ("art", "photo")]
    >>> shift = leave_one_out("styles", ("cat", "dog"), domains, "photo")
    >>> len(shift.train[0]), len(shift.id_val), len(shift.id_test), len(shift.ood_tests[0])
    (8, 1, 1, 10)
    """
    names = [domain.name for domain in domains]
    if ood not in names or len(names) < 2:
        near = difflib.get_close_matches(ood, names, n=3) or names
        raise ValueError(
            f"unknown domain {ood!r}, or no other domain to train on; choose from {near}"
        )
    held = next(domain for domain in domains if domain.name == ood)
    ood_test = held if held_share == 1 else parted(held, (held_share,), seed=seed)[0]
    shares = (0.8, 0.1) if third else (0.8,)
    parts = [parted(domain, shares, seed=seed) for domain in domains if domain is not held]
    return Shift(
        name=f"{name}, {ood} left out",
        classes=classes,
        train=tuple(part[0] for part in parts),
        id_val=merged("ID validation", [part[1] for part in parts]),
        id_test=merged("ID test", [part[-1] for part in parts]),
        ood_tests=(ood_test,),
    )
