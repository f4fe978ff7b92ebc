"""The base of algorithms: what `build` creates is trained and saved; frozen weights stay."""

import pytest
import torch
import torch.nn.functional as F
from support.domain_shifts import domains_of_points, minibatches_of, point_network
from support.networks import assert_same_weights
from support.two_parameters import assert_trained_as, made, mean, risk_of
from torch import Tensor, nn

from contam.training.algorithms import AlgorithmSettings, Objective
from contam.training.algorithms.algorithm import by_domain, pooled, risks
from contam.training.algorithms.erm import ERM


class Projected(Objective):
    """An own objective with a module and a tensor."""

    name = "projected"
    total: Tensor

    def build(self) -> None:
        self.projection = nn.Linear(8, 2)
        self.total = torch.zeros(())

    def losses(self, batches):
        x, y, _ = pooled(batches)
        features = self.features(x)
        risk = F.cross_entropy(self.logits(features), y)
        self.total = self.total + risk.detach()
        return {"risk": risk, "projected risk": F.cross_entropy(self.projection(features), y)}


def projected(seed: int) -> Projected:
    settings = AlgorithmSettings(step_size=0.01)
    return Projected(point_network(seed), domains=2, classes=2, settings=settings, seed=seed)


def test_a_module_of_build_is_trained_and_the_state_holds_everything():
    batches = minibatches_of(domains_of_points())
    one, other = projected(0), projected(1)
    before = one.projection.weight.detach().clone()
    for _ in range(3):
        one.step(batches)
    assert not torch.equal(one.projection.weight, before)
    other.load_state_tensors(one.state_tensors())
    assert other.done == 3 and torch.equal(other.total, one.total)
    assert one.step(batches) == other.step(batches)
    assert_same_weights(one.network, other.network)
    assert_same_weights(one.projection, other.projection)


def test_the_state_is_a_copy():
    algorithm = projected(0)
    state = algorithm.state_tensors()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    algorithm.step(minibatches_of(domains_of_points()))
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())


def test_weights_of_build_depend_on_the_seed_only():
    torch.rand(2)
    before = torch.get_rng_state()
    one, other, third = projected(0), projected(0), projected(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(one.projection, other.projection)
    assert not torch.equal(one.projection.weight, third.projection.weight)


def test_frozen_weights_stay():
    network = point_network()
    network.encoder.requires_grad_(False)
    before = [p.clone() for p in network.encoder.parameters()]
    erm = ERM(network, domains=2, classes=2, seed=0)
    erm.step(minibatches_of(domains_of_points()))
    assert all(map(torch.equal, before, network.encoder.parameters()))


def test_steps_of_erm_by_hand():
    """The domains have as many examples."""
    assert_trained_as(made(ERM), lambda *_: lambda v: mean([risk_of(v, 0), risk_of(v, 1)]))


@pytest.mark.parametrize("sizes", [(8, 8), (3, 9)])
def test_risks_are_those_of_the_domains_one_by_one(sizes):
    batches = minibatches_of(domains_of_points(), sizes)
    logits = torch.randn(sum(sizes), 2, generator=torch.Generator().manual_seed(0))
    expected = [
        F.cross_entropy(part, batch.y)
        for part, batch in zip(by_domain(logits, batches), batches, strict=True)
    ]
    torch.testing.assert_close(risks(logits, batches), torch.stack(expected))
    assert torch.equal(pooled(batches).x, torch.cat([batch.x for batch in batches]))
