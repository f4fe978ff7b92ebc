"""`contam predict`: predict contamination before any training."""

import json
import os
from typing import Annotated, Any

import torch
import tyro

from contam.cli.progress import ProgressDisplay
from contam.theory.phases import Phases, critical_slope, phases_uncovered, predict_phases
from contam.theory.population import Prediction, predict_contamination
from contam.theory.setting import Setting

STANDARD = Setting()
MANY_FEATURES, FEWER_NODES = 4096, 4
"""From this number of features on, the integration needs few nodes."""


def predict(
    setting: Annotated[Setting, tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes] = STANDARD,
    *,
    seed: int = 0,
    neurons: int = 4096,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Predict contamination before any training, by the population model of two-layer networks.

    Prints the network after training; when contamination takes off, what it is when the training
    examples are fitted, and where training converges; and the critical slope of leaky ReLU. With
    projected gradients, only these phases are predicted.

    Args:
        setting: the training run; fields that the model does not cover are rejected.
        seed: seed of the initial weights.
        neurons: largest number of neurons to follow; a wider network is represented by an even
            sample. The prediction is repeated with a second sample, and the difference is printed.
        as_json: print an object instead of sentences: the whole curve, the error of sampling, the
            phases and the critical slope.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        # Arrays this small gain little from a second thread, and wait for it on a busy machine.
        torch.set_num_threads(1)
    prediction = None
    if setting.intervention.project not in ("core", "pairs"):
        prediction = _curve(setting, seed, neurons)
    reason = phases_uncovered(setting)
    phases = None if reason else predict_phases(setting)
    slope = None if reason else _critical(setting)
    if as_json:
        print(json.dumps(_record(prediction, phases, slope), indent=1))
        return 0
    sentences = [
        prediction.summary() if prediction else "",
        phases.summary() if phases else f"Phases are not predicted: {reason}.",
        _critical_in_words(slope) if prediction else "",
    ]
    print(" ".join(filter(None, sentences)))
    return 0


def _curve(setting: Setting, seed: int, neurons: int) -> Prediction:
    many = setting.data.features.size >= MANY_FEATURES
    with ProgressDisplay("predict") as display:
        return predict_contamination(
            setting,
            seed=seed,
            neurons=neurons,
            nodes=FEWER_NODES if many else 12,
            repeat=True,
            progress=display.update,
        )


def _record(
    prediction: Prediction | None, phases: Phases | None, slope: float | None
) -> dict[str, Any]:
    return {
        "curve": prediction.records() if prediction else None,
        "neurons_followed": prediction.followed if prediction else None,
        "sampling_error": prediction.sampling_error if prediction else None,
        "phases": phases.record() if phases else None,
        "critical_slope": slope,
    }


def _critical(setting: Setting) -> float | None:
    """The critical slope; None for linear networks and where nothing is fitted."""
    if setting.activation == "identity":
        return None
    try:
        return critical_slope(setting)
    except ValueError:
        return None


def _critical_in_words(slope: float | None) -> str:
    if slope is None:
        return ""
    if slope == 0:
        return "The OOD hinge risk at the fit is below 0.5 for every slope of leaky ReLU."
    return f"With a leaky slope of {slope:.2f}, the OOD hinge risk at the fit is 0.5."
