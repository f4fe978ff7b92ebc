"""Rank correlations against SciPy, a second formula, and the intervals against theory."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr
from support.noise import noise
from torch import Tensor

from contam.measures.correlation import rank_correlation, spearman

SEEDS = st.integers(0, 1000)


def with_ties(seed: int, n: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    common = noise(n, seed=seed)
    x, y = common + noise(n, seed=seed + 1), common + noise(n, seed=seed + 2)
    return (2 * x).round(), (2 * y).round(), (2 * common).round()


def test_correlations_by_hand():
    # Ranks 1 2 3 4 and 2 1 4 3: squared differences sum to 4, so 1 - 6 * 4 / 60.
    x, y = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([5.0, -1.0, 9.0, 8.0])
    assert spearman(x, y) == pytest.approx(0.6)
    # Given ranks 1 3 2 4: .8 with x, and 0.4 * 2 / 2 = .4 - .4 with y by the same sum of 10.
    z = torch.tensor([0.0, 2.0, 1.0, 3.0])
    assert (spearman(x, z), spearman(y, z)) == (pytest.approx(0.8), pytest.approx(0.0))
    assert spearman(x, y, given=z) == pytest.approx(0.6 / np.sqrt(1 - 0.64))


@given(SEEDS)
def test_agrees_with_scipy(seed):
    x, y, _ = with_ties(seed)
    expected: Any = spearmanr(x.numpy(), y.numpy())
    assert spearman(x, y) == pytest.approx(expected.statistic)


@given(SEEDS)
def test_partial_correlation_is_the_correlation_of_residuals(seed):
    columns = with_ties(seed)
    x, y, z = (rankdata(column.numpy()) for column in columns)
    line = np.stack([np.ones_like(z), z], axis=1)
    left = [v - line @ np.linalg.lstsq(line, v, rcond=None)[0] for v in (x, y)]
    assert spearman(*columns[:2], given=columns[2]) == pytest.approx(
        np.corrcoef(left[0], left[1])[0, 1]
    )


@given(SEEDS)
def test_rank_correlation_depends_only_on_the_order(seed):
    x, y, z = with_ties(seed)
    assert spearman(x.exp(), y**3) == pytest.approx(spearman(x, y))
    assert spearman(-x, y) == pytest.approx(-spearman(x, y))
    assert spearman(y, x, given=z.exp()) == pytest.approx(spearman(x, y, given=z))


def test_a_common_cause_explains_a_correlation_away():
    cause = noise(4000)
    x, y = cause + noise(4000, seed=1), cause + noise(4000, seed=2)
    assert spearman(x, y) > 0.45
    assert spearman(x, y, given=cause) == pytest.approx(0, abs=0.05)


def test_the_interval_has_the_theoretical_width():
    """For independent measures the standard error is 1 / sqrt(n - 1)."""
    correlation = rank_correlation(noise(400), noise(400, seed=1))
    assert correlation.high - correlation.low == pytest.approx(2 * 1.96 / np.sqrt(399), rel=0.1)
    assert correlation.low < correlation.value < correlation.high
    assert (correlation.count, correlation.resamples) == (400, 1000)


def test_the_partial_interval_contains_its_estimate():
    x, y, z = with_ties(3)
    correlation = rank_correlation(x, y, given=z)
    assert correlation.value == spearman(x, y, given=z)
    assert correlation.low < correlation.value < correlation.high
    wider = rank_correlation(x, y, given=z, confidence=0.99)
    assert wider.low < correlation.low and correlation.high < wider.high


def test_copies_of_a_network_do_not_narrow_the_interval():
    """Five seeds that give the same numbers leave the doubt of one seed, if they are grouped."""
    x, y = noise(20), noise(20, seed=1)
    once = rank_correlation(x, y)
    copies, group = (x.repeat(5), y.repeat(5)), torch.arange(20).repeat(5)
    grouped = rank_correlation(*copies, groups=group)
    assert (grouped.low, grouped.high) == (pytest.approx(once.low), pytest.approx(once.high))
    alone = rank_correlation(*copies)
    assert alone.high - alone.low < 0.6 * (once.high - once.low)


def test_the_interval_depends_only_on_its_seed():
    x, y, _ = with_ties(0)
    torch.manual_seed(1)
    first = rank_correlation(x, y, seed=2)
    torch.manual_seed(3)
    assert rank_correlation(x, y, seed=2) == first
    assert rank_correlation(x, y, seed=3).low != first.low


def test_resamples_of_one_network_are_left_out_and_counted():
    correlation = rank_correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0]))
    assert correlation.resamples == pytest.approx(1000 * 8 / 9, abs=40)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "same for all networks"),
        ([1.0], [1.0], "at least two networks"),
        ([1.0, float("nan"), 2.0], [1.0, 2.0, 3.0], "of which 2 do"),
    ],
)
def test_measures_without_a_correlation_are_rejected(x, y, message):
    with pytest.raises(ValueError, match=message):
        spearman(torch.tensor(x), torch.tensor(y))


def test_invalid_controls_groups_and_resamples_are_rejected():
    x, y, _ = with_ties(0)
    with pytest.raises(ValueError, match="exactly as another measure"):
        spearman(x, y, given=2 * x)
    with pytest.raises(ValueError, match="belong to one group"):
        rank_correlation(x, y, groups=torch.zeros(30, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 1 resample"):
        rank_correlation(x, y, resamples=0)
