"""Fishr: variances of the head's gradients, their moving averages and the annealing."""

import torch
import torch.nn.functional as F
from support.domain_shifts import assert_trains_as, point_algorithm
from support.two_parameters import (
    X,
    Y,
    assert_trained_as,
    cross_entropy,
    made,
    mean,
    probabilities,
)
from torch import nn

from contam.training.algorithms.erm import ERM
from contam.training.algorithms.fishr import Fishr, gradient_variances


def test_variances_are_those_of_the_gradients_of_single_examples():
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(4, 3).double()
    features = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (7,), generator=generator)
    rows = []
    for z, label in zip(features, y, strict=True):
        loss = F.cross_entropy(head(z[None]), label[None])
        rows.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*head.parameters()])])
        )
    expected = torch.stack(rows).var(dim=0, correction=0)
    torch.testing.assert_close(gradient_variances(features, head(features), y), expected)


def variances(v, domain):
    rows = []
    for x, y in zip(X[domain], Y[domain], strict=True):
        residuals = [p - (k == y) for k, p in enumerate(probabilities(v, x))]
        inputs = [v[0] * x, v[1] * x]
        rows.append([r * z for r in residuals for z in inputs] + residuals)
    columns = list(zip(*rows, strict=True))
    return [mean([g**2 for g in column]) - mean(column) ** 2 for column in columns]


def test_steps_by_hand():
    kept = {0: [0.0] * 6, 1: [0.0] * 6}

    def averages(v, previous):
        return {
            d: [
                0.8 * old + 0.2 * new for old, new in zip(previous[d], variances(v, d), strict=True)
            ]
            for d in (0, 1)
        }

    def loss(step, here):
        previous = dict(kept)
        kept.update(averages(here, previous))
        weight = 0.0 if step < 1 else 4.0

        def objective(v):
            now = averages(v, previous)
            pairs = list(zip(now[0], now[1], strict=True))
            distance = mean([((a - b) / 2 / 0.2) ** 2 for a, b in pairs])
            examples = [(x, y) for d in (0, 1) for x, y in zip(X[d], Y[d], strict=True)]
            return mean([cross_entropy(v, x, y) for x, y in examples]) + weight * distance

        return objective

    algorithm = made(Fishr, penalty_weight=4.0, anneal_steps=1, decay=0.8)
    assert_trained_as(algorithm, loss, resets=[1])


def test_without_its_penalty_it_is_erm():
    assert_trains_as(point_algorithm(Fishr, penalty_weight=0, anneal_steps=0), point_algorithm(ERM))
