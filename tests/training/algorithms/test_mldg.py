"""MLDG: its gradient by hand, its pairs of domains, and the limit in which it equals ERM."""

import pytest
import torch
from support.domain_batches import domain_batches, gradient_of_step, value_of
from support.networks import smooth_network
from support.two_parameters import START, made, risk_gradient, two_domains

from contam.rng import seeded
from contam.training.algorithms import Algorithm
from contam.training.algorithms.erm import ERM
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
    measured = gradient_of_step(mldg.network)
    assert any(torch.allclose(measured, gradient, rtol=1e-5, atol=0) for gradient in expected)
    # The first step of Adam follows the sign of this gradient, from the original weights.
    torch.testing.assert_close(value_of(mldg.network), w - 0.1 * measured.sign())


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


@pytest.mark.parametrize(("domains", "meta_test"), [(2, 1), (4, 2)])
def test_with_a_vanishing_inner_step_its_gradient_is_that_of_erm(domains, meta_test):
    """As many domains on both sides, so that each contributes its gradient at the weights once."""
    batches = domain_batches(*[6] * domains)
    mldg = mldg_of(domains, step_size=1e-12, meta_test_domains=meta_test)
    erm = ERM(smooth_network(), domains=domains, classes=3, seed=0)
    mldg.step(batches)
    erm.step(batches)
    for gradient, expected in zip(gradients(mldg), gradients(erm), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-11)


def test_a_small_inner_step_adds_the_derivative_of_the_other_domains_gradient():
    """Minus the step times the Hessian of one risk and the signs of the other's gradient."""
    step, batches = 1e-8, domain_batches(6, 6)
    shifts = []
    for size in (step, 1e-12):
        mldg = mldg_of(2, step_size=size, meta_test_domains=1)
        with seeded(0, "step"):
            mldg.step(batches)
        shifts.append(torch.cat([gradient.flatten() for gradient in gradients(mldg)]))
    with seeded(0, "step"):
        train, test = torch.randperm(2).tolist()
    network = smooth_network()
    parameters = list(network.parameters())

    def gradient_on(batch):
        risk = torch.nn.functional.cross_entropy(network(batch.x), batch.y)
        return torch.autograd.grad(risk, parameters, create_graph=True)

    moves = [g.detach() / (g.detach().abs() + 1e-8) for g in gradient_on(batches[train])]
    product = torch.autograd.grad(gradient_on(batches[test]), parameters, moves)
    expected = -torch.cat([part.flatten() for part in product]) / 2
    torch.testing.assert_close((shifts[0] - shifts[1]) / step, expected, rtol=1e-4, atol=1e-6)


def test_without_meta_test_it_trains_as_erm_on_equal_domains():
    """Two of the three domains are meta-training domains, and Adam ignores the factor of 2/3."""
    batches = domain_batches(6) * 3
    mldg = mldg_of(3, beta=0, meta_test_domains=1)
    erm = ERM(smooth_network(), domains=3, classes=3, seed=0)
    for _ in range(5):
        mldg.step(batches)
        erm.step(batches)
    for parameter, expected in zip(
        mldg.network.parameters(), erm.network.parameters(), strict=True
    ):
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-6)


def mldg_of(domains: int, **settings: float) -> MLDG:
    """MLDG on a smooth network."""
    chosen = MLDGSettings.model_validate(settings)
    return MLDG(smooth_network(), domains=domains, classes=3, settings=chosen, seed=0)


def gradients(algorithm: Algorithm) -> list[torch.Tensor]:
    """What the last step left in the parameters."""
    left = [parameter.grad for parameter in algorithm.network.parameters()]
    assert None not in left
    return [gradient for gradient in left if gradient is not None]


def test_the_split_depends_on_the_random_state():
    gradients = set()
    for seed in range(8):
        mldg = made(MLDG)
        with seeded(seed, "step"):
            mldg.step(two_domains())
        gradients.add(round(gradient_of_step(mldg.network)[0].item(), 9))
    assert len(gradients) == 2
