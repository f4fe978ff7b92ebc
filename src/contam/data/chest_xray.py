"""Chest X-rays in the layouts of NIH, CheXpert and MIMIC-CXR, or listed in a table of your own.

Every image has a binary label, such as pneumothorax, and a group: a chest drain, the hospital, the
sex of the patient. `Batch.domain` is the index of the group. Only tables are read here; images are
DICOM files (with the extra `medical`), PNG with 8 or 16 bits, or JPEG. Nothing is downloaded.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from contam.batch import Shift
from contam.data import images
from contam.data.image_tree import DICOM
from contam.data.images import FolderDomain, Transform, resized
from contam.data.missing_files import MissingFilesError
from contam.text_files import check_file

SIDE = 128
"""Published side of the input in pixels."""
LARGEST = 2**26
"""Maximum number of pixels of a DICOM file; the detectors of chest X-rays have less than 2**24."""
HELD_OUT = 8
"""One of so many patients is in the validation set where a data set defines none."""
NO_GROUP = "none"
"""Name of the group of images whose group is blank, and of all images without a group column."""
NIH_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
NIH_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
MIMIC = "mimic-cxr-2.0.0"
SPLITS = ("train", "val", "test")

Uncertain = Literal["negative", "positive", "exclude"]
DataFrame = Any


@dataclass(frozen=True)
class ChestXrays:
    """A shift of chest X-rays with the names of its groups."""

    shift: Shift
    """Training, validation and test images; the OOD test is the test set again, for its groups."""
    groups: tuple[str, ...]
    """Name of each value of `Batch.domain`."""


def chest_xrays(
    kind: str,
    root: Path,
    *,
    label: str = "Pneumothorax",
    group: str | None = None,
    annotations: Path | None = None,
    uncertain: Uncertain = "negative",
    transform: Transform | None = None,
    workers: int = 4,
) -> ChestXrays:
    r"""Read a set of chest X-rays.

    Args:
        kind: `nih-cxr` (`Data_Entry_2017.csv`, `train_val_list.txt`, `test_list.txt` and the
            images in `images` or `images_001/images` ...), `chexpert` (`train.csv`, `valid.csv` and
            the patients' folders), `mimic-cxr` (the tables of metadata, splits and CheXpert labels
            of MIMIC-CXR-JPG, and `files`, as JPEG or DICOM), or `cxr-table` (`table.csv` with
            columns `path`, `split` - train, val or test - and one for each label and group).
            Tables may be gzipped.
        root: the folder of the tables.
        label: the finding, such as Pneumothorax; other images are negative.
        group: a column of the tables, such as Support Devices or View Position.
        annotations: a CSV file whose columns `image` (file name or path as in the table) and
            `group` give the group instead, such as annotations of chest drains.
        uncertain: treatment of labels of -1; the published code takes them as negative.
        transform: function from a Pillow image to a tensor; by default, 128 x 128 pixels.
        workers: number of threads that decode images.

    Raises:
        MissingFilesError: a table is missing; the message also names a missing folder of images.
        ValueError: a table, a column or a label is malformed, or a split has no image.

    Source: ours; Murali et al. (2023), Fig. 7, Murali et al. (2023), Fig. 8.

    >>> rows = "path,split,Pneumothorax,drain\n" + "".join(
    ...     f"{i}.png,{split},{i % 2},{'yes' if i % 2 else ''}\n"
    ...     for i, split in enumerate(["train", "train", "val", "val", "test", "test"])
    ... )
    >>> _ = Path("table.csv").write_text(rows)
    >>> xrays = chest_xrays("cxr-table", Path("."), group="drain")
    >>> xrays.groups, xrays.shift.id_test.y.tolist()
    (('none', 'yes'), [0, 1])
    """
    if kind not in TABLES:
        near = difflib.get_close_matches(kind, TABLES, n=1) or list(TABLES)
        raise ValueError(f"no kind of chest X-rays {kind!r}; did you mean one of {near}?")
    root = Path(root)
    _check_files(kind, root, annotations)
    table = TABLES[kind](root, label)
    if annotations is not None:
        groups = _annotated(table, annotations)
    else:
        groups = [NO_GROUP] * len(table) if group is None else _names(_column(table, group, root))
    values = _numbers(_column(table, label, root), label, root)
    kept = (values >= 0) | (uncertain != "exclude")
    values[values < 0] = 1 if uncertain == "positive" else 0
    names = tuple(sorted(set(groups)))
    y = torch.from_numpy(values.astype(np.int64))
    origin = torch.tensor([names.index(name) for name in groups])
    files = [Path(path) for path in table["file"]]
    split = table["split"].to_numpy()
    transform = resized(SIDE) if transform is None else transform

    def domain(part: str, name: str) -> FolderDomain:
        which = np.flatnonzero((split == part) & kept)
        if not len(which):
            raise ValueError(f"the tables in {root} list no image of {name} ({part!r})")
        return FolderDomain(
            name, [files[i] for i in which], y[which], origin[which], transform,
            workers=workers, reader=read,
        )  # fmt: skip

    test = domain("test", "test")
    shift = Shift(
        name=f"{kind}, {label}",
        classes=(f"no {label}", label),
        train=(domain("train", "training"),),
        id_val=domain("val", "validation"),
        id_test=test,
        ood_tests=(test,),
    )
    return ChestXrays(shift, names)


def read(path: Path) -> Image.Image:
    """Read a chest X-ray as 8-bit RGB with three equal channels, bones bright.

    DICOM values are rescaled (slope and intercept) and windowed; without a window, and for PNG with
    16 bits, the lowest value of the image becomes black and the highest white. MONOCHROME1 is
    inverted. JPEG and PNG with 8 bits are used as they are.

    Args:
        path: the file.

    Raises:
        ValueError: the file is missing, is not an image of one gray frame, or is damaged, or
            pydicom is not installed.

    Source: ours; the standard DICOM PS3.3, C.11.

    >>> deep = np.array([[1000, 2000], [3000, 5000]], dtype=np.uint16)
    >>> Image.fromarray(deep).save("deep.png")
    >>> np.asarray(read(Path("deep.png")))[..., 0].tolist()
    [[0, 64], [128, 255]]
    """
    if _is_dicom(path):
        return _gray(read_dicom(path))
    # Pillow can raise almost any error for a damaged file, and `images.read` reports them.
    with suppress(Exception), images.open_image(path) as image:
        if image.mode.startswith("I"):
            return _gray(_stretched(np.asarray(image, dtype=np.float64)))
    return images.read(path)


def read_dicom(path: Path) -> np.ndarray:
    """Read a DICOM file of one gray frame.

    Args:
        path: the file.

    Returns:
        (rows, columns) brightness in [0, 1], after rescaling, windowing and inversion.

    Raises:
        ValueError: as for `read`.

    Source: ours; the standard DICOM PS3.3, C.11.

    >>> from pydicom import Dataset
    >>> from pydicom.uid import SecondaryCaptureImageStorage
    >>> file = Dataset()
    >>> file.set_pixel_data(np.array([[0, 255]], dtype=np.uint8), "MONOCHROME1", 8)
    >>> file.SOPClassUID, file.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    >>> file.save_as("scan.dcm", enforce_file_format=True)
    >>> read_dicom(Path("scan.dcm"))
    array([[1., 0.]])
    """
    pydicom = _pydicom()
    try:
        check_file(path)
        file = pydicom.dcmread(path)
        if "PixelData" not in file:
            raise ValueError("it has no pixels")
        kind = str(file.get("PhotometricInterpretation", ""))
        if kind not in ("MONOCHROME1", "MONOCHROME2") or int(file.get("NumberOfFrames") or 1) > 1:
            raise ValueError(f"it is not one gray frame but {kind or 'of unknown kind'}")
        if int(file.Rows) * int(file.Columns) > LARGEST:
            raise ValueError(f"it states more than {LARGEST:,} pixels")
        values = pydicom.pixels.apply_modality_lut(file.pixel_array, file).astype(np.float64)
        shown = _windowed(values, file, pydicom)
    # pydicom can raise almost any error for a damaged file.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot read the DICOM file {path}: {reason[:200]}") from error
    return 1 - shown if kind == "MONOCHROME1" else shown


def _is_dicom(path: Path) -> bool:
    """Return whether a file has the name or the signature of DICOM, which needs no suffix."""
    if path.suffix.lower() in DICOM:
        return True
    with suppress(OSError):
        check_file(path)
        with path.open("rb") as file:
            return file.read(132).endswith(b"DICM")
    return False


def _windowed(values: np.ndarray, file: Any, pydicom: Any) -> np.ndarray:
    """Apply the first window of the file, or its lookup table, or the range of the values."""
    center, width = (_first(file.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is None or width is None:
        if "VOILUTSequence" in file:
            table = file.VOILUTSequence[0]
            values = pydicom.pixels.apply_voi(values.astype(np.int64), file).astype(np.float64)
            return values / (2.0 ** int(table.LUTDescriptor[2]) - 1)
        return _stretched(values)
    function = str(file.get("VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(f"its window has an unknown function {function!r}")
    if not np.isfinite([center, width]).all() or width <= 0:
        raise ValueError(f"its window has center {center} and width {width}")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    if function == "LINEAR":
        if width <= 1:
            return (values > center - 0.5).astype(np.float64)
        center, width = center - 0.5, width - 1
    return np.clip((values - center) / width + 0.5, 0, 1)


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, list | tuple) or hasattr(value, "append") else value)


def _stretched(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise ValueError("its values are not finite")
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _gray(shown: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(255 * shown).astype(np.uint8)).convert("RGB")


def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise ValueError(
            "DICOM files need pydicom; install contam with the extra 'medical', or convert the "
            "files to PNG"
        ) from error
    return pydicom


def _nih(root: Path, label: str) -> DataFrame:
    """NIH's ChestX-ray14: findings separated by bars, and the official lists of images."""
    path = root / _nih_table(root)
    table = _csv(path, ("Image Index", "Finding Labels", "Patient ID"))
    findings = [set(text.split("|")) for text in table["Finding Labels"]]
    known = set().union(*findings) - {"No Finding"}
    if label not in known:
        raise ValueError(f"{path} has no finding {label!r}, only {', '.join(sorted(known))}")
    table[label] = ["1" if label in present else "0" for present in findings]
    folders = [root / "images", *sorted(root.glob("images_*/images"))]
    places = {file.name: file for folder in folders if folder.is_dir() for file in folder.iterdir()}
    table["file"] = [str(places.get(name, folders[0] / name)) for name in table["Image Index"]]
    table["split"] = ""
    for split, name in NIH_LISTS.items():
        chosen = {line.strip() for line in _text(root / name).splitlines()}
        table.loc[table["Image Index"].isin(chosen), "split"] = split
    return _with_validation(table, table["Patient ID"])


