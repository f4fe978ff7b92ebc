"""`contam predict`: predict contamination before any training."""

import json
from typing import Annotated

import tyro

from contam.theory.population import predict_contamination


def predict(
    *,
    core: int = 32,
    background: int = 32,
    dimension: int = 256,
    width: int = 256,
    mean: float = 0.5,
    variance: float = 1 / 12,
    ood_mean: float = -0.5,
    ood_variance: float = 1 / 12,
    step_size: float = 1.0,
    weight_decay: float = 1e-3,
    steps: int = 200,
    activation: str = "relu",
    seed: int = 0,
    neurons: int = 4096,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Predict contamination before any training, by the population model of two-layer networks."""
    prediction = predict_contamination(
        core=core,
        background=background,
        dimension=dimension,
        width=width,
        mean=mean,
        variance=variance,
        ood_mean=ood_mean,
        ood_variance=ood_variance,
        step_size=step_size,
        weight_decay=weight_decay,
        steps=steps,
        activation=activation,
        seed=seed,
        neurons=neurons,
    )
    print(json.dumps(prediction.records(), indent=1) if as_json else prediction.summary())
    return 0
