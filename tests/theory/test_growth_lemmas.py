"""Lemmas B.3 to B.9: what a step of SGD does to the projections and correlations of a neuron.

The lemmas hide constants in their orders. Here weights are uniform on [0, 1], so that the
constants are known, and orders are slopes over sizes. "Chosen" neurons are those of Def. A.4.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch

from contam.rng import bit_generator_for
from contam.theory.bounds import gated_expectations
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.initialization import initial_network
from contam.theory.neurons import neuron_sets
from contam.theory.projections import class_correlations, gradient_projections, own_class
from contam.theory.setting import Setting
from contam.theory.trajectory import simulate

MEAN, SECOND_MOMENT = 1 / 2, 1 / 3
STEPS = 40
"""Steps of the standard setting during which most examples are inside the hinge."""


class Growth:
    """The step that a network takes next, on a large sample with all examples inside the hinge."""

    def __init__(self, setting: Setting, W, a) -> None:
        data = setting.data
        sample = data.sample(20_000, bit_generator_for(7, "growth"))
        own, other = own_class(W, data, a), own_class(W, data, -a)
        neurons = torch.arange(len(a))
        self.chosen = neuron_sets(W, a, data).any(dim=0)
        pull = setting.width * gradient_projections(W, a, sample)
        self.core_pull = a.sign()[:, None] * pull[:, : data.features.core]
        self.background_pull = pull[:, data.features.core :].mean(dim=1)
        growth = setting.step_size / setting.width * class_correlations(pull, data)
        self.with_own, self.with_other = growth[own, neurons], growth[other, neurons]
        active = (sample.f @ W.T >= 0).float()
        rates = torch.stack([active[sample.y == y].mean(dim=0) for y in (-1, 1)])
        self.own_rate, self.other_rate = rates[own, neurons], rates[other, neurons]


def sized(d0=64, m=256, step_size=1.0) -> Setting:
    features = FeatureModel(d0 // 2, d0 // 2, 4 * d0)
    return Setting(data=DataModel(features), width=m, step_size=step_size, steps=STEPS)


def at_start(**sizes) -> Growth:
    setting = sized(**sizes)
    network = initial_network(setting, 0)
    return Growth(setting, network.projections, network.head.weight[0])


@pytest.fixture(scope="module")
def states():
    return list(simulate(sized(), 0, range(STEPS + 1)))


@pytest.fixture(scope="module")
def growths(states):
    return [Growth(state.setting, state.W, state.a) for state in states[::10]]


def test_definition_b2_sums_over_sets_of_features_give_the_growth_of_a_correlation(states):
    """The growth is a_k / 2 times sums, weighted by E z_j, over the core and the background."""
    W, a, data = states[10].W, states[10].a, states[10].setting.data
    core = data.features.core
    z = torch.rand(4000, data.features.size, generator=torch.Generator().manual_seed(0))
    gated = {y: MEAN * gated_expectations(W, z, y, core=core) for y in (-1, 1)}
    on_core = gated[1][:, :core].sum(dim=1) + gated[-1][:, :core].sum(dim=1)
    on_background = gated[1][:, core:].sum(dim=1) - gated[-1][:, core:].sum(dim=1)
    y = torch.tensor([-1, 1]).repeat_interleave(len(z))
    f = torch.cat([z, z])
    f[: len(z), :core] *= -1
    sample = data.sample(2, bit_generator_for(0, "shape"))._replace(f=f, y=y, target=f[:, :core])
    growth = class_correlations(gradient_projections(W, a, sample), data)
    expected = a / 2 * torch.stack([on_background - on_core, on_background + on_core])
    torch.testing.assert_close(growth, expected, rtol=1e-4, atol=1e-7)


def test_lemma_b3_chosen_neurons_are_pulled_to_their_class_core_with_order_one_over_m(growths):
    for growth in growths:
        pull = growth.core_pull[growth.chosen]
        # Active on at least half of the own class, up to O(d0^-1/2), and on all of both at most.
        assert float(pull.min()) > 0.8 * MEAN / 4
        assert float(pull.max()) < 1.1 * MEAN


def test_lemma_b4_chosen_neurons_are_pulled_to_the_background_as_far_as_they_are_asymmetric(
    growths,
):
    for growth in growths:
        asymmetry = (growth.own_rate - growth.other_rate)[growth.chosen]
        pull = growth.background_pull[growth.chosen]
        torch.testing.assert_close(pull, MEAN / 2 * asymmetry, rtol=0, atol=0.03)
    asymmetric = growths[-1].background_pull[growths[-1].chosen]
    assert float(asymmetric.mean()) > 0.8 * MEAN / 2


def test_lemma_b5_no_neuron_is_pulled_to_the_core_more_than_one_over_m(growths):
    for growth in growths:
        assert float(growth.core_pull.min()) >= 0
        assert float(growth.core_pull.max()) <= 1.02 * MEAN


@pytest.mark.parametrize(
    ("name", "values", "exponent"),
    [("d0", (32, 64, 128, 256), 1), ("m", (128, 512, 2048), -1), ("step_size", (0.5, 1.0, 2.0), 1)],
)
def test_lemma_b6_correlations_of_chosen_neurons_grow_by_order_eta_d0_over_m(
    name, values, exponent
):
    steps = []
    for value in values:
        growth = at_start(**{name: value})
        steps.append(float(growth.with_own[growth.chosen].mean()))
    assert np.polyfit(np.log(values), np.log(steps), 1)[0] == pytest.approx(exponent, abs=0.05)


def test_lemma_b6_and_b7_chosen_neurons_grow_at_a_constant_share_of_the_largest_rate(growths):
    setting = sized()
    largest = setting.step_size * setting.data.features.core * MEAN**2 / setting.width
    for growth in growths:
        assert float(growth.with_own.max()) <= 1.1 * largest
        assert float(growth.with_own[growth.chosen].min()) >= 0.4 * largest
        others = growth.with_own[~growth.chosen]
        assert float(others.min()) < 0.3 * largest


def test_lemma_b8_a_chosen_neuron_stays_chosen(states):
    members = [neuron_sets(state.W, state.a, state.setting.data) for state in states]
    for before, after in pairwise(members):
        assert not (before & ~after).any()
    assert members[-1].sum() > members[0].sum()


def test_lemma_b8_fails_for_labels_that_are_flipped(states):
    """The other sign of the output weights: each neuron is pushed away from its own class."""
    flipped = [neuron_sets(state.W, -state.a, state.setting.data) for state in states]
    assert flipped[0].sum() > 20
    assert flipped[-1].sum() < flipped[0].sum() / 2


def test_lemma_b9_correlations_with_the_other_class_fall_until_the_neuron_is_silent_there(growths):
    setting = sized()
    largest = setting.step_size * setting.data.features.core * MEAN**2 / setting.width
    for growth in growths:
        torch.testing.assert_close(
            growth.with_other, -largest * growth.other_rate, rtol=0, atol=0.1 * largest
        )
    first, last = (float(-growth.with_other.mean()) for growth in (growths[0], growths[-1]))
    assert last < 0.3 * first
