"""The paper's probability lemmas with explicit constants, to compare with simulations.

The paper states many of them up to a constant or a logarithm. Here each is a number, and where the
paper says "with high probability", the probability of failure is an argument.

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
    """A lower and an upper bound."""

    lower: float
    upper: float


class Approximation(NamedTuple):
    """An approximate probability per neuron, and its largest possible error."""

    value: Float[Tensor, " m"]
    error: Float[Tensor, " m"]


def bernstein_tail(count: int, gap: float, *, second_moment: float, largest: float) -> float:
    """Upper bound on the probability that a mean exceeds its expectation by `gap`.

    Args:
        count: number of independent variables X_i.
        gap: difference between the mean and its expectation.
        second_moment: average of E X_i^2.
        largest: upper bound on every X_i.

    Returns:
        The upper bound, a probability.

    Source: Lemma D.1, Eq. 53.

    >>> round(bernstein_tail(100, 0.5, second_moment=1.0, largest=1.0), 7)
    2.22e-05
    """
    if gap <= 0:
        return 1.0
    return math.exp(-count * gap**2 / (2 * (second_moment + max(largest, 0.0) * gap / 3)))


def variance_statistic(outcomes: Float[Tensor, "n outcomes rows columns"]) -> float:
    """Variance statistic of a sum of n independent centered random matrices.

    Args:
        outcomes: equally likely outcomes of each matrix.

    Returns:
        The larger of the spectral norms of sum E S S^T and sum E S^T S.

    Source: Eq. 54.

    >>> signs = torch.tensor([[[[1.0]], [[-1.0]]]])  # one 1 x 1 matrix, either +1 or -1
    >>> variance_statistic(signs.expand(3, 2, 1, 1))
    3.0
    """
    left = (outcomes @ outcomes.mT).mean(dim=1).sum(dim=0)
    right = (outcomes.mT @ outcomes).mean(dim=1).sum(dim=0)
    return max(float(torch.linalg.matrix_norm(side, ord=2)) for side in (left, right))


def matrix_bernstein_tail(
    norm: float, *, variance: float, largest: float, rows: int, columns: int
) -> float:
    """Upper bound on the probability that a sum of centered matrices has a spectral norm >= `norm`.

    Args:
        norm: the spectral norm.
        variance: `variance_statistic` of the sum.
        largest: upper bound on the norm of every term.
        rows: rows of the matrices.
        columns: columns of the matrices.

    Returns:
        The upper bound, a probability; at most 1.

    Source: Lemma D.2, Eq. 55.

    >>> round(matrix_bernstein_tail(10.0, variance=4.0, largest=1.0, rows=2, columns=3), 4)
    0.0055
    """
    if norm <= 0:
        return 1.0
    return min(1.0, (rows + columns) * math.exp(-(norm**2) / (2 * (variance + largest * norm / 3))))


def gaussian_tail(x: float) -> Bounds:
    """Bounds on P(X >= x) for a standard Gaussian X and positive x; their ratio tends to 1.

    The lower bound is the sharper of the two in use, and always positive.

    Args:
        x: the level, in standard deviations; positive.

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: x is not positive.

    Source: Lemma D.3, Eq. 56.

    >>> lower, upper = gaussian_tail(2.0)
    >>> round(lower, 4), round(upper, 4)
    (0.0216, 0.027)
    """
    if not x > 0:
        raise ValueError(
            f"the bounds hold for positive x, not for {x}; use the symmetry for others"
        )
    density = math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return Bounds(density * x / (x**2 + 1), density / x)


def binomial_tail(trials: int, probability: float, successes: int) -> float:
    """Lower bound on the probability that a binomial variable is at least `successes`.

    Args:
        trials: number of trials.
        probability: of success in one trial.
        successes: number of successes.

    Returns:
        The lower bound, a probability.

    Raises:
        ValueError: more successes than trials * probability + 1, where there is no bound.

    Source: Lemma D.4, Eq. 57.

    >>> round(binomial_tail(100, 0.5, 40), 3)
    0.911
    """
    short = probability - (successes - 1) / trials
    if short < 0:
        raise ValueError(
            f"the bound holds up to {trials * probability + 1:g} successes, not for {successes}"
        )
    return 1 - math.exp(-2 * trials * short**2)


def largest_gaussian(count: int, *, failure: float, scale: float = 1.0) -> float:
    """A level that the largest of several absolute Gaussians exceeds with probability <= `failure`.

    The variables need not be independent: P(|X| >= x) is at most exp(-x^2 / 2) for each.

    Args:
        count: number of Gaussians.
        failure: probability of failure.
        scale: their standard deviation.

    Returns:
        The level, in the unit of `scale`.

    Raises:
        ValueError: `failure` is not strictly between 0 and 1.

    Source: Lemma D.5, Eq. 58.

    >>> round(largest_gaussian(100, failure=0.01), 2)
    4.29
    """
    _check_failure(failure)
    return scale * math.sqrt(2 * math.log(count / failure))


def berry_esseen(
    variances: Float[Tensor, "*sums terms"], third_moments: Float[Tensor, "*sums terms"]
) -> Float[Tensor, "*sums"]:
    """Largest distance between a normalized sum's distribution function and the Gaussian one.

    Args:
        variances: E X^2 of independent centered terms, along the last axis.
        third_moments: E |X|^3 of the same terms.

    Returns:
        One distance for each sum; a distance of 1 or more says nothing.

    Source: Lemma D.6, Eq. 59, Eq. 60.

    >>> berry_esseen(torch.ones(4), torch.ones(4))
    tensor(0.2800)
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
    """Activation probability of each neuron on class `y`, by the normal approximation.

    The error falls like 1 / sqrt(d0) for neurons whose weights spread over the features.

    Args:
        u: feature coordinates of the neurons, core first.
        y: the class, -1 or +1.
        core: number of core features.
        mean: E z_j.
        variance: E (z_j - E z_j)^2.
        third_moment: E |z_j - E z_j|^3.

    Returns:
        One probability and one error bound for each neuron.

    Source: Lemma B.1, Eq. 19.

    >>> u, moment = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.ones(2)
    >>> value, error = activation_probability(
    ...     u, 1, core=1, mean=0.5 * moment, variance=moment / 12, third_moment=moment / 32
    ... )
    >>> [round(probability, 3) for probability in value.tolist()]
    [0.993, 0.5]
    """
    signs = torch.ones_like(mean)
    signs[:core] = y
    variances = variance * u**2
    value = torch.special.ndtr(u @ (signs * mean) / variances.sum(dim=1).sqrt())
    return Approximation(value, berry_esseen(variances, third_moment * u.abs() ** 3))


