"""Folder trees of labeled images: what is a class, what a domain, and what is passed over.

Images may lie at any depth below their class folder, as torchvision's ImageFolder has it.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from contam.data.folders import SUFFIXES, folders_in, images_in

Layout = Literal["class", "domain"]
"""`class/.../image` or `domain/class/.../image`."""

JUNK = ("@eadir", "__macosx", "lost+found", "$recycle.bin", "system volume information",
        "#recycle", "#snapshot", "__pycache__")  # fmt: skip
"""Folders that systems make, in lower case."""
JUNK_FILES = ("thumbs.db", "desktop.ini")
SPLITS = {"train", "training", "trn", "val", "valid", "validation", "dev", "test", "testing"}
"""Folders that are parts of a data set."""
GENERIC = re.compile(
    r"(shard|part|chunk|batch|fold|split|group|set|patient|subject|case|study|series|session|"
    r"sequence|seq|video|clip|scene|p|s|id|images?|imgs?|photos?|data|jpe?g|png)?[-_ ]*\d*"
)
"""Names of folders that divide the images of a class, in lower case."""
DICOM = (".dcm", ".dicom")
"""Suffixes of DICOM files, which need pydicom."""
HINTS = (((".heic", ".heif"), "convert HEIC to JPEG"), (DICOM, "DICOM needs the extra 'medical'"))
"""What to do about files that can't be read, by suffix."""
STRAY = 0.05
"""Largest share of images that lie in a domain's folder beside its classes."""
SHOWN = 5


@dataclass(frozen=True)
class ImageTree:
    """The labeled images of a folder tree."""

    root: Path
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    """Names of the domains by index; empty without folders of domains."""
    files: tuple[Path, ...]
    labels: Tensor
    """(files,) class indices."""
    origins: Tensor
    """(files,) domain indices."""
    notes: tuple[str, ...]
    """Sentences about what was guessed and what was passed over."""


def natural_key(name: str) -> list[int | str]:
    """Return the sorting key of timm: lower case, with numbers by their value.

    Args:
        name: a name.

    >>> sorted(["b10", "b9", "A"], key=natural_key)
    ['A', 'b9', 'b10']
    """
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if part.isdecimal() else part for part in parts]


def image_tree(
    root: Path,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    layout: Layout | None = None,
    natural: bool = False,
    outputs: int | None = None,
) -> ImageTree:
    """Find the images of a tree with their classes and domains; no file is opened.

    If images lie directly in the first folders, these are the classes. Otherwise the first or the
    second folders can be. Known class names, the number of logits and the names of the folders
    decide, and if they don't, the tree is rejected.

    Args:
        root: the folder.
        name: name of the set in notes; by default that of the folder.
        classes: class names in the order of the logits; by default sorted by code point, as
            torchvision sorts them.
        layout: which folders are the classes, if that is known.
        natural: whether classes are sorted as timm sorts them.
        outputs: number of logits of the network, if it is known.

    Returns:
        The tree with its images, sorted by domain, class and path.

    Raises:
        ValueError: there is no such folder, it holds no images in folders, it holds the splits of a
            data set, a folder is none of the classes, or the layout is not clear.

    Source: ours, for trees as users have them.

    >>> for file in ("cat/1.png", "cat/more/2.png", "dog/3.png", "dog/notes.txt"):
    ...     Path("pets", file).parent.mkdir(parents=True, exist_ok=True)
    ...     Path("pets", file).touch()
    >>> tree = image_tree(Path("pets"))
    >>> tree.classes, tree.labels.tolist(), tree.notes[-1]
    (('cat', 'dog'), [0, 0, 1], "1 file of 'pets' was passed over: 1 .txt.")
    """
    root = Path(root)
    if not folders_in(root):
        raise ValueError(f"{root} contains no folders; expected one folder of images per class")
    name = name or root.name
    passed: Counter[str] = Counter()
    paths = sorted(_images_below(root, (), passed, {root.resolve(), *root.resolve().parents}))
    inside = [path for path in paths if len(path) > 1]
    if not inside:
        more = f" ({_counted(passed)} passed over)" if passed else ""
        raise ValueError(f"{root} holds no images{more}; expected root/class/image")
    notes = []
    if len(paths) > len(inside):
        passed["images beside the folders"] = len(paths) - len(inside)
    if layout is None:
        layout, note = _layout(root, inside, classes, outputs)
        notes += [note] if note else []
    depth = 1 if layout == "domain" else 0
    images = [path for path in inside if len(path) > depth + 1]
    if len(images) < len(inside):
        passed["images beside the class folders"] = len(inside) - len(images)
    domains = tuple(sorted({path[0] for path in images})) if layout == "domain" else ()
    names, known = _class_folders(root, domains), classes is not None
    order = tuple(classes) if classes is not None else _sorted(names, natural)
    unknown = sorted(names - set(order))
    if unknown:
        raise ValueError(
            f"{root} has a folder {unknown[0]!r}, which is none of the {len(order)} classes "
            f"{_some(order)}; rename it, or give classes= in the order of the logits"
        )
    index = {label: place for place, label in enumerate(order)}
    images.sort(key=lambda path: (path[:depth], index[path[depth]], path[depth + 1 :]))
    notes += [] if known else _order_notes(name, order, natural)
    empty = sorted(names - {path[depth] for path in images})
    if empty:
        notes.append(f"Class folders of {name!r} without an image: {_some(empty)}.")
    deep = [path for path in images if len(path) > depth + 2]
    if deep and len(deep) < len(images):
        notes.append(
            f"{len(deep)} images of {name!r} lie in folders below their class, the first in "
            f"{'/'.join(deep[0][:-1])}; they belong to the class."
        )
    notes += _passed_notes(name, passed)
    return ImageTree(
        root, order, domains,
        tuple(root.joinpath(*path) for path in images),
        torch.tensor([index[path[depth]] for path in images]),
        torch.tensor([domains.index(path[0]) if domains else 0 for path in images]),
        tuple(notes),
    )  # fmt: skip


