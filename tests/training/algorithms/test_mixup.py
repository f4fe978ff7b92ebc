"""Mixup: mixed inputs have the mixture of both labels."""

import pytest
import torch
import torch.nn.functional as F
from support.domain_shifts import (
    domains_of_points,
    minibatches_of,
    point_algorithm,
)
from support.two_parameters import X, Y, assert_trained_as, cross_entropy, made, mean
from torch.distributions import Beta

from contam.batch import Batch
from contam.training.algorithms.erm import ERM
from contam.training.algorithms.mixup import Mixup, mixture


def test_steps_by_hand():
    def loss(step, _):
        torch.manual_seed(step)
        first = torch.randperm(2).tolist()[0]
        concentration = torch.tensor(0.7)
        shares = Beta(concentration, concentration).sample((2,)).tolist()
        pairs = [(first, 1 - first, shares[0]), (1 - first, first, shares[1])]

        def objective(v):
            total = []
            for i, j, s in pairs:
                for xi, yi, xj, yj in zip(X[i], Y[i], X[j], Y[j], strict=True):
                    x = s * xi + (1 - s) * xj
                    total.append(s * cross_entropy(v, x, yi) + (1 - s) * cross_entropy(v, x, yj))
            return mean(total)

        return objective

    assert_trained_as(made(Mixup, concentration=0.7), loss)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_loss_is_the_cross_entropy_with_mixed_targets(share):
    one, other = minibatches_of(domains_of_points(), [8, 8])
    x, y, y_other = mixture(one, other, share)
    logits = x[:, :2]
    soft = share * F.one_hot(y, 2) + (1 - share) * F.one_hot(y_other, 2)
    loss = share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y_other)
    torch.testing.assert_close(loss, F.cross_entropy(logits, soft))
    torch.testing.assert_close(x, other.x + share * (one.x - other.x))


def test_the_smaller_batch_counts():
    one, other = minibatches_of(domains_of_points(), [8, 3])
    assert [len(part) for part in mixture(one, other, 0.5)] == [3, 3, 3]
    assert [len(part) for part in mixture(other, one, 0.5)] == [3, 3, 3]


def test_mixing_a_minibatch_with_itself_is_erm():
    shift = domains_of_points()
    (same, _) = minibatches_of(shift)
    batches = [Batch(same.x.double(), same.y, same.domain)] * 2
    mixup, erm = point_algorithm(Mixup), point_algorithm(ERM)
    for _ in range(4):
        losses = [algorithm.step(batches)["risk"] for algorithm in (mixup, erm)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)
