"""Distributions of one weight z_j on a bounded interval, drawn from 16 random bits.

A draw is the quantile at (k + 1/2) / 65536, where k is a 16-bit word. So each distribution has
65536 equally likely values, keeps its mean and its quantiles, and a draw is one look-up.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

LEVELS = 65536
"""Number of values that a draw can have."""


@dataclass(frozen=True)
class Uniform:
    """The uniform distribution on [low, high].

    Source: ours, the weights of the standard setting.

    >>> Uniform(-1.0, 0.0).mean
    -0.5
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _check_interval(self, self.low, self.high)

    @property
    def mean(self) -> float:
        """Expectation E z."""
        return (self.low + self.high) / 2

    @property
    def variance(self) -> float:
        """Variance E (z - E z)^2."""
        return (self.high - self.low) ** 2 / 12

    @property
    def third_moment(self) -> float:
        """Third absolute central moment, E |z - E z|^3."""
        return (self.high - self.low) ** 3 / 32

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """Inverse of the distribution function.

        Args:
            p: probabilities in (0, 1), of any shape.

        Returns:
            Quantiles, in the shape of `p`.
        """
        return self.low + (self.high - self.low) * p


@dataclass(frozen=True)
class TwoPoint:
    """The distribution with value `high` with probability `p`, and `low` otherwise.

    Source: ours, the extreme case of skewed weights.

    >>> TwoPoint(0.25).variance
    0.1875
    """

    p: float = 0.5
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _check_interval(self, self.low, self.high)
        if not 0 < self.p < 1:
            raise ValueError(f"{self}: p must lie strictly between 0 and 1")

    @property
    def mean(self) -> float:
        """Expectation E z."""
        return self.low + self.p * (self.high - self.low)

    @property
    def variance(self) -> float:
        """Variance E (z - E z)^2."""
        return self.p * (1 - self.p) * (self.high - self.low) ** 2

    @property
    def third_moment(self) -> float:
        """Third absolute central moment, E |z - E z|^3."""
        p, q = self.p, 1 - self.p
        return p * q * (p * p + q * q) * (self.high - self.low) ** 3

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """Inverse of the distribution function.

        Args:
            p: probabilities in (0, 1), of any shape.

        Returns:
            Quantiles, in the shape of `p`.
        """
        return np.where(p < 1 - self.p, self.low, self.high)


@dataclass(frozen=True)
class Beta:
    """The beta distribution with shape parameters `a` and `b`, scaled to [low, high].

    Source: ours, a family of bounded weights with any mean and variance.

    >>> Beta(1.0, 3.0).mean
    0.25
    """

    a: float
    b: float
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _check_interval(self, self.low, self.high)
        if not (0.1 <= self.a <= 1000 and 0.1 <= self.b <= 1000):
            raise ValueError(f"{self}: a and b must lie between 0.1 and 1000")

    @property
    def mean(self) -> float:
        """Expectation E z."""
        return self.low + (self.high - self.low) * self.a / (self.a + self.b)

    @property
    def variance(self) -> float:
        """Variance E (z - E z)^2."""
        total = self.a + self.b
        return (self.high - self.low) ** 2 * self.a * self.b / (total**2 * (total + 1))

    @property
    def third_moment(self) -> float:
        """Third absolute central moment, E |z - E z|^3."""
        a, b = self.a, self.b
        mean = a / (a + b)
        raw, below = [1.0], [float(_beta_cdf(np.array([mean]), a, b)[0])]
        for k in range(3):
            raw.append(raw[-1] * (a + k) / (a + b + k))
            # A power of x only raises the first shape, so partial moments are beta CDFs again.
            below.append(raw[-1] * float(_beta_cdf(np.array([mean]), a + k + 1, b)[0]))

        def cube(moment: list[float]) -> float:
            return moment[3] - 3 * mean * moment[2] + 3 * mean**2 * moment[1] - mean**3 * moment[0]

        return (self.high - self.low) ** 3 * (cube(raw) - 2 * cube(below))

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """Inverse of the distribution function.

        Args:
            p: probabilities in (0, 1), of any shape.

        Returns:
            Quantiles, in the shape of `p`.
        """
        # Nodes are dense at both ends, where the density may be infinite; then bisection.
        nodes = np.sin(np.linspace(0, math.pi / 2, 4097)) ** 2
        cell = np.searchsorted(_beta_cdf(nodes, self.a, self.b), p).clip(1, len(nodes) - 1)
        below, above = nodes[cell - 1], nodes[cell]
        for _ in range(30):
            middle = (below + above) / 2
            left = _beta_cdf(middle, self.a, self.b) < p
            below, above = np.where(left, middle, below), np.where(left, above, middle)
        return self.low + (self.high - self.low) * (below + above) / 2


