"""DANN: its two steps by hand, its penalty in closed form, and the limit in which it equals ERM."""

import copy

import pytest
import torch
import torch.nn.functional as F
from support.domain_batches import domain_batches, gradient_of_step, value_of
from support.networks import assert_same_weights, smooth_network
from support.two_parameters import START, made, risk_gradient, two_domains
from torch import nn

from contam.training.algorithms.algorithm import pooled
from contam.training.algorithms.dann import DANN, DANNSettings, discriminator, gradient_penalty

DOMAIN = torch.tensor([0, 0, 0, 1, 1, 1])
"""The domains of the examples of `two_domains`."""


def small(**settings) -> DANN:
    algorithm = made(DANN, **settings)
    algorithm.discriminator.double()
    return algorithm


def test_the_gradient_of_the_classifier_by_hand():
    dann = small(discriminator_steps=0, domain_weight=0.7)
    with torch.no_grad():
        for parameter in dann.discriminator.parameters():
            parameter.zero_()
        # The logits of the domains are (relu(z0), 0): one path through all layers.
        for place in (0, 3, 6):
            dann.discriminator.get_parameter(f"{place}.weight")[0, 0] = 1.0
    v = torch.tensor(START, dtype=torch.float64)
    x = pooled(two_domains()).x[:, 0]
    z = v[0] * x
    first = z.clamp(min=0).sigmoid()
    adversarial = torch.where(DOMAIN == 0, first - 1, first) * (z > 0) * x
    expected = (risk_gradient(v, 0) + risk_gradient(v, 1)) / 2
    expected[0] -= 0.7 * adversarial.mean()
    dann.step(two_domains())
    torch.testing.assert_close(gradient_of_step(dann.network), expected, rtol=1e-6, atol=1e-9)


def test_steps_alternate_and_train_one_side_each():
    algorithm = small(discriminator_steps=2, discriminator_step_size=0.1)
    moved = []
    for _ in range(6):
        before = [copy.deepcopy(m) for m in (algorithm.network, algorithm.discriminator)]
        algorithm.step(two_domains())
        now = algorithm.network, algorithm.discriminator
        moved.append([
            any(not torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
            for a, b in zip(before, now, strict=True)
        ])  # fmt: skip
    assert moved == [[False, True], [False, True], [True, False]] * 2


def test_without_the_domain_term_the_classifier_learns_as_by_erm():
    network, plain = smooth_network(), smooth_network()
    settings = DANNSettings(domain_weight=0.0, discriminator_steps=1, step_size=0.01)
    algorithm = DANN(network, domains=2, classes=3, settings=settings, seed=0)
    algorithm.discriminator.double()
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
    gradients = []
    for weight in (0.0, 1.0):
        dann = small(gradient_penalty=weight)
        dann.step(two_domains())
        gradients.append(gradient_of_step(dann.discriminator, "0.weight"))
    dann = small()
    x = pooled(two_domains()).x
    features = (x * value_of(dann.network)).requires_grad_()
    gradient_penalty(dann.discriminator(features), features, DOMAIN).backward()
    expected = gradient_of_step(dann.discriminator, "0.weight")
    torch.testing.assert_close(gradients[1] - gradients[0], expected)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_the_depth_of_the_discriminator(depth):
    layers = discriminator(4, 3, width=8, depth=depth, dropout=0.5)
    assert sum(isinstance(layer, nn.Linear) for layer in layers) == depth
    assert sum(isinstance(layer, nn.Dropout) for layer in layers) == depth - 1