def gated_expectations(
    u: Float[Tensor, "m d0"], z: Float[Tensor, "n d0"], y: int, *, core: int
) -> Float[Tensor, "m d0"]:
    """E[1{active} z_j | y] of every neuron and feature.

    Projections of the gradient are sums and differences of these; the paper sums them over sets of
    features with weights E z_j.

    Args:
        u: feature coordinates of the neurons, core first.
        z: a sample of weights.
        y: the class, -1 or +1.
        core: number of core features.

    Returns:
        One expectation for each neuron and feature.

    Source: Def. B.2, Eq. 20.

    >>> u, z = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 1.0], [1.0, 0.0]])
    >>> [gated_expectations(u, z, y, core=1).tolist() for y in (1, -1)]
    [[[0.75, 0.5]], [[0.0, 0.0]]]
    """
    f = torch.cat([y * z[:, :core], z[:, core:]], dim=1)
    return (f @ u.T >= 0).to(z.dtype).T @ z / len(z)


def gradient_gap(features: int, width: int, batch: int, *, failure: float) -> float:
    """Upper bound on the distance between a neuron's batch gradient and its expectation.

    Holds along every unit direction at once, for ReLU and identity networks, because the gradient
    of one example has norm at most sqrt(d0) / m. Falls like 1 / sqrt(batch).

    Args:
        features: number of features.
        width: hidden neurons.
        batch: examples in the batch.
        failure: probability that the bound does not hold.

    Returns:
        The bound, in the unit of the gradient.

    Raises:
        ValueError: `failure` is not strictly between 0 and 1.

    Source: Lemma A.2, Eq. 13, Lemma C.2, Eq. 50.

    >>> gaps = [gradient_gap(64, 256, batch, failure=0.01) for batch in (100, 10_000)]
    >>> [round(gap, 5) for gap in gaps]
    [0.01505, 0.00133]
    """
    _check_failure(failure)
    largest = 2 * math.sqrt(features) / (width * batch)
    variance = features / (width**2 * batch)
    log = math.log((features + 1) / failure)
    linear = largest * log / 3
    return linear + math.sqrt(linear**2 + 2 * variance * log)


