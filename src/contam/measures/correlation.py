"""Rank correlation of two measures over networks, also given a third, with its interval."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from contam.rng import generator_for


@dataclass(frozen=True)
class Correlation:
    """A rank correlation in [-1, 1] with its bootstrap interval."""

    value: float
    low: float
    high: float
    count: int
    """Number of networks."""
    resamples: int
    """Number of resamples with a correlation; in the others, a measure was constant."""


def spearman(
    x: Float[Tensor, " networks"],
    y: Float[Tensor, " networks"],
    *,
    given: Float[Tensor, " networks"] | None = None,
) -> float:
    """Return Spearman's rank correlation, or the partial one given a third measure.

    It agrees with `scipy.stats.spearmanr` and, unlike it, rejects values without a correlation.
    ID accuracy alone predicts the OOD accuracy drop, so a measure adds information only if its
    partial correlation given ID accuracy is far from zero.

    Args:
        x: One measure of each network.
        y: Another measure of each network.
        given: Measure whose ranks are removed from the ranks of both.

    Returns:
        A value in [-1, 1]; equal values share the mean of their ranks.

    Raises:
        ValueError: If there are fewer than two networks, a value is not finite, a measure is
            constant, or `given` ranks the networks exactly as another measure does.

    Source: ours; Spearman (1904), and the first-order formula on ranks.

    >>> import torch
    >>> round(spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 30.0, 20.0])), 6)
    0.5
    """
    return _defined(_partial(_table(x, y) if given is None else _table(x, y, given)))


def rank_correlation(
    x: Float[Tensor, " networks"],
    y: Float[Tensor, " networks"],
    *,
    given: Float[Tensor, " networks"] | None = None,
    groups: Int[Tensor, " networks"] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Correlation:
    """Return a (partial) rank correlation with its percentile bootstrap interval.

    Args:
        x: One measure of each network.
        y: Another measure of each network.
        given: Measure whose ranks are removed from both, as in `spearman`.
        groups: Group of each network, such as its configuration. Whole groups are resampled:
            networks of one group are not independent, and resampling single ones would make the
            interval too narrow.
        seed: Random seed of the bootstrap.
        resamples: Number of resamples.
        confidence: Level of the interval.

    Raises:
        ValueError: As for `spearman`, or if there are fewer than two groups, no resamples, or the
            confidence is outside (0, 1).

    Source: ours, the percentile bootstrap.

    >>> import torch
    >>> x = torch.arange(8.0)
    >>> result = rank_correlation(x, x**3, resamples=100)
    >>> round(result.value, 6), round(result.low, 6), result.count
    (1.0, 1.0, 8)
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"expected at least 1 resample and a confidence in (0, 1), got {resamples} and "
            f"{confidence}"
        )
    value = spearman(x, y, given=given)
    table = _table(x, y) if given is None else _table(x, y, given)
    of_network = torch.arange(len(x)) if groups is None else groups
    members = [(of_network == group).nonzero().flatten().numpy() for group in of_network.unique()]
    if len(members) < 2:
        raise ValueError("all networks belong to one group; resampling needs at least two")
    drawn = torch.randint(
        len(members), (resamples, len(members)), generator=generator_for(seed, "rank correlation")
    )
    resampled = np.array(
        [_partial(table[:, np.concatenate([members[g] for g in row])]) for row in drawn.tolist()]
    )
    usable = resampled[~np.isnan(resampled)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(usable, [tail, 1 - tail]) if len(usable) else (np.nan, np.nan)
    return Correlation(value, float(low), float(high), len(x), len(usable))


def _table(*columns: Tensor) -> np.ndarray:
    """Return one row for each measure."""
    table = torch.stack([column.double() for column in columns]).numpy()
    if table.shape[1] < 2 or not np.isfinite(table).all():
        raise ValueError(
            "a correlation needs at least two networks with finite measures; got "
            f"{table.shape[1]}, of which {np.isfinite(table).all(axis=0).sum()} do"
        )
    return table


def _partial(table: np.ndarray) -> float:
    """Return the rank correlation of the first two rows given a third; nan if undefined."""
    ranks = rankdata(table, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.square(ranks).sum(axis=1))
    if not norms.all():
        return float("nan")
    between = (ranks @ ranks.T) / np.outer(norms, norms)
    value, rest = between[0, 1], 1.0
    if len(table) == 3:
        value -= between[0, 2] * between[1, 2]
        rest = (1 - between[0, 2] ** 2) * (1 - between[1, 2] ** 2)
    # Two rankings that agree leave a rounding error instead of zero.
    return float("nan") if rest < 1e-12 else float(np.clip(value / np.sqrt(rest), -1, 1))


def _defined(value: float) -> float:
    if np.isnan(value):
        raise ValueError(
            "no rank correlation: a measure is the same for all networks, or `given` ranks them "
            "exactly as another measure does; add networks that differ"
        )
    return value
