"""SelfReg: its losses against the published loops, its shuffles, and its projection."""

import copy

import pytest
import torch
import torch.nn.functional as F
from support.domain_batches import domain_batches
from support.networks import smooth_network
from torch import nn

from contam.training.algorithms.algorithm import pooled
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
    found = dissimilarity(values, values, one, other, 0.25)
    assert found.item() == pytest.approx(0.25 * near + 0.75 * mixed)


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


def test_a_shuffle_is_a_random_permutation_within_classes():
    y = torch.tensor([2, 0, 1, 0, 2, 0, 1])
    seen = set()
    for _ in range(200):
        order = same_class_shuffle(y)
        assert torch.equal(order.sort().values, torch.arange(7))
        assert torch.equal(y[order], y)
        seen.add(tuple(order.tolist()))
    assert len(seen) == 6 * 2 * 2


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


def test_with_one_example_of_each_class_the_head_learns_as_by_erm():
    """An example is then its own shuffle, so that its logits have no distance to it."""
    algorithm, plain = make(), smooth_network()
    batches = domain_batches(3)
    x, y, _ = pooled(batches)
    losses = algorithm.losses(batches)
    assert losses["logits"].item() == pytest.approx(0, abs=1e-20)
    torch.testing.assert_close(losses["risk"], F.cross_entropy(plain(x), y))
    algorithm.step(batches)
    F.cross_entropy(plain(x), y).backward()
    torch.testing.assert_close(algorithm.network.head.weight.grad, plain.head.weight.grad)


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
            found = algorithm.losses(single)["features"]
            torch.manual_seed(1)
            share = float(torch.distributions.Beta(0.5, 0.5).sample())
            one, other = same_class_shuffle(y), same_class_shuffle(y)
            z = algorithm.network.encoder(single[0].x)
            unscaled = 0.3 * dissimilarity(z, algorithm.projection(z), one, other, share)
            torch.testing.assert_close(found, unscaled * (risk if scale is None else scale))
