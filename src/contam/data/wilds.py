"""iWildCam and Camelyon17 in the folders of the WILDS benchmark, read without its package."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from contam.batch import Shift
from contam.data.images import FolderDomain, Transform, pixels, resized
from contam.text_files import read_csv

UNUSED = 99999
"""The label of categories without images in iWildCam's list."""
SPLITS = ("train", "id_val", "id_test", "val", "test")
"""iWildCam's splits; `val` and `test` are from other cameras than training."""
OOD_VAL_CENTER = 1
OOD_TEST_CENTER = 2


def iwildcam(
    root: Path, transform: Transform | None = None, *, workers: int = 4
) -> tuple[Shift, FolderDomain]:
    r"""Read iWildCam: animals in camera traps, tested on new cameras.

    The domain of an image is its camera.

    Args:
        root: the folder of `iwildcam_v2.0` with `metadata.csv`, `categories.csv` and
            `train/<filename>`.
        transform: function from a Pillow image to a tensor; by default the official one, the whole
            image at 448 x 448 pixels.
        workers: number of threads that decode images.

    Returns:
        The shift, and the OOD validation set, on which models are selected by `macro_f1`.

    Raises:
        ValueError: a file, a column or a split is missing, or a label or a number is malformed.

    Source: App. E.2; Koh et al. (2021).

    >>> folder = Path("iwildcam_v2.0")
    >>> folder.mkdir()
    >>> rows = [f"{split},3,0,0.jpg" for split in SPLITS]
    >>> _ = (folder / "metadata.csv").write_text(
    ...     "\n".join(["split,location_remapped,y,filename", *rows]))
    >>> _ = (folder / "categories.csv").write_text("y,name\n0,empty")
    >>> shift, validation = iwildcam(Path("."))
    >>> shift.classes, shift.ood_tests[0].name, validation.origin
    (('empty',), 'new cameras', tensor([3]))
    """
    folder = Path(root) / "iwildcam_v2.0"
    columns = ("split", "location_remapped", "y", "filename")
    rows = _table(folder / "metadata.csv", columns)
    unknown = sorted({row[0] for row in rows} - set(SPLITS))
    if unknown:
        raise ValueError(
            f"{folder / 'metadata.csv'} has a split {unknown[0]!r}; expected {', '.join(SPLITS)}"
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
    r"""Read Camelyon17: tumors in tissue patches, tested on a new hospital.

    The domain of a patch is its hospital. There is no ID test: `id_test` is the ID validation set,
    as in the published numbers.

    Args:
        root: the folder of `camelyon17_v1.0` with `metadata.csv` and `patches`.
        transform: function from a Pillow image to a tensor.
        workers: number of threads that decode images.

    Returns:
        The shift, and the OOD validation hospital, on which models are selected by accuracy.

    Raises:
        ValueError: a file, a column or a split is missing, or a label or a number is malformed.

    Source: App. E.3; Koh et al. (2021).

    >>> Path("camelyon17_v1.0").mkdir()
    >>> rows = [f"004,4,0,0,1,{place}" for place in ("0,0", "0,1", "1,0", "2,0")]
    >>> _ = Path("camelyon17_v1.0", "metadata.csv").write_text(
    ...     "\n".join(["patient,node,x_coord,y_coord,tumor,center,split", *rows]))
    >>> shift, validation = camelyon17(Path("."))
    >>> shift.ood_tests[0].files[0].name, validation.y
    ('patch_patient_004_node_4_x_0_y_0.png', tensor([1]))
    """
    folder = Path(root) / "camelyon17_v1.0"
    columns = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")
    rows = _table(folder / "metadata.csv", columns)
    y = _integers(folder, "tumor", (row[4] for row in rows))
    center = _integers(folder, "center", (row[5] for row in rows))
    split = _integers(folder, "split", (row[6] for row in rows))
    # The split column is valid only for the training hospitals; the other two are used whole.
    in_training = (center != OOD_VAL_CENTER) & (center != OOD_TEST_CENTER)

    def domain(picked: Tensor, name: str) -> FolderDomain:
        which = _chosen(folder, name, picked.tolist())
        files = [folder / _patch(*rows[i][:4]) for i in which.tolist()]
        return FolderDomain(name, files, y[which], center[which], transform, workers=workers)

    id_val = domain(in_training & (split == 1), "ID validation")
    shift = Shift(
        name="Camelyon17",
        classes=("normal", "tumor"),
        train=(domain(in_training & (split == 0), "training hospitals"),),
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
    """Return the mean F1 score over the classes that are present among the labels, in [0, 1].

    A class that is only predicted has no score of its own.

    Args:
        predicted: predicted class indices.
        y: true class indices.

    Raises:
        ValueError: there is no example.

    Source: App. E.2; Koh et al. (2021).

    >>> macro_f1(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 0, 1]))
    0.5833333333333333
    """
    from sklearn.metrics import f1_score

    if len(y) == 0:
        raise ValueError("an F1 score needs at least one example")
    present = y.unique().cpu().numpy()
    truth, guess = y.cpu().numpy(), predicted.cpu().numpy()
    return float(f1_score(truth, guess, labels=present, average="macro"))


def _patch(patient: str, node: str, x: str, y: str) -> Path:
    """Return the path of a patch. The patient is text, because it has leading zeros."""
    person = f"patient_{patient}_node_{node}"
    return Path("patches") / person / f"patch_{person}_x_{x}_y_{y}.png"


def _table(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Return columns of a CSV file as text."""
    if not path.is_file():
        raise ValueError(f"no {path}; give the folder that contains {path.parent.name}")
    lines = read_csv(path)
    header = next(lines, [])
    missing = [name for name in columns if name not in header]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}, only {', '.join(header)}")
    places = [header.index(name) for name in columns]
    rows = [tuple(line[place] for place in places) for line in lines]
    if not rows:
        raise ValueError(f"{path} has a header and no rows")
    return rows


def _integers(folder: Path, column: str, values: Iterable[str]) -> Tensor:
    """Return a column as int64; some tools write whole numbers as 3.0."""
    numbers = []
    for value in values:
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if number < 0 or number != int(number):
            raise ValueError(
                f"{folder / 'metadata.csv'}: column {column!r} has {value!r}; expected 0, 1, 2 …"
            )
        numbers.append(int(number))
    return torch.tensor(numbers)


def _chosen(folder: Path, split: str, picked: Sequence[bool]) -> Tensor:
    which = torch.tensor(picked).nonzero().flatten()
    if len(which) == 0:
        raise ValueError(f"{folder / 'metadata.csv'} has no image of {split!r}; is it complete?")
    return which


def _categories(path: Path, classes: int) -> tuple[str, ...]:
    """Return the names of the used classes; a label without a name is named by its number."""
    names = {int(float(y)): name for name, y in _table(path, ("name", "y"))}
    return tuple(names.get(label, f"class {label}") for label in range(classes))
