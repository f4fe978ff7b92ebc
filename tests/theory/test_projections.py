import pytest
import torch

from contam.rng import bit_generator_for
from contam.theory.distribution import Beta, DataModel, TwoPoint
from contam.theory.features import FeatureModel
from contam.theory.projections import (
    average_norms,
    class_correlations,
    largest_background,
    layer_sums,
    learned_sums,
    own_class,
    weighted_sums,
)
from contam.theory.trajectory import Setting, simulate

DATA = DataModel(
    FeatureModel(2, 2, 16), core_weights=TwoPoint(0.25), background_weights=Beta(1.0, 3.0)
)
W = torch.tensor([[1.0, 3.0, -2.0, 4.0], [0.0, -1.0, 2.0, 2.0], [-4.0, 0.0, 3.0, 0.0]])


def test_weighted_sums_by_hand():
    core, background = weighted_sums(W, DATA)  # all means are 1/4
    assert core.tolist() == [1.0, -0.25, -1.0]
    assert background.tolist() == [0.5, 1.0, 0.75]


def test_class_correlations_are_label_times_core_plus_background():
    core, background = weighted_sums(W, DATA)
    expected = torch.stack([-core + background, core + background])
    torch.testing.assert_close(class_correlations(W, DATA), expected)


@pytest.mark.parametrize(
    "data",
    [
        DataModel(FeatureModel(6, 4, 20), classes=3, coupling=0.5),
        DataModel(FeatureModel(6, 4, 20), correlation=0.7, background_weights=Beta(2.0, 5.0)),
        DataModel(FeatureModel(6, 4, 20), core_shape="spheres"),
    ],
)
def test_class_correlations_are_means_over_examples(data):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 10, generator=generator, dtype=torch.float64)
    sample = data.sample(200_000, bit_generator_for(0, "test"), dtype=torch.float64)
    z = sample.f @ weights.T
    means = torch.stack([z[sample.y == label].mean(dim=0) for label in data.labels])
    torch.testing.assert_close(class_correlations(weights, data), means, rtol=0, atol=0.03)


def test_own_class_by_hand():
    assert own_class(W, DATA, torch.tensor([0.1, -0.1, 0.1])).tolist() == [1, 0, 1]
    assert own_class(W, DATA).tolist() == [1, 0, 0]  # y C + B is largest for y = -1, -1


def test_learned_sums_by_hand():
    u, v = learned_sums(W, torch.tensor([1, 0, 1]), DATA)
    assert u == pytest.approx((4 + 1 - 4) / 3)
    assert v == pytest.approx((2 + 4 + 3) / 3)


def test_learned_sums_of_several_classes_take_the_signs_of_the_neurons_class():
    data = DataModel(FeatureModel(3, 1, 4), classes=3)
    neuron = torch.tensor([[-1.0, 5.0, -2.0, 0.5]])
    assert learned_sums(neuron, torch.tensor([1]), data) == (8.0, 0.5)
    assert learned_sums(neuron, torch.tensor([0]), data) == (-4.0, 0.5)


def test_norms_by_hand():
    core, background = average_norms(W, 2)
    assert core == pytest.approx((10**0.5 + 1 + 4) / 3)
    assert background == pytest.approx((20**0.5 + 8**0.5 + 3) / 3)
    assert largest_background(W, 2, dimension=16) == 16.0
    assert largest_background(W, 4, dimension=16) == 0.0


def test_a_linear_network_learns_the_core_and_forgets_the_background():
    setting = Setting(data=DataModel(FeatureModel(8, 8, 64)), width=32, activation="identity")
    first, final = simulate(setting, 0, report_at=(0, 200))
    before, after = (average_norms(state.W, 8)[1] for state in (first, final))
    assert after == pytest.approx(before * (1 - 1e-3) ** 200, rel=0.05)


@pytest.mark.parametrize("fields", [{}, {"core_shape": "spheres"}, {"correlation": 0.5}])
def test_sums_of_a_first_layer_are_those_of_its_weights(fields):
    """Its pre-activations are linear in the features, so the slopes are exact."""
    data = DataModel(FeatureModel(6, 4, 20), **fields)
    weights = torch.randn(7, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sample = data.sample(500, bit_generator_for(0, "test"), dtype=torch.float64)
    z = sample.f @ weights.T
    own = torch.stack([z[sample.y == label].mean(dim=0) for label in data.labels]).argmax(dim=0)
    assert layer_sums(z, sample, data) == pytest.approx(learned_sums(weights, own, data))


def test_sums_of_a_deep_linear_layer_are_those_of_the_product_of_weights():
    data = DataModel(FeatureModel(6, 6, 24), classes=3)
    draws = torch.Generator().manual_seed(0)
    first = torch.randn(8, 12, generator=draws, dtype=torch.float64)
    second = torch.randn(5, 8, generator=draws, dtype=torch.float64)
    sample = data.sample(800, bit_generator_for(0, "test"), dtype=torch.float64)
    z = sample.f @ first.T @ second.T
    own = torch.stack([z[sample.y == label].mean(dim=0) for label in data.labels]).argmax(dim=0)
    expected = learned_sums(second @ first, own, data)
    assert layer_sums(z, sample, data) == pytest.approx(expected)


def test_gates_of_the_first_layer_scale_the_second_layers_sums():
    """A second layer that reads one ReLU, open for one class only, has the slopes of that ReLU."""
    data = DataModel(FeatureModel(1, 1, 4))
    sample = data.sample(2000, bit_generator_for(0, "test"), dtype=torch.float64)
    first = torch.tensor([[4.0, 1.0]], dtype=torch.float64)
    hidden = (sample.f @ first.T + torch.where(sample.y > 0, 5.0, -50.0)[:, None]).relu()
    assert layer_sums(2 * hidden, sample, data) == pytest.approx((8.0, 2.0))


def test_too_few_examples_for_a_fit_are_rejected():
    sample = DATA.sample(6, bit_generator_for(0, "test"))
    with pytest.raises(ValueError, match="draw more examples"):
        layer_sums(sample.f @ W.T, sample, DATA)
