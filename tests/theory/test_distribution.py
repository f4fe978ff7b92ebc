import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from contam.rng import bit_generator_for
from contam.theory.distribution import (
    Beta,
    DataModel,
    TwoPoint,
    Uniform,
    bits_state,
    restore_bits,
)
from contam.theory.features import FeatureModel

SMALL = FeatureModel(core=6, background=4, dimension=16)


def draw(data, n=20_000, where="id", seed=0):
    return data.sample(n, bit_generator_for(seed, "test"), where, dtype=torch.float64)


def pvalue(values, weights):
    """How well values fit a distribution, by Kolmogorov and Smirnov."""
    if isinstance(weights, Uniform):
        known = stats.uniform(weights.low, weights.high - weights.low)
    else:
        known = stats.beta(weights.a, weights.b, weights.low, weights.high - weights.low)
    return stats.kstest(values.numpy().ravel(), known.cdf).pvalue


def test_definition_3_1_core_carries_the_label_and_background_does_not():
    f, y, target = draw(DataModel(SMALL))
    assert set(y.tolist()) == {-1, 1}
    assert stats.binomtest(int((y > 0).sum()), len(y)).pvalue > 1e-4
    assert (f[:, :6] * y[:, None] > 0).all()
    assert torch.equal(target, f[:, :6])
    assert pvalue(f[:, :6] * y[:, None], Uniform()) > 1e-4
    for label in (-1, 1):
        assert pvalue(f[y == label, 6:], Uniform()) > 1e-4


def test_the_shift_changes_only_the_background():
    data = DataModel(SMALL, ood_weights=Uniform(-0.5, -0.1))
    ood, worst = draw(data, where="ood"), draw(data, where="worst")
    assert pvalue(ood.f[:, 6:], Uniform(-0.5, -0.1)) > 1e-4
    assert pvalue(ood.f[:, :6] * ood.y[:, None], Uniform()) > 1e-4
    assert (worst.f[:, 6:] == -1).all()
    assert torch.equal(worst.f[:, :6], ood.f[:, :6])


def test_weights_are_independent_of_each_other():
    f, y, _ = draw(DataModel(SMALL), n=40_000)
    z = torch.cat([f[:, :6] * y[:, None], f[:, 6:], y[:, None].double()], dim=1)
    off_diagonal = np.corrcoef(z.numpy(), rowvar=False) - np.eye(11)
    assert abs(off_diagonal).max() < 4.5 / 40_000**0.5


def test_features_can_have_different_distributions():
    laws = (Uniform(), Beta(2.0, 5.0), Uniform(0.5, 1.0), Beta(2.0, 5.0))
    data = DataModel(SMALL, background_weights=laws, core_weights=Beta(0.5, 0.5))
    f, y, _ = draw(data)
    for j, weights in enumerate(laws):
        assert pvalue(f[:, 6 + j], weights) > 1e-4
    assert pvalue(f[:, :6] * y[:, None], Beta(0.5, 0.5)) > 1e-4
    known = [weights.mean for weights in (*data.core(), *laws)]
    assert data.means.tolist() == pytest.approx(known)


@pytest.mark.parametrize("n", [1, 3, 63, 64, 65])
def test_any_number_of_examples(n):
    for data in (DataModel(SMALL), DataModel(SMALL, classes=3)):
        assert draw(data, n=n).f.shape == (n, 10)
        assert draw(data, n=n).y.shape == (n,)


def test_examples_do_not_depend_on_the_precision():
    single = DataModel(SMALL).sample(100, bit_generator_for(0, "test"))
    double = draw(DataModel(SMALL), n=100)
    assert single.f.dtype == torch.float32
    assert torch.equal(single.f.double(), double.f)  # 17 bits fit into both
    assert torch.equal(single.y, double.y)


def test_a_restored_generator_continues_the_stream():
    data, draws = DataModel(SMALL), bit_generator_for(5, "test")
    data.sample(77, draws)
    stood = bits_state(draws)
    expected = data.sample(50, draws)
    other = bit_generator_for(0, "elsewhere")
    restore_bits(other, stood)
    sample = data.sample(50, other)
    assert torch.equal(sample.f, expected.f)
    assert torch.equal(sample.y, expected.y)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("weights", [Uniform(), Beta(2.0, 5.0)], ids=str)
def test_correlation_predicts_the_label_and_preserves_marginals(rho, weights):
    data = DataModel(SMALL, background_weights=weights, correlation=rho)
    f, y, _ = draw(data)
    assert pvalue(f[:, 6:], weights) > 1e-4
    median = float(np.median(f[:, 6:]))
    agree = float(((f[:, 6:] > median) == (y[:, None] > 0)).double().mean())
    assert agree == pytest.approx((1 + rho) / 2, abs=0.008)
    means = torch.stack([f[y == label].mean(dim=0) for label in data.labels])
    torch.testing.assert_close(means, data.class_means, rtol=0, atol=0.015)
    ood = draw(data, where="ood")
    assert abs(np.corrcoef(ood.f[:, 6], ood.y)[0, 1]) < 4.5 / 20_000**0.5


