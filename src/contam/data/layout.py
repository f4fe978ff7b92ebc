"""Compare a folder with the published layout and size of a data set.

Only names and tables are read, and no image file is opened, except for files that contain a whole
set of small images.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from contam.batch import Batch, Domain, Shift
from contam.data import domainnet, pacs
from contam.data.chest_xray import chest_xrays
from contam.data.cifar import cifar10
from contam.data.folders import published_folder
from contam.data.image_tree import Layout, image_tree
from contam.data.imagenet import NATURAL_TESTS, imagenet, wnids
from contam.data.images import FolderDomain, pixels
from contam.data.missing_files import MissingFilesError
from contam.data.small_images import labeled_images
from contam.data.wilds import camelyon17, iwildcam


@dataclass(frozen=True)
class Count:
    """The number of images of a part of a data set, in the folder and as published."""

    part: str
    images: int
    published: int | None

    @property
    def agrees(self) -> bool:
        """Whether the counts agree, or no count is published."""
        return self.published in (None, self.images)


@dataclass(frozen=True)
class Report:
    """What a folder contains of a data set."""

    kind: str
    folder: Path
    counts: tuple[Count, ...]
    missing: tuple[str, ...]
    """The missing parts, each with its expected path."""
    wrong: tuple[str, ...]
    """The parts that are present but not usable, each with the reason."""
    notes: tuple[str, ...] = ()
    """Sentences about what is passed over or guessed."""

    @property
    def complete(self) -> bool:
        """Whether every part is present, usable, and has the published number of images."""
        return not self.missing and not self.wrong and all(count.agrees for count in self.counts)

    def lines(self) -> list[str]:
        """Return the report as text: a summary and one line per part."""
        whole = "complete" if self.complete else "not complete"
        lines = [f"{self.kind} in {self.folder}: {whole}"]
        for count in self.counts:
            beside = "" if count.published is None else f", published {count.published:,}"
            verdict = "found" if count.agrees else "differs"
            lines.append(f"  {verdict:8} {count.part}: {count.images:,} images{beside}")
        lines += [f"  missing  {part}" for part in self.missing]
        lines += [f"  wrong    {part}" for part in self.wrong]
        return lines + [f"  note     {note}" for note in self.notes]


@dataclass(frozen=True)
class _Part:
    """A part of a data set: its path, its reader, and its published counts by name."""

    path: str
    open: Callable[[Path], Mapping[str, Domain]]
    published: Mapping[str, int | None]
    notes: Callable[[Path], Sequence[str]] | None = None
    """Sentences about what is passed over or guessed."""


def check(kind: str, folder: Path, progress: Callable[[float, str], None] | None = None) -> Report:
    """Compare a folder with a published data set. Problems of the folder are reported, not raised.

    Args:
        kind: a name of `KINDS`.
        folder: the folder.
        progress: gets the share of the parts that are checked, and the next one.

    Raises:
        ValueError: the kind is unknown.

    Source: ours, an incomplete copy of a data set is noticed before hours of work.

    >>> check("pacs", Path("nowhere")).complete
    False
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=3) or list(KINDS)
        raise ValueError(f"unknown kind of data set {kind!r}; did you mean one of {near}?")
    folder = Path(folder)
    counts: list[Count] = []
    missing: list[str] = []
    wrong: list[str] = []
    notes: list[str] = []
    for place, part in enumerate(KINDS[kind]):
        names = ", ".join(part.published) or kind
        if progress is not None:
            progress(place / len(KINDS[kind]), names)
        try:
            if not (folder / part.path).exists():
                missing.append(f"{names}: no {folder / part.path}")
                continue
            for name, domain in part.open(folder).items():
                counts.append(Count(name, len(domain), part.published.get(name)))
                wrong += _absent(name, domain)
            notes += part.notes(folder) if part.notes is not None else ()
        except MissingFilesError as error:
            missing.append(f"{error.missing} in {folder}")
        # A folder can be wrong in any way, and this function reports how.
        except Exception as error:
            wrong.append(f"{names}: {' '.join(str(error).split()) or type(error).__name__}")
    absent = tuple(dict.fromkeys(missing))
    return Report(kind, folder, tuple(counts), absent, tuple(wrong), tuple(notes))


def _absent(name: str, domain: Domain) -> list[str]:
    """Return the problem of files that a table lists and the folder lacks."""
    files = domain.files if isinstance(domain, FolderDomain) else ()
    lost = [path for path in files if not path.is_file()]
    if not lost:
        return []
    return [f"{name}: {len(lost):,} listed images are missing, such as {lost[0]}"]


def _natural(name: str, title: str, root: Path) -> dict[str, Domain]:
    known = root / "imagenet" / "val"
    names = wnids(known if known.is_dir() else None)
    return {title: NATURAL_TESTS[name](root, pixels, names).domain}


def _imagenet(split: str, root: Path) -> dict[str, Domain]:
    test = imagenet(root, pixels, split=split)
    return {test.domain.name: test.domain}


def _wilds(open: Callable[..., tuple[Shift, FolderDomain]], root: Path) -> dict[str, Domain]:
    shift, ood_val = open(root)
    domains = (*shift.train, shift.id_val, shift.id_test, ood_val, *shift.ood_tests)
    return {domain.name: domain for domain in domains if domain is not None}


def _pacs(domain: str, root: Path) -> dict[str, Domain]:
    folder = root / "PACS" / domain
    return {domain: published_folder(folder, pixels, pacs.CLASSES)}


def _list(domain: str, part: str, root: Path) -> dict[str, Domain]:
    return {f"{domain} {part}": domainnet.listed(root, domain, part, pixels)}


