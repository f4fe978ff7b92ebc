"""Whether one measure goes with another over networks, also given a third, and how surely."""

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
    """The networks."""
    resamples: int
    """How many resamples had a correlation; in the others something was constant."""


def spearman(x: Float[Tensor, " networks"], y: Float[Tensor, " networks"]) -> float:
    """Spearman's rank correlation in [-1, 1]; equal values share the mean of their ranks.

    Source: ours; Spearman (1904).

    Raises:
        ValueError: fewer than two networks, a value that is no number, or a constant.
    """
    return _defined(_partial(_table(x, y)))


def partial_spearman(
    x: Float[Tensor, " networks"], y: Float[Tensor, " networks"], given: Float[Tensor, " networks"]
) -> float:
    """The rank correlation that is left when the ranks of `given` are taken out of both.

    In [-1, 1]. ID accuracy alone goes with the drop out of distribution, so a measure says
    something new only if this is far from zero given ID accuracy.

    Source: ours, the first-order formula on ranks.

    Raises:
        ValueError: as `spearman`, or `given` ranks the networks just as another one does.
    """
    return _defined(_partial(_table(x, y, given)))


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
    """A rank correlation, partial if something is given, with its percentile bootstrap interval.

    Networks are drawn with replacement. With `groups`, such as one number for each configuration
    that was trained from several seeds, whole groups are drawn: networks of one group are not
    independent, and without it the interval would be too narrow.

    Source: ours, the percentile bootstrap.

    Raises:
        ValueError: what `partial_spearman` refuses, fewer than two groups, no resamples, or a
            confidence outside (0, 1).
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"want at least 1 resample and a confidence in (0, 1), not {resamples} and {confidence}"
        )
    table = _table(x, y) if given is None else _table(x, y, given)
    value = _defined(_partial(table))
    of_network = torch.arange(len(x)) if groups is None else groups
    members = [(of_network == each).nonzero().flatten().numpy() for each in of_network.unique()]
    if len(members) < 2:
        raise ValueError("all networks are of one group, so nothing can be redrawn; want two")
    drawn = torch.randint(
        len(members), (resamples, len(members)), generator=generator_for(seed, "rank correlation")
    )
    found = np.array(
        [_partial(table[:, np.concatenate([members[g] for g in row])]) for row in drawn.tolist()]
    )
    usable = found[~np.isnan(found)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(usable, [tail, 1 - tail]) if len(usable) else (np.nan, np.nan)
    return Correlation(value, float(low), float(high), len(x), len(usable))


def _table(*columns: Tensor) -> np.ndarray:
    """One row for each measure."""
    table = torch.stack([column.double() for column in columns]).numpy()
    if table.shape[1] < 2 or not np.isfinite(table).all():
        raise ValueError(
            f"a correlation needs two networks or more, each with a finite value of everything; "
            f"got {table.shape[1]}, of which {np.isfinite(table).all(axis=0).sum()} are finite"
        )
    return table


def _partial(table: np.ndarray) -> float:
    """Of the first two rows, given the third if there is one; nan where it is not defined."""
    ranks = rankdata(table, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.square(ranks).sum(axis=1))
    if not norms.all():
        return float("nan")
    between = (ranks @ ranks.T) / np.outer(norms, norms)
    found, left = between[0, 1], 1.0
    if len(table) == 3:
        found -= between[0, 2] * between[1, 2]
        left = (1 - between[0, 2] ** 2) * (1 - between[1, 2] ** 2)
    # Two rankings that agree leave a rounding error instead of zero.
    return float("nan") if left < 1e-12 else float(np.clip(found / np.sqrt(left), -1, 1))


def _defined(value: float) -> float:
    if np.isnan(value):
        raise ValueError(
            "no rank correlation: something is the same for all networks, or what is given ranks "
            "them just as another does; add networks that differ"
        )
    return value
