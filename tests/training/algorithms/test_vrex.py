"""VREx: the variance of the risks, and the annealing."""

from support.domain_problems import assert_trains_as, point_algorithm
from support.two_parameters import assert_trained_as, made, mean, risk_of

from contam.training.algorithms.erm import ERM
from contam.training.algorithms.vrex import VREx


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
