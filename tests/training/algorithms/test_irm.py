"""IRM: the gradient with respect to a scale, and the annealing."""

import pytest
import torch
import torch.nn.functional as F
from support.domain_shifts import assert_trains_as, point_algorithm
from support.two_parameters import (
    X,
    Y,
    assert_trained_as,
    gradient_of,
    made,
    mean,
    probabilities,
    risk_of,
)

from contam.training.algorithms.erm import ERM
from contam.training.algorithms.irm import IRM, invariance_penalty


@pytest.mark.parametrize("n", [2, 5, 16])
def test_the_penalty_is_the_product_of_two_gradients(n):
    generator = torch.Generator().manual_seed(n)
    logits = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (n,), generator=generator)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    gradients = [
        torch.autograd.grad(F.cross_entropy(scale * logits[half::2], y[half::2]), scale)[0]
        for half in (0, 1)
    ]
    torch.testing.assert_close(invariance_penalty(logits, y), gradients[0] * gradients[1])


def test_the_penalty_is_0_where_the_best_scale_is_1():
    """Two of three examples agree with the sign of x, so the best logit difference is log 2."""
    difference = torch.tensor(2.0).log()
    logits = torch.stack([torch.full((6,), difference.item()), torch.zeros(6)], dim=1)
    y = torch.tensor([0, 0, 0, 0, 1, 1])
    torch.testing.assert_close(invariance_penalty(logits, y), torch.tensor(0.0))


def penalty(v, domain):
    slopes = []
    for x, y in zip(X[domain], Y[domain], strict=True):
        p = probabilities(v, x)
        slopes.append(p[0] * v[0] * x + p[1] * v[1] * x - v[y] * x)
    return mean(slopes[::2]) * mean(slopes[1::2])


def test_steps_by_hand():
    def loss(step, _):
        weight = 1.0 if step < 2 else 7.0
        return lambda v: mean([risk_of(v, k) + weight * penalty(v, k) for k in (0, 1)])

    algorithm = made(IRM, penalty_weight=7.0, anneal_steps=2)
    assert_trained_as(algorithm, loss, resets=[2])


def test_the_hand_written_penalty_is_the_derivative_with_respect_to_the_scale():
    v = (0.3, -0.6)
    (slope, _) = gradient_of(lambda s: risk_of((s[0] * v[0], s[0] * v[1]), 0), (1.0, 0.0))
    halves = [
        mean([probabilities(v, x)[0] * v[0] * x + probabilities(v, x)[1] * v[1] * x - v[y] * x
              for x, y in list(zip(X[0], Y[0], strict=True))[half::2]])
        for half in (0, 1)
    ]  # fmt: skip
    assert slope == pytest.approx((2 * halves[0] + halves[1]) / 3)


def test_without_its_penalty_it_is_erm():
    assert_trains_as(point_algorithm(IRM, penalty_weight=0, anneal_steps=0), point_algorithm(ERM))


def test_one_example_of_a_domain_is_rejected():
    with pytest.raises(ValueError, match="needs at least 2 examples, got 1; choose a larger"):
        invariance_penalty(torch.zeros(1, 2), torch.tensor([0]))
