"""A contract over the table of experiments: without learning, no claim about learning holds."""

from dataclasses import replace

import pytest

from contam.experiment import NULL_STEP_SIZE
from contam.experiments import EXPERIMENTS, named
from contam.experiments.fig03_two_layer import CLAIMS, TwoLayerResults

SHORT = {"fig10_activations"}
"""Experiments whose null run takes less than two seconds."""


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(experiment, marks=() if experiment.name in SHORT else pytest.mark.slow)
        for experiment in EXPERIMENTS
    ],
    ids=lambda experiment: experiment.name,
)
def test_no_claim_about_learning_holds_without_learning(experiment, shared_runs):
    """Claims that other settings leave unjudged count by their numbers.

    A claim that asks for networks that learned has no number here, which is a result, too.
    """
    run = shared_runs.run(experiment, experiment.null(experiment.presets["smoke"]))
    claims = [claim for claim in experiment.claims(run) if claim.about_learning]
    assert any(c.in_range is False or "did not learn" in str(c.not_judged) for c in claims)
    held = [
        f"{c.quantity}: {c.observed}, expected {c.expected_range}" for c in claims if c.in_range
    ]
    assert not held, "\n".join(held)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_every_step_size_of_a_null_config_is_tiny(experiment):
    config, null = (one.model_dump(mode="json") for one in (
        experiment.presets["smoke"], experiment.null(experiment.presets["smoke"])
    ))  # fmt: skip
    before, after = step_sizes(config), step_sizes(null)
    assert before.keys() == after.keys() and after
    assert all(size <= 10 * NULL_STEP_SIZE for size in after.values())


def step_sizes(fields, path=""):
    """Every step size of the networks' training by its place in a config."""
    if not isinstance(fields, dict):
        return {}
    sizes = {}
    for name, value in fields.items():
        place = f"{path}/{name}"
        if name.endswith("step_size") and name != "visualization_step_size":
            sizes[place] = value
        elif name == "step_sizes":
            sizes |= {f"{place}/{k}": size for k, size in enumerate(value)}
        sizes |= step_sizes(value, place)
    return sizes


@pytest.mark.slow
def test_a_claim_that_cannot_fail_is_noticed(shared_runs):
    """The largest background projection of a linear network is small before training, too."""
    experiment = named("fig03_two_layer")
    run = shared_runs.run(experiment, experiment.null(experiment.presets["smoke"]))
    ((_, statement),) = [row for row in CLAIMS if "largest background" in row[1].quantity]
    results = TwoLayerResults(run)
    assert replace(statement, given=None).judge(results).in_range
    guarded = statement.judge(results)
    assert guarded.observed is None and "did not learn" in (guarded.not_judged or "")


def test_networks_whose_weights_come_from_files_have_no_null_run():
    experiment = named("fig04_activation_rates")
    with pytest.raises(ValueError, match="set teacher_recipe and student_recipe"):
        experiment.null(experiment.presets["paper"])


@pytest.mark.slow
def test_networks_below_the_least_accuracy_determine_no_line(shared_runs):
    experiment = named("fig01_distillation")
    config = experiment.null(experiment.presets["smoke"]).model_copy(update={"least_id": 0.9})
    run = shared_runs.run(experiment, config)
    assert not any(c.in_range for c in experiment.claims(run) if c.about_learning)
    assert experiment.draw(run) and experiment.summary(run)