def unlabeled_tree(root: Path, *, name: str | None = None) -> ImageTree:
    """Find all images of a folder, at any depth, without labels; no file is opened.

    Args:
        root: the folder.
        name: name of the set in notes; by default that of the folder.

    Returns:
        The images, sorted by path, all with the label 0 and in one domain; there are no classes.

    Raises:
        ValueError: there is no such folder, or it holds no images.

    Source: ours, for data sets without labels.

    >>> for file in ("1.png", "more/2.png"):
    ...     Path("found", file).parent.mkdir(parents=True, exist_ok=True)
    ...     Path("found", file).touch()
    >>> [file.name for file in unlabeled_tree(Path("found")).files]
    ['1.png', '2.png']
    """
    root = Path(root)
    images_in(root)  # raises if there is no such folder
    name = name or root.name
    passed: Counter[str] = Counter()
    paths = sorted(_images_below(root, (), passed, {root.resolve(), *root.resolve().parents}))
    if not paths:
        more = f" ({_counted(passed)} passed over)" if passed else ""
        raise ValueError(f"{root} holds no images{more}")
    none = torch.zeros(len(paths), dtype=torch.int64)
    files = tuple(root.joinpath(*path) for path in paths)
    return ImageTree(root, (), (), files, none, none, _passed_notes(name, passed))


def _passed_notes(name: str, passed: Counter[str]) -> tuple[str, ...]:
    """Return a sentence about the files that were passed over, or nothing."""
    if not passed:
        return ()
    noun, verb = ("file", "was") if passed.total() == 1 else ("files", "were")
    return (f"{passed.total()} {noun} of {name!r} {verb} passed over: {_counted(passed)}.",)


def _images_below(
    root: Path, above: tuple[str, ...], passed: Counter[str], visited: set[Path]
) -> Iterator[tuple[str, ...]]:
    """Yield the relative paths of images at any depth; count other files by suffix."""
    with os.scandir(root.joinpath(*above)) as entries:
        some = [e for e in entries if not e.name.startswith(".")]
    for entry in some:
        lower, path = entry.name.lower(), (*above, entry.name)
        if entry.is_dir():
            real = Path(entry.path).resolve()
            # A link can lead back to a folder above, also to one above the root.
            if real in visited:
                passed["links to folders above"] += 1
            elif lower not in JUNK:
                yield from _images_below(root, path, passed, visited | {real})
        elif lower.endswith((*SUFFIXES, *_dicom())):
            if entry.is_file():
                yield path
            else:  # A pipe, a device or a broken link.
                passed[f"{Path(lower).suffix} (no regular file)"] += 1
        elif lower not in JUNK_FILES:
            passed[Path(lower).suffix or "files without a suffix"] += 1