def _chexpert(root: Path, label: str) -> DataFrame:
    """CheXpert: 1, 0, -1 (uncertain) or blank; `valid.csv`, read by radiologists, is the test."""
    parts = []
    for name, split in (("train.csv", "train"), ("valid.csv", "test")):
        table = _csv(root / name, ("Path", label))
        # Paths start with the name of the set's folder.
        table["file"] = [str(root / path.split("/", 1)[-1]) for path in table["Path"]]
        parts.append(table.assign(split=split))
    table = _concatenated(parts)
    patients = [path.split("/")[-3] if path.count("/") >= 3 else path for path in table["Path"]]
    return _with_validation(table, patients)


def _mimic(root: Path, label: str) -> DataFrame:
    """MIMIC-CXR-JPG: labels of studies, and images with their splits."""
    split = _csv(root / f"{MIMIC}-split.csv", ("dicom_id", "study_id", "subject_id", "split"))
    labels = _csv(root / f"{MIMIC}-chexpert.csv", ("study_id", label))
    metadata = _csv(root / f"{MIMIC}-metadata.csv", ("dicom_id", "ViewPosition"))
    # A study without labels is left out.
    for other, key in ((labels, "study_id"), (metadata, "dicom_id")):
        new = [name for name in other if name not in split or name == key]
        split = split.merge(other[new], on=key, validate="many_to_one")
    table = split
    suffix = ".dcm" if next((root / "files").glob("*/*/*/*.dcm"), None) else ".jpg"
    table["file"] = [
        str(root / "files" / f"p{person[:2]}" / f"p{person}" / f"s{study}" / f"{image}{suffix}")
        for person, study, image in zip(
            table["subject_id"], table["study_id"], table["dicom_id"], strict=True
        )
    ]
    table["split"] = table["split"].replace({"validate": "val"})
    return table


