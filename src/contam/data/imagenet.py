"""ImageNet and its five natural shifts, each scored on its own classes.

A network returns 1000 logits in the order of the sorted WordNet ids (wnids). Three sets have fewer
classes; if all 1000 logits compete, their accuracy is tens of percentage points too low.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from contam.data.folders import classes_in, folders_in, images_in, published_folder
from contam.data.images import FolderDomain, Transform, without_border
from contam.text_files import read_json, read_text

CLASSES = 1000
BORDER = 2
"""Pixels to crop on each side of ObjectNet's images, whose red frame is one pixel wide."""


def max_over(
    logits: Float[Tensor, "batch all"], groups: Sequence[Sequence[int]]
) -> Float[Tensor, "batch groups"]:
    """Return the largest logit of each group of columns.

    Args:
        logits: logits of all classes of ImageNet.
        groups: the columns of each class; a class can have several.

    Raises:
        ValueError: a group is empty, or a column does not exist or is in two groups.

    >>> max_over(torch.tensor([[0.0, 3.0, 1.0]]), [[0, 1], [2]]).tolist()
    [[3.0, 1.0]]
    """
    columns = [column for group in groups for column in group]
    if not all(groups) or len(set(columns)) < len(columns):
        raise ValueError("every group needs a column, and no column can be in two groups")
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
    """A test set of ImageNet's classes, and the columns of the logits that belong to each class."""

    domain: FolderDomain
    """Its labels are indices of `classes`."""
    classes: tuple[str, ...]
    """wnids, or ObjectNet's names."""
    columns: tuple[tuple[int, ...], ...]
    """The columns of the logits of each class."""

    def scores(self, logits: Float[Tensor, "batch all"]) -> Float[Tensor, "batch classes"]:
        """Return a score for each class of this set; the prediction is the largest."""
        return max_over(logits, self.columns)


def wnids(folder: Path | None = None) -> tuple[str, ...]:
    """Return the 1000 wnids in the order of the logits.

    Args:
        folder: `imagenet/val` or `imagenet/train`; by default timm's list is used.

    Raises:
        ValueError: the folder does not contain 1000 folders, or there is neither a folder nor timm.

    Source: ours, the published order of the classes, from files that users have.

    >>> for number in range(1000):
    ...     Path("val", f"n{number:08}").mkdir(parents=True)
    >>> wnids(Path("val"))[:2]
    ('n00000000', 'n00000001')
    """
    if folder is not None:
        folders = classes_in(folder)
        if len(folders) != CLASSES:
            raise ValueError(
                f"{folder} contains {len(folders)} class folders, not {CLASSES}; "
                "give ImageNet's train or val, sorted into folders named by wnid"
            )
        return folders
    # Read as a file: importing timm would also import torchvision.
    timm = find_spec("timm")
    places = [Path(place) for place in (timm and timm.submodule_search_locations) or ()]
    lists = [place / "data" / "_info" / "imagenet_synsets.txt" for place in places]
    for path in filter(Path.is_file, lists):
        return tuple(path.read_text("utf-8").split())
    raise ValueError(
        "the 1000 wnids come from the folder of ImageNet's val or from timm, and neither is here; "
        "give that folder, or run pip install -e '.[models]' in a clone of contam"
    )


def imagenet(
    root: Path, transform: Transform, *, split: str = "val", workers: int = 4
) -> NaturalTest:
    """Read ImageNet from `imagenet/{train,val}/<wnid>/*` below the root.

    Args:
        root: the folder that contains `imagenet`.
        transform: function from a Pillow image to a tensor.
        split: `train` or `val`.
        workers: number of threads that decode images.

    Raises:
        ValueError: the split is neither train nor val, or its folder has another layout.

    Source: App. E.1.

    >>> from contam.data.images import pixels
    >>> imagenet(Path("data"), pixels, split="test")
    Traceback (most recent call last):
        ...
    ValueError: no split 'test' of ImageNet; choose train or val
    """
    if split not in ("train", "val"):
        raise ValueError(f"no split {split!r} of ImageNet; choose train or val")
    folder = Path(root) / "imagenet" / split
    names = wnids(folder)
    domain = published_folder(folder, transform, names, name=f"ImageNet {split}", workers=workers)
    return NaturalTest(domain, names, _single(range(CLASSES)))


