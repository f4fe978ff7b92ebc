"""The paper's probability lemmas with their constants, for simulations to be held against.

The paper states many of them up to a constant or a logarithm; here each is a number, and where the
paper says "with high probability" the probability of failure is an argument.

    width        m, hidden neurons            dimension    d, of the input space
    u            (m, d0), the neurons' feature coordinates, core first
    mean         E z_j of every feature, mu_j in the paper
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

BERRY_ESSEEN = 0.56
"""The theorem's constant for unequal terms. Source: Shevtsova (2010)."""


class Bounds(NamedTuple):
    """What a number lies between."""

    lower: float
    upper: float


class Approximation(NamedTuple):
    """A probability for each neuron, and the largest possible error."""

    value: Float[Tensor, " m"]
    error: Float[Tensor, " m"]


def bernstein_tail(count: int, gap: float, *, second_moment: float, largest: float) -> float:
    """At most this probability has a mean of `count` variables to exceed its expectation by `gap`.

    `second_moment` is the average of E X_i^2, and no X_i exceeds `largest`. In [0, 1].

    Source: Lemma D.1, Eq. 53.
    """
    if gap <= 0:
        return 1.0
    return math.exp(-count * gap**2 / (2 * (second_moment + max(largest, 0.0) * gap / 3)))


def variance_statistic(outcomes: Float[Tensor, "n outcomes rows columns"]) -> float:
    """Variance of a sum of n independent centered matrices, each of equally likely outcomes.

    Source: Eq. 54.
    """
    left = (outcomes @ outcomes.mT).mean(dim=1).sum(dim=0)
    right = (outcomes.mT @ outcomes).mean(dim=1).sum(dim=0)
    return max(float(torch.linalg.matrix_norm(side, ord=2)) for side in (left, right))


def matrix_bernstein_tail(
    norm: float, *, variance: float, largest: float, rows: int, columns: int
) -> float:
    """At most this probability has a sum of centered matrices to reach a spectral norm of `norm`.

    `variance` is the sum's `variance_statistic`, and no term's norm exceeds `largest`. In [0, 1].

    Source: Lemma D.2, Eq. 55.
    """
    if norm <= 0:
        return 1.0
    return min(1.0, (rows + columns) * math.exp(-(norm**2) / (2 * (variance + largest * norm / 3))))


def gaussian_tail(x: float) -> Bounds:
    """What P(X >= x) lies between for a unit Gaussian X and positive x; the two meet as x grows.

    The lower bound is the sharper of the customary two, and positive everywhere.

    Source: Lemma D.3, Eq. 56.
    """
    if not x > 0:
        raise ValueError(
            f"the bounds hold for positive x, not for {x}; use the symmetry for others"
        )
    density = math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return Bounds(density * x / (x**2 + 1), density / x)


def binomial_tail(trials: int, probability: float, successes: int) -> float:
    """At least this probability has a binomial variable to reach `successes`. In [0, 1].

    Raises:
        ValueError: more successes than trials * probability + 1, where the bound says nothing.

    Source: Lemma D.4, Eq. 57.
    """
    short = probability - (successes - 1) / trials
    if short < 0:
        raise ValueError(
            f"the bound holds up to {trials * probability + 1:g} successes, not for {successes}"
        )
    return 1 - math.exp(-2 * trials * short**2)


def largest_gaussian(count: int, *, failure: float, scale: float = 1.0) -> float:
    """A level that the largest of `count` absolute Gaussians passes with at most this probability.

    `scale` is their standard deviation. They need not be independent: P(|X| >= x) is at most
    exp(-x^2 / 2) for each.

    Source: Lemma D.5, Eq. 58.
    """
    _check_failure(failure)
    return scale * math.sqrt(2 * math.log(count / failure))


def berry_esseen(
    variances: Float[Tensor, "*sums terms"], third_moments: Float[Tensor, "*sums terms"]
) -> Float[Tensor, "*sums"]:
    """How far a normalized sum's distribution function can be from the unit Gaussian's.

    The terms are independent and centered, with the given E X^2 and E |X|^3; along the last axis.

    Source: Lemma D.6, Eq. 59, Eq. 60.
    """
    return BERRY_ESSEEN * third_moments.sum(dim=-1) / variances.sum(dim=-1) ** 1.5


