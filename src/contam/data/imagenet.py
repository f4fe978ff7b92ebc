"""ImageNet and its five natural shifts, each judged by the columns of the logits that it knows.

A network gives 1000 logits in the order of the sorted WordNet numbers (wnids). Three sets hold
fewer classes; without their rule of reading the logits they score tens of points too low.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from contam.data.folders import classes_in, folders_in, image_folder, images_in
from contam.data.images import FolderDomain, Transform, without_border

CLASSES = 1000
BORDER = 2
"""Pixels cut off ObjectNet's images on each side; the frame of red in them is one pixel wide."""


def restrict(
    logits: Float[Tensor, "batch all"], columns: Sequence[int]
) -> Float[Tensor, "batch some"]:
    """The logits of some classes alone, in the order given.

    Raises:
        ValueError: a column is not there, or stands twice.
    """
    return max_over(logits, [[column] for column in columns])


def max_over(
    logits: Float[Tensor, "batch all"], groups: Sequence[Sequence[int]]
) -> Float[Tensor, "batch groups"]:
    """For each group of columns the largest of its logits: a class that has several names.

    Raises:
        ValueError: a group is empty, or a column is not there or stands twice.
    """
    columns = [column for group in groups for column in group]
    if not all(groups) or len(set(columns)) < len(columns):
        raise ValueError("every group needs a column of its own, and no column belongs to two")
    if any(not 0 <= column < logits.shape[1] for column in columns):
        raise ValueError(
            f"columns {min(columns)}..{max(columns)} of {logits.shape[1]} logits; give the logits "
            f"of all {CLASSES} classes of ImageNet"
        )
    picked = logits[:, columns]
    if len(columns) == len(groups):
        return picked
    return torch.stack([part.amax(dim=1) for part in picked.split([*map(len, groups)], 1)], dim=1)


@dataclass(frozen=True)
class NaturalTest:
    """A test set of ImageNet's kind, and how 1000 logits become scores of its classes."""

    domain: FolderDomain
    """Its labels count within `classes`."""
    classes: tuple[str, ...]
    """wnids, or ObjectNet's names."""
    columns: tuple[tuple[int, ...], ...]
    """The columns of the logits that mean each class."""

    def scores(self, logits: Float[Tensor, "batch all"]) -> Float[Tensor, "batch classes"]:
        """A score for each class of this set; the prediction is the largest."""
        return max_over(logits, self.columns)


def wnids(folder: Path | None = None) -> tuple[str, ...]:
    """The 1000 wnids in the order of the logits.

    From the folders of `imagenet/val` or `imagenet/train` if given, else from timm's list.

    Source: ours.

    Raises:
        ValueError: the folder doesn't hold 1000 folders, or there is neither a folder nor timm.
    """
    if folder is not None:
        found = classes_in(folder)
        if len(found) != CLASSES:
            raise ValueError(
                f"{folder} holds {len(found)} class folders, not {CLASSES}; "
                "give ImageNet's train or val, sorted into folders named by wnid"
            )
        return found
    # Read as a file: importing timm takes a torchvision that loads, and a list needs neither.
    timm = find_spec("timm")
    places = [Path(place) for place in (timm and timm.submodule_search_locations) or ()]
    lists = [place / "data" / "_info" / "imagenet_synsets.txt" for place in places]
    for path in filter(Path.is_file, lists):
        return tuple(path.read_text("utf-8").split())
    raise ValueError(
        "the 1000 wnids come from the folder of ImageNet's val or from timm, and neither is here; "
        "give that folder, or pip install 'contam[models]'"
    )


def imagenet(
    root: Path, transform: Transform, *, split: str = "val", workers: int = 4
) -> NaturalTest:
    """ImageNet itself, `imagenet/{train,val}/<wnid>/*` under the root.

    Source: App. E.1.

    Raises:
        ValueError: the split is neither train nor val, or its folder is not of this layout.
    """
    if split not in ("train", "val"):
        raise ValueError(f"no split {split!r} of ImageNet; choose train or val")
    folder = Path(root) / "imagenet" / split
    names = wnids(folder)
    domain = image_folder(
        folder, transform, name=f"ImageNet {split}", classes=names, workers=workers
    )
    return NaturalTest(domain, names, _single(range(CLASSES)))


def imagenet_v2(
    root: Path, transform: Transform, names: Sequence[str], *, workers: int = 4
) -> NaturalTest:
    """ImageNetV2, matched frequency: its folders 0..999 are the columns themselves.

    Source: App. E.1; Recht et al. (2019).

    Raises:
        ValueError: the folders are not 0..999, or one has no image.
    """
    folder = Path(root) / "imagenetv2-matched-frequency-format-val"
    # Sorted as text, 10 would come before 2 and nearly every label would be wrong.
    numbers = [str(number) for number in range(CLASSES)]
    domain = image_folder(
        folder, transform, name="ImageNetV2", index=1, classes=numbers, workers=workers
    )
    return NaturalTest(domain, tuple(names), _single(range(CLASSES)))


def imagenet_r(
    root: Path, transform: Transform, names: Sequence[str], *, workers: int = 4
) -> NaturalTest:
    """Renditions of 200 classes, which alone compete for the prediction.

    Source: App. E.1; Hendrycks et al. (2021).

    Raises:
        ValueError: the folders are not 200 wnids, or one has no image.
    """
    return _by_wnid(
        Path(root) / "imagenet-r",
        transform,
        names,
        "ImageNet-R",
        index=2,
        wanted=200,
        workers=workers,
    )


