"""VREx: the variance of the risks, and the annealing."""

import pytest
import torch
from support.domain_shifts import assert_trains_as, point_algorithm
from support.two_parameters import assert_trained_as, made, mean, risk_of

from contam.training.algorithms.erm import ERM
from contam.training.algorithms.vrex import VREx, risk_variance


def test_the_variance_by_hand():
    """The mean is 3, and the squared deviations are 4, 1 and 9."""
    variance = risk_variance(torch.tensor([1.0, 2.0, 6.0]))
    assert variance.item() == pytest.approx((4 + 1 + 9) / 3)


def test_the_variance_is_half_the_mean_squared_difference_of_all_pairs():
    risks = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    differences = risks[:, None] - risks
    torch.testing.assert_close(risk_variance(risks), differences.square().mean() / 2)
    assert risk_variance(risks[:1].expand(4)) == 0


def test_steps_by_hand():
    def loss(step, _):
        weight = 1.0 if step < 2 else 7.0

        def objective(v):
            one, other = risk_of(v, 0), risk_of(v, 1)
            return mean([one, other]) + weight * ((one - other) / 2) ** 2

        return objective

    assert_trained_as(made(VREx, penalty_weight=7.0, anneal_steps=2), loss, resets=[2])


def test_without_its_penalty_it_is_erm():
    assert_trains_as(point_algorithm(VREx, penalty_weight=0, anneal_steps=0), point_algorithm(ERM))
