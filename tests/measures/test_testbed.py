"""The shipped table of ImageNet models: its cells, its kinds and the lines of standard models."""

from collections import Counter

import pytest
import torch

from contam.measures.robustness import IMAGENET_LINES
from contam.measures.standard_models import shipped_models
from contam.measures.testbed import imagenet_line as line_of

# Numbers of images; an accuracy is a count divided by this number.
IMAGES = {
    "ImageNet-R": 30_000,
    "ImageNet-Sketch": 50_889,
    "ObjectNet": 18_514,
    "ImageNet-A": 7_500,
    "ImageNet on the classes of ImageNet-A": 10_000,
    "ImageNet on the classes of ImageNet-R": 10_000,
    "ImageNet on the classes of ObjectNet": 6_250,
}


def models() -> list[dict[str, str]]:
    """The rows of the shipped table, with their filled cells only."""
    return [{name: cell for name, cell in row.items() if cell} for row in shipped_models().rows]


def test_names_and_kinds():
    assert len({model["model"] for model in models()}) == len(models()) == 201
    kinds = Counter(model["kind"] for model in models())
    assert kinds == {
        "standard": 80,
        "robust": 70,
        "more-data": 30,
        "lp-adversarial": 16,
        "subset": 5,
    }


@pytest.mark.parametrize("column", IMAGES)
def test_accuracies_are_counts_of_images(column):
    for model in models():
        if column in model:
            count = float(model[column]) * IMAGES[column] / 100
            # Half a unit of the third decimal, in images.
            assert abs(count - round(count)) <= 0.00051 * IMAGES[column] / 100, model["model"]


def test_the_table_is_sorted_and_complete():
    accuracies = [float(model["ImageNet"]) for model in models()]
    assert accuracies == sorted(accuracies, reverse=True)
    incomplete = [model["model"] for model in models() if len(model) < 2 + 9]
    # Six networks have no outputs for the classes of ImageNet-R.
    assert len(incomplete) == 6
    assert all("vtab" in name or "tencent" in name for name in incomplete)


@pytest.mark.parametrize("shift", IMAGENET_LINES)
def test_the_recorded_lines_are_close_to_those_of_the_shipped_models(shift):
    # The recorded lines have 85 models; the shipped version of the table has 80 of that kind.
    recorded, fitted = IMAGENET_LINES[shift], line_of(shift)
    assert recorded.count - fitted.count == 5
    assert fitted.slope == pytest.approx(recorded.slope, rel=0.02)
    assert fitted.intercept == pytest.approx(recorded.intercept, abs=0.05)
    assert fitted.r_squared == pytest.approx(recorded.r_squared, abs=0.007)
    accuracies = torch.linspace(0.55, 0.8, 26)
    distance = (fitted.expected(accuracies) - recorded.expected(accuracies)).abs().max()
    assert distance < (0.011 if shift == "ImageNet-A" else 0.003)


def test_a_model_without_a_correct_answer_is_left_out_of_the_line():
    # ResNet-50 answers nothing right on ImageNet-A: its images were chosen so.
    names = [model["model"] for model in models() if model["kind"] == "standard"]
    assert line_of("ImageNet-A").dropped == (names.index("resnet50"),)


@pytest.mark.parametrize(
    ("shift", "slope"), [("ImageNet-R", 0.64), ("ImageNet-A", 1.99), ("ObjectNet", 0.98)]
)
def test_the_slope_depends_on_the_classes_of_the_id_accuracy(shift, slope):
    same = line_of(shift, same_classes=True)
    assert same.slope == pytest.approx(slope, abs=0.02)
    assert same.slope < 0.85 * line_of(shift).slope


def test_a_shift_outside_the_table_is_refused():
    with pytest.raises(ValueError, match="no column"):
        line_of("ImageNetV2", same_classes=True)