def initial_correlation_tail(level: float, mean: Float[Tensor, " features"]) -> Bounds:
    """Bounds on P(sum_j E z_j <w_k, m_j> >= level sqrt(d0 / d)) at initialization.

    The bounds hold with any signs in the sum, so for y C_k + B_k of either class. The dimension
    cancels.

    Args:
        level: a positive level, in units of sqrt(d0 / d).
        mean: E z_j of the d0 features of the sum.

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: the level is not positive.

    Source: Lemma A.6, Eq. 16.

    >>> [round(bound, 3) for bound in initial_correlation_tail(0.5, torch.full((64,), 0.5))]
    [0.121, 0.242]
    """
    return gaussian_tail(_standardized(level, mean))


def initial_set_size(
    width: int, level: float, mean: Float[Tensor, " features"], *, failure: float
) -> int:
    """Lower bound on the number of neurons in the set N_y of one class at initialization.

    It is a constant share of a wide network.

    Args:
        width: hidden neurons.
        level: level of the set, in units of sqrt(d0 / d).
        mean: E z_j of the features.
        failure: probability that the bound does not hold.

    Returns:
        A number of neurons, 0 where the bound says nothing.

    Raises:
        ValueError: `failure` is not strictly between 0 and 1.

    Source: Lemma A.7, Eq. 17.

    >>> initial_set_size(1024, 0.5, torch.full((64,), 0.5), failure=0.01)
    33
    """
    _check_failure(failure)
    share = math.erfc(_standardized(level, mean) / math.sqrt(2)) / 4
    deviation = math.sqrt(width * math.log(1 / failure) / 2)
    return max(0, math.floor(width * share - deviation) + 1)


def largest_initial_correlation(
    width: int, dimension: int, mean: Float[Tensor, " d0"], *, failure: float
) -> float:
    """Upper bound on every neuron's |y C_k + B_k| of either class at initialization.

    Args:
        width: hidden neurons.
        dimension: dimension of the input space.
        mean: E z_j.
        failure: probability that the bound does not hold.

    Returns:
        The bound.

    Raises:
        ValueError: `failure` is not strictly between 0 and 1.

    Source: Lemma A.8.

    >>> round(largest_initial_correlation(1024, 256, torch.full((64,), 0.5), failure=0.01), 2)
    1.24
    """
    scale = float(mean.norm()) / math.sqrt(dimension)
    return largest_gaussian(2 * width, failure=failure, scale=scale)


def initial_output(width: int, dimension: int, length: float, *, failure: float) -> float:
    """Upper bound on |h(x)| at initialization.

    It holds because no average exceeds the largest pre-activation.

    Args:
        width: hidden neurons.
        dimension: dimension of the input space.
        length: norm of the input x.
        failure: probability that the bound does not hold.

    Returns:
        The bound.

    Raises:
        ValueError: `failure` is not strictly between 0 and 1.

    Source: Lemma A.9, Eq. 18.

    >>> round(initial_output(1024, 256, 4.0, failure=0.01), 2)
    1.2
    """
    return largest_gaussian(width, failure=failure, scale=length / math.sqrt(dimension))


def _standardized(level: float, mean: Float[Tensor, " features"]) -> float:
    """The level sqrt(d0 / d), in standard deviations of a sum of N(0, 1/d) weights times `mean`."""
    return level * math.sqrt(len(mean)) / float(mean.norm())


def _check_failure(failure: float) -> None:
    if not 0 < failure < 1:
        raise ValueError(f"failure must be a probability between 0 and 1, not {failure}")