def _dicom() -> tuple[str, ...]:
    """Suffixes of DICOM files if they can be read."""
    return DICOM if find_spec("pydicom") is not None else ()


def _class_folders(root: Path, domains: Sequence[str]) -> set[str]:
    """Return the names of all class folders, also of empty ones."""
    parents = [root / domain for domain in domains] or [root]
    return {name for parent in parents for name in _folders(parent)}


def _folders(root: Path) -> list[str]:
    return [name for name in folders_in(root) if name.lower() not in JUNK]


def _layout(
    root: Path,
    images: Sequence[tuple[str, ...]],
    classes: Sequence[str] | None,
    outputs: int | None,
) -> tuple[Layout, str]:
    """Decide which folders are the classes; say so if it was guessed."""
    first = sorted({path[0] for path in images})
    if classes is None and len(first) > 1 and {name.lower() for name in first} <= SPLITS:
        raise ValueError(
            f"{root} holds the splits {_some(first)}; give one of them, such as {root / first[0]}"
        )
    below = {name: {p[1] for p in images if p[0] == name and len(p) > 2} for name in first}
    second = sorted(set().union(*below.values()))
    direct = sum(len(path) == 2 for path in images)
    alike = len(first) > 1 and len(second) > 1 and all(below[n] == set(second) for n in first)
    if direct and not (alike and direct <= STRAY * len(images)):
        return "class", ""
    as_domains = (
        f"{root.name!r} was read as domain/class/image with the domains {_some(first)}; give "
        "classes= if these are the classes."
    )
    as_classes = (
        f"{root.name!r} was read as class/.../image; folders below the classes, such as "
        f"{second[0]!r}, only divide their images."
    )
    decided = _decided(first, second, classes, outputs)
    if decided is not None:
        return decided, as_domains if decided == "domain" else as_classes
    shared = [name for name in second if sum(name in names for names in below.values()) > 1]
    generic = all(GENERIC.fullmatch(name.lower()) or name.lower() in SPLITS for name in second)
    numbers = all(name.isdecimal() for name in second)
    if len(first) == 1 or (len(shared) >= len(second) / 2 and not generic):
        return "domain", as_domains
    if (generic and not (numbers and shared)) or not shared:
        return "class", as_classes
    raise ValueError(
        f"{root} can be read as class/.../image with the {len(first)} classes {_some(first)}, or "
        f"as domain/class/image with the {len(second)} classes {_some(second)}; give classes= in "
        "the order of the logits"
    )


def _decided(
    first: Sequence[str], second: Sequence[str], classes: Sequence[str] | None, outputs: int | None
) -> Layout | None:
    """Return the layout if only one fits the class names or the number of logits."""
    if classes is None and outputs is None:
        return None

    def fits(names: Sequence[str]) -> bool:
        return len(names) == outputs if classes is None else set(names) <= set(classes)

    if fits(first) == fits(second):
        return None
    return "class" if fits(first) else "domain"


def _sorted(names: set[str], natural: bool) -> tuple[str, ...]:
    plain = sorted(names)
    return tuple(sorted(plain, key=natural_key)) if natural else tuple(plain)


def _order_notes(name: str, order: Sequence[str], natural: bool) -> list[str]:
    """Return a sentence if torchvision and timm sort these classes differently."""
    other = _sorted(set(order), not natural)
    if other == tuple(order):
        return []
    place = next(i for i, (one, two) in enumerate(zip(order, other, strict=True)) if one != two)
    tools = ("timm", "torchvision") if natural else ("torchvision", "timm")
    return [
        f"Classes of {name!r} are in {tools[0]}'s order ({order[place]!r} is number {place}), "
        f"which differs from {tools[1]}'s ({other[place]!r}). If the network was trained with "
        "another order, give classes=."
    ]


def _counted(counts: Counter[str]) -> str:
    """Return counts by suffix, the largest first."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    text = ", ".join(f"{n} {what}" for what, n in ordered[:SHOWN])
    others = len(counts) - SHOWN
    text += f" and {others} more kinds" if others > 0 else ""
    hints = [hint for suffixes, hint in HINTS if set(suffixes) & set(counts)]
    return text + (f" ({'; '.join(hints)})" if hints else "")


def _some(names: Sequence[str]) -> str:
    text = ", ".join(map(repr, names[:SHOWN]))
    return text if len(names) <= SHOWN else f"{text} and {len(names) - SHOWN} more"