def imagenet_v2(
    root: Path, transform: Transform, names: Sequence[str], *, workers: int = 4
) -> NaturalTest:
    """Read ImageNetV2 (matched frequency), whose folders 0..999 are the columns of the logits.

    Args:
        root: the folder that contains `imagenetv2-matched-frequency-format-val`.
        transform: function from a Pillow image to a tensor.
        names: the 1000 wnids in the order of the logits.
        workers: number of threads that decode images.

    Raises:
        ValueError: the folders are not 0..999, or a folder has no image.

    Source: App. E.1; Recht et al. (2019).

    >>> from contam.data.images import pixels
    >>> imagenet_v2(Path("."), pixels, wnids())
    Traceback (most recent call last):
        ...
    ValueError: no folder imagenetv2-matched-frequency-format-val; give the folder that contains ...
    """
    folder = Path(root) / "imagenetv2-matched-frequency-format-val"
    # Sorted as text, 10 would come before 2, and almost every label would be wrong.
    numbers = [str(number) for number in range(CLASSES)]
    domain = published_folder(
        folder, transform, numbers, name="ImageNetV2", index=1, workers=workers
    )
    return NaturalTest(domain, tuple(names), _single(range(CLASSES)))


def imagenet_r(
    root: Path, transform: Transform, names: Sequence[str], *, workers: int = 4
) -> NaturalTest:
    """Read ImageNet-R: renditions of 200 classes; only these classes compete.

    Args:
        root: the folder that contains `imagenet-r`.
        transform: function from a Pillow image to a tensor.
        names: the 1000 wnids in the order of the logits.
        workers: number of threads that decode images.

    Raises:
        ValueError: the folders are not 200 wnids, or a folder has no image.

    Source: App. E.1; Hendrycks et al. (2021).

    >>> from contam.data.images import pixels
    >>> names = wnids()
    >>> for name in names[::5]:
    ...     Path("imagenet-r", name).mkdir(parents=True)
    ...     Path("imagenet-r", name, "0.jpg").touch()
    >>> test = imagenet_r(Path("."), pixels, names)
    >>> test.domain.y[:3], test.columns[:3]
    (tensor([0, 1, 2]), ((0,), (5,), (10,)))
    """
    return _by_wnid(
        Path(root) / "imagenet-r",
        transform,
        names,
        "ImageNet-R",
        index=2,
        count=200,
        workers=workers,
    )


def imagenet_sketch(
    root: Path, transform: Transform, names: Sequence[str], *, workers: int = 4
) -> NaturalTest:
    """Read ImageNet Sketch: black-and-white sketches of all 1000 classes, in `sketch/<wnid>`.

    Args:
        root: the folder that contains `sketch`.
        transform: function from a Pillow image to a tensor.
        names: the 1000 wnids in the order of the logits.
        workers: number of threads that decode images.

    Raises:
        ValueError: the folders are not the 1000 wnids, or a folder has no image.

    Source: App. E.1; Wang et al. (2019).

    >>> from contam.data.images import pixels
    >>> imagenet_sketch(Path("."), pixels, wnids())
    Traceback (most recent call last):
        ...
    ValueError: no folder sketch; give the folder that contains the data set's folders
    """
    folder = Path(root) / "sketch"
    return _by_wnid(
        folder, transform, names, "ImageNet Sketch", index=4, count=CLASSES, workers=workers
    )


def imagenet_a(
    root: Path, transform: Transform, names: Sequence[str], *, workers: int = 4
) -> NaturalTest:
    """Read ImageNet-A: photos of 200 classes that a ResNet-50 misclassifies.

    The accuracy of that ResNet-50 is exactly 0, so its logit is infinite and fits leave it out.

    Args:
        root: the folder that contains `imagenet-a`.
        transform: function from a Pillow image to a tensor.
        names: the 1000 wnids in the order of the logits.
        workers: number of threads that decode images.

    Raises:
        ValueError: the folders are not 200 wnids, or a folder has no image.

    Source: App. E.1; Hendrycks et al. (2021).

    >>> from contam.data.images import pixels
    >>> Path("imagenet-a", "cat").mkdir(parents=True)
    >>> imagenet_a(Path("."), pixels, wnids())
    Traceback (most recent call last):
        ...
    ValueError: imagenet-a contains 1 folders, of which 1 are not wnids of ImageNet...
    """
    return _by_wnid(
        Path(root) / "imagenet-a",
        transform,
        names,
        "ImageNet-A",
        index=5,
        count=200,
        workers=workers,
    )


