"""Sets of chest X-rays in their true layouts, DICOM and PNG files, and damaged ones."""

import gzip

import numpy as np
import pytest
import torch
from PIL import Image
from support import trees
from support.dicom_files import dicom

from contam.data.chest_xray import TABLES, chest_xrays, read, read_dicom
from contam.data.images import FolderDomain
from contam.data.layout import check
from contam.data.missing_files import MissingFilesError


def images(domain):
    assert isinstance(domain, FolderDomain)
    return domain


GROUP = {
    "nih-cxr": ("Patient Gender", ("F", "M")),
    "chexpert": ("Support Devices", ("1.0", "none")),
    "mimic-cxr": ("ViewPosition", ("AP", "PA")),
    "cxr-table": ("drain", ("drain", "none")),
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_layout_gives_labels_groups_and_images(tmp_path, kind):
    column, names = GROUP[kind]
    xrays = chest_xrays(kind, trees.chest_xrays(tmp_path, kind), group=column)
    shift = xrays.shift
    assert xrays.groups == names and shift.classes == ("no Pneumothorax", "Pneumothorax")
    assert shift.id_val is not None
    assert len(shift.train[0]) + len(shift.id_val) == 12 and len(shift.id_test) == 4
    assert shift.id_test.y.tolist() == [0, 1, 0, 1]
    (batch,) = shift.id_test.batches(4)
    assert batch.x.shape == (4, 3, 128, 128) and 0 <= batch.x.min() <= batch.x.max() <= 1
    # In these sets the second group is exactly the group of all healthy or all ill patients.
    assert len({(int(y), int(d)) for y, d in zip(batch.y, batch.domain, strict=True)}) == 2


@pytest.mark.parametrize("kind", ["nih-cxr", "chexpert"])
def test_no_patient_is_in_training_and_validation(tmp_path, kind):
    shift = chest_xrays(kind, trees.chest_xrays(tmp_path, kind)).shift
    parts = [set(images(part).files) for part in (shift.train[0], shift.id_val, shift.id_test)]
    assert all(parts) and not parts[0] & parts[1] and not (parts[0] | parts[1]) & parts[2]


@pytest.mark.parametrize("uncertain", ["negative", "positive", "exclude"])
def test_uncertain_labels_are_treated_as_chosen(tmp_path, uncertain):
    root = trees.chest_xrays(tmp_path, "chexpert")
    test = chest_xrays("chexpert", root, uncertain=uncertain).shift.id_test
    # Patients 12 (-1), 13 (1), 14 (blank) and 15 (1).
    expected = {"negative": [0, 1, 0, 1], "positive": [1, 1, 0, 1], "exclude": [1, 0, 1]}
    assert test.y.tolist() == expected[uncertain]


def test_tables_may_be_gzipped(tmp_path):
    root = trees.chest_xrays(tmp_path, "mimic-cxr")
    expected = images(chest_xrays("mimic-cxr", root).shift.train[0]).files
    for path in list(root.glob("*.csv")):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert images(chest_xrays("mimic-cxr", root).shift.train[0]).files == expected


def test_annotations_give_the_group_by_file_name(tmp_path):
    root = trees.chest_xrays(tmp_path, "nih-cxr")
    path = trees.table(tmp_path / "drains.csv", ["image", "group"], [["00000013_000.png", "drain"]])
    xrays = chest_xrays("nih-cxr", root, annotations=path)
    assert xrays.groups == ("drain", "none")
    assert images(xrays.shift.id_test).origin.tolist() == [1, 0, 1, 1]
    trees.table(path, ["image", "group"], [["other.png", "drain"]])
    with pytest.raises(ValueError, match=r"names none of the images; expected .*00000000_000\.png"):
        chest_xrays("nih-cxr", root, annotations=path)


@pytest.mark.parametrize("kind", ["nih-cxr", "chexpert", "mimic-cxr"])
def test_data_check_counts_images_and_names_missing_ones(tmp_path, kind):
    root = trees.chest_xrays(tmp_path, kind)
    report = check(kind, root)
    assert {c.part: c.images for c in report.counts} == {"training and validation": 12, "test": 4}
    assert report.missing == report.wrong == ()
    lost = images(chest_xrays(kind, root).shift.id_test).files[0]
    lost.unlink()
    assert check(kind, root).wrong[0].startswith("test: 1 listed images are missing, such as")


@pytest.mark.parametrize(
    ("kind", "tables", "folders"),
    [("nih-cxr", 3, 1), ("chexpert", 2, 2), ("mimic-cxr", 3, 1), ("cxr-table", 1, 0)],
)
def test_all_missing_tables_and_folders_are_named_at_once(tmp_path, kind, tables, folders):
    with pytest.raises(MissingFilesError, match=f"not a complete {kind}: missing ") as error:
        chest_xrays(kind, tmp_path, annotations=tmp_path / "drains.csv")
    missing = str(error.value).partition(": missing ")[2].split(", ")
    assert sum(name.endswith("/") for name in missing) == folders
    assert len(missing) == tables + folders + 1 and str(tmp_path / "drains.csv") in missing
    trees.chest_xrays(tmp_path, kind)
    with pytest.raises(MissingFilesError, match=r"missing \S+drains\.csv$"):
        chest_xrays(kind, tmp_path, annotations=tmp_path / "drains.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a CSV table"),
        ("path,split,Pneumothorax\n", "has a header and no rows"),
        ("path,split\na.png,train\n", "has no column 'Pneumothorax'"),
        ("path,split,Pneumothorax\na.png,training,1\n", "has a split 'training'; expected train"),
        ("path,split,Pneumothorax\na.png,train,maybe\n", "a label 'maybe' of Pneumothorax"),
        ("path,split,Pneumothorax\n,train,1\n", "has a row without a path"),
        ("path,split,Pneumothorax\na.png,train,1\n", "list no image of (validation|test)"),
        ("path,split,Pneumothorax\na.png,train,1,5,6\n", "has no column|not a CSV|list no image"),
        ('path,split,Pneumothorax\n"a.png,train,1\n', "is not a CSV table"),
    ],
)
def test_malformed_tables_are_one_line_errors(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        chest_xrays("cxr-table", tmp_path)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_and_unknown_names_are_one_line_errors(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"\xff\xfe\x00path\n\x81")
    with pytest.raises(ValueError, match="is not a CSV table"):
        chest_xrays("cxr-table", tmp_path)
    with pytest.raises(ValueError, match="no kind of chest X-rays 'nih'"):
        chest_xrays("nih", tmp_path)
    root = trees.chest_xrays(tmp_path / "nih", "nih-cxr")
    with pytest.raises(ValueError, match="no finding 'Pneumotorax', only Effusion, Pneumothorax"):
        chest_xrays("nih-cxr", root, label="Pneumotorax")
    with pytest.raises(ValueError, match=r"have no column 'Gender'; did you mean .*Patient Gender"):
        chest_xrays("nih-cxr", root, group="Gender")


def test_sixteen_bits_are_stretched_and_eight_bits_are_not(tmp_path):
    deep = np.array([[100, 4095], [2000, 300]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    expected = np.rint(255 * (deep - 100.0) / 3995)
    assert np.array_equal(np.asarray(read(tmp_path / "deep.png"))[..., 1], expected)
    Image.fromarray(np.array([[10, 20]], dtype=np.uint8)).save(tmp_path / "plain.png")
    assert np.asarray(read(tmp_path / "plain.png"))[0, :, 0].tolist() == [10, 20]
    Image.fromarray(np.full((2, 2), 7, dtype=np.uint16)).save(tmp_path / "flat.png")
    assert np.asarray(read(tmp_path / "flat.png")).max() == 0


pydicom = pytest.importorskip("pydicom")


VALUES = np.array([[0, 1000, 2000], [3000, 4000, 4095]])
WINDOW = {"WindowCenter": 2000, "WindowWidth": 2001}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, VALUES / 4095),
        (WINDOW, np.clip((VALUES - 999.5) / 2000, 0, 1)),
        (
            WINDOW | {"VOILUTFunction": "LINEAR_EXACT"},
            np.clip((VALUES - 999.5) / 2001, 0, 1),
        ),
        (
            WINDOW | {"VOILUTFunction": "SIGMOID"},
            1 / (1 + np.exp(-4 * (VALUES - 2000) / 2001)),
        ),
        (
            {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 1000.5,
             "WindowWidth": 4001},
            np.clip((2.0 * VALUES - 1000 + 1000) / 4000, 0, 1),
        ),
        (
            {"WindowCenter": [2000, 1], "WindowWidth": [2001, 1]},
            np.clip((VALUES - 999.5) / 2000, 0, 1),
        ),
    ],
    ids=["no window", "linear", "exact", "sigmoid", "rescaled", "first window"],
)  # fmt: skip
def test_dicom_is_rescaled_windowed_and_inverted(tmp_path, fields, expected):
    shown = read_dicom(dicom(tmp_path / "a.dcm", VALUES, **fields))
    assert shown == pytest.approx(expected, abs=1e-12)
    kind = {"PhotometricInterpretation": "MONOCHROME1"}
    inverted = read_dicom(dicom(tmp_path / "b.dcm", VALUES, **fields, **kind))
    assert inverted == pytest.approx(1 - expected, abs=1e-12)


