"""Mediation: the part of a dose's effect on an outcome that goes through a third measure."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.rng import generator_for

OUTCOME = 2
"""Column of the outcome in the table of dose, mediator, outcome and covariate."""


class MediationEstimate(NamedTuple):
    """A number with the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Mediation:
    """Effects on the outcome, in its unit, of one unit of the dose; total = direct + indirect."""

    total: MediationEstimate
    """Effect of the dose, without the mediator in the regression."""
    direct: MediationEstimate
    """Effect of the dose at equal values of the mediator."""
    indirect: MediationEstimate
    """The difference: effect of the dose on the mediator times effect of the mediator."""
    share: MediationEstimate
    """Indirect over total effect. It can be below 0 or above 1. It is unstable if the total effect
    is close to 0, and nan if that is 0."""


def mediation(
    dose: Float[Tensor, " networks"],
    mediator: Float[Tensor, " networks"],
    outcome: Float[Tensor, " networks"],
    *,
    groups: Int[Tensor, " networks"],
    clusters: Int[Tensor, " networks"],
    given: Float[Tensor, " networks"] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Mediation:
    """Split the effect of a dose into a direct and an indirect one, by linear regressions.

    The outcome is regressed on the dose, with and without the mediator. Every group has an
    intercept of its own. The estimate is causal only if nothing else that the dose changes affects
    both mediator and outcome; `given` holds one such measure constant. Intervals are percentiles
    over resampled clusters; with few clusters they are too narrow.

    Args:
        dose: Dose of each network.
        mediator: Measure through which the dose may act.
        outcome: Measure that the dose may change.
        groups: Group of each network; only differences within a group count.
        clusters: Cluster of each network, such as its seed; clusters are resampled as a whole.
        given: Measure that is added to both regressions.
        seed: Random seed of the bootstrap.
        resamples: Number of resamples.
        confidence: Level of the intervals.

    Raises:
        ValueError: If there are fewer than two clusters, no resamples, a confidence outside (0, 1),
            a value that is not finite, or if the dose or the mediator does not vary within groups
            apart from what the other regressors explain.

    Source: ours; Baron & Kenny (1986), the difference of coefficients, and the cluster bootstrap.

    >>> import torch
    >>> dose = torch.tensor([0.0, 1.0, 2.0, 3.0])
    >>> mediator = torch.tensor([0.0, 1.0, 1.0, 2.0])
    >>> cluster = torch.tensor([0, 0, 1, 1])
    >>> one = torch.zeros(4, dtype=torch.int64)
    >>> result = mediation(dose, mediator, 5 * mediator, groups=one, clusters=cluster)
    >>> round(result.total.value, 6), round(result.share.value, 6)
    (3.0, 1.0)
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"expected at least 1 resample and a confidence in (0, 1), got {resamples} and "
            f"{confidence}"
        )
    columns = [dose, mediator, outcome] + ([] if given is None else [given])
    table = torch.stack([column.double() for column in columns], dim=1)
    if not table.isfinite().all():
        raise ValueError("a value is not finite; leave out the networks that lack a measure")
    for group in groups.unique():
        table[groups == group] -= table[groups == group].mean(dim=0)
    values = table.numpy()
    regressors = [k for k in range(len(columns)) if k != OUTCOME]
    if np.linalg.matrix_rank(values[:, regressors]) < len(regressors):
        raise ValueError(
            "dose, mediator and covariate can't be separated: one of them does not vary within "
            "groups, or is a combination of the others"
        )
    parts = [values[(clusters == cluster).numpy()] for cluster in clusters.unique()]
    if len(parts) < 2:
        raise ValueError("all networks belong to one cluster; resampling needs at least two")
    # The regressions need only these products, which add up over the clusters of a resample.
    products = np.stack([part.T @ part for part in parts])
    drawn = torch.randint(
        len(parts), (resamples, len(parts)), generator=generator_for(seed, "mediation")
    )
    resampled = _effects(products[drawn.numpy()].sum(axis=1))
    tail = (1 - confidence) / 2
    return Mediation(
        *(
            MediationEstimate(value, *_quantiles(column, [tail, 1 - tail]))
            for value, column in zip(
                _effects(products.sum(axis=0)).tolist(), resampled.T, strict=True
            )
        )
    )


def _effects(products: np.ndarray) -> np.ndarray:
    """Return total, direct and indirect effect and the share, nan if the total effect is 0.

    Args:
        products: (..., columns, columns) sums of products of dose, mediator, outcome and possibly a
            covariate, centered within groups.
    """
    rest = [*range(OUTCOME + 1, products.shape[-1])]
    total, direct = (
        (
            np.linalg.pinv(products[..., chosen, :][..., chosen], hermitian=True)
            @ products[..., chosen, OUTCOME, None]
        )[..., 0, 0]
        for chosen in ([0, *rest], [0, 1, *rest])
    )
    share = np.divide(total - direct, total, out=np.full_like(total, np.nan), where=total != 0)
    return np.stack([total, direct, total - direct, share], axis=-1)


def _quantiles(values: np.ndarray, levels: list[float]) -> list[float]:
    """Return quantiles of the numbers, without those that are nan."""
    usable = values[~np.isnan(values)]
    return np.quantile(usable, levels).tolist() if len(usable) else [np.nan] * len(levels)