def _own(root: Path, label: str) -> DataFrame:
    """A table of your own."""
    table = _csv(root / "table.csv", ("path", "split", label))
    unknown = sorted(set(table["split"]) - set(SPLITS))
    if unknown:
        raise ValueError(
            f"{root / 'table.csv'} has a split {unknown[0]!r}; expected {', '.join(SPLITS)}"
        )
    if "" in set(table["path"]):
        raise ValueError(f"{root / 'table.csv'} has a row without a path")
    table["file"] = [str(root / path) for path in table["path"]]
    return table


TABLES: Mapping[str, Callable[[Path, str], DataFrame]] = {
    "nih-cxr": _nih,
    "chexpert": _chexpert,
    "mimic-cxr": _mimic,
    "cxr-table": _own,
}
"""The reader of each kind of tables."""


def _nih_table(root: Path) -> str:
    """Return the name of NIH's table, of which there are two versions."""
    return next((name for name in NIH_TABLES if (root / name).is_file()), NIH_TABLES[0])


FILES: Mapping[str, tuple[str, ...]] = {
    "nih-cxr": tuple(NIH_LISTS.values()),
    "chexpert": ("train.csv", "valid.csv"),
    "mimic-cxr": tuple(f"{MIMIC}-{part}.csv" for part in ("split", "chexpert", "metadata")),
    "cxr-table": ("table.csv",),
}
"""The tables of each kind; NIH's set also has one of `NIH_TABLES`."""
IMAGES: Mapping[str, tuple[str, ...]] = {
    "nih-cxr": ("images",), "chexpert": ("train", "valid"), "mimic-cxr": ("files",),
}  # fmt: skip
"""The folders of images of each kind; a table of your own may name any."""


