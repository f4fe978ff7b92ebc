"""The plane of correlations and contrasts, and the networks that are trained over it."""

from typing import Annotated

from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from contam.experiment import NULL_STEP_SIZE
from contam.experiments.support.two_layer_runs import changed_fields, null_setting
from contam.measures.depth import Rule
from contam.theory.setting import Setting

SWEPT = ("data.background_weights", "data.ood_weights", "data.correlation")
"""Fields of the setting that sizes and correlations determine."""

UnitInterval = Annotated[float, Field(ge=0, le=1)]


class DeepNetworks(BaseModel, frozen=True, extra="forbid"):
    """Size and training of the deep networks."""

    width: PositiveInt = 12
    """Channels of the first stage."""
    epochs: PositiveInt = 8
    batch_size: PositiveInt = 32
    step_size: PositiveFloat = 3e-3
    """Maximum step size of AdamW."""
    weight_decay: NonNegativeFloat = 0.05


class Config(BaseModel, frozen=True, extra="forbid"):
    """The experiment is ours: neither paper varies both."""

    correlations: Annotated[tuple[UnitInterval, ...], Field(min_length=2)] = (0, 0.3, 0.6, 0.9, 1)
    """Correlations of background and label in training; 0 is the first paper, 1 a shortcut."""
    contrasts: Annotated[tuple[PositiveFloat, ...], Field(min_length=2)] = (
        0.01, 0.03, 0.1, 0.3, 1.0,
    )  # fmt: skip
    """Standard deviations of a background's pixels, from hard to see to easy."""
    sizes: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.25, 0.5, 1.0, 2.0)
    """Largest background weights in the theory, where that of a core feature is 1."""
    setting: Setting = Setting()
    """The two-layer networks; sizes and correlations change their data."""
    deep: DeepNetworks = DeepNetworks()
    """The deep networks."""
    train: PositiveInt = 1600
    """Training pictures of a deep network."""
    test: PositiveInt = 800
    per_class: PositiveInt = 500
    """Training pictures of each class in the support of prediction depth."""
    rule: Rule = Rule()
    seeds: PositiveInt = 5

    @model_validator(mode="after")
    def _is_the_theory_of_the_claims(self) -> "Config":
        if changed := changed_fields(self.setting, SWEPT):
            raise ValueError(
                f"{' and '.join(changed)} of the setting must keep the default: sizes and "
                "correlations set it"
            )
        if self.setting.loss != "hinge" or self.setting.data.classes != 2:
            raise ValueError("loss must be hinge and classes 2, which the claims are about")
        return self


FULL = Config()
LAPTOP = Config(correlations=(0, 0.5, 0.9, 1), seeds=3)
SMOKE = LAPTOP.model_copy(
    update={
        "correlations": (0, 1), "contrasts": (0.05, 1.0), "sizes": (0.5, 1.0),
        "setting": Setting(steps=40),
        "deep": DeepNetworks(width=4, epochs=2, batch_size=8, step_size=1e-2),
        "train": 80, "test": 40, "per_class": 30, "rule": Rule(k=9), "seeds": 1,
    }
)  # fmt: skip


def null(config: Config) -> Config:
    """The config with step sizes at which nothing is learned.

    >>> null(Config()).deep.step_size == NULL_STEP_SIZE
    True
    """
    deep = config.deep.model_copy(update={"step_size": NULL_STEP_SIZE})
    return null_setting(config).model_copy(update={"deep": deep})
