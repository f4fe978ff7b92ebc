"""`contam predict`: predict contamination before any training."""

import json
from typing import Annotated

import tyro

from contam.cli.progress import ProgressDisplay
from contam.theory.phases import critical_slope, predict_phases
from contam.theory.population import predict_contamination
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
    examples are fitted, and where training converges; and the critical slope of leaky ReLU. With a
    correlated background and with projected gradients, only these phases are predicted.

    Args:
        setting: the training run; fields that the model does not cover are rejected.
        seed: seed of the initial weights.
        neurons: largest number of neurons to follow; a wider network is represented by an even
            sample. The prediction is repeated with a second sample, and the difference is printed.
        as_json: print the whole curve as a list of objects instead of a sentence.
    """
    data, change = setting.data, setting.intervention
    if not as_json and (data.correlation or change.project in ("core", "pairs")):
        print(predict_phases(setting).summary())
        return 0
    many = setting.data.features.size >= MANY_FEATURES
    with ProgressDisplay("predict") as display:
        prediction = predict_contamination(
            setting,
            seed=seed,
            neurons=neurons,
            nodes=FEWER_NODES if many else 12,
            repeat=not as_json,
            progress=display.update,
        )
    if as_json:
        print(json.dumps(prediction.records(), indent=1))
    else:
        print(f"{prediction.summary()} {predict_phases(setting).summary()}{_critical(setting)}")
    return 0


def _critical(setting: Setting) -> str:
    """The critical slope in words; empty for linear networks and where nothing is fitted."""
    if setting.activation == "identity":
        return ""
    try:
        slope = critical_slope(setting)
    except ValueError:
        return ""
    if slope == 0:
        return " The OOD hinge risk at the fit is below 0.5 for every slope of leaky ReLU."
    return f" With a leaky slope of {slope:.2f}, the OOD hinge risk at the fit is 0.5."