def _cifar(root: Path) -> dict[str, Domain]:
    shift = cifar10(root)
    assert shift.id_val is not None
    return {"training": shift.train[0], "validation": shift.id_val, "test": shift.id_test}


def _chest(kind: str, label: str, root: Path) -> dict[str, Domain]:
    shift = chest_xrays(kind, root, label=label).shift
    learned, held, test = shift.train[0], shift.id_val, shift.id_test
    assert isinstance(learned, FolderDomain) and isinstance(held, FolderDomain)
    files, y = (*learned.files, *held.files), torch.cat((learned.y, held.y))
    return {
        "training and validation": FolderDomain("both", files, y, 0, learned.transform),
        "test": test,
    }


def _chest_parts(kind: str, table: str, train: int | None, test: int | None) -> tuple[_Part, ...]:
    counts = {"training and validation": train, "test": test}
    return (_Part(table, partial(_chest, kind, "Pneumothorax"), counts),)


def _small(kind: str, part: str, title: str, root: Path) -> dict[str, Domain]:
    images, y = labeled_images(kind, root, part)
    return {title: Domain(title, Batch(images, y, torch.zeros_like(y)))}


def _small_parts(kind: str, train: int, test: int) -> tuple[_Part, ...]:
    return tuple(
        _Part("", partial(_small, kind, part, title), {title: published})
        for part, title, published in (("train", "training", train), ("test", "test", test))
    )


def _tree(layout: Layout, root: Path) -> dict[str, Domain]:
    """Open a folder as an audit does, and reject classes without an image."""
    tree = image_tree(root, layout=layout)
    domains = {}
    for index, name in enumerate(tree.domains or (root.name,)):
        which = (tree.origins == index).nonzero().flatten()
        present = {tree.classes[label] for label in tree.labels[which].tolist()}
        lacks = [label for label in tree.classes if label not in present]
        if lacks:
            raise ValueError(
                f"{name}: no image of class {lacks[0]!r}; put some there, or remove the folder"
            )
        files = [tree.files[row] for row in which.tolist()]
        domains[name] = FolderDomain(name, files, tree.labels[which], index, pixels)
    return domains


def _tree_notes(layout: Layout, root: Path) -> tuple[str, ...]:
    return image_tree(root, layout=layout).notes


def _tree_parts(layout: Layout) -> tuple[_Part, ...]:
    return (_Part("", partial(_tree, layout), {}, partial(_tree_notes, layout)),)


def _natural_part(name: str, title: str, path: str, published: int | None) -> _Part:
    return _Part(path, partial(_natural, name, title), {title: published})


KINDS: dict[str, Sequence[_Part]] = {
    "imagenet": (
        _Part("imagenet/train", partial(_imagenet, "train"), {"ImageNet train": 1_281_167}),
        _Part("imagenet/val", partial(_imagenet, "val"), {"ImageNet val": 50_000}),
        _natural_part(
            "imagenetv2", "ImageNetV2", "imagenetv2-matched-frequency-format-val", 10_000
        ),
        _natural_part("imagenet-r", "ImageNet-R", "imagenet-r", 30_000),
        _natural_part("objectnet", "ObjectNet", "objectnet-1.0", 18_514),
        _natural_part("imagenet-sketch", "ImageNet Sketch", "sketch", 50_889),
        _natural_part("imagenet-a", "ImageNet-A", "imagenet-a", 7_500),
    ),
    "iwildcam": (
        _Part(
            "iwildcam_v2.0",
            partial(_wilds, iwildcam),
            {
                "training cameras": 129_809,
                "ID validation": 7_314,
                "ID test": 8_154,
                "new cameras, validation": 14_961,
                "new cameras": 42_791,
            },
        ),
    ),
    "camelyon17": (
        _Part(
            "camelyon17_v1.0",
            partial(_wilds, camelyon17),
            {
                "training hospitals": 302_436,
                "ID validation": 33_560,
                "new hospital, validation": 34_904,
                "new hospital": 85_054,
            },
        ),
    ),
    "domainnet": tuple(
        _Part(
            f"{domainnet.LISTS}/{domain}_{part}_mini.txt",
            partial(_list, domain, part),
            {f"{domain} {part}": count},
        )
        for domain, counts in {
            "clipart": (3707, 1616),
            "painting": (6727, 2909),
            "real": (16_141, 6943),
            "sketch": (5537, 2399),
        }.items()
        for part, count in zip(domainnet.PARTS, counts, strict=True)
    ),
    "pacs": tuple(
        _Part(f"PACS/{domain}", partial(_pacs, domain), {domain: count})
        for domain, count in {
            "art_painting": 2048,
            "cartoon": 2344,
            "photo": 1670,
            "sketch": 3929,
        }.items()
    ),
    "cifar10": (_Part("", _cifar, {"training": 45_000, "validation": 5_000, "test": 10_000}),),
    **{kind: _small_parts(kind, 60_000, 10_000) for kind in ("mnist", "kmnist", "fashion-mnist")},
    "svhn": _small_parts("svhn", 73_257, 26_032),
    "nih-cxr": _chest_parts("nih-cxr", "", 86_524, 25_596),
    "chexpert": _chest_parts("chexpert", "", 223_414, 234),
    "mimic-cxr": _chest_parts("mimic-cxr", "files", None, None),
    "folder": _tree_parts("class"),
    "domains": _tree_parts("domain"),
}
"""The parts of each kind. Counts are the data sets' own; iWildCam's are from Koh et al. (2021)."""
