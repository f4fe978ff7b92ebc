"""iWildCam and Camelyon17 in the folders of the WILDS benchmark, read without its package."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from contam.batch import Shift
from contam.data.images import FolderDomain, Transform, pixels, resized

UNUSED = 99999
"""The label that iWildCam's list gives to a category that no image has."""
SPLITS = ("train", "id_val", "id_test", "val", "test")
"""iWildCam's splits; `val` and `test` are of cameras that training never saw."""
OOD_VAL_CENTER = 1
OOD_TEST_CENTER = 2


def iwildcam(
    root: Path, transform: Transform | None = None, *, workers: int = 4
) -> tuple[Shift, FolderDomain]:
    """Animals before camera traps, to be told at cameras that were never seen; and the OOD val set.

    `iwildcam_v2.0` under the root holds `metadata.csv`, `categories.csv` and `train/<filename>`.
    The domain of an image is its camera. Models are selected by `macro_f1` on the second result.
    The transform is the official one unless given: the whole image on 448 x 448 pixels.

    Source: App. E.2; Koh et al. (2021).

    Raises:
        ValueError: a file, a column or a split is missing, or a label or a number is malformed.
    """
    folder = Path(root) / "iwildcam_v2.0"
    wanted = ("split", "location_remapped", "y", "filename")
    rows = _table(folder / "metadata.csv", wanted)
    strange = sorted({row[0] for row in rows} - set(SPLITS))
    if strange:
        raise ValueError(
            f"{folder / 'metadata.csv'} has a split {strange[0]!r}; wanted {', '.join(SPLITS)}"
        )
    y = _integers(folder, "y", (row[2] for row in rows))
    if int(y.max()) >= UNUSED:
        raise ValueError(f"{folder / 'metadata.csv'} has an image of an unused category, {UNUSED}")
    cameras = _integers(folder, "location_remapped", (row[1] for row in rows))
    transform = resized(448) if transform is None else transform

    def domain(split: str, name: str) -> FolderDomain:
        which = _chosen(folder, split, [row[0] == split for row in rows])
        files = [folder / "train" / rows[i][3] for i in which.tolist()]
        return FolderDomain(name, files, y[which], cameras[which], transform, workers=workers)

    shift = Shift(
        name="iWildCam",
        classes=_categories(folder / "categories.csv", int(y.max()) + 1),
        train=(domain("train", "training cameras"),),
        id_val=domain("id_val", "ID validation"),
        id_test=domain("id_test", "ID test"),
        ood_tests=(domain("test", "new cameras"),),
    )
    return shift, domain("val", "new cameras, validation")


def camelyon17(
    root: Path, transform: Transform = pixels, *, workers: int = 4
) -> tuple[Shift, FolderDomain]:
    """Tumors in tissue from a hospital that was never seen; and the OOD validation hospital's.

    `camelyon17_v1.0` under the root holds `metadata.csv` and `patches`. The domain of a patch is
    its hospital. There is no ID test: `id_test` is the ID validation set, as in the published
    numbers. Models are selected by accuracy on the second result.

    Source: App. E.3; Koh et al. (2021).

    Raises:
        ValueError: a file, a column or a split is missing, or a label or a number is malformed.
    """
    folder = Path(root) / "camelyon17_v1.0"
    wanted = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")
    rows = _table(folder / "metadata.csv", wanted)
    y = _integers(folder, "tumor", (row[4] for row in rows))
    center = _integers(folder, "center", (row[5] for row in rows))
    split = _integers(folder, "split", (row[6] for row in rows))
    # The column of splits was drawn for the old hospitals; the two new ones are whole.
    seen = (center != OOD_VAL_CENTER) & (center != OOD_TEST_CENTER)

    def domain(picked: Tensor, name: str) -> FolderDomain:
        which = _chosen(folder, name, picked.tolist())
        files = [folder / _patch(*rows[i][:4]) for i in which.tolist()]
        return FolderDomain(name, files, y[which], center[which], transform, workers=workers)

    id_val = domain(seen & (split == 1), "ID validation")
    shift = Shift(
        name="Camelyon17",
        classes=("normal", "tumor"),
        train=(domain(seen & (split == 0), "training hospitals"),),
        id_val=id_val,
        id_test=id_val,
        ood_tests=(domain(center == OOD_TEST_CENTER, "new hospital"),),
    )
    return shift, domain(center == OOD_VAL_CENTER, "new hospital, validation")


WILDS: dict[str, Callable[..., tuple[Shift, FolderDomain]]] = {
    "iwildcam": iwildcam,
    "camelyon17": camelyon17,
}


def macro_f1(predicted: Int[Tensor, " n"], y: Int[Tensor, " n"]) -> float:
    """The mean F1 score over the classes that are present among the labels, in [0, 1].

    A class that is only predicted costs precision elsewhere, and has no score of its own.

    Source: App. E.2; Koh et al. (2021).

    Raises:
        ValueError: there is no example.
    """
    if len(y) == 0:
        raise ValueError("an F1 score needs at least one example, and none was given")
    classes = int(max(predicted.max(), y.max())) + 1
    told, true = (torch.bincount(labels, minlength=classes) for labels in (predicted, y))
    hits = torch.bincount(y[predicted == y], minlength=classes)
    present = true > 0
    return float((2 * hits[present] / (told + true)[present].double()).mean())


def _patch(patient: str, node: str, x: str, y: str) -> Path:
    """Where a patch lies. The patient is text: its zeros in front belong to the name."""
    person = f"patient_{patient}_node_{node}"
    return Path("patches") / person / f"patch_{person}_x_{x}_y_{y}.png"


def _table(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Some columns of a CSV file, as text."""
    if not path.is_file():
        raise ValueError(f"no {path}; give the folder that holds {path.parent.name}")
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        missing = [name for name in columns if name not in header]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]!r}, only {', '.join(header)}")
        places = [header.index(name) for name in columns]
        try:
            rows = [tuple(line[place] for place in places) for line in lines if line]
        except IndexError as error:
            raise ValueError(
                f"{path}, line {lines.line_num} has fewer columns than its header"
            ) from error
    if not rows:
        raise ValueError(f"{path} has a header and no line below it")
    return rows


def _integers(folder: Path, column: str, values: Iterable[str]) -> Tensor:
    """A column as int64; some tools write whole numbers as 3.0."""
    numbers = []
    for value in values:
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if number < 0 or number != int(number):
            raise ValueError(
                f"{folder / 'metadata.csv'}: column {column!r} has {value!r}; wanted 0, 1, 2 …"
            )
        numbers.append(int(number))
    return torch.tensor(numbers)


def _chosen(folder: Path, split: str, picked: Sequence[bool]) -> Tensor:
    which = torch.tensor(picked).nonzero().flatten()
    if len(which) == 0:
        raise ValueError(f"{folder / 'metadata.csv'} has no image of {split!r}; is it whole?")
    return which


def _categories(path: Path, classes: int) -> tuple[str, ...]:
    """The names of the classes in use; a label without a name in the list gets its number."""
    names = {int(float(y)): name for name, y in _table(path, ("name", "y"))}
    return tuple(names.get(label, f"class {label}") for label in range(classes))
