import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from contam.theory.weights import Beta, Pareto, TwoPoint, Uniform, quantile_table


def twin(weights):
    """The same distribution in scipy."""
    if isinstance(weights, Uniform):
        return stats.uniform(weights.low, weights.high - weights.low)
    return stats.beta(weights.a, weights.b, weights.low, weights.high - weights.low)


CONTINUOUS = [
    Uniform(),
    Uniform(-1.0, 0.0),
    Uniform(0.2, 0.7),
    Beta(2.0, 5.0),
    Beta(0.5, 0.5),
    Beta(0.1, 3.0, -1.0, 0.0),
    Beta(40.0, 60.0, 0.0, 2.0),
    Beta(1000.0, 200.0),
]


@pytest.mark.parametrize("weights", CONTINUOUS, ids=str)
def test_moments_agree_with_scipy(weights):
    known = twin(weights)
    assert weights.mean == pytest.approx(known.mean(), rel=1e-10)
    assert weights.variance == pytest.approx(known.var(), rel=1e-10)
    # In the quantile's variable the integrand has no poles; scipy splits it at the kink.
    kink = known.cdf(known.mean())
    third, _ = integrate.quad(
        lambda p: abs(known.ppf(p) - known.mean()) ** 3, 0, 1, points=[kink], limit=200
    )
    assert weights.third_moment == pytest.approx(third, rel=1e-6)


@pytest.mark.parametrize("weights", CONTINUOUS, ids=str)
def test_quantiles_agree_with_scipy(weights):
    p = np.concatenate([np.linspace(0.001, 0.999, 201), [1e-5, 1 - 1e-5]])
    np.testing.assert_allclose(weights.quantile(p), twin(weights).ppf(p), rtol=1e-9, atol=1e-11)


def test_third_moment_in_the_exponential_limit():
    # 1000 (1 - z) is nearly exponential, for which E |x - 1|^3 = 12 / e - 2.
    assert Beta(1000.0, 1.0).third_moment * 1000**3 == pytest.approx(12 / np.e - 2, rel=0.01)


@given(p=st.floats(0.01, 0.99), low=st.floats(-2, 1), length=st.floats(0.1, 3))
def test_two_points_by_hand(p, low, length):
    weights = TwoPoint(p, low, low + length)
    values, shares = np.array([low, low + length]), np.array([1 - p, p])
    mean = values @ shares
    assert weights.mean == pytest.approx(mean, abs=1e-12)
    assert weights.variance == pytest.approx((values - mean) ** 2 @ shares)
    assert weights.third_moment == pytest.approx(abs(values - mean) ** 3 @ shares)
    drawn = weights.quantile(np.linspace(0.0005, 0.9995, 1000))
    assert (drawn == weights.high).mean() == pytest.approx(p, abs=0.001)


HEAVY = [
    Pareto(1.0),
    Pareto(0.5, 1e-3, 1.0),
    Pareto(2.0, 0.2, 3.0),
    Pareto(3.0, 0.5, 1.0),
    Pareto(1.0, -1.0, -0.01),
]


@pytest.mark.parametrize("weights", HEAVY, ids=str)
def test_a_cut_off_pareto_distribution_agrees_with_its_density(weights):
    """Moments by integrals over the density, and quantiles by those over its tail."""

    def density(z):
        return abs(z) ** -(weights.alpha + 1)

    def integral(function, low=weights.low, high=weights.high):
        values, nodes = np.polynomial.legendre.leggauss(400)
        start, end = np.log(np.abs([low, high]))
        # The logarithm of the size as the variable, since the density is smooth in it.
        sizes = np.exp((start + end) / 2 + (end - start) / 2 * values)
        z = np.copysign(sizes, weights.low)
        return abs(end - start) / 2 * float(nodes @ (function(z) * density(z) * sizes))

    total = integral(lambda z: 1.0 + 0 * z)
    mean = integral(lambda z: z) / total
    assert weights.mean == pytest.approx(mean, rel=1e-9)
    assert weights.variance == pytest.approx(integral(lambda z: (z - mean) ** 2) / total, rel=1e-9)
    third = sum(
        integral(lambda z: abs(z - mean) ** 3, low, high)
        for low, high in ((weights.low, mean), (mean, weights.high))
    )
    assert weights.third_moment == pytest.approx(third / total, rel=1e-9)
    for p, z in zip((0.01, 0.5, 0.99), weights.quantile(np.array([0.01, 0.5, 0.99])), strict=True):
        below = integral(lambda z: 1.0 + 0 * z, weights.low, z)
        assert below / total == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize("weights", [*CONTINUOUS, *HEAVY, TwoPoint(0.3)], ids=str)
def test_the_table_of_draws_has_the_moments_of_the_distribution(weights):
    table = quantile_table(weights).numpy()
    assert len(table) == 65536
    assert (np.diff(table) >= 0).all()
    assert weights.low <= table[0] <= table[-1] <= weights.high
    scale = weights.high - weights.low
    assert table.mean() == pytest.approx(weights.mean, abs=2e-5 * scale)
    assert table.var() == pytest.approx(weights.variance, abs=2e-5 * scale**2)


@settings(max_examples=30)
@given(a=st.floats(0.1, 1000), b=st.floats(0.1, 1000))
def test_beta_moments_hold_for_all_shapes(a, b):
    weights = Beta(a, b)
    # Lyapunov: E|x|^2 ^ (1/2) <= E|x|^3 ^ (1/3), and |x| <= 1 bounds the third by the second.
    assert weights.variance**1.5 <= weights.third_moment * (1 + 1e-6)
    assert weights.third_moment <= weights.variance


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(1.0, 1.0), "low < high"),
        (lambda: Uniform(0.0, float("inf")), "finite bounds"),
        (lambda: Beta(0.0, 1.0), "between 0.1 and 1000"),
        (lambda: Beta(1.0, float("nan")), "between 0.1 and 1000"),
        (lambda: TwoPoint(1.0), "strictly between 0 and 1"),
        (lambda: Pareto(1.0, 0.0, 1.0), "one sign"),
        (lambda: Pareto(1.0, -0.5, 1.0), "one sign"),
        (lambda: Pareto(0.0), "alpha must lie between 0.1 and 10"),
    ],
)
def test_invalid_distributions_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
