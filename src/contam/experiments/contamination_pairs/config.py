"""The networks and the images of the pairs, and the two-layer networks beside them."""

from dataclasses import replace
from itertools import product
from typing import Annotated

from pydantic import BaseModel, Field, PositiveInt, model_validator

from contam.data.objects import Core
from contam.experiment import NULL_STEP_SIZE
from contam.experiments.support.paired_networks import (
    Architecture,
    PairedNetworks,
    PairSetting,
    Way,
    without_learning,
)
from contam.experiments.support.two_layer_runs import changed_fields
from contam.theory.distribution import Uniform
from contam.theory.setting import Setting

TWO_LAYER = (
    "ReLU", "leaky ReLU 0.1", "leaky ReLU 0.3", "leaky ReLU 0.5", "leaky ReLU 0.8", "linear",
    "ReLU, centered inputs",
)  # fmt: skip
"""Two-layer networks: from the most contaminated to two that are not contaminated."""
FIXED = (
    "activation", "slope", "depth", "bias", "head", "initialization", "loss", "optimizer",
    "ambient", "intervention", "data.features.dictionary", "data.features.coherence",
    "data.core_weights", "data.background_weights", "data.ood_weights", "data.classes",
    "data.core_shape",
)  # fmt: skip
"""Fields of the setting that `TWO_LAYER` varies, or for which the measures are not defined."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """The experiment is ours."""

    networks: PairedNetworks = PairedNetworks()
    tasks: Annotated[tuple[tuple[Core, Architecture], ...], Field(min_length=1)] = (
        ("shapes", "resnet8-8"),
        ("digits", "resnet8-8"),
        ("shapes", "small_cnn-10"),
        ("shapes", "resnet8-12"),
        ("digits", "resnet8-12"),
    )
    """Contents with an architecture that learns them; the small CNN does not learn the digits."""
    families: Annotated[
        tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1)
    ] = (1, 2, 3, 4, 5)  # fmt: skip
    """Numbers of families of backgrounds in the training data."""
    ways: Annotated[tuple[Way, ...], Field(min_length=1)] = (
        "centered", "instance", "masked", "leaky",
    )  # fmt: skip
    """Ways to block contamination."""
    images: PositiveInt = 400
    """Images of the ID test whose backgrounds are changed."""
    objects: Annotated[int, Field(gt=0, multiple_of=10)] = 50
    """Objects that are shown on every background of a list, a multiple of 10."""
    setting: Setting = Setting(batch_size=500)
    """The two-layer networks; their activation function and the center of their inputs vary."""
    two_layer_seeds: PositiveInt = 4
    """Repetitions of every two-layer network."""
    least_id: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Pairs whose plain network has a lower ID accuracy are left out: it has too little to lose."""
    seeds: PositiveInt = 1
    """Repetitions of every pair with other images and weights, on the same families."""

    @model_validator(mode="after")
    def _is_the_theory_of_the_readings(self) -> "Config":
        if changed := changed_fields(self.setting, FIXED):
            raise ValueError(
                f"{' and '.join(changed)} of the setting must keep the default: the two-layer "
                "networks vary it, or their measures are not defined for other values"
            )
        return self

    @property
    def settings(self) -> list[PairSetting]:
        """What the networks of each pair share."""
        return [PairSetting(*task, k) for task, k in product(self.tasks, self.families)]


FULL = Config()
LAPTOP = FULL.model_copy(
    update={
        "tasks": FULL.tasks[:3],
        "families": (1, 2, 4),
        "ways": ("centered", "instance"),
    }
)
SMOKE = FULL.model_copy(
    update={
        "networks": PairedNetworks(
            recipe=replace(FULL.networks.recipe, epochs=1),
            examples=80,
            id_examples=80,
            ood_examples=80,
        ),
        "tasks": FULL.tasks[:1],
        "families": (1, 2),
        "ways": ("centered", "masked"),
        "images": 40,
        "objects": 20,
        "setting": Setting(steps=60, batch_size=128),
        "two_layer_seeds": 1,
        "least_id": 0.0,
    }
)


def two_layer_setting(config: Config, name: str) -> Setting:
    """The setting of a two-layer network of `TWO_LAYER`.

    Source: ours, the theory's network beside the trained ones, with equal parameters.

    >>> two_layer_setting(Config(), "leaky ReLU 0.3").slope
    0.3
    """
    setting = config.setting
    if name == "linear":
        return replace(setting, activation="identity")
    if name.startswith("leaky ReLU "):
        return replace(setting, activation="leaky_relu", slope=float(name.rpartition(" ")[2]))
    if "centered" not in name:
        return setting
    background, ood = Uniform(-0.5, 0.5), Uniform(-1.5, -0.5)
    return replace(
        setting, data=replace(setting.data, background_weights=background, ood_weights=ood)
    )


def null(config: Config) -> Config:
    """The config without any learning.

    Source: ours, the same networks without learning, where no claim about it may hold.

    >>> null(Config()).setting.step_size == NULL_STEP_SIZE
    True
    """
    return config.model_copy(
        update={
            "networks": without_learning(config.networks),
            "setting": replace(config.setting, step_size=NULL_STEP_SIZE),
        }
    )
