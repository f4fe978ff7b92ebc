"""Paired differences, Holm's correction and ranks, by hand and against simulations."""

import numpy as np
import pytest
from scipy import stats

from contam.measures.paired_comparison import compare_ranks, holm, paired_difference


def test_paired_difference_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t with 2 degrees of freedom."""
    difference = paired_difference([2, 4, 6], [1, 2, 3])
    half = stats.t.ppf(0.975, 2) / np.sqrt(3)
    assert difference[:3] == pytest.approx((2, 2 - half, 2 + half))
    assert (
        difference.p == pytest.approx(2 * stats.t.sf(2 * np.sqrt(3), 2)) and difference.count == 3
    )


def test_what_all_blocks_share_does_not_matter():
    generator = np.random.default_rng(0)
    ours, baseline, block = generator.normal(size=(3, 6))
    plain, shifted = (paired_difference(ours + s, baseline + s) for s in (0, 100 * block))
    assert shifted == pytest.approx(plain)


def test_blocks_that_one_method_lacks_are_left_out():
    assert paired_difference([1, np.nan, 3], [0, 5, 1]) == paired_difference([1, 3], [0, 1])
    assert np.isnan(paired_difference([np.nan], [1]).value)


@pytest.mark.parametrize(("gain", "p"), [(0.0, 1.0), (0.25, 0.0)])
def test_equal_differences_have_no_interval(gain, p):
    difference = paired_difference(np.array([1.0, 2.0]) + gain, [1.0, 2.0])
    assert difference == (gain, gain, gain, p, 2)


def test_one_block_has_a_difference_without_interval():
    difference = paired_difference([0.75], [0.5])
    assert difference.value == 0.25 and np.isnan(difference[1:4]).all()


def test_methods_on_different_blocks_are_rejected():
    with pytest.raises(ValueError, match="the same blocks"):
        paired_difference([1, 2], [1])


def test_intervals_cover_the_true_difference():
    generator = np.random.default_rng(1)
    samples = generator.normal(0.3, 1, size=(300, 4))
    covered = [low <= 0.3 <= high for _, low, high, _, _ in
               (paired_difference(row, 0 * row) for row in samples)]  # fmt: skip
    assert np.mean(covered) == pytest.approx(0.95, abs=0.04)


def test_holm_by_hand():
    adjusted = holm(np.array([0.04, np.nan, 0.01, 0.03]))
    assert adjusted.tolist() == pytest.approx([0.06, np.nan, 0.03, 0.06], nan_ok=True)


def test_holm_is_monotone_and_between_p_and_bonferroni():
    p = np.random.default_rng(2).uniform(size=20)
    adjusted = holm(p)
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, 20 * p)).all()


def test_critical_difference_of_published_table():
    """Demsar (2006), Table 5: q is 2.569 for four methods; 14 blocks give 1.25."""
    scores = np.random.default_rng(3).normal(size=(14, 4))
    assert compare_ranks(scores).critical_difference == pytest.approx(1.25, abs=0.005)


def test_ranks_depend_on_the_order_within_blocks_alone():
    scores = np.random.default_rng(4).uniform(size=(5, 6))
    one, other = compare_ranks(scores), compare_ranks(scores**3 + np.arange(5)[:, None])
    assert one.ranks.tolist() == other.ranks.tolist() and one.p == other.p
    assert one.ranks.mean() == pytest.approx(3.5)


def test_equal_methods_are_one_group():
    comparison = compare_ranks(np.zeros((4, 3)))
    assert comparison.ranks.tolist() == [2, 2, 2] and comparison.p == 1
    assert comparison.groups() == [[0, 1, 2]]


def test_friedman_rejects_equal_methods_at_its_level():
    generator = np.random.default_rng(5)
    p = [compare_ranks(generator.normal(size=(30, 4))).p for _ in range(60)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.06)


@pytest.mark.parametrize("scores", [np.ones((2, 2)), np.ones((1, 3)), np.full((2, 3), np.nan)])
def test_too_few_scores_are_rejected(scores):
    with pytest.raises(ValueError, match="ranks need at least 3 methods"):
        compare_ranks(scores)
