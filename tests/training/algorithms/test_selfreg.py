"""SelfReg: its losses against the published loops, its shuffles, and its projection."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.domain_batches import domain_batches
from support.networks import smooth_network
from support.plain_training import assert_minimizes, batch_norm, cross_entropy, relu
from support.two_parameters import X, Y, two_domains
from torch import nn

from contam.batch import Batch
from contam.models.classifier import Classifier
from contam.training.algorithms.algorithm import AlgorithmSettings
from contam.training.algorithms.erm import ERM
from contam.training.algorithms.selfreg import SelfReg, dissimilarity, same_class_shuffle


def make(seed: int = 0, **network) -> SelfReg:
    algorithm = SelfReg(smooth_network(**network), domains=2, classes=3, seed=seed)
    algorithm.projection.double()
    return algorithm


def test_by_hand():
    values = torch.tensor([[0.0], [2.0], [6.0]])
    one, other = torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])
    # To one: (0, 2), (2, 6), (6, 0). Mixtures at 1/4: 5, 1.5, 1.5.
    near, mixed = (4 + 16 + 36) / 3, (25 + 0.25 + 20.25) / 3
    loss = dissimilarity(values, values, one, other, 0.25)
    assert loss.item() == pytest.approx(0.25 * near + 0.75 * mixed)


def test_the_dissimilarity_against_loops_over_examples():
    generator = torch.Generator().manual_seed(0)
    values, targets = torch.rand(2, 6, 4, generator=generator, dtype=torch.float64)
    one, other = torch.randperm(6, generator=generator), torch.randperm(6, generator=generator)
    total = 0.0
    for i in range(6):
        for k in range(4):
            first, second = targets[one[i], k], targets[other[i], k]
            mixed = 0.3 * first + 0.7 * second
            total += 0.3 * (values[i, k] - first) ** 2 + 0.7 * (values[i, k] - mixed) ** 2
    torch.testing.assert_close(dissimilarity(values, targets, one, other, 0.3), total / 24)


def test_steps_by_hand():
    """Three features of a number, and all layers of the projection."""
    torch.manual_seed(0)
    network = Classifier(nn.Linear(1, 3), classes=2, width=3).double()
    algorithm = SelfReg(
        network, domains=2, classes=2, settings=AlgorithmSettings(step_size=0.05), seed=0
    )
    trained = nn.ModuleDict({"network": network, "projection": algorithm.projection.double()})
    x, y = np.ravel(X), np.ravel(Y)

    def outputs(v):
        z = x[:, None] * v["network.encoder.weight"][:, 0] + v["network.encoder.bias"]
        projected = z
        for linear, norm in ((0, 1), (3, 4), (6, 7)):
            weight, bias, scale, shift = (
                v[f"projection.{layer}.{kind}"]
                for layer in (linear, norm)
                for kind in ("weight", "bias")
            )
            projected = batch_norm(projected @ weight.T + bias, scale, shift)
            projected = relu(projected) if norm < 7 else projected
        return z, z @ v["network.head.weight"].T + v["network.head.bias"], projected

    def others():
        """For each example, the one at its place in a random order of their class."""
        draws = torch.rand(6, dtype=torch.float64)
        order = np.empty(6, dtype=int)
        for label in (0, 1):
            order[y == label] = sorted(np.flatnonzero(y == label), key=lambda i: float(draws[i]))
        return order

    def loss(here):
        share = float(torch.distributions.Beta(0.5, 0.5).sample())
        one, two = others(), others()
        scale = min(1.0, cross_entropy(outputs(here)[1], y).real)

        def objective(v):
            z, logits, projected = outputs(v)
            total = 0
            for values, targets, weight in ((logits, logits, 1.0), (z, projected, 0.3)):
                mixed = share * targets[one] + (1 - share) * targets[two]
                total += weight * share * np.mean((values - targets[one]) ** 2)
                total += weight * (1 - share) * np.mean((values - mixed) ** 2)
            return cross_entropy(logits, y) + scale * total

        return objective

    assert_minimizes(algorithm, trained, loss, two_domains())


def test_a_shuffle_is_a_random_permutation_within_classes():
    y = torch.tensor([2, 0, 1, 0, 2, 0, 1])
    orders = set()
    for _ in range(200):
        order = same_class_shuffle(y)
        assert torch.equal(order.sort().values, torch.arange(7))
        assert torch.equal(y[order], y)
        orders.add(tuple(order.tolist()))
    assert len(orders) == 6 * 2 * 2


def test_the_projection_is_trained():
    algorithm = make()
    before = copy.deepcopy(algorithm.projection.state_dict())
    for _ in range(2):
        algorithm.step(domain_batches(6, 9))
    after = algorithm.projection.state_dict()
    for name, _ in algorithm.projection.named_parameters():
        # Batch norm removes the biases that precede it, so their gradient is 0 up to rounding.
        bias = name.endswith("bias") and isinstance(algorithm.projection[int(name[0])], nn.Linear)
        assert bias or not torch.equal(before[name], after[name]), name
    assert algorithm.state_tensors().keys() >= {f"projection/{name}" for name in after}


def test_among_equal_examples_and_without_a_projection_it_is_erm():
    """All examples of a class are copies of one, so that nothing is dissimilar to another."""
    network, plain = smooth_network(), smooth_network()
    settings = AlgorithmSettings(step_size=0.01)
    algorithm = SelfReg(network, domains=2, classes=3, settings=settings, seed=0)
    erm = ERM(plain, domains=2, classes=3, settings=settings, seed=0)
    algorithm.projection = nn.Sequential()
    (originals,) = domain_batches(3)
    batches = [Batch(*(part[b.y] for part in originals)) for b in domain_batches(6, 9)]
    for _ in range(5):
        losses = algorithm.step(batches)
        erm.step(batches)
        assert losses["logits"] + losses["features"] == pytest.approx(0, abs=1e-20)
    for parameter, expected in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-9, atol=1e-12)


def test_the_terms_are_scaled_by_the_risk_and_at_most_by_one():
    algorithm = make()
    algorithm.projection.eval()
    batches = domain_batches(6, 9)
    with torch.no_grad():
        algorithm.network.head.weight.zero_()
        for bias, scale in ((0.0, 1.0), (30.0, None)):
            # The same logits everywhere: log(3) exceeds 1; then class 0 is certain.
            algorithm.network.head.bias.copy_(torch.tensor([bias, 0.0, 0.0]))
            y = torch.zeros_like(batches[0].y)
            single = [batches[0]._replace(y=y)]
            risk = F.cross_entropy(algorithm.network(single[0].x), y)
            torch.manual_seed(1)
            term = algorithm.losses(single)["features"]
            torch.manual_seed(1)
            share = float(torch.distributions.Beta(0.5, 0.5).sample())
            one, other = same_class_shuffle(y), same_class_shuffle(y)
            z = algorithm.network.encoder(single[0].x)
            unscaled = 0.3 * dissimilarity(z, algorithm.projection(z), one, other, share)
            torch.testing.assert_close(term, unscaled * (risk if scale is None else scale))
