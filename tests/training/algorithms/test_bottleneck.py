"""IB-ERM and IB-IRM: the variance of features within domains, and both annealings."""

import pytest
import torch
from support.domain_shifts import assert_trains_as, point_algorithm
from support.two_parameters import X, Y, assert_trained_as, made, mean, probabilities, risk_of

from contam.training.algorithms.erm import ERM
from contam.training.algorithms.ib_erm import IBERM, feature_variance
from contam.training.algorithms.ib_irm import IBIRM
from contam.training.algorithms.irm import IRM


def bottleneck(v):
    spread = [sum((x - mean(X[d])) ** 2 for x in X[d]) / 2 for d in (0, 1)]
    return mean([mean([v[k] ** 2 * spread[d] for k in (0, 1)]) for d in (0, 1)])


def invariance(v):
    penalties = []
    for d in (0, 1):
        slopes = []
        for x, y in zip(X[d], Y[d], strict=True):
            p = probabilities(v, x)
            slopes.append((p[0] - (y == 0)) * v[0] * x + (p[1] - (y == 1)) * v[1] * x)
        penalties.append(mean(slopes[::2]) * mean(slopes[1::2]))
    return mean(penalties)


def test_the_variance_is_half_the_mean_squared_difference_of_pairs():
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (5, 3)]
    by_pairs = []
    for part in features:
        differences = (part[:, None] - part[None]).square().sum(dim=(0, 1))
        by_pairs.append((differences / (2 * len(part) * (len(part) - 1))).mean())
    torch.testing.assert_close(feature_variance(features), torch.stack(by_pairs).mean())


def test_steps_of_ib_erm_by_hand():
    def loss(step, _):
        weight = 0.0 if step < 2 else 5.0
        return lambda v: mean([risk_of(v, 0), risk_of(v, 1)]) + weight * bottleneck(v)

    algorithm = made(IBERM, bottleneck_weight=5.0, bottleneck_anneal_steps=2)
    assert_trained_as(algorithm, loss, resets=[2])


def test_steps_of_ib_irm_by_hand():
    def loss(step, _):
        weight, narrow = 1.0 if step < 1 else 7.0, 0.0 if step < 3 else 5.0

        def objective(v):
            risk = mean([risk_of(v, 0), risk_of(v, 1)])
            return risk + weight * invariance(v) + narrow * bottleneck(v)

        return objective

    algorithm = made(
        IBIRM, penalty_weight=7.0, anneal_steps=1, bottleneck_weight=5.0, bottleneck_anneal_steps=3
    )
    assert_trained_as(algorithm, loss, steps=5, resets=[1, 3])


def test_before_its_annealing_ib_erm_is_erm():
    assert_trains_as(point_algorithm(IBERM, bottleneck_anneal_steps=9), point_algorithm(ERM))
    unweighted = point_algorithm(IBERM, bottleneck_weight=0, bottleneck_anneal_steps=0)
    assert_trains_as(unweighted, point_algorithm(ERM))


def test_without_the_bottleneck_ib_irm_is_irm_and_without_both_erm():
    common = dict(anneal_steps=2, bottleneck_anneal_steps=0, bottleneck_weight=0)
    irm = point_algorithm(IRM, anneal_steps=2, penalty_weight=3)
    assert_trains_as(point_algorithm(IBIRM, penalty_weight=3, **common), irm)
    common["anneal_steps"] = 0
    assert_trains_as(point_algorithm(IBIRM, penalty_weight=0, **common), point_algorithm(ERM))


def test_one_example_of_a_domain_is_rejected():
    with pytest.raises(ValueError, match="at least 2 examples of every domain"):
        feature_variance([torch.zeros(1, 2)])
