"""CORAL: distances of means and covariances."""

import pytest
import torch
from support.domain_shifts import assert_trains_as, point_algorithm
from support.two_parameters import X, assert_trained_as, made, mean, risk_of

from contam.training.algorithms.coral import CORAL, moment_distance
from contam.training.algorithms.erm import ERM


@pytest.mark.parametrize("sizes", [(5, 5), (4, 9, 2)])
def test_the_distance_is_the_mean_over_pairs(sizes):
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in sizes]
    distances = [
        (one.mean(0) - other.mean(0)).square().mean()
        + (one.T.cov() - other.T.cov()).square().mean()
        for k, one in enumerate(features)
        for other in features[:k]
    ]
    torch.testing.assert_close(moment_distance(features), torch.stack(distances).mean())


def test_equal_moments_have_no_distance_and_a_rotation_has_one():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [-2.0, 0.0]])
    assert moment_distance([x, x.flip(0)]) == 0
    assert moment_distance([x, x.flip(1)]) > 0


def test_steps_by_hand():
    def loss(_step, _here):
        def objective(v):
            means = [[v[k] * mean(X[d]) for k in (0, 1)] for d in (0, 1)]
            spread = [sum((x - mean(X[d])) ** 2 for x in X[d]) / 2 for d in (0, 1)]
            covariances = [
                [v[j] * v[k] * spread[d] for j in (0, 1) for k in (0, 1)] for d in (0, 1)
            ]
            distance = mean([(a - b) ** 2 for a, b in zip(*means, strict=True)]) + mean(
                [(a - b) ** 2 for a, b in zip(*covariances, strict=True)]
            )
            return mean([risk_of(v, 0), risk_of(v, 1)]) + 3.0 * distance

        return objective

    assert_trained_as(made(CORAL, penalty_weight=3.0), loss)


def test_without_its_penalty_it_is_erm():
    assert_trains_as(point_algorithm(CORAL, penalty_weight=0), point_algorithm(ERM))


def test_one_example_of_a_domain_is_rejected():
    with pytest.raises(ValueError, match="at least 2 examples of every domain"):
        moment_distance([torch.zeros(3, 2), torch.zeros(1, 2)])
