"""Selectivity: by hand, its range, its symmetries, and one neuron at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contam.measures.selectivity import selectivity


def table(seed: int, classes: int = 5, neurons: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(classes, neurons, generator=generator, dtype=torch.float64)


def test_selectivity_by_hand():
    means = torch.tensor([[3.0, 1.0], [1.0, 1.0]])  # one neuron prefers class 0, one ignores it
    assert selectivity(means, stability=0.0).tolist() == pytest.approx([1 / 5, 0.0])
    against_others = selectivity(means, against="others", stability=0.0)
    assert against_others.tolist() == pytest.approx([1 / 2, 0.0])


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_a_one_class_neuron_reaches_the_top_of_the_range(classes):
    means = torch.zeros(classes, 1, dtype=torch.float64)
    means[classes // 2] = 1
    top = (classes - 1) / (classes + 1)
    assert selectivity(means).item() == pytest.approx(top, abs=1e-5)
    assert selectivity(means, against="others").item() == pytest.approx(1, abs=1e-5)


@given(st.integers(0, 1000), st.integers(2, 12))
def test_selectivity_lies_in_its_range(seed, classes):
    means = table(seed, classes)
    against_all, against_others = selectivity(means), selectivity(means, against="others")
    assert torch.all((against_all >= 0) & (against_all <= (classes - 1) / (classes + 1)))
    assert torch.all((against_others >= against_all) & (against_others <= 1))


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_selectivity_is_invariant_to_class_order_and_scale(seed, unit):
    means = table(seed)
    expected = selectivity(means, stability=0.0)
    torch.testing.assert_close(selectivity(means.flip(0), stability=0.0), expected)
    torch.testing.assert_close(selectivity(unit * means, stability=0.0), expected)


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_activity_shared_by_all_classes_lowers_selectivity(seed, shared):
    means = table(seed)
    assert torch.all(selectivity(means + shared) < selectivity(means))


@given(st.integers(0, 1000), st.sampled_from(["all", "others"]))
def test_selectivity_agrees_with_plain_arithmetic(seed, against):
    means = table(seed)
    for column, value in zip(
        means.T.tolist(), selectivity(means, against=against).tolist(), strict=True
    ):
        ranked = sorted(column)
        rest = ranked if against == "all" else ranked[:-1]
        average = sum(rest) / len(rest)
        assert value == pytest.approx((ranked[-1] - average) / (ranked[-1] + average + 1e-6))


def test_a_silent_neuron_is_not_selective():
    assert selectivity(torch.zeros(4, 2)).tolist() == [0.0, 0.0]


def test_one_class_is_rejected():
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        selectivity(torch.ones(1, 3))


def test_an_unknown_reference_is_rejected():
    with pytest.raises(ValueError, match="'all' or 'others', got 'rest'"):
        selectivity(torch.ones(2, 3), against="rest")  # pyright: ignore[reportArgumentType]
