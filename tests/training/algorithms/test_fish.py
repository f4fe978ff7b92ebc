"""Fish: its update by hand, its inner state, and the limit in which it equals ERM."""

import pytest
import torch
from support.domain_batches import (
    domain_batches,
    points,
    two_parameter_gradient,
    two_parameters,
    weights_of,
)
from support.networks import assert_same_weights, smooth_network

from contam.models.small import small_cnn
from contam.training.algorithms.erm import ERM
from contam.training.algorithms.fish import Fish, FishSettings

A, B = points((1.0, 0.5, 0), (-0.5, 1.0, 1)), points((0.2, -1.0, 0))


def test_two_updates_by_hand():
    network = two_parameters()
    settings = FishSettings(meta_step=0.25, step_size=0.1)
    fish = Fish(network, domains=2, classes=2, settings=settings, seed=0)
    w = torch.tensor([0.5, -0.25], dtype=torch.float64)
    mean, square, count = torch.zeros(2), torch.zeros(2), 0
    for _ in range(2):
        inner = w.clone()
        for batch in (A, B):
            count += 1
            gradient = two_parameter_gradient(inner, batch)
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            corrected = (square / (1 - 0.999**count)).sqrt() + 1e-8
            inner = inner - 0.1 * mean / (1 - 0.9**count) / corrected
        w = w + 0.25 * (inner - w)
        fish.step([A, B])
    torch.testing.assert_close(weights_of(network), w, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [smooth_network, lambda: small_cnn(3, width=4).double()])
def test_with_one_domain_and_the_whole_way_it_is_erm(make):
    networks = [make(), make()]
    fish = Fish(networks[0], domains=1, classes=3, settings=FishSettings(meta_step=1), seed=0)
    erm = ERM(networks[1], domains=1, classes=3, seed=0)
    batches = domain_batches(9)
    for _ in range(3):
        assert fish.step(batches) == erm.step(batches)
    assert_same_weights(*networks)


def test_small_steps_sum_the_gradients_of_all_domains():
    """To first order in the step size, the update without Adam's memory is that of each domain."""
    network = two_parameters()
    settings = FishSettings(meta_step=1, step_size=1e-6)
    fish = Fish(network, domains=2, classes=2, settings=settings, seed=0)
    fish.step([A, A])
    step = torch.tensor([0.5, -0.25]).double() - weights_of(network)
    torch.testing.assert_close(
        step, 2e-6 * two_parameter_gradient(torch.tensor([0.5, -0.25]).double(), A).sign(),
        rtol=1e-4, atol=0,
    )  # fmt: skip


def test_the_inner_optimizer_is_part_of_the_state():
    fish = Fish(two_parameters(), domains=2, classes=2, seed=0)
    fish.step([A, B])
    state = fish.state_tensors()
    assert int(state["inner/0/step"]) == 2
    other = Fish(two_parameters(0, 0), domains=2, classes=2, seed=0)
    other.load_state_tensors(state)
    fish.step([B, A])
    other.step([B, A])
    assert_same_weights(fish.network, other.network)