def objectnet(
    root: Path, transform: Transform, names: Sequence[str] = (), *, workers: int = 4
) -> NaturalTest:
    """Read ObjectNet: household objects from unusual viewpoints, restricted to ImageNet's classes.

    A border of two pixels is cropped before the transform. The classes and their columns come from
    the mapping files of the archive. A class with several columns is scored by the largest.

    Args:
        root: the folder that contains `objectnet-1.0`.
        transform: function from a Pillow image to a tensor.
        names: not used; the tests have a common signature.
        workers: number of threads that decode images.

    Raises:
        ValueError: a folder or a mapping file is missing, or the mapping files contradict each
            other.

    Source: App. E.1; Barbu et al. (2019).

    >>> from contam.data.images import pixels
    >>> objectnet(Path("."), pixels)
    Traceback (most recent call last):
        ...
    ValueError: no objectnet-1.0/mappings/folder_to_objectnet_label.json; it is in the archive...
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
    r"""Return the columns of the logits for each folder of ObjectNet that is a class of ImageNet.

    Args:
        mappings: the folder of the four mapping files of the archive.

    Returns:
        Columns by name of the folder.

    Raises:
        ValueError: a mapping file is missing, or they contradict each other.

    >>> import json
    >>> files = {
    ...     "folder_to_objectnet_label.json": {"chair": "Chair"},
    ...     "objectnet_to_imagenet_1k.json": {"Chair": "folding chair; rocking chair"},
    ...     "pytorch_to_imagenet_2012_id.json": {"559": 0, "765": 1}}
    >>> for name, content in files.items():
    ...     _ = Path(name).write_text(json.dumps(content))
    >>> titles = Path("imagenet_to_label_2012_v2")
    >>> _ = titles.write_text("folding chair\nrocking chair")
    >>> objectnet_columns(Path("."))
    {'chair': (559, 765)}
    """

    def place(name: str) -> Path:
        if not (mappings / name).is_file():
            raise ValueError(f"no {mappings / name}; it is in the archive of ObjectNet")
        return mappings / name

    labels = read_json(place("folder_to_objectnet_label.json"))
    known = read_json(place("objectnet_to_imagenet_1k.json"))
    column_of = {
        int(older): int(column)
        for column, older in read_json(place("pytorch_to_imagenet_2012_id.json")).items()
    }
    # The line number is ImageNet's older class number, which differs from the column.
    older_of = {
        line.strip(): number
        for number, line in enumerate(read_text(place("imagenet_to_label_2012_v2")).splitlines())
    }
    folder_of = {label: folder for folder, label in labels.items()}
    try:
        return {
            folder_of[label]: tuple(column_of[older_of[title]] for title in same.split("; "))
            for label, same in known.items()
        }
    except KeyError as error:
        raise ValueError(
            f"the mapping files in {mappings} contradict each other: {error} is in one and not in "
            "another; take all four from one archive"
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
    """Return a function for each of the six tests that reads it; `imagenet/val` gives the classes.

    Args:
        root: the folder of the data sets' folders.
        transform: function from a Pillow image to a tensor.
        workers: number of threads that decode images.

    Returns:
        Functions by name of the test, in the order of `NATURAL_TESTS`.

    Raises:
        ValueError: `imagenet/val` below the root does not contain 1000 folders.

    >>> from contam.data.images import pixels
    >>> natural_tests(Path("data"), pixels)
    Traceback (most recent call last):
        ...
    ValueError: no folder data/imagenet/val; give the folder that contains the data set's folders
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
    count: int,
    workers: int,
) -> NaturalTest:
    """Read a tree of wnid folders, scored among its own classes."""
    folders = folders_in(folder)
    column = {name: index for index, name in enumerate(names)}
    unknown = [name for name in folders if name not in column]
    if len(folders) != count or unknown:
        example = f", such as {unknown[0]!r}" if unknown else ""
        raise ValueError(
            f"{folder} contains {len(folders)} folders, of which {len(unknown)} are not wnids of "
            f"ImageNet{example}; expected {count} folders named by wnid"
        )
    domain = published_folder(folder, transform, folders, name=title, index=index, workers=workers)
    return NaturalTest(domain, folders, _single([column[name] for name in folders]))
