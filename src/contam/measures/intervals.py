"""Estimates with intervals from resampling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contam.rng import generator_for


@dataclass(frozen=True)
class Estimate:
    """A value and both ends of its interval."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[..., Tensor],
    units: Sequence[int],
    *,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """Return a statistic of independent samples with its percentile bootstrap interval.

    Args:
        statistic: Function of one index tensor for each sample, which selects units with
            repetition, to a scalar. Resamples with a value of nan are left out.
        units: Number of independent units (examples, draws, ...) in each sample.
        seed: Random seed.
        resamples: Number of resamples.
        confidence: Level of the interval.

    Raises:
        ValueError: If a sample is empty, there are no resamples, or the confidence is outside
            (0, 1).

    Source: ours; Efron (1979).

    >>> import torch
    >>> values = torch.ones(10)
    >>> bootstrap(lambda rows: values[rows].mean(), (10,), resamples=20)
    Estimate(value=1.0, low=1.0, high=1.0)
    """
    if resamples < 1 or not 0 < confidence < 1 or min(units) < 1:
        raise ValueError(
            "expected at least 1 resample, a confidence in (0, 1) and units in every sample, got "
            f"{resamples}, {confidence} and samples of {list(units)}"
        )
    generator = generator_for(seed, "bootstrap")
    value = statistic(*(torch.arange(n) for n in units))
    resampled = torch.stack(
        [
            statistic(*(torch.randint(n, (n,), generator=generator) for n in units)).double()
            for _ in range(resamples)
        ]
    )
    tail = (1 - confidence) / 2
    ends = resampled.nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return Estimate(float(value), *map(float, ends))
