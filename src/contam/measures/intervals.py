"""A number with the interval that a finite sample leaves it, by resampling what was drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contam.rng import generator_for


@dataclass(frozen=True)
class Estimate:
    """A number and both ends of its interval."""

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
    """A statistic of independent samples, with its percentile bootstrap interval.

    `units` says how many things each sample has: examples, draws, or whatever else was drawn
    independently. The statistic gets one index tensor for each sample, which picks things with
    repetition, and returns a scalar; resamples where it is nan are left out.

    Source: ours; Efron (1979).

    Raises:
        ValueError: an empty sample, no resamples, or a confidence outside (0, 1).
    """
    if resamples < 1 or not 0 < confidence < 1 or min(units) < 1:
        raise ValueError(
            f"want at least 1 resample, a confidence in (0, 1) and something in every sample, not "
            f"{resamples}, {confidence} and samples of {list(units)}"
        )
    generator = generator_for(seed, "bootstrap")
    value = statistic(*(torch.arange(n) for n in units))
    found = torch.stack(
        [
            statistic(*(torch.randint(n, (n,), generator=generator) for n in units)).double()
            for _ in range(resamples)
        ]
    )
    tail = (1 - confidence) / 2
    ends = found.nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return Estimate(float(value), *map(float, ends))