def activation_probability(
    u: Float[Tensor, "m d0"],
    y: int,
    *,
    core: int,
    mean: Float[Tensor, " d0"],
    variance: Float[Tensor, " d0"],
    third_moment: Float[Tensor, " d0"],
) -> Approximation:
    """How often each neuron fires for class `y`, by the normal approximation, and its error.

    `variance` and `third_moment` are E |z_j - E z_j|^p for p = 2 and 3. The error falls like
    1 / sqrt(d0) for neurons that spread over their features.

    Source: Lemma B.1, Eq. 19.
    """
    signs = torch.ones_like(mean)
    signs[:core] = y
    variances = variance * u**2
    value = torch.special.ndtr(u @ (signs * mean) / variances.sum(dim=1).sqrt())
    return Approximation(value, berry_esseen(variances, third_moment * u.abs() ** 3))


def gated_expectations(
    u: Float[Tensor, "m d0"], z: Float[Tensor, "n d0"], y: int, *, core: int
) -> Float[Tensor, "m d0"]:
    """E[1{active} z_j | y] of every neuron and feature, over a sample of weights z of class `y`.

    A gradient's projections are sums and differences of these; over a set of features the paper
    sums them with weights E z_j.

    Source: Def. B.2, Eq. 20.
    """
    f = torch.cat([y * z[:, :core], z[:, core:]], dim=1)
    return (f @ u.T >= 0).to(z.dtype).T @ z / len(z)


def gradient_gap(features: int, width: int, batch: int, *, failure: float) -> float:
    """A length that a neuron's batch gradient differs from its expectation by at most.

    Holds but for probability `failure`, along every unit direction at once, for ReLU as for
    identity networks: an example's gradient is no longer than sqrt(d0) / m. Falls like
    1 / sqrt(batch).

    Source: Lemma A.2, Eq. 13, Lemma C.2, Eq. 50.
    """
    _check_failure(failure)
    largest = 2 * math.sqrt(features) / (width * batch)
    variance = features / (width**2 * batch)
    log = math.log((features + 1) / failure)
    linear = largest * log / 3
    return linear + math.sqrt(linear**2 + 2 * variance * log)


def initial_correlation_tail(level: float, mean: Float[Tensor, " features"]) -> Bounds:
    """What P(sum_j E z_j <w_k, m_j> >= level sqrt(d0 / d)) lies between at initialization.

    `mean` has the features of the sum; their number is d0. The same holds with any signs, so for
    y C_k + B_k of either class. The dimension cancels.

    Source: Lemma A.6, Eq. 16.
    """
    return gaussian_tail(_standardized(level, mean))


def initial_set_size(
    width: int, level: float, mean: Float[Tensor, " features"], *, failure: float
) -> int:
    """At least so many neurons start in the set N_y that asks for level sqrt(d0 / d) and a sign.

    Holds for one class but for probability `failure`. A constant share of a wide network.

    Source: Lemma A.7, Eq. 17.
    """
    _check_failure(failure)
    share = math.erfc(_standardized(level, mean) / math.sqrt(2)) / 4
    deviation = math.sqrt(width * math.log(1 / failure) / 2)
    return max(0, math.floor(width * share - deviation) + 1)


def largest_initial_correlation(
    width: int, dimension: int, mean: Float[Tensor, " d0"], *, failure: float
) -> float:
    """A level that no neuron's |y C_k + B_k| of either class passes at initialization.

    Holds but for probability `failure`.

    Source: Lemma A.8.
    """
    scale = float(mean.norm()) / math.sqrt(dimension)
    return largest_gaussian(2 * width, failure=failure, scale=scale)


def initial_output(width: int, dimension: int, length: float, *, failure: float) -> float:
    """A level that |h(x)| does not pass at initialization, for an input x of a given length.

    Holds but for probability `failure`: no average exceeds the largest pre-activation.

    Source: Lemma A.9, Eq. 18.
    """
    return largest_gaussian(width, failure=failure, scale=length / math.sqrt(dimension))


def _standardized(level: float, mean: Float[Tensor, " features"]) -> float:
    """The level sqrt(d0 / d), in standard deviations of a sum of N(0, 1/d) weights times `mean`."""
    return level * math.sqrt(len(mean)) / float(mean.norm())


def _check_failure(failure: float) -> None:
    if not 0 < failure < 1:
        raise ValueError(f"failure is a probability between 0 and 1, not {failure}")
