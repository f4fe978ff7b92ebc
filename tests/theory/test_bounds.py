"""Each bound against the exact probability that it bounds, and against its own sharpness."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from contam.rng import generator_for
from contam.theory.bounds import (
    activation_probability,
    bernstein_tail,
    berry_esseen,
    binomial_tail,
    gated_expectations,
    gaussian_tail,
    gradient_gap,
    initial_correlation_tail,
    initial_output,
    initial_set_size,
    largest_gaussian,
    largest_initial_correlation,
    matrix_bernstein_tail,
    variance_statistic,
)


def test_gaussian_tail_by_hand():
    assert gaussian_tail(1.0) == pytest.approx((0.1209854, 0.2419707), abs=1e-7)


@given(st.floats(1e-3, 30))
def test_gaussian_tail_bounds_contain_the_tail(x):
    lower, upper = gaussian_tail(x)
    assert lower < stats.norm.sf(x) < upper


def test_gaussian_tail_bounds_converge():
    lower, upper = gaussian_tail(20.0)
    assert 1 < upper / lower < 1.003


@given(st.integers(1, 300), st.floats(0.01, 0.99), st.floats(0, 1))
def test_binomial_tail_is_below_the_exact_one(trials, probability, share):
    successes = math.floor(share * (trials * probability + 1))
    exact = stats.binom.sf(successes - 1, trials, probability)
    assert binomial_tail(trials, probability, successes) <= exact + 1e-12


def test_binomial_tail_is_not_vacuous():
    assert binomial_tail(4, 0.5, 1) == pytest.approx(1 - math.exp(-2))
    assert binomial_tail(1000, 0.25, 200) > 0.99


@pytest.mark.parametrize("count", [1, 10, 1000, 10**6])
@pytest.mark.parametrize("failure", [0.3, 0.01, 1e-6])
def test_largest_gaussian_is_exceeded_at_most_as_often_as_stated(count, failure):
    level = largest_gaussian(count, failure=failure)
    passed = -math.expm1(count * math.log1p(-2 * stats.norm.sf(level)))
    assert passed <= failure
    sharp = stats.norm.isf(-math.expm1(math.log1p(-failure) / count) / 2)
    assert sharp < level < 1.9 * sharp


def test_largest_gaussian_scales_with_the_standard_deviation():
    assert largest_gaussian(7, failure=0.1, scale=3.0) == pytest.approx(
        3 * largest_gaussian(7, failure=0.1)
    )


@pytest.mark.parametrize("gap", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("probability", [0.05, 0.5])
def test_bernstein_bounds_the_upper_tail_of_binomial_means(gap, probability):
    count = 200
    exact = stats.binom.sf(math.ceil(count * (probability + gap)) - 1, count, probability)
    bound = bernstein_tail(count, gap, second_moment=probability, largest=1.0)
    assert exact <= bound
    assert gap < 0.3 or bound < 1e-4


def test_initial_bounds_by_hand():
    mean = torch.tensor([0.3, 0.4])
    e8, e2 = math.exp(8), math.exp(2)
    largest = largest_initial_correlation(50, 25, mean, failure=100 / e8)
    assert largest == pytest.approx(0.5 / 5 * 4)
    assert initial_output(50, 25, 3.0, failure=50 / e8) == pytest.approx(3 / 5 * 4)
    assert initial_set_size(1000, 0.0, mean, failure=1 / e2) == math.floor(250 - 31.6) + 1
    assert initial_correlation_tail(0.5 / math.sqrt(2), mean) == gaussian_tail(1.0)


def test_gradient_gap_by_hand():
    linear = 2 * 8 / (10 * 100) * 5 / 3
    expected = linear + math.sqrt(linear**2 + 2 * 64 / (10**2 * 100) * 5)
    assert gradient_gap(64, 10, 100, failure=65 / math.e**5) == pytest.approx(expected)


def test_bernstein_by_hand():
    probability = bernstein_tail(12, 0.5, second_moment=0.25, largest=1.5)
    assert probability == pytest.approx(math.exp(-12 * 0.25 / (2 * (0.25 + 0.25))))
    assert bernstein_tail(12, 0.0, second_moment=0.25, largest=1.5) == 1


def test_matrix_bernstein_of_scalars_is_twice_bernstein():
    scalar = bernstein_tail(50, 0.4, second_moment=1.0, largest=1.0)
    matrix = matrix_bernstein_tail(50 * 0.4, variance=50.0, largest=1.0, rows=1, columns=1)
    assert matrix == pytest.approx(2 * scalar)


def test_variance_statistic_by_hand_and_for_transposes():
    row = torch.tensor([[3.0, 4.0]])
    flips = torch.stack([row, -row])[None]
    assert variance_statistic(flips) == pytest.approx(25)
    assert variance_statistic(flips.repeat(6, 1, 1, 1)) == pytest.approx(150)
    assert variance_statistic(flips.mT) == pytest.approx(25)
    first_row = torch.zeros(4, 1, 3, 4)
    first_row[range(4), 0, 0, range(4)] = 1
    assert variance_statistic(first_row) == variance_statistic(first_row.mT) == 4
    corners = torch.stack(
        [torch.diag(torch.tensor([2.0, 0.0])), torch.diag(torch.tensor([0, 1.0]))]
    )
    assert variance_statistic(corners[None]) == pytest.approx(2)


def test_matrix_bernstein_bounds_the_norm_of_random_sums():
    draws = generator_for(0, "signs")
    terms = torch.randn(60, 4, 3, generator=draws)
    variance = variance_statistic(torch.stack([terms, -terms], dim=1))
    largest = float(torch.linalg.matrix_norm(terms, ord=2).max())
    signs = torch.randint(2, (20_000, 60), generator=draws).float() * 2 - 1
    norms = torch.linalg.matrix_norm(torch.einsum("sn,nrc->src", signs, terms), ord=2)
    for share in (0.5, 0.9, 0.999):
        level = float(norms.quantile(share))
        bound = matrix_bernstein_tail(level, variance=variance, largest=largest, rows=4, columns=3)
        assert 1 - share <= bound
    far = 3 * float(norms.max())
    assert matrix_bernstein_tail(far, variance=variance, largest=largest, rows=4, columns=3) < 1e-6


@pytest.mark.parametrize("probability", [0.5, 0.2, 0.03])
@pytest.mark.parametrize("terms", [1, 10, 1000])
def test_berry_esseen_bounds_binomials(terms, probability):
    variance = probability * (1 - probability)
    third = variance * (probability**2 + (1 - probability) ** 2)
    bound = float(
        berry_esseen(
            torch.full((terms,), variance, dtype=torch.float64),
            torch.full((terms,), third, dtype=torch.float64),
        )
    )
    steps = np.arange(terms + 1)
    normal = stats.norm.cdf((steps - terms * probability) / math.sqrt(terms * variance))
    above = np.abs(stats.binom.cdf(steps, terms, probability) - normal).max()
    below = np.abs(stats.binom.cdf(steps - 1, terms, probability) - normal).max()
    assert max(above, below) <= bound
    assert max(above, below) > 0.4 * bound or terms == 1 or probability < 0.1


def test_berry_esseen_is_vectorized():
    variances = torch.tensor([[1.0, 3.0], [4.0, 0.0]])
    thirds = torch.tensor([[1.0, 1.0], [8.0, 0.0]])
    assert berry_esseen(variances, thirds).tolist() == pytest.approx([0.56 * 2 / 8, 0.56])


@pytest.mark.parametrize("y", [1, -1])
def test_activation_probability_is_within_its_error_of_the_exact_one(y):
    core, features, chance = 5, 12, 0.3
    u = torch.randn(40, features, generator=generator_for(0, "u"), dtype=torch.float64) + 0.3
    outcomes = torch.tensor(list(itertools.product((0.0, 1.0), repeat=features))).double()
    weights = (outcomes * (2 * chance - 1) + 1 - chance).prod(dim=1)
    f = torch.cat([y * outcomes[:, :core], outcomes[:, core:]], dim=1)
    exact = weights @ (f @ u.T >= 0).double()
    variance = chance * (1 - chance)
    every = torch.ones(features, dtype=torch.float64)
    normal = activation_probability(
        u,
        y,
        core=core,
        mean=chance * every,
        variance=variance * every,
        third_moment=variance * (chance**2 + (1 - chance) ** 2) * every,
    )
    assert ((exact - normal.value).abs() <= normal.error).all()
    assert float((exact - normal.value).abs().mean()) < 0.06
    swapped = activation_probability(
        u, -y, core=core, mean=chance * every, variance=variance * every, third_moment=0 * every
    )
    assert float((exact - swapped.value).abs().mean()) > 0.1


def test_gated_expectations_by_hand():
    u = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    z = torch.tensor([[0.5, 0.25], [0.25, 0.75]])
    assert gated_expectations(u, z, 1, core=1).tolist() == [[0.25, 0.125], [0.125, 0.375]]
    assert gated_expectations(u, z, -1, core=1).tolist() == [[0, 0], [0.375, 0.5]]


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: gaussian_tail(0.0), "positive x"),
        (lambda: initial_correlation_tail(-1.0, torch.ones(3)), "positive x"),
        (lambda: binomial_tail(10, 0.5, 7), "up to 6 successes, not for 7"),
        (lambda: largest_gaussian(10, failure=0.0), "between 0 and 1"),
        (lambda: gradient_gap(64, 256, 100, failure=1.0), "between 0 and 1"),
        (lambda: initial_set_size(64, 0.5, torch.ones(3), failure=2.0), "between 0 and 1"),
        (lambda: initial_output(64, 256, 1.0, failure=-1.0), "between 0 and 1"),
        (
            lambda: largest_initial_correlation(64, 256, torch.ones(3), failure=1.5),
            "between 0 and 1",
        ),
    ],
)
def test_arguments_outside_the_bounds_are_rejected(refused, message):
    with pytest.raises(ValueError, match=message):
        refused()
