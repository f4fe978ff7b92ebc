"""The area under the ROC curve for groups of positive examples, and its gap, with intervals.

A network that detects a disease by its treatment ranks treated patients above healthy ones and
untreated patients not. So positive examples of each group are compared with the same negative
examples.
"""

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import bisect
from scipy.stats import norm, rankdata
from torch import Tensor

from contam.measures.intervals import Estimate

TINY = 1e-12
"""Distance from 0 and 1, where the equation of an end has a second solution."""


def group_auc(
    score: Float[Tensor, " n"],
    positive: Bool[Tensor, " n"],
    group: Bool[Tensor, " n"],
    *,
    confidence: float = 0.95,
) -> Estimate:
    """Return the AUC of the positive examples of a group against all negative examples.

    The interval is Newcombe's, which has a positive width at 0 and 1, unlike DeLong's.

    Args:
        score: Score of each example; higher for positive ones.
        positive: Which examples are positive.
        group: Which examples are in the group.
        confidence: Level of the interval.

    Raises:
        ValueError: If the group has no positive example, there is no negative example, or a score
            is nan.

    Source: ours; Newcombe (2006), method 5.

    >>> import torch
    >>> y = torch.tensor([False, False, True, True])
    >>> auc = group_auc(torch.tensor([0.1, 0.2, 0.3, 0.4]), y, y)
    >>> auc.value, round(auc.low, 2), auc.high
    (1.0, 0.39, 1.0)
    """
    wins = _wins(score, positive & group, ~positive)
    value, count, others = float(wins[0].mean()), len(wins[0]), len(wins[1])
    extra = (count + others) / 2 - 1
    z = float(norm.ppf((1 + confidence) / 2))

    def excess(true: float) -> float:
        spread = 1 + extra * (1 - true) / (2 - true) + extra * true / (1 + true)
        return abs(value - true) - z * math.sqrt(true * (1 - true) * spread / (count * others))

    low = 0.0 if value == 0 else bisect(excess, 0.0, min(value, 1 - TINY))
    high = 1.0 if value == 1 else bisect(excess, max(value, TINY), 1.0)
    return Estimate(value, *(float(np.asarray(end)) for end in (low, high)))


def auc_gap(
    score: Float[Tensor, " n"],
    positive: Bool[Tensor, " n"],
    group: Bool[Tensor, " n"],
    *,
    confidence: float = 0.95,
) -> Estimate:
    """Return the AUC of a group's positive examples minus that of the other positive examples.

    Both are compared with the same negative examples. The interval combines the intervals of both
    areas (Zou & Donner, 2008) with the correlation that DeLong's estimator gives.

    Args:
        score: Score of each example; higher for positive ones.
        positive: Which examples are positive.
        group: Which examples are in the group, such as patients with a chest drain.
        confidence: Level of the interval.

    Raises:
        ValueError: As for `group_auc`, in the group or outside it.

    Source: ours; DeLong et al. (1988), Zou & Donner (2008).

    >>> import torch
    >>> positive = torch.tensor([True, True, False, False])
    >>> drain = torch.tensor([True, False, False, False])
    >>> auc_gap(torch.tensor([0.9, 0.1, 0.3, 0.2]), positive, drain).value
    1.0
    """
    one, other = (
        group_auc(score, positive, part, confidence=confidence) for part in (group, ~group)
    )
    parts = [_wins(score, positive & part, ~positive) for part in (group, ~group)]
    shared = (
        np.cov(parts[0][1], parts[1][1])[0, 1] / len(parts[0][1]) if len(parts[0][1]) > 1 else 0
    )
    variances = [
        sum(values.var(ddof=1) / len(values) if len(values) > 1 else 0.0 for values in part)
        for part in parts
    ]
    product = math.sqrt(variances[0] * variances[1])
    correlation = min(max(shared / product, -1.0), 1.0) if product else 0.0
    below, above = one.value - one.low, one.high - one.value
    below_other, above_other = other.value - other.low, other.high - other.value
    value = one.value - other.value
    low = below**2 + above_other**2 - 2 * correlation * below * above_other
    high = above**2 + below_other**2 - 2 * correlation * above * below_other
    return Estimate(
        value,
        max(value - math.sqrt(max(low, 0.0)), -1.0),
        min(value + math.sqrt(max(high, 0.0)), 1.0),
    )


def _wins(score: Tensor, ours: Tensor, others: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return each example's share of the other kind that is on its correct side; ties are 1/2."""
    values = score.double().cpu().numpy()
    one, other = values[ours.cpu().numpy()], values[others.cpu().numpy()]
    if not len(one) or not len(other) or np.isnan(values).any():
        raise ValueError(
            "expected numbers, positive examples in the group and negative examples; got "
            f"{len(one)} positive, {len(other)} negative and {int(np.isnan(values).sum())} nan"
        )
    ranks = rankdata(np.concatenate([one, other]))
    positive = (ranks[: len(one)] - rankdata(one)) / len(other)
    negative = 1 - (ranks[len(one) :] - rankdata(other)) / len(one)
    return positive, negative
