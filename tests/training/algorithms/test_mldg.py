"""MLDG: its gradient by hand, its pairs of domains, and the limit in which it equals ERM."""

import pytest
import torch
from support.domain_batches import domain_batches, gradient_of_step, value_of
from support.networks import smooth_network
from support.two_parameters import START, made, risk_gradient, two_domains

from contam.rng import seeded
from contam.training.algorithms.mldg import MLDG, MLDGSettings, first_adam_step, meta_pairs


def test_the_gradient_by_hand():
    mldg = made(MLDG, beta=0.3, meta_test_domains=1)
    w = torch.tensor(START, dtype=torch.float64)
    mldg.step(two_domains())
    expected = []
    for train, test in ((0, 1), (1, 0)):
        own = risk_gradient(w, train)
        moved = w - 0.1 * own.sign()
        expected.append((own + 0.3 * risk_gradient(moved, test)) / 2)
    found = gradient_of_step(mldg.network)
    assert any(torch.allclose(found, gradient, rtol=1e-5, atol=0) for gradient in expected)
    # The first step of Adam follows the sign of this gradient, from the original weights.
    torch.testing.assert_close(value_of(mldg.network), w - 0.1 * found.sign())


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_inner_step_is_that_of_a_new_adam(decay):
    weight = torch.nn.Parameter(torch.randn(20, dtype=torch.float64))
    gradient = torch.randn(20, dtype=torch.float64)
    moved = weight.detach() - first_adam_step(
        weight.detach(), gradient, step_size=0.03, weight_decay=decay
    )
    weight.grad = gradient
    torch.optim.Adam([weight], 0.03, weight_decay=decay).step()
    torch.testing.assert_close(weight.detach(), moved)


@pytest.mark.parametrize("meta_test", [1, 2, 5])
@pytest.mark.parametrize("domains", [2, 3, 4, 6])
def test_every_domain_is_used_on_one_side(domains, meta_test):
    pairs = meta_pairs(list(range(domains)), meta_test)
    train, test = {i for i, _ in pairs}, {j for _, j in pairs}
    assert train | test == set(range(domains)) and not train & test
    assert len(test) == min(meta_test, domains - 1)
    assert len(pairs) == max(len(train), len(test)) == len(set(pairs))


def test_without_meta_test_its_gradient_is_that_of_erm():
    """With the same data in every domain, since only meta-training domains are used."""
    network = smooth_network()
    batches = domain_batches(6) * 3
    settings = MLDGSettings(beta=0, meta_test_domains=1)
    MLDG(network, domains=3, classes=3, settings=settings, seed=0).step(batches)
    plain = smooth_network()
    torch.nn.functional.cross_entropy(plain(batches[0].x), batches[0].y).backward()
    # Two of the three domains are meta-training domains.
    for found, expected in zip(network.parameters(), plain.parameters(), strict=True):
        assert found.grad is not None and expected.grad is not None
        torch.testing.assert_close(found.grad, expected.grad * 2 / 3)


def test_the_split_depends_on_the_random_state():
    gradients = set()
    for seed in range(8):
        mldg = made(MLDG)
        with seeded(seed, "step"):
            mldg.step(two_domains())
        gradients.add(round(gradient_of_step(mldg.network)[0].item(), 9))
    assert len(gradients) == 2
