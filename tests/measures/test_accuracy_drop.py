"""The accuracy drop and the score interval of paired proportions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multinomial, norm
from torch import Tensor

from contam.measures.accuracy_drop import accuracy_drop

Z = float(norm.ppf(0.975))


def answers(both: int, lost: int, gained: int, neither: int) -> tuple[Tensor, Tensor]:
    rows = [(1, 1)] * both + [(1, 0)] * lost + [(0, 1)] * gained + [(0, 0)] * neither
    before, after = torch.tensor(rows, dtype=torch.bool).unbind(1)
    return before, after


def test_accuracy_drop_by_hand():
    drop = accuracy_drop(*answers(1, 2, 1, 0))
    assert drop.value == 0.25 and drop.low < 0.25 < drop.high


@pytest.mark.parametrize("n", [1, 20, 1000])
def test_the_interval_has_positive_width_without_changed_predictions(n):
    """Then the score equation is n d^2 = z^2 d (1 - d)."""
    drop = accuracy_drop(*answers(n, 0, 0, n))
    end = Z**2 / (2 * n + Z**2)
    assert (drop.value, drop.low, drop.high) == pytest.approx((0, -end, end))


def test_the_interval_approaches_the_paired_normal_interval():
    n = 40_000
    before, after = answers(n - 4000, 2500, 1500, 0)
    half = Z * float((before.double() - after.double()).std()) / math.sqrt(n)
    drop = accuracy_drop(before, after)
    assert (drop.low, drop.high) == pytest.approx((0.025 - half, 0.025 + half), abs=0.01 * half)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
def test_exchanging_before_and_after_reverses_the_interval(both, lost, gained, neither):
    drop = accuracy_drop(*answers(both, lost, gained, neither))
    other = accuracy_drop(*answers(both, gained, lost, neither))
    assert (drop.low, drop.high) == pytest.approx((-other.high, -other.low), abs=1e-6)
    assert -1 <= drop.low <= drop.value <= drop.high <= 1


def test_a_total_drop_reaches_the_end_of_the_range():
    all_lost, all_gained = accuracy_drop(*answers(0, 9, 0, 0)), accuracy_drop(*answers(0, 0, 9, 0))
    assert (all_lost.value, all_lost.high) == (1, 1) and 0 < all_lost.low < 1
    assert (all_gained.value, all_gained.low) == (-1, -1) and -1 < all_gained.high < 0


@pytest.mark.parametrize("shares", [(0.2, 0.05), (0.02, 0.02), (0.5, 0.1)])
def test_the_interval_covers_the_true_difference(shares):
    """Exactly, by a sum over all outcomes of 30 examples."""
    n, (lost, gained) = 30, shares
    covered = 0.0
    for i in range(n + 1):
        for j in range(n + 1 - i):
            weight = multinomial.pmf([i, j, n - i - j], n, [lost, gained, 1 - lost - gained])
            if weight > 1e-7:
                drop = accuracy_drop(*answers(n - i - j, i, j, 0))
                covered += weight * (drop.low <= lost - gained <= drop.high)
    assert covered > 0.93


def test_empty_input_and_invalid_confidence_are_rejected():
    with pytest.raises(ValueError, match="got 0 and"):
        accuracy_drop(torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got 1 and 1\.5"):
        accuracy_drop(*answers(1, 0, 0, 0), confidence=1.5)
