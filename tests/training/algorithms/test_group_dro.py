"""GroupDRO: weights of the domains by exponentiated gradient ascent."""

import math

import pytest
import torch
from support.domain_shifts import assert_trains_as, point_algorithm
from support.two_parameters import assert_trained_as, made, risk_of

from contam.training.algorithms.erm import ERM
from contam.training.algorithms.group_dro import GroupDRO, reweighted


def test_steps_by_hand():
    weights = [0.5, 0.5]

    def loss(_, here):
        for k in (0, 1):
            weights[k] *= math.exp(0.3 * risk_of(here, k))
        weights[:] = [weight / sum(weights) for weight in weights]
        q = tuple(weights)
        return lambda v: q[0] * risk_of(v, 0) + q[1] * risk_of(v, 1)

    assert_trained_as(made(GroupDRO, weight_step_size=0.3), loss)


def test_weights_stay_finite_and_sum_to_1():
    weights = torch.full((3,), 1 / 3)
    for _ in range(1000):
        weights = reweighted(weights, torch.tensor([1.0, 2.0, 300.0]), step_size=1.0)
    assert weights.tolist() == pytest.approx([0, 0, 1])
    assert reweighted(weights, torch.zeros(3), step_size=1.0).tolist() == pytest.approx([0, 0, 1])


def test_the_weights_follow_the_product_of_exponentials():
    generator = torch.Generator().manual_seed(0)
    weights, log = torch.full((4,), 0.25, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    for _ in range(5):
        risk = torch.rand(4, generator=generator, dtype=torch.float64)
        weights, log = reweighted(weights, risk, step_size=0.2), log + 0.2 * risk
    torch.testing.assert_close(weights, log.softmax(dim=0))


def test_with_fixed_weights_it_is_erm():
    assert_trains_as(point_algorithm(GroupDRO, weight_step_size=0), point_algorithm(ERM))
