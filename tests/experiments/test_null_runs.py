"""A contract over the table of experiments: without learning, no claim about learning holds."""

import pytest
from support.experiment_runs import run_experiment

from contam.experiment import NULL_STEP_SIZE
from contam.experiments import EXPERIMENTS

STRICT = {"fig10_activations", "fig13_padded_cifar"}
"""Experiments whose claims keep the contract."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One folder for all runs, so that the image experiments share their networks."""
    return tmp_path_factory.mktemp("null runs")


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(
            each,
            marks=[pytest.mark.slow, *([] if each.name in STRICT else [pytest.mark.xfail])],
        )
        for each in EXPERIMENTS
    ],
    ids=lambda each: each.name,
)
def test_no_claim_about_learning_holds_without_learning(experiment, root):
    """Claims that other settings leave unjudged count by their numbers."""
    run = run_experiment(experiment, experiment.null(experiment.presets["smoke"]), root)
    claims = [claim for claim in experiment.claims(run) if claim.about_learning]
    assert any(claim.in_range is False for claim in claims)
    held = [f"{c.quantity}: {c.found}, expected {c.expected_range}" for c in claims if c.in_range]
    assert not held, "\n".join(held)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda each: each.name)
def test_every_step_size_of_a_null_config_is_tiny(experiment):
    config, null = (each.model_dump(mode="json") for each in (
        experiment.presets["smoke"], experiment.null(experiment.presets["smoke"])
    ))  # fmt: skip
    before, after = step_sizes(config), step_sizes(null)
    assert before.keys() == after.keys() and after
    assert all(size <= 10 * NULL_STEP_SIZE for size in after.values())


def step_sizes(fields, path=""):
    """Every step size of the networks' training by its place in a config."""
    if not isinstance(fields, dict):
        return {}
    found = {}
    for name, value in fields.items():
        place = f"{path}/{name}"
        if name.endswith("step_size") and name != "visualization_step_size":
            found[place] = value
        elif name == "step_sizes":
            found |= {f"{place}/{k}": size for k, size in enumerate(value)}
        found |= step_sizes(value, place)
    return found