@dataclass(frozen=True)
class Pareto:
    """The Pareto distribution of absolute weights with tail exponent `alpha`, cut off at a bound.

    Its density is proportional to |z| ** -(alpha + 1) on [low, high], whose ends have one sign: a
    heavy tail, as long as bounded weights can have one.

    Source: ours, the heavy-tailed weights that Def. 3.1 allows.

    >>> weights = Pareto(1.0, 0.01, 1.0)
    >>> round(weights.mean, 4), weights.quantile(np.array([0.5, 0.9])).round(3).tolist()
    (0.0465, [0.02, 0.092])
    """

    alpha: float
    low: float = 0.01
    high: float = 1.0

    def __post_init__(self) -> None:
        _check_interval(self, self.low, self.high)
        if not self.low * self.high > 0:
            raise ValueError(f"{self}: low and high must have one sign, and neither may be 0")
        if not 0.1 <= self.alpha <= 10:
            raise ValueError(f"{self}: alpha must lie between 0.1 and 10")

    @property
    def mean(self) -> float:
        """Expectation E z."""
        return math.copysign(self._moment(1), self.low)

    @property
    def variance(self) -> float:
        """Variance E (z - E z)^2."""
        return self._moment(2) - self._moment(1) ** 2

    @property
    def third_moment(self) -> float:
        """Third absolute central moment, E |z - E z|^3."""
        mean, (_, largest) = self._moment(1), self._sizes

        def cube(start: float) -> float:
            m = [self._moment(power, start) for power in range(4)]
            return m[3] - 3 * mean * m[2] + 3 * mean**2 * m[1] - mean**3 * m[0]

        return 2 * cube(min(mean, largest)) - cube(self._sizes[0])

    def quantile(self, p: np.ndarray) -> np.ndarray:
        """Inverse of the distribution function.

        Args:
            p: probabilities in (0, 1), of any shape.

        Returns:
            Quantiles, in the shape of `p`.
        """
        smallest, largest = self._sizes
        ratio = (smallest / largest) ** self.alpha
        below = np.asarray(p) if self.low > 0 else 1 - np.asarray(p)
        sizes = smallest * (1 - below * (1 - ratio)) ** (-1 / self.alpha)
        return np.copysign(sizes, self.low).clip(self.low, self.high)

    @property
    def _sizes(self) -> tuple[float, float]:
        """Smallest and largest |z|."""
        first, last = sorted((abs(self.low), abs(self.high)))
        return first, last

    def _moment(self, power: int, start: float | None = None) -> float:
        """E |z|^power over the sizes from `start` on, by default all."""
        smallest, largest = self._sizes
        start, rest = start or smallest, power - self.alpha
        scale = self.alpha * smallest**self.alpha / (1 - (smallest / largest) ** self.alpha)
        if abs(rest) < 1e-12:
            return scale * math.log(largest / start)
        return scale * (largest**rest - start**rest) / rest


Weights = Uniform | TwoPoint | Beta | Pareto


@lru_cache(maxsize=16)
def quantile_table(weights: Weights) -> Float[Tensor, " levels"]:
    """The equally likely values of a draw, in increasing order.

    Args:
        weights: the distribution.

    Returns:
        Its 65536 values, float64.

    Source: ours, a draw is one lookup.

    >>> quantile_table(Uniform(0.0, 1.0))[:2] * LEVELS
    tensor([0.5000, 1.5000], dtype=torch.float64)
    """
    return torch.from_numpy(weights.quantile((np.arange(LEVELS) + 0.5) / LEVELS))


def _check_interval(weights: object, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{weights}: need finite bounds with low < high")


def _beta_cdf(x: np.ndarray, a: float, b: float) -> np.ndarray:
    """Regularized incomplete beta function, by its continued fraction (modified Lentz)."""
    x = np.asarray(x, dtype=np.float64)
    # The fraction converges fast below the mean; above it, the mirrored one does.
    mirrored = x > (a + 1) / (a + b + 2)
    shape, other = np.where(mirrored, b, a), np.where(mirrored, a, b)
    t = np.where(mirrored, 1 - x, x)
    tiny = 1e-300
    c = np.ones_like(t)
    d = 1 - (shape + other) * t / (shape + 1)
    d = 1 / np.where(np.abs(d) < tiny, tiny, d)
    fraction = d
    for k in range(1, 200):
        even = k * (other - k) * t / ((shape + 2 * k - 1) * (shape + 2 * k))
        odd = -(shape + k) * (shape + other + k) * t / ((shape + 2 * k) * (shape + 2 * k + 1))
        step = np.ones_like(t)
        for term in (even, odd):
            d = 1 + term * d
            c = 1 + term / c
            d = 1 / np.where(np.abs(d) < tiny, tiny, d)
            c = np.where(np.abs(c) < tiny, tiny, c)
            step = d * c
            fraction = fraction * step
        if np.abs(step - 1).max() < 1e-14:
            break
    with np.errstate(divide="ignore"):
        log_front = shape * np.log(t) + other * np.log1p(-t) - np.log(shape)
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    tail = np.exp(log_front - log_beta) * fraction
    return np.where(mirrored, 1 - tail, tail)