def test_the_linear_window_is_that_of_pydicom(tmp_path):
    path = dicom(tmp_path / "a.dcm", VALUES, **WINDOW)
    file = pydicom.dcmread(path)
    theirs = pydicom.pixels.apply_windowing(file.pixel_array, file) / (2**12 - 1)
    assert read_dicom(path) == pytest.approx(theirs, abs=1e-9)


def test_a_dicom_file_is_recognized_without_its_suffix(tmp_path):
    path = dicom(tmp_path / "a.dcm", VALUES)
    bare = path.rename(tmp_path / "IM0001")
    assert np.asarray(read(bare))[..., 0].tolist() == np.rint(VALUES / 4095 * 255).tolist()


def damaged(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 5])


def empty(path):
    path.write_bytes(b"")


def other(path):
    path.write_bytes(b"\x00" * 128 + b"DICM" + bytes(range(256)) * 3)


@pytest.mark.parametrize("harm", [damaged, empty, other])
def test_damaged_dicom_files_are_one_line_errors(tmp_path, harm):
    path = dicom(tmp_path / "a.dcm", VALUES)
    harm(path)
    with pytest.raises(ValueError, match=r"cannot read the DICOM file .*a\.dcm") as error:
        read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"PhotometricInterpretation": "RGB"}, "not one gray frame but RGB"),
        ({"NumberOfFrames": 2}, "not one gray frame"),
        ({"Rows": 60000, "Columns": 60000}, "more than 67,108,864 pixels"),
        ({"WindowCenter": 10, "WindowWidth": -5}, "window has center 10.0 and width -5.0"),
        (WINDOW | {"VOILUTFunction": "OTHER"}, "unknown function 'OTHER'"),
    ],
)
def test_unsupported_dicom_files_say_why(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        read_dicom(dicom(tmp_path / "a.dcm", VALUES, **fields))


def test_dicom_files_are_read_through_a_domain(tmp_path):
    root = trees.chest_xrays(tmp_path, "mimic-cxr")
    for path in list(root.rglob("*.jpg")):
        dicom(path.with_suffix(".dcm"), VALUES)
        path.unlink()
    shift = chest_xrays("mimic-cxr", root).shift
    assert {file.suffix for file in images(shift.train[0]).files} == {".dcm"}
    batches = [torch.cat([b.x for b in shift.train[0].batches(3)]) for _ in range(2)]
    assert torch.equal(*batches)