def imagenet_sketch(
    root: Path, transform: Transform, names: Sequence[str], *, workers: int = 4
) -> NaturalTest:
    """Black-and-white sketches of all 1000 classes, in `sketch/<wnid>`.

    Source: App. E.1; Wang et al. (2019).

    Raises:
        ValueError: the folders are not the 1000 wnids, or one has no image.
    """
    folder = Path(root) / "sketch"
    return _by_wnid(
        folder, transform, names, "ImageNet Sketch", index=4, wanted=CLASSES, workers=workers
    )


def imagenet_a(
    root: Path, transform: Transform, names: Sequence[str], *, workers: int = 4
) -> NaturalTest:
    """Photos that a ResNet-50 got wrong, of 200 classes that are not ImageNet-R's.

    That ResNet-50 scores exactly 0 here, so its logit is infinite and no fit can hold it.

    Source: App. E.1; Hendrycks et al. (2021).

    Raises:
        ValueError: the folders are not 200 wnids, or one has no image.
    """
    return _by_wnid(
        Path(root) / "imagenet-a",
        transform,
        names,
        "ImageNet-A",
        index=5,
        wanted=200,
        workers=workers,
    )


def objectnet(
    root: Path, transform: Transform, names: Sequence[str] = (), *, workers: int = 4
) -> NaturalTest:
    """Household objects from odd viewpoints: the classes that ImageNet has, by their best column.

    Two pixels of border are cut off before the transform. The classes and their columns come from
    the mapping files in the archive; `names` is not needed. Folders of other classes are left out.

    Source: App. E.1; Barbu et al. (2019).

    Raises:
        ValueError: a folder or a mapping file is missing, or the mapping files contradict each
            other.
    """
    folder = Path(root) / "objectnet-1.0"
    groups = objectnet_columns(folder / "mappings")
    files: list[Path] = []
    y: list[int] = []
    for label, name in enumerate(groups):
        images = images_in(folder / "images" / name)
        if not images:
            raise ValueError(f"class {name!r} in {folder / 'images'} has no images")
        files += images
        y += [label] * len(images)
    cropped = without_border(BORDER, transform)
    domain = FolderDomain("ObjectNet", files, torch.tensor(y), 3, cropped, workers=workers)
    return NaturalTest(domain, tuple(groups), tuple(groups.values()))


def objectnet_columns(mappings: Path) -> dict[str, tuple[int, ...]]:
    """The columns of the logits for each of ObjectNet's folders that ImageNet knows.

    Raises:
        ValueError: a mapping file is missing, or they contradict each other.
    """

    def lines(name: str) -> str:
        if not (mappings / name).is_file():
            raise ValueError(f"no {mappings / name}; it lies in the archive of ObjectNet")
        return (mappings / name).read_text("utf-8")

    labels = json.loads(lines("folder_to_objectnet_label.json"))
    known = json.loads(lines("objectnet_to_imagenet_1k.json"))
    column_of = {
        int(older): int(column)
        for column, older in json.loads(lines("pytorch_to_imagenet_2012_id.json")).items()
    }
    # The line's number is ImageNet's older numbering, which is not that of the logits.
    older_of = {
        line.strip(): number
        for number, line in enumerate(lines("imagenet_to_label_2012_v2").splitlines())
    }
    folder_of = {label: folder for folder, label in labels.items()}
    try:
        return {
            folder_of[label]: tuple(column_of[older_of[each]] for each in same.split("; "))
            for label, same in known.items()
        }
    except KeyError as error:
        raise ValueError(
            f"the mapping files in {mappings} contradict each other: one names {error}, which "
            "another lacks; take all four from one archive"
        ) from error


NATURAL_TESTS: dict[str, Callable[..., NaturalTest]] = {
    "imagenet": lambda root, transform, names, **options: imagenet(root, transform, **options),
    "imagenetv2": imagenet_v2,
    "imagenet-r": imagenet_r,
    "objectnet": objectnet,
    "imagenet-sketch": imagenet_sketch,
    "imagenet-a": imagenet_a,
}
"""ImageNet's validation set and its five shifts, in the order of the paper's tables."""


def natural_tests(
    root: Path, transform: Transform, *, workers: int = 4
) -> dict[str, Callable[[], NaturalTest]]:
    """The six tests, each to be opened by a call; ImageNet's val gives the order of the columns.

    Raises:
        ValueError: `imagenet/val` under the root does not hold 1000 folders.
    """
    names = wnids(Path(root) / "imagenet" / "val")
    return {
        name: partial(opened, root, transform, names, workers=workers)
        for name, opened in NATURAL_TESTS.items()
    }


def _single(columns: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    return tuple((column,) for column in columns)


def _by_wnid(
    folder: Path,
    transform: Transform,
    names: Sequence[str],
    title: str,
    *,
    index: int,
    wanted: int,
    workers: int,
) -> NaturalTest:
    """A tree of wnid folders, judged among its own classes."""
    found = folders_in(folder)
    place = {name: column for column, name in enumerate(names)}
    strangers = [name for name in found if name not in place]
    if len(found) != wanted or strangers:
        other = f", {strangers[0]!r} among them" if strangers else ""
        raise ValueError(
            f"{folder} holds {len(found)} folders, {len(strangers)} of them no wnid of "
            f"ImageNet{other}; wanted {wanted} folders named by wnid"
        )
    domain = image_folder(
        folder, transform, name=title, index=index, classes=found, workers=workers
    )
    return NaturalTest(domain, found, _single([place[name] for name in found]))
