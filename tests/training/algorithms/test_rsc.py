"""RSC: which features and examples are muted, and the limits in which it equals ERM."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.domain_batches import domain_batches
from support.networks import assert_same_weights, smooth_network
from support.plain_training import assert_minimizes, cross_entropy
from support.two_parameters import X, Y, two_domains
from torch import nn

from contam.batch import Batch
from contam.models.classifier import Classifier
from contam.rng import seeded
from contam.training.algorithms.erm import ERM
from contam.training.algorithms.rsc import RSC, RSCSettings, confidence_drop, largest

BATCHES = domain_batches(6, 9)


def test_by_hand():
    """Two features, two examples: one of them relies on its first feature."""
    network = Classifier(nn.Flatten(), classes=2, width=2)
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor([[2.0, 1.0], [0.0, 1.0]]))
        network.head.bias.zero_()
    x, y = torch.tensor([[3.0, 0.0], [0.1, 5.0]]), torch.tensor([0, 0])
    settings = RSCSettings(muted_features=0.5, muted_examples=0.5)
    algorithm = RSC(network, domains=1, classes=2, settings=settings, seed=0)
    loss = algorithm.losses([Batch(x, y, y)])["risk"]
    # The largest weight of class 0 is that of feature 1; without it, example 1 is at chance.
    logits = torch.tensor([[0.0, 0.0], [5.2, 5.0]])
    torch.testing.assert_close(loss, F.cross_entropy(logits, y))


def test_steps_by_hand():
    """Three features, of which one is muted in two of six examples."""
    torch.manual_seed(0)
    network = Classifier(nn.Linear(1, 3), classes=2, width=3).double()
    settings = RSCSettings(step_size=0.1, muted_features=1 / 3, muted_examples=1 / 3)
    algorithm = RSC(network, domains=2, classes=2, settings=settings, seed=0)
    x, y = np.ravel(X), np.ravel(Y)
    muted_examples = set()

    def logits(v, keep):
        features = (x[:, None] * v["encoder.weight"][:, 0] + v["encoder.bias"]) * keep
        return features @ v["head.weight"].T + v["head.bias"]

    def loss(here):
        keep, drops = np.ones((6, 3)), []
        for i in range(6):
            alone = np.ones((6, 3))
            alone[i, np.argmax(here["head.weight"][y[i]])] = 0
            whole, less = logits(here, keep)[i], logits(here, alone)[i]
            confidence, left = (np.exp(z[y[i]]) / np.exp(z).sum() for z in (whole, less))
            drops.append((confidence - left, i))
        for _, i in sorted(drops)[-2:]:
            keep[i, np.argmax(here["head.weight"][y[i]])] = 0
            muted_examples.add(i)
        return lambda v: cross_entropy(logits(v, keep), y)

    assert_minimizes(algorithm, network, loss, two_domains(), steps=6)
    assert len(muted_examples) > 2


def test_the_muted_features_have_the_largest_gradients_of_the_true_logit():
    network = smooth_network()
    y = torch.tensor([0, 2, 1])
    features = torch.rand(3, 16, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((network.head(features) * F.one_hot(y, 3)).sum(), features)
    assert torch.equal(largest(gradient, 1 / 3), largest(network.head.weight[y], 1 / 3))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_largest_marks_a_share_of_the_entries_and_none_below_the_rest(share):
    values = torch.rand(5, 8)
    marked = largest(values, share)
    assert (marked.sum(1) == 8 * share).all()
    for row, mark in zip(values, marked, strict=True):
        if 0 < share < 1:
            assert row[mark].min() >= row[~mark].max()


def test_confidence_drop_of_equal_logits_is_zero():
    logits = torch.randn(4, 3)
    assert torch.equal(confidence_drop(logits, logits, torch.tensor([0, 1, 2, 0])), torch.zeros(4))


@pytest.mark.parametrize("off", ["muted_features", "muted_examples"])
def test_without_muting_it_is_erm(off):
    networks = [smooth_network(), smooth_network()]
    rsc = RSC(
        networks[0], domains=2, classes=3, settings=RSCSettings.model_validate({off: 0.0}), seed=0
    )
    erm = ERM(networks[1], domains=2, classes=3, seed=0)
    for _ in range(3):
        rsc.step(BATCHES)
        erm.step(BATCHES)
    assert_same_weights(*networks)


def test_muting_changes_the_step():
    networks = [smooth_network(), smooth_network()]
    before = copy.deepcopy(networks[0])
    with seeded(0, "step"):
        RSC(networks[0], domains=2, classes=3, seed=0).step(BATCHES)
        ERM(networks[1], domains=2, classes=3, seed=0).step(BATCHES)
    assert not torch.equal(networks[0].head.weight, networks[1].head.weight)
    assert not torch.equal(networks[0].head.weight, before.head.weight)
