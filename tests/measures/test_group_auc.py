"""AUC by group: against scikit-learn, by hand, and the coverage of its intervals."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from support.noise import noise

from contam.measures.group_auc import auc_gap, group_auc


def sample(n=200, seed=0, shift=(1.5, 0.5)):
    """Scores of n negative examples and n / 2 positive ones, a half of them in the group."""
    positive = torch.arange(n + n // 2) >= n
    group = torch.arange(len(positive)) % 2 == 0
    score = noise(len(positive), seed=seed)
    score += positive * torch.where(group, *map(torch.tensor, shift))
    return score, positive, group


def test_values_are_those_of_scikit_learn_with_ties():
    score, positive, group = sample()
    score = (2 * score).round()
    areas = []
    for part in (group, ~group):
        kept = ~positive | part
        expected = roc_auc_score(positive[kept], score[kept])
        assert group_auc(score, positive, part).value == pytest.approx(expected, abs=1e-12)
        areas.append(expected)
    assert auc_gap(score, positive, group).value == pytest.approx(areas[0] - areas[1], abs=1e-12)


def test_a_perfect_score_has_an_interval_with_a_width():
    positive = torch.arange(20) >= 10
    auc = group_auc(positive.double(), positive, positive)
    assert auc.value == auc.high == 1 and 0.5 < auc.low < 0.95
    assert group_auc(-positive.double(), positive, positive).high == pytest.approx(1 - auc.low)
    gap = auc_gap(positive.double(), positive, torch.arange(20) % 2 == 0)
    assert gap.value == 0 and gap.low < -0.05 < 0.05 < gap.high


@pytest.mark.slow
@pytest.mark.parametrize("shift", [(0.5, 0.5), (1.5, 0.5), (2.5, 0.0)])
def test_intervals_cover_the_true_gap(shift):
    """A binormal model, whose AUC is the normal distribution function of shift / sqrt(2)."""
    true = np.diff([float(torch.special.ndtr(torch.tensor(s / 2**0.5))) for s in shift[::-1]])[0]
    covered, alone = [], []
    for seed in range(100):
        score, positive, group = sample(80, seed=seed, shift=shift)
        gap = auc_gap(score, positive, group)
        covered.append(gap.low <= true <= gap.high)
        one = group_auc(score, positive, group)
        area = float(torch.special.ndtr(torch.tensor(shift[0] / 2**0.5)))
        alone.append(one.low <= area <= one.high)
    # Four standard errors of 100 draws are .09.
    assert np.mean(covered) > 0.86 and np.mean(alone) > 0.86


def test_a_group_without_positive_examples_and_nan_are_rejected():
    score, positive, group = sample()
    with pytest.raises(ValueError, match="got 0 positive"):
        group_auc(score, positive, ~positive)
    with pytest.raises(ValueError, match="got 0 positive"):
        auc_gap(score, positive, positive)
    score[3] = torch.nan
    with pytest.raises(ValueError, match="1 nan"):
        group_auc(score, positive, group)
