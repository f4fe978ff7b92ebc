"""Supervised training: it learns what can be learned, and an interruption leaves no trace."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from support.generators import last
from support.networks import assert_same_weights
from support.shifts import brightest_channel
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from contam.batch import Batch, Domain
from contam.data.digits import padded_digits
from contam.measures.accuracy import accuracy
from contam.models.classifier import Classifier
from contam.models.small import small_cnn
from contam.rng import seeded
from contam.training.minibatches import TrainingExamples
from contam.training.optimize import Recipe
from contam.training.schedule import warmup_cosine
from contam.training.supervised import fit

RECIPE: dict[str, Any] = dict(epochs=3, batch_size=16, step_size=1e-2, weight_decay=0.05, seed=0)


def changed(change: dict[str, Any]) -> dict[str, Any]:
    return {**RECIPE, **change}


def network(seed: int = 0) -> nn.Module:
    """With what a checkpoint can forget: running statistics, dropout, memory layout, no head."""
    model = small_cnn(3, width=4, seed=seed)
    model.encoder.add_module("drop", nn.Dropout(0.2))
    return model


def test_training_learns_a_separable_task():
    model = network()
    end = last(fit(model, brightest_channel(), **changed({"epochs": 8}), report_every=10))
    assert end.step == end.steps == 8 * 5
    assert accuracy(model, brightest_channel().id_test).share > 0.95


def test_training_equals_plain_pytorch():
    """The same steps written out with a scheduler and no function of ours but the order's."""
    shift = brightest_channel()
    ours, plain = network(), network()
    last(fit(ours, shift, **RECIPE, report_every=100))
    optimizer = torch.optim.AdamW(plain.parameters(), 1e-2, weight_decay=0.05)
    scheduler = LambdaLR(
        optimizer, lambda s: warmup_cosine(min(s, 14), steps=15, warmup=math.ceil(1.5))
    )
    plain.train()
    picks = TrainingExamples(shift.train).minibatches(16, purpose="fit", seed=0, start=0)
    for step, (numbers, _) in enumerate(itertools.islice(picks, 15)):
        batch = shift.train[0].data.pick(numbers)
        with seeded(0, f"fit/step {step}"):
            loss = F.cross_entropy(plain(batch.x), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    assert_same_weights(ours, plain)


@pytest.mark.parametrize("stop", [1, 5, 7, 14, 15])
def test_an_interrupted_training_continues_bit_for_bit(stop):
    whole = network()
    ends = [s.losses for s in fit(whole, brightest_channel(), **RECIPE, report_every=1)]
    begun = network()
    for stage in fit(begun, brightest_channel(), **RECIPE, report_every=1):
        if stage.step == stop:
            file = save(stage.checkpoint())
            break
    resumed = network(seed=1)  # another start, so that nothing but the checkpoint can help
    torch.rand(3)  # another place in the global stream
    rest = list(fit(resumed, brightest_channel(), **RECIPE, report_every=1, resume=load(file)))
    assert [s.step for s in rest] == list(range(stop + 1, 16))
    assert [s.losses for s in rest] == ends[stop:]
    assert_same_weights(whole, resumed)


def test_the_checkpoint_is_a_copy():
    model = network()
    stages = fit(model, brightest_channel(), **RECIPE, report_every=1)
    checkpoint = next(stages).checkpoint()
    kept = {name: tensor.clone() for name, tensor in checkpoint.items()}
    for _ in stages:
        pass
    assert all(torch.equal(checkpoint[name], tensor) for name, tensor in kept.items())


def test_frozen_weights_are_unchanged_and_resume():
    def frozen() -> nn.Module:
        model = network()
        model.get_parameter("encoder.conv1.weight").requires_grad_(False)
        return model

    whole, begun, resumed = frozen(), frozen(), frozen()
    last(fit(whole, brightest_channel(), **RECIPE, report_every=100))
    middle = next(fit(begun, brightest_channel(), **RECIPE, report_every=7)).checkpoint()
    last(fit(resumed, brightest_channel(), **RECIPE, report_every=100, resume=middle))
    assert_same_weights(whole, resumed)
    first = "encoder.conv1.weight"
    assert torch.equal(whole.get_parameter(first), frozen().get_parameter(first))


def test_several_training_domains_are_pooled():
    one, several = network(), network()
    last(fit(one, brightest_channel(), **RECIPE, report_every=100))
    last(fit(several, brightest_channel(30, 30, 30), **RECIPE, report_every=100))
    assert_same_weights(one, several)


def test_an_epoch_has_no_repeated_example_and_epochs_differ():
    x = torch.arange(50.0)
    examples = TrainingExamples([Domain("numbers", Batch(x, x.long(), x.long()))])
    picks = examples.minibatches(16, purpose="fit", seed=0, start=0)
    numbers_by_step = [numbers.tolist() for numbers, _ in itertools.islice(picks, 6)]
    first, second = (
        [*itertools.chain(*numbers_by_step[:3])],
        [*itertools.chain(*numbers_by_step[3:])],
    )
    assert len(set(first)) == len(set(second)) == 48
    assert first != second
    again = examples.minibatches(16, purpose="fit", seed=0, start=4)
    assert [numbers.tolist() for numbers, _ in itertools.islice(again, 2)] == numbers_by_step[4:]


def test_training_depends_only_on_the_seed():
    models = [network() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        torch.rand(seed + 1)
        before = torch.get_rng_state()
        last(fit(model, brightest_channel(), **changed({"seed": seed}), report_every=100))
        assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(models[0], models[1])
    weights = [m.get_parameter("head.weight") for m in models]
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 91}, "cannot draw a minibatch of 91 from 90 training examples"),
        ({"batch_size": 0}, "choose a batch size between 1 and 90"),
        ({"epochs": 0}, "at least 1 epoch, got 0"),
        ({"step_size": 1e30}, "not finite at step .* step size below"),
    ],
)
def test_invalid_arguments_are_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        last(fit(network(), brightest_channel(), **changed(change), report_every=100))


