"""Fish: its update by hand, its inner state, and the limit in which it equals ERM."""

import pytest
import torch
from support.domain_batches import domain_batches, value_of
from support.networks import assert_same_weights, smooth_network
from support.two_parameters import START, made, risk_gradient, two_domains

from contam.models.small import small_cnn
from contam.training.algorithms.erm import ERM
from contam.training.algorithms.fish import Fish, FishSettings


def test_two_updates_by_hand():
    fish = made(Fish, meta_step=0.25)
    w = torch.tensor(START, dtype=torch.float64)
    mean, square, count = torch.zeros(2), torch.zeros(2), 0
    for _ in range(2):
        inner = w.clone()
        for domain in (0, 1):
            count += 1
            gradient = risk_gradient(inner, domain)
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            corrected = (square / (1 - 0.999**count)).sqrt() + 1e-8
            inner = inner - 0.1 * mean / (1 - 0.9**count) / corrected
        w = w + 0.25 * (inner - w)
        fish.step(two_domains())
    torch.testing.assert_close(value_of(fish.network), w, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", [smooth_network, lambda: small_cnn(3, width=4).double()])
def test_with_one_domain_and_the_whole_way_it_is_erm(make):
    networks = [make(), make()]
    fish = Fish(networks[0], domains=1, classes=3, settings=FishSettings(meta_step=1), seed=0)
    erm = ERM(networks[1], domains=1, classes=3, seed=0)
    batches = domain_batches(9)
    for _ in range(3):
        assert fish.step(batches) == erm.step(batches)
    assert_same_weights(*networks)


def test_small_steps_add_up_over_the_domains():
    """For a small step size, the first update is two equal steps of Adam."""
    fish = made(Fish, step_size=1e-6, meta_step=1)
    domain = two_domains()[0]
    fish.step([domain, domain])
    start = torch.tensor(START, dtype=torch.float64)
    expected = 2e-6 * risk_gradient(start, 0).sign()
    torch.testing.assert_close(start - value_of(fish.network), expected, rtol=1e-4, atol=0)


def test_the_inner_optimizer_is_part_of_the_state():
    fish, other = made(Fish), made(Fish)
    batches = two_domains()
    fish.step(batches)
    state = fish.state_tensors()
    assert int(state["inner/0/step"]) == 2
    other.load_state_tensors(state)
    for algorithm in (fish, other):
        algorithm.step(batches[::-1])
    assert_same_weights(fish.network, other.network)
