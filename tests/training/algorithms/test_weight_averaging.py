"""SWAD and large dropout: ERM's training with averaged weights, or with dropped features."""

import pytest
import torch
import torch.nn.functional as F
from support.domain_shifts import (
    assert_trains_as,
    domains_of_points,
    minibatches_of,
    point_algorithm,
)
from support.two_parameters import assert_trained_as, made, risk_of, two_domains

from contam.training.algorithms.erm import ERM
from contam.training.algorithms.large_dropout import LargeDropout
from contam.training.algorithms.swad import SWAD


def pooled_risk(_step, _here):
    return lambda v: (risk_of(v, 0) + risk_of(v, 1)) / 2


@pytest.mark.parametrize("kind", [ERM, SWAD])
def test_steps_by_hand(kind):
    assert_trained_as(made(kind), pooled_risk)


def test_swad_evaluates_the_mean_of_erms_weights():
    swad, erm = point_algorithm(SWAD, average_from=2), point_algorithm(ERM)
    batches = [b._replace(x=b.x.double()) for b in minibatches_of(domains_of_points())]
    states = []
    for _ in range(6):
        swad.step(batches)
        erm.step(batches)
        states.append({name: t.clone() for name, t in erm.network.state_dict().items()})
        if len(states) <= 2:
            assert swad.evaluated is swad.network
    for name, averaged in swad.evaluated.state_dict().items():
        if averaged.is_floating_point():
            expected = torch.stack([state[name] for state in states[2:]]).mean(dim=0)
            torch.testing.assert_close(averaged, expected)
    assert swad.evaluated is not swad.network


def test_swad_trains_as_erm_and_dropout_0_is_erm():
    assert_trains_as(point_algorithm(SWAD, average_from=1), point_algorithm(ERM))
    assert_trains_as(point_algorithm(LargeDropout, dropout=0), point_algorithm(ERM))


def test_dropout_scales_the_features_that_it_keeps_and_is_off_in_evaluation():
    algorithm = made(LargeDropout, dropout=0.75)
    x = torch.ones(4000, 1, dtype=torch.float64)
    algorithm.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = algorithm.features(x)
    full = algorithm.network.encoder(x)
    kept = features != 0
    torch.testing.assert_close(features[kept], 4 * full[kept])
    assert kept.double().mean().item() == pytest.approx(0.25, abs=0.02)
    algorithm.network.eval()
    assert torch.equal(algorithm.features(x), full)


def test_the_loss_of_large_dropout_averages_over_masks_of_two_features():
    """With two features and half of them dropped, four masks have the same probability."""
    algorithm = made(LargeDropout, dropout=0.5)
    algorithm.train()
    (batch, _) = two_domains()
    full = algorithm.network.encoder(batch.x)
    masks = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64) * 2
    expected = torch.stack([F.cross_entropy(m * full, batch.y) for m in masks]).mean()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        many = [batch._replace(x=batch.x.repeat(3000, 1), y=batch.y.repeat(3000))]
        loss = algorithm.losses(many)["risk"]
    assert loss.item() == pytest.approx(expected.item(), abs=0.03)