@pytest.mark.parametrize("kappa", [0.0, 0.6, 1.0])
def test_coupling_correlates_backgrounds_and_preserves_marginals(kappa):
    f, y, _ = draw(DataModel(SMALL, coupling=kappa), n=40_000)
    assert pvalue(f[:, 6], Uniform()) > 1e-4
    correlation = np.corrcoef(f[:, 6:].numpy(), rowvar=False)
    # Two weights share a quantile when both of them join.
    assert correlation[np.triu_indices(4, 1)] == pytest.approx(kappa**2, abs=0.03)
    assert abs(np.corrcoef(f[:, 6], y)[0, 1]) < 4.5 / 40_000**0.5


def test_more_than_two_classes_by_hand():
    data = DataModel(SMALL, classes=3)
    assert data.signs.tolist() == [
        [1, 1, -1, -1, -1, -1],
        [-1, -1, 1, 1, -1, -1],
        [-1, -1, -1, -1, 1, 1],
    ]
    f, y, _ = draw(data)
    assert stats.chisquare(torch.bincount(y, minlength=3)).pvalue > 1e-4
    assert torch.equal(f[:, :6].sign().float(), data.signs[y])
    assert pvalue(f[:, :6].abs(), Uniform()) > 1e-4
    means = torch.stack([f[y == label].mean(dim=0) for label in data.labels])
    torch.testing.assert_close(means, data.class_means, rtol=0, atol=0.02)


def test_spheres_have_radius_one_and_two_and_are_isotropic():
    data = DataModel(SMALL, core_shape="spheres")
    f, y, _ = draw(data)
    radius = f[:, :6].norm(dim=1)
    torch.testing.assert_close(radius, (3.0 + y.double()) / 2)
    unit = f[:, :6] / radius[:, None]
    assert unit.mean(dim=0).abs().max() < 4.5 * (1 / 6 / 20_000) ** 0.5
    # On the sphere in R^6 a squared coordinate is Beta(1/2, 5/2).
    assert stats.kstest(unit[:, 0].square(), stats.beta(0.5, 2.5).cdf).pvalue > 1e-4
    torch.testing.assert_close(data.class_means[:, :6], torch.zeros(2, 6).double())


def test_class_means_of_features_by_hand():
    data = DataModel(
        FeatureModel(2, 1, 3), core_weights=TwoPoint(0.25), background_weights=Beta(2.0, 6.0)
    )
    assert data.class_means.tolist() == [[-0.25, -0.25, 0.25], [0.25, 0.25, 0.25]]


BAD = [
    ({"core_weights": (Uniform(),)}, "core_weights has 1 distributions for 6 features"),
    ({"ood_weights": (Uniform(),) * 6}, "ood_weights has 6 distributions for 4 features"),
    ({"core_weights": Uniform(-0.1, 1.0)}, "must not go below 0"),
    ({"classes": 1}, "at least 2 classes"),
    ({"classes": 4}, "divide equally"),
    ({"correlation": 1.1}, "correlation=1.1 must lie between -1 and 1"),
    ({"coupling": -0.1}, "coupling=-0.1 must lie between 0 and 1"),
    ({"core_shape": "cubes"}, "choose one of weights, spheres"),
    ({"classes": 3, "correlation": 0.5}, "set classes=2"),
    ({"classes": 3, "core_shape": "spheres"}, "set classes=2"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_inconsistent_fields_are_rejected(fields, message):
    with pytest.raises(ValueError, match=message):
        DataModel(SMALL, **fields)


def test_an_empty_sample_or_unknown_distribution_is_rejected():
    with pytest.raises(ValueError, match="need at least 1"):
        DataModel(SMALL).sample(0, bit_generator_for(0, "test"))
    with pytest.raises(ValueError, match="choose 'id', 'ood' or 'worst'"):
        DataModel(SMALL).sample(1, bit_generator_for(0, "test"), "far")  # pyright: ignore[reportArgumentType]


@settings(max_examples=30, deadline=None)
@given(
    core=st.integers(1, 5),
    background=st.integers(0, 5),
    classes=st.integers(2, 4),
    where=st.sampled_from(["id", "ood", "worst"]),
    n=st.integers(1, 70),
)
def test_every_model_gives_examples_of_the_right_shape(core, background, classes, where, n):
    features = FeatureModel(core * classes, background, 30)
    data = DataModel(features, classes=classes, coupling=0.5)
    f, y, target = data.sample(n, bit_generator_for(0, "test"), where)
    assert f.shape == (n, features.size)
    assert target.shape == (n, core * classes)
    assert set(y.tolist()) <= set(data.labels)
    assert torch.equal(data.class_index(y), torch.tensor([data.labels.index(i) for i in y]))