def _check_files(kind: str, root: Path, annotations: Path | None) -> None:
    """Raise an error if a table is missing, which names all that is missing."""

    def exists(path: Path) -> bool:
        return path.is_file() or path.with_name(f"{path.name}.gz").is_file()

    names = (_nih_table(root), *FILES[kind]) if kind == "nih-cxr" else FILES[kind]
    tables = [name for name in names if not exists(root / name)]
    if annotations is not None and not exists(Path(annotations)):
        tables.append(str(annotations))
    if tables:
        folders = [name for name in IMAGES.get(kind, ()) if not any(root.glob(f"{name}*/"))]
        raise MissingFilesError(kind, root, [*tables, *(f"{name}/" for name in folders)])


def _csv(path: Path, columns: Iterable[str]) -> DataFrame:
    """Return a table of text without missing values; `path` may also be gzipped."""
    import pandas

    path = path if path.is_file() else path.with_name(f"{path.name}.gz")
    try:
        table = pandas.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    # pandas raises many kinds of errors for files that are no tables.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is not a CSV table: {reason[:200]}") from error
    for name in columns:
        if name not in table:
            near = difflib.get_close_matches(name, table.columns, n=3) or list(table.columns)[:20]
            raise ValueError(f"{path} has no column {name!r}; did you mean one of {near}?")
    if table.empty:
        raise ValueError(f"{path} has a header and no rows")
    return table


def _concatenated(parts: list[DataFrame]) -> DataFrame:
    import pandas

    return pandas.concat(parts, ignore_index=True).fillna("")


def _with_validation(table: DataFrame, patients: Iterable[str]) -> DataFrame:
    """Move the images of some training patients to the validation set."""
    order = {name: place for place, name in enumerate(sorted(set(patients)))}
    held = np.array([order[name] % HELD_OUT == 0 for name in patients])
    table.loc[held & (table["split"] == "train").to_numpy(), "split"] = "val"
    return table


def _column(table: DataFrame, name: str, root: Path) -> list[str]:
    if name not in table:
        near = difflib.get_close_matches(name, table.columns, n=3) or list(table.columns)[:20]
        raise ValueError(f"the tables in {root} have no column {name!r}; did you mean {near}?")
    return table[name].tolist()


def _names(values: Iterable[str]) -> list[str]:
    return [value.strip() or NO_GROUP for value in values]


def _numbers(values: Iterable[str], label: str, root: Path) -> np.ndarray:
    """Return labels as 1, 0 or -1; a blank label was not mentioned, so it is 0."""
    known = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "": 0, "-1": -1, "-1.0": -1}
    try:
        return np.array([known[value.strip()] for value in values])
    except KeyError as error:
        raise ValueError(
            f"the tables in {root} have a label {error.args[0]!r} of {label}; expected 1, 0, -1 "
            "(uncertain) or blank"
        ) from error


def _annotated(table: DataFrame, path: Path) -> list[str]:
    """Return the group of each image from a table of annotations."""
    rows = _csv(path, ("image", "group"))
    groups = dict(zip(rows["image"], _names(rows["group"]), strict=True))
    keys = [next(c for c in ("Image Index", "Path", "dicom_id", "path") if c in table), "file"]
    given = [
        groups.get(own, groups.get(Path(file).name))
        for own, file in zip(*(table[key] for key in keys), strict=True)
    ]
    if not any(given):
        raise ValueError(
            f"{path} names none of the images; expected names such as {table[keys[0]][0]}"
        )
    return [name or NO_GROUP for name in given]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
