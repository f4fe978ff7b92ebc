"""Comparison of methods on the same blocks: a trial of one data set is a block.

Two methods are compared by their paired differences, many methods with a baseline by the same with
Holm's correction, and all methods with each other by their ranks within the blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

ArrayLike = Sequence[float] | np.ndarray


class PairedDifference(NamedTuple):
    """Mean difference of two methods over blocks, with its interval and its p-value."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided p-value of the paired t-test."""
    count: int
    """Number of blocks."""


def paired_difference(
    ours: ArrayLike, baseline: ArrayLike, *, confidence: float = 0.95
) -> PairedDifference:
    """Compare two methods by their differences on the same blocks.

    Args:
        ours: Value of the method on each block; nan where it is missing.
        baseline: Value of the baseline on the same blocks.
        confidence: Level of the interval.

    Returns:
        The mean difference over the blocks that both have, with the interval of Student's t. Fewer
        than two blocks have no interval and no p-value. Equal differences have no t statistic:
        their interval is the difference, and p is 1 for a difference of 0 and 0 otherwise.

    Raises:
        ValueError: If the methods have different numbers of blocks.

    Source: ours; Student (1908).

    >>> [round(number, 3) for number in paired_difference([0.5, 0.7], [0.4, 0.4])]
    [0.2, -1.071, 1.471, 0.295, 2]
    """
    ours, baseline = (np.asarray(values, dtype=float) for values in (ours, baseline))
    if ours.shape != baseline.shape:
        raise ValueError(
            f"paired values must have the same blocks, got {ours.shape} and {baseline.shape}"
        )
    differences = (ours - baseline)[~np.isnan(ours - baseline)]
    count = len(differences)
    if count == 0:
        return PairedDifference(np.nan, np.nan, np.nan, np.nan, 0)
    value = float(differences.mean())
    if count == 1:
        return PairedDifference(value, np.nan, np.nan, np.nan, 1)
    if np.ptp(differences) == 0:
        return PairedDifference(value, value, value, float(value == 0), count)
    test: Any = stats.ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(confidence)
    return PairedDifference(value, float(low), float(high), float(test.pvalue), count)


def holm(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjust p-values for their number by Holm's method; missing ones stay missing.

    Args:
        p: The p-values.

    Source: ours; Holm (1979).

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    factors = np.arange((~np.isnan(p)).sum(), 0, -1)
    adjusted = np.full(len(p), np.nan)
    known = order[: len(factors)]
    adjusted[known] = np.minimum(1, np.maximum.accumulate(factors * p[known]))
    return adjusted


@dataclass(frozen=True, eq=False)
class RankComparison:
    """Ranks of all methods over the blocks, and the difference of ranks that is beyond chance."""

    ranks: Float[np.ndarray, " methods"]
    """Mean rank of each method; 1 is the best."""
    p: float
    """P-value of Friedman's test that all methods are equal."""
    critical_difference: float
    """Mean ranks that differ by more than this differ beyond chance (Nemenyi)."""
    blocks: int

    def groups(self) -> list[list[int]]:
        """Return the largest sets of methods whose ranks differ by no more than chance.

        Returns:
            Indices of the methods, from the best to the worst; sets of one method are left out.
        """
        order = np.argsort(self.ranks, kind="stable")
        sorted_ranks = self.ranks[order]
        groups: list[list[int]] = []
        reached = 0
        for first, rank in enumerate(sorted_ranks):
            stop = int((sorted_ranks <= rank + self.critical_difference).sum())
            if stop > max(reached, first + 1):
                groups.append(order[first:stop].tolist())
                reached = stop
        return groups


def compare_ranks(
    scores: Float[np.ndarray, "blocks methods"], *, level: float = 0.05
) -> RankComparison:
    """Rank the methods within each block, and test whether their mean ranks differ.

    Args:
        scores: Score of each method on each block; higher is better. Equal scores share a rank.
        level: Level of the critical difference.

    Raises:
        ValueError: If there are fewer than three methods or two blocks, or if a score is missing.

    Source: ours; Friedman (1937), Nemenyi (1963), as Demsar (2006) combines them.

    >>> scores = np.array([[0.9, 0.8, 0.1], [0.8, 0.7, 0.2], [0.9, 0.5, 0.3], [0.7, 0.6, 0.1]])
    >>> result = compare_ranks(scores)
    >>> result.ranks.tolist(), round(result.critical_difference, 2), result.groups()
    ([1.0, 2.0, 3.0], 1.66, [[0, 1], [1, 2]])
    """
    blocks, methods = scores.shape
    if methods < 3 or blocks < 2 or np.isnan(scores).any():
        raise ValueError(
            "ranks need at least 3 methods with scores on all of at least 2 blocks, got "
            f"{methods} methods on {blocks} blocks with {int(np.isnan(scores).sum())} missing"
        )
    ranks = stats.rankdata(-scores, axis=1)
    p = 1.0
    if (np.ptp(scores, axis=1) > 0).any():  # otherwise the statistic is 0 / 0
        test: Any = stats.friedmanchisquare(*scores.T)
        p = float(test.pvalue)
    quantile = float(stats.studentized_range.ppf(1 - level, methods, np.inf)) / np.sqrt(2)
    critical = quantile * np.sqrt(methods * (methods + 1) / (6 * blocks))
    return RankComparison(ranks.mean(axis=0), p, float(critical), blocks)
