import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contam.rng import bit_generator_for
from contam.theory.distribution import DataModel, Sample
from contam.theory.features import FeatureModel
from contam.theory.initialization import initial_network
from contam.theory.network import MLP, linear
from contam.theory.neurons import (
    activation_probabilities,
    asymmetry,
    good_neurons,
    neuron_sets,
    positive_examples,
)
from contam.theory.setting import Setting

DATA = DataModel(FeatureModel(1, 1, 16))


def two_layers(W):
    weight = torch.tensor(W)
    return MLP([linear(weight)], linear(weight[:, :1].T), activation="relu", slope=0.0)


def test_activation_probabilities_by_hand():
    f = torch.tensor([[1.0, 0.5], [0.2, 0.5], [-0.5, 0.5], [-1.0, 1.0], [-0.1, 0.4]])
    y = torch.tensor([1, 1, -1, -1, -1])
    network = two_layers([[1.0, 0.0], [-1.0, -0.5], [1.0, 1.0]])
    (probabilities,) = activation_probabilities(network, Sample(f, y, f), DATA)
    expected = torch.tensor([[0, 2 / 3, 1], [1, 0, 1]])  # 0 counts as active
    torch.testing.assert_close(probabilities, expected)


def test_activation_probabilities_of_every_layer_agree_with_brute_force():
    data = DataModel(FeatureModel(6, 3, 20), classes=3)
    shape = Setting(data=data, width=2**15, bias="all", initialization="uniform")
    network = initial_network(shape, 0)
    sample = data.sample(
        300, bit_generator_for(0, "test")
    )  # 300 examples take three parts at this width
    (probabilities,) = activation_probabilities(network, sample, data)
    z = network.preactivations(sample.f)[0]
    for c in range(3):
        expected = (z[sample.y == c] >= 0).float().mean(dim=0)
        torch.testing.assert_close(probabilities[c], expected)


def test_deep_networks_have_one_table_for_each_layer():
    network = initial_network(Setting(data=DATA, width=5, depth=3, activation="tanh"), 0)
    tables = activation_probabilities(network, DATA.sample(50, bit_generator_for(0, "test")), DATA)
    assert [table.shape for table in tables] == [(2, 5)] * 3


def test_a_missing_class_is_reported():
    f = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"no example of class \[-1\]"):
        activation_probabilities(two_layers([[1.0, 0.0]]), Sample(f, torch.tensor([1, 1]), f), DATA)


def test_asymmetry_by_hand():
    probability = torch.tensor([[1.0, 0.3, 0.5], [0.2, 0.9, 0.5], [0.0, 0.3, 0.5]])
    torch.testing.assert_close(asymmetry(probability), torch.tensor([0.9, 0.6, 0.0]))
    torch.testing.assert_close(asymmetry(probability[:2]), torch.tensor([0.8, 0.6, 0.0]))


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=2, max_size=5))
def test_asymmetry_lies_between_0_and_1(rows):
    values = asymmetry(torch.tensor(rows, dtype=torch.float64))
    assert (values >= -1e-12).all()
    assert (values <= 1).all()


def test_good_neurons_by_hand():
    probability = torch.tensor([[0.95, 0.95, 0.05, 0.8, 0.05], [0.05, 0.2, 0.95, 0.05, 0.95]])
    good, other = good_neurons(probability, torch.tensor([0, 0, 1, 0, 0]))
    assert good.tolist() == [True, False, True, False, False]
    torch.testing.assert_close(other, torch.tensor([0.05, 0.2, 0.05, 0.05, 0.95]))


def test_a_good_neuron_fires_for_no_other_class():
    probability = torch.tensor([[0.99, 0.99], [0.08, 0.0], [0.08, 0.16]])
    good, other = good_neurons(probability, torch.tensor([0, 0]))
    assert good.tolist() == [True, False]
    torch.testing.assert_close(other, torch.tensor([0.08, 0.08]))


def test_definition_a4_by_hand():
    W = torch.tensor([[1.0, 0.2], [1.0, 0.2], [-1.0, 0.2], [0.0, 2.0], [0.1, 0.1]])
    a = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0])
    # y C + B is (-0.4, 0.6), (-0.4, 0.6), (0.6, -0.4), (1, 1), (0, 0.1); the threshold is 0.177.
    assert math.sqrt(2 / 16) / 2 == pytest.approx(0.177, abs=1e-3)
    sets = neuron_sets(W, a, DATA)
    assert sets.tolist() == [
        [False, False, True, False, False],
        [True, False, False, True, False],
    ]
    assert neuron_sets(W, a, DATA, c=2.0).sum() == 1


def test_lemma_a7_each_set_has_its_share_of_neurons_at_initialization():
    data = DataModel()
    network = initial_network(Setting(data=data, width=20_000), 0)
    members = neuron_sets(network.projections, network.head.weight[0], data)
    share = 0.5 * 0.5 * math.erfc(1 / math.sqrt(2))  # one standard deviation, and the right sign
    assert members.double().mean(dim=1).tolist() == pytest.approx([share] * 2, rel=0.08)
    assert not members.all(dim=0).any()


def test_definition_a5_by_hand():
    positive = positive_examples(torch.tensor([0.5, -0.5]), torch.tensor([1, -1, -1]))
    assert positive.tolist() == [[True, False], [False, True], [False, True]]