def test_a_checkpoint_of_another_training_is_rejected():
    checkpoint = last(fit(network(), brightest_channel(), **RECIPE, report_every=100)).checkpoint()
    other = Classifier(nn.Flatten(), 3, 3 * 256)
    with pytest.raises(ValueError, match="belongs to another model"):
        last(fit(other, brightest_channel(), **RECIPE, report_every=100, resume=checkpoint))
    shorter = changed({"epochs": 2})
    with pytest.raises(ValueError, match="from step 15, but this training has 10"):
        last(fit(network(), brightest_channel(), **shorter, report_every=100, resume=checkpoint))


@pytest.mark.slow
def test_training_with_a_red_frame_fails_under_other_frames_and_random_frames_do_not():
    recipe: dict[str, Any] = dict(
        epochs=20, batch_size=32, step_size=1e-2, weight_decay=0.05, seed=0
    )
    drop = {}
    for frame in ("red", "random"):
        shift = padded_digits(frame, seed=0)
        model = small_cnn(seed=0)
        last(fit(model, shift, **recipe, report_every=1000))
        accuracies = {d.name: accuracy(model, d).share for d in (shift.id_test, *shift.ood_tests)}
        assert accuracies[f"{frame} frame"] > 0.94
        for other in ("cyan frame", "white frame", "black frame"):
            drop[frame, other] = accuracies[f"{frame} frame"] - accuracies[other]
    assert all(value > 0.3 for (frame, _), value in drop.items() if frame == "red")
    assert all(value < 0.1 for (frame, _), value in drop.items() if frame == "random")


def test_sgd_with_momentum_follows_the_equations_of_torch_and_an_unfinished_cosine():
    recipe = Recipe(0.1, 5e-4, batch_size=2, epochs=50, momentum=0.9, schedule_epochs=200)
    sizes = [recipe.size(step, steps=500) for step in (0, 250, 499)]
    assert sizes[0] == 0.1
    assert sizes[1] == pytest.approx(0.05 * (1 + math.cos(math.pi * 250 / 2000)))
    assert sizes[2] == pytest.approx(0.0854, abs=1e-3)
    weight = torch.nn.Parameter(torch.tensor(1.0))
    optimizer = recipe.optimizer([weight])
    expected, velocity = 1.0, 0.0
    for _ in range(3):
        optimizer.zero_grad()
        weight.square().backward()
        optimizer.step()
        velocity = 0.9 * velocity + 2 * expected + 5e-4 * expected
        expected -= 0.1 * velocity
    assert weight.item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="schedule of 20 epochs ends before"):
        replace(recipe, schedule_epochs=20).length(4)
