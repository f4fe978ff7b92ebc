"""The paper's tables, and what its own numbers say of effective robustness."""

import math
from statistics import fmean

import pytest

from contam.measures.published import figure_1, imagenet_robustness, published
from contam.measures.robustness import IMAGENET_LINES


def test_the_published_average_is_the_mean_over_shifts():
    """The five numbers and the average were printed independently, both rounded to .01."""
    for row in published(1).values():
        shifts = fmean(row[f"{shift} top-1"] for shift in IMAGENET_LINES)
        assert shifts == pytest.approx(row["OOD average top-1"], abs=0.0101)


@pytest.mark.parametrize(("table", "rows", "metrics"), [(1, 10, 7), (2, 2, 2), (3, 2, 2),
                                                        (4, 4, 2), (5, 3, 3)])  # fmt: skip
def test_every_table_is_complete(table, rows, metrics):
    models = published(table)
    assert len(models) == rows
    for row in models.values():
        assert len(row) == metrics
        assert all(0 <= value <= 100 for value in row.values())


@pytest.mark.parametrize(
    ("network", "teacher", "student"),
    [
        ("RN50", 12.02, 4.67),
        ("RN101", 16.10, 6.05),
        ("RN50x4", 18.22, 8.09),
        ("RN50x16", 21.86, 10.43),
        ("ViT-B/16", 20.13, 6.75),
    ],
)
def test_effective_robustness_agrees_with_table_1(network, teacher, student):
    """Worked out apart from this code, from the same lines and the same table."""
    pairs = {pair.network: pair for pair in imagenet_robustness()}
    assert len(pairs) == 5
    assert pairs[network].teacher_mean == pytest.approx(teacher, abs=0.006)
    assert pairs[network].student_mean == pytest.approx(student, abs=0.006)
    assert pairs[network].kept == pytest.approx(student / teacher, abs=0.001)
    assert 0.33 < pairs[network].kept < 0.48


def test_one_published_number_by_hand():
    (pair,) = (pair for pair in imagenet_robustness() if pair.network == "RN50")
    odds = math.exp(-0.4977) * (70.37 / 29.63) ** 0.9232
    assert pair.teacher["ImageNetV2"] == pytest.approx(59.03 - 100 * odds / (1 + odds))


@pytest.mark.parametrize("table", [0, 6])
def test_an_unknown_table_is_rejected(table):
    with pytest.raises(ValueError, match=f"tables 1 to 5, got {table}"):
        published(table)


def test_figure_1_has_the_published_accuracies_as_shares():
    networks = {(network.data, network.name): network for network in figure_1()}
    assert len(networks) == 18
    pair = networks["iwildcam", "ImageNet RN50"], networks["iwildcam", "Distilled RN50"]
    assert [network.kind for network in pair] == ["teacher", "student"]
    assert pair[0].pair == pair[1].pair
    assert (pair[0].id, pair[1].ood) == pytest.approx((0.4930, 0.1383))


def test_the_share_kept_is_the_same_by_either_convention():
    for one, other in zip(imagenet_robustness(), imagenet_robustness("same_classes"), strict=True):
        assert one.network == other.network
        assert one.teacher != other.teacher
        assert one.kept == pytest.approx(other.kept, abs=0.01)


def test_an_unknown_convention_is_rejected():
    with pytest.raises(ValueError, match="'all' or 'same_classes', not 'half'"):
        imagenet_robustness("half")  # pyright: ignore[reportArgumentType]
