"""What the scaling experiment says of networks that learn nothing."""

from dataclasses import replace

import pytest

from contam.experiments.thm4_scaling import EXPERIMENT, SMOKE, time_to_asymmetry
from contam.run import Run
from contam.theory.setting import Setting

TRUE_OF_ANY_START = {"A linear network's background projections shrink like 1 / sqrt(d)"}
"""A bound on what training adds: it holds for a network that was not trained."""


def test_neurons_become_asymmetric_in_half_the_steps_at_twice_the_step_size():
    slow, fast = (
        time_to_asymmetry(Setting(step_size=step_size, batch_size=500, steps=40), seed=0)
        for step_size in (0.5, 1.0)
    )
    assert slow is not None and fast is not None
    assert slow == pytest.approx(2 * fast, rel=0.1)


def test_a_network_that_does_not_learn_does_not_become_asymmetric():
    assert time_to_asymmetry(Setting(step_size=1e-9, steps=20), seed=0) is None


@pytest.mark.slow
def test_no_claim_about_learning_holds_without_learning(tmp_path):
    config = SMOKE.model_copy(
        update={"setting": replace(SMOKE.setting, step_size=1e-9), "step_sizes": (1e-9, 2e-9)}
    )
    with Run.start(tmp_path, EXPERIMENT.name, config) as run:
        list(EXPERIMENT.compute(config, run))
    held = {claim.says for claim in EXPERIMENT.claims(Run.load(run.folder)) if claim.holds}
    assert held <= TRUE_OF_ANY_START
