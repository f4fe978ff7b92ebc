"""Remedies in the data model: what early stopping chooses, and what claims say of made-up rows."""

import pytest

from contam.experiments.theory_remedies import (
    CLAIMS,
    EXPERIMENT,
    INPUTS,
    LAPTOP,
    STARTS,
    TheoryRemedyResults,
    networks,
    on_spheres,
)
from contam.run import Run

STEPS = LAPTOP.setting.steps
HELPFUL = ("core", "mean", "environment", "centering", "input", "batch_norm", "flip_half", "slope")
EARLY = "OOD hinge risk of the last step minus that of the best step of the training"


def results_of(folder, best_on_path: float = 0.85, centered: float = 1.0) -> TheoryRemedyResults:
    """Made-up rows: the helpful remedies have a risk of 0.01, and others that of no change.

    Args:
        folder: where the run is written.
        best_on_path: OOD risk in the middle of the training without a remedy.
        centered: OOD risk of centered inputs on spheres with Gaussian initial weights.
    """
    remedies, spheres = [], []
    for seed in range(2):
        for name in networks(LAPTOP):
            last = 0.01 if name.startswith(HELPFUL) else 0.85
            rows = [{"step": STEPS, "ood_hinge": last}]
            if name == "no_change":
                rows = [{"step": STEPS // 2, "ood_hinge": best_on_path}, *rows]
            labels = {"remedy": name, "seed": seed, "id_hinge": 0.01}
            remedies += [labels | row for row in rows]
        for start in STARTS:
            for inputs in INPUTS:
                risk = {"raw": 1.0, "centered": centered, "core": 0.01}[inputs]
                risk = 0.1 if (start, inputs) == ("uniform", "centered") else risk
                labels = {"start": start, "inputs": inputs, "seed": seed}
                spheres.append(labels | {"id_logistic": 0.01, "ood_logistic": risk})
    with Run.start(folder, EXPERIMENT.name, LAPTOP) as run:
        run.write("remedy/all", remedies)
        run.write("spheres/all", spheres)
        run.finish()
    return TheoryRemedyResults(Run.load(run.folder))


def verdicts(results: TheoryRemedyResults) -> dict[str, bool | None]:
    return {claim.quantity: claim.judge(results).holds for claim in CLAIMS}


def test_early_stopping_takes_the_best_step_and_other_remedies_the_last(tmp_path):
    results = results_of(tmp_path, best_on_path=0.3)
    assert results.values("early_stopping") == [0.3, 0.3]
    assert results.values("no_change") == [0.85, 0.85]
    assert len(results.path) == 4
    assert verdicts(results)[EARLY] is False


def test_claims_of_remedies_without_effect_hold_and_can_fail(tmp_path):
    held = verdicts(results_of(tmp_path / "as found"))
    assert held[EARLY] is True
    spheres = [quantity for quantity in held if "spheres" in quantity]
    assert len(spheres) == 3 and all(held[quantity] for quantity in spheres)
    helped = verdicts(results_of(tmp_path / "helped", centered=0.01))
    assert [helped[quantity] for quantity in spheres] == [False, True, True]


@pytest.mark.parametrize("inputs", INPUTS)
def test_the_networks_on_spheres_see_rotated_features(inputs):
    setting = on_spheres(LAPTOP, "uniform", inputs)
    assert setting.ambient and setting.data.features.dictionary == "rotated"
    assert setting.data.core_shape == "spheres" and setting.intervention.inputs == inputs
