"""WILDS from its folders: splits that are text, patients that are text, and the F1 score."""

import csv

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from support import trees

from contam.data.images import FolderDomain, resized
from contam.data.wilds import WILDS, camelyon17, iwildcam, macro_f1

SMALL = resized(6)


def rewritten(path, change):
    """The CSV file with each line, as a dict, given to `change`, which may return None."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file)
        kept = [new for line in lines if (new := change(dict(line))) is not None]
        header = list(kept[0]) if kept else list(lines.fieldnames or ())
    trees.table(path, header, [list(line.values()) for line in kept])


def names(domain: FolderDomain) -> list[str]:
    return [path.name for path in domain.files]


def test_iwildcam_splits_are_text_and_its_domains_are_cameras(tmp_path):
    shift, ood_val = iwildcam(trees.iwildcam(tmp_path), SMALL, workers=0)
    assert shift.classes == ("empty", "tapir", "jaguar")
    assert isinstance(shift.id_test, FolderDomain)
    assert names(shift.id_test) == ["004.jpg", "009.jpg", "014.jpg"]
    assert names(ood_val) == ["001.jpg", "006.jpg", "011.jpg"]
    parts = (shift.train[0], ood_val, shift.ood_tests[0])
    assert [part.data.domain.unique().tolist() for part in parts] == [[7], [8], [9]]
    assert all(part.y.tolist() == [0, 1, 2] for part in parts)


def test_gray_iwildcam_images_have_three_channels(tmp_path):
    shift, _ = iwildcam(trees.iwildcam(tmp_path), SMALL, workers=0)
    x = shift.train[0].data.x
    assert x.shape == (3, 3, 6, 6)
    torch.testing.assert_close(x[0], torch.full((3, 6, 6), 99 / 255), rtol=0, atol=2 / 255)


def test_an_image_of_an_unused_category_is_rejected(tmp_path):
    path = trees.iwildcam(tmp_path) / "iwildcam_v2.0" / "metadata.csv"
    rewritten(path, lambda line: line | {"y": "99999"} if line["y"] == "2" else line)
    with pytest.raises(ValueError, match="an image of an unused category, 99999"):
        iwildcam(tmp_path, SMALL)


def test_unused_categories_are_not_classes(tmp_path):
    shift, _ = iwildcam(trees.iwildcam(tmp_path), SMALL)
    assert "unicorn" not in shift.classes


def test_the_official_size_is_the_default(tmp_path):
    shift, _ = iwildcam(trees.iwildcam(tmp_path), workers=0)
    assert next(iter(shift.train[0].batches(1))).x.shape == (1, 3, 448, 448)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda line: line | {"split": "0"}, "has a split '0'; expected train, id_val"),
        (lambda line: None if line["split"] == "val" else line, "no image of 'val'"),
        (lambda line: line | {"y": "bear"}, "column 'y' has 'bear'"),
        (lambda line: line | {"y": "-1"}, "column 'y' has '-1'"),
        (lambda line: None, "a header and no rows"),
        (
            lambda line: {key: value for key, value in line.items() if key != "split"},
            "no column 'split'",
        ),
    ],
)
def test_a_malformed_table_is_rejected_in_one_line(tmp_path, change, line):
    path = trees.iwildcam(tmp_path) / "iwildcam_v2.0" / "metadata.csv"
    rewritten(path, change)
    with pytest.raises(ValueError, match=line) as error:
        iwildcam(tmp_path, SMALL)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", WILDS)
def test_a_missing_folder_is_reported(tmp_path, name):
    with pytest.raises(ValueError, match=rf"no .*{name}_v\d\.0.metadata\.csv; give the folder"):
        WILDS[name](tmp_path)


def test_camelyon17_patient_numbers_keep_leading_zeros(tmp_path):
    shift, _ = camelyon17(trees.camelyon17(tmp_path), workers=0)
    assert isinstance(shift.train[0], FolderDomain)
    assert shift.train[0].files[0].parent.name == "patient_004_node_2"
    x = shift.train[0].data.x  # every file is there, and is RGBA
    assert x.shape[1:] == (3, 96, 96)


def test_camelyon17_held_out_hospitals_ignore_the_split_column(tmp_path):
    shift, ood_val = camelyon17(trees.camelyon17(tmp_path), workers=0)
    assert shift.id_val is shift.id_test is not None
    origins = [
        domain.data.domain.tolist()
        for domain in (shift.train[0], shift.id_test, ood_val, shift.ood_tests[0])
    ]
    assert origins == [[0, 0, 3, 3, 4, 4], [0, 0, 3, 3, 4, 4], [1] * 4, [2] * 4]
    assert shift.classes[int(shift.ood_tests[0].y[1])] == "tumor"


def test_macro_f1_by_hand():
    y = torch.tensor([0, 0, 1, 3])
    predicted = torch.tensor([0, 1, 1, 2])
    # Class 0: 2/3; class 1: 2/3; class 3: 0; class 2 is only predicted.
    assert macro_f1(predicted, y) == pytest.approx(4 / 9)


@given(st.data(), st.integers(1, 40))
def test_macro_f1_agrees_with_scikit_learn_on_present_classes(data, n):
    labels = st.lists(st.integers(0, 6), min_size=n, max_size=n).map(torch.tensor)
    y, predicted = data.draw(labels), data.draw(labels)
    expected = f1_score(
        y,
        predicted,
        average="macro",
        labels=sorted(set(y.tolist())),
        zero_division=0.0,  # type: ignore[arg-type]
    )
    assert macro_f1(predicted, y) == pytest.approx(expected)


def test_macro_f1_without_examples_is_rejected():
    with pytest.raises(ValueError, match="at least one example"):
        macro_f1(torch.zeros(0).long(), torch.zeros(0).long())
