"""What every algorithm does: it learns, resumes, names its losses and rejects what it can't use."""

import math
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from support.domain_shifts import domains_of_points, minibatches_of, point_network
from support.generators import last
from support.networks import assert_same_weights
from torch import nn

from contam.batch import Shift
from contam.measures.accuracy import accuracy
from contam.training.algorithms import ALGORITHMS, Algorithm, fit_algorithm

OF_IMAGES = ("ARM",)
"""Algorithms that need a network of images."""
SHIFTS = {
    name: domains_of_points(*[60, 40, 30][: max(2, kind.needs_domains)], images=name in OF_IMAGES)
    for name, kind in ALGORITHMS.items()
}
"""Domains of unequal size, as many as the algorithm needs."""


def settings_of(name: str, **change: Any):
    """Settings in which every phase of the algorithm happens within a few steps."""
    kind = ALGORITHMS[name].Settings
    common: dict[str, Any] = {"step_size": 0.02, "batch_size": 8, "dropout": 0.1}
    short: dict[str, Any] = {
        "anneal_steps": 3,
        "bottleneck_anneal_steps": 4,
        "average_from": 3,
        "penalty_weight": 1.0,
        "bottleneck_weight": 0.1,
        "context_width": 4,
        "styles_of": "features",
    }
    common |= {field: value for field, value in short.items() if field in kind.model_fields}
    return kind(**{**common, **change})


def make(name: str, seed: int = 0, network_seed: int = 0, **change: Any) -> Algorithm:
    return ALGORITHMS[name](
        point_network(network_seed, images=name in OF_IMAGES),
        domains=len(SHIFTS[name].train),
        classes=2,
        settings=settings_of(name, **change),
        seed=seed,
    )


def fitted(algorithm: Algorithm, shift: Shift, steps: int, **options: Any):
    return fit_algorithm(algorithm, shift, steps=steps, seed=0, **{"report_every": 1, **options})


@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_learns_a_separable_task(name):
    shift = SHIFTS[name]
    algorithm = make(name)
    last(fitted(algorithm, shift, 80))
    assert all(accuracy(algorithm.evaluated, domain).share > 0.9 for domain in shift.train)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("stop", [2, 5])
def test_an_interrupted_training_resumes_bit_for_bit(name, stop):
    whole, begun = make(name), make(name)
    losses = [stage.losses for stage in fitted(whole, SHIFTS[name], 8)]
    for stage in fitted(begun, SHIFTS[name], 8):
        if stage.step == stop:
            file = save(stage.checkpoint())
            break
    # Other weights, so that nothing but the checkpoint can help.
    resumed = make(name, seed=1, network_seed=1)
    torch.rand(3)
    rest = list(fitted(resumed, SHIFTS[name], 8, resume=load(file)))
    assert [stage.losses for stage in rest] == losses[stop:]
    assert_same_weights(whole.evaluated, resumed.evaluated)
    state, other = whole.state_tensors(), resumed.state_tensors()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_its_losses_have_names_and_do_not_change_global_random_numbers(name):
    algorithm = make(name)
    before = torch.get_rng_state()
    for stage in fitted(algorithm, SHIFTS[name], 5):
        assert stage.losses and all(map(math.isfinite, stage.losses.values()))
        assert all(loss and loss == loss.lower() for loss in stage.losses)
    assert algorithm.done == 5
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_step_takes_minibatches_of_unequal_size(name):
    algorithm = make(name)
    sizes = [9, 4, 6][: algorithm.domains]
    for _ in range(5):
        losses = algorithm.step(minibatches_of(SHIFTS[name], sizes))
        assert all(map(math.isfinite, losses.values()))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_one_domain_is_enough_or_rejected_in_one_line(name):
    kind, shift = ALGORITHMS[name], domains_of_points(40, images=name in OF_IMAGES)
    if kind.needs_domains == 1:
        algorithm = kind(
            point_network(images=name in OF_IMAGES),
            domains=1,
            classes=2,
            settings=settings_of(name),
            seed=0,
        )
        last(fitted(algorithm, shift, 3))
        return
    with pytest.raises(ValueError, match=rf"^{name}.* needs at least .*, got 1; .*domain.*$"):
        kind(point_network(images=name in OF_IMAGES), domains=1, classes=2, seed=0)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_loss_that_is_not_finite_is_reported_with_its_step(name):
    algorithm = make(name)
    with torch.no_grad():
        algorithm.network.head.bias.fill_(math.nan)
    with pytest.raises(ValueError, match=rf"^{name}: the loss .* at step 1; choose a step size"):
        last(fitted(algorithm, SHIFTS[name], 3))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_trainable_module_moves(name):
    algorithm = make(name)
    modules = {key: value for key, value in vars(algorithm).items() if isinstance(value, nn.Module)}
    before = {key: state_of(module) for key, module in modules.items()}
    last(fitted(algorithm, SHIFTS[name], 6))
    for key, module in modules.items():
        after = state_of(module)
        assert all(not torch.equal(before[key][p], after[p]) for p in before[key]), key


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the parameters."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_table_lists_it_under_its_name(name):
    assert ALGORITHMS[name].name == name


def test_a_training_for_other_domains_or_classes_is_rejected():
    with pytest.raises(ValueError, match=r"ERM was made for 2 training domains.*'points' has 3"):
        last(fitted(make("ERM"), domains_of_points(9, 9, 9), 1))
    with pytest.raises(ValueError, match="ERM was made for 2 classes"):
        last(fitted(make("ERM"), domains_of_points(9, 9, classes=3), 1))


def test_a_checkpoint_of_another_training_is_rejected():
    stage = last(fitted(make("ERM"), SHIFTS["ERM"], 3))
    with pytest.raises(ValueError, match="from step 3, but this training has 2 steps"):
        last(fitted(make("ERM"), SHIFTS["ERM"], 2, resume=stage.checkpoint()))
    other = ALGORITHMS["ERM"](point_network(hidden=5), domains=2, classes=2, seed=0)
    with pytest.raises(ValueError, match="belongs to another network or algorithm"):
        last(fitted(other, SHIFTS["ERM"], 4, resume=stage.checkpoint()))
