"""`contam predict`: predict contamination before any training."""

import json
from typing import Annotated

import tyro

from contam.cli.progress import ProgressDisplay
from contam.theory.population import predict_contamination
from contam.theory.setting import Setting

STANDARD = Setting()


def predict(
    setting: Annotated[Setting, tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes] = STANDARD,
    *,
    seed: int = 0,
    neurons: int = 4096,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Predict contamination before any training, by the population model of two-layer networks.

    Args:
        setting: the training run; fields that the model does not cover are rejected.
        seed: seed of the initial weights.
        neurons: largest number of neurons to follow; a wider network is represented by an even
            sample, and 1024 neurons are nearly as exact.
        as_json: print the whole curve as a list of objects instead of a sentence.
    """
    with ProgressDisplay("predict") as display:
        prediction = predict_contamination(
            setting, seed=seed, neurons=neurons, progress=display.update
        )
    print(json.dumps(prediction.records(), indent=1) if as_json else prediction.summary())
    return 0
