"""DANN: its two steps by hand, its penalty in closed form, and the limit in which it equals ERM."""

import copy

import pytest
import torch
import torch.nn.functional as F
from support.domain_batches import domain_batches, gradient_in, points, two_parameters, weights_of
from support.networks import assert_same_weights, smooth_network
from torch import nn

from contam.training.algorithms.algorithm import pooled
from contam.training.algorithms.dann import DANN, DANNSettings, discriminator, gradient_penalty

A, B = points((1.0, 0.5, 0), (-0.5, 1.0, 1)), points((0.2, -1.0, 0))


def make(network=None, **settings) -> DANN:
    network = two_parameters() if network is None else network
    algorithm = DANN(
        network, domains=2, classes=2 if network.head.out_features == 2 else 3,
        settings=DANNSettings(**settings), seed=0,
    )  # fmt: skip
    algorithm.discriminator.double()
    return algorithm


def test_the_gradient_of_the_classifier_by_hand():
    algorithm = make(discriminator_steps=0, domain_weight=0.7)
    with torch.no_grad():
        for parameter in algorithm.discriminator.parameters():
            parameter.zero_()
        # The logits of the domains are (relu(z), 0): one path through all layers.
        for place in (0, 3, 6):
            algorithm.discriminator.get_parameter(f"{place}.weight")[0, 0] = 1.0
    w = torch.tensor([0.5, -0.25], dtype=torch.float64)
    x, y, _ = pooled([A, B])
    z, sign = x @ w, 1 - 2 * y.double()
    risk = -2 * sign * torch.sigmoid(-2 * sign * z)
    domain = torch.tensor([0, 0, 1])
    first = z.clamp(min=0).sigmoid()
    adversarial = torch.where(domain == 0, first - 1, first) * (z > 0)
    expected = ((risk - 0.7 * adversarial)[:, None] * x).mean(dim=0)
    algorithm.step([A, B])
    torch.testing.assert_close(gradient_in(algorithm.network), expected)


def test_steps_alternate_and_train_one_side_each():
    algorithm = make(discriminator_steps=2, step_size=0.01, discriminator_step_size=0.01)
    moved = []
    for _ in range(6):
        before = [copy.deepcopy(m) for m in (algorithm.network, algorithm.discriminator)]
        algorithm.step([A, B])
        now = algorithm.network, algorithm.discriminator
        moved.append([
            any(not torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
            for a, b in zip(before, now, strict=True)
        ])  # fmt: skip
    assert moved == [[False, True], [False, True], [True, False]] * 2


def test_without_the_domain_term_the_classifier_learns_as_by_erm():
    network, plain = smooth_network(), smooth_network()
    algorithm = make(network, domain_weight=0.0, discriminator_steps=1, step_size=0.01)
    optimizer = torch.optim.Adam(plain.parameters(), 0.01, betas=(0.5, 0.9))
    batches = domain_batches(6, 9)
    x, y, _ = pooled(batches)
    for step in range(6):
        algorithm.step(batches)
        if step % 2:
            optimizer.zero_grad()
            F.cross_entropy(plain(x), y).backward()
            optimizer.step()
    assert_same_weights(network, plain)


def test_the_gradient_penalty_of_a_linear_discriminator_in_closed_form():
    layer = nn.Linear(4, 3).double()
    features = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    domain = torch.tensor([0, 1, 2, 0, 1])
    outputs = layer(features)
    gradient = (outputs.softmax(1) - F.one_hot(domain, 3)) @ layer.weight
    torch.testing.assert_close(
        gradient_penalty(outputs, features, domain), gradient.square().sum(1).mean()
    )


def test_the_penalty_enters_the_step_of_the_discriminator():
    grads = []
    for weight in (0.0, 1.0):
        algorithm = make(gradient_penalty=weight)
        algorithm.step([A, B])
        grads.append(gradient_in(algorithm.discriminator, "0.weight").clone())
    algorithm = make()
    features = (pooled([A, B]).x @ weights_of(algorithm.network))[:, None].requires_grad_()
    penalty = gradient_penalty(algorithm.discriminator(features), features, torch.tensor([0, 0, 1]))
    penalty.backward()
    torch.testing.assert_close(
        grads[1] - grads[0], gradient_in(algorithm.discriminator, "0.weight")
    )


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_the_depth_of_the_discriminator(depth):
    layers = discriminator(4, 3, width=8, depth=depth, dropout=0.5)
    assert sum(isinstance(layer, nn.Linear) for layer in layers) == depth
    assert sum(isinstance(layer, nn.Dropout) for layer in layers) == depth - 1
