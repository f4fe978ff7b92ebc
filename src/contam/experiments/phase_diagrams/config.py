"""The config of the phase diagrams: the standard setting, and the values along each axis."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from contam.experiment import NULL_STEP_SIZE
from contam.experiments.support.two_layer_runs import changed_fields
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.setting import Activation, Setting

Name = Literal[
    "slope", "batch", "decay", "correlation", "coherence", "width", "share", "classes", "weights",
    "depth", "optimizer", "activation", "critical",
]  # fmt: skip
"""The diagrams, each named after what varies in it."""
WeightsName = Literal["uniform", "two-point", "sparse", "skewed", "heavy-tailed"]
Fraction = Annotated[float, Field(ge=0, le=1)]
CENTRAL = (
    "depth", "activation", "bias", "head", "initialization", "loss", "optimizer", "examples",
    "ambient", "data.features.dictionary", "data.features.coherence", "data.core_weights",
    "data.background_weights", "data.ood_weights", "data.classes", "data.correlation",
    "data.coupling", "data.core_shape",
)  # fmt: skip
"""Fields of a setting that only diagrams may change."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """All ours: the paper has one setting, and asks in Section 7 what happens beyond it."""

    only: tuple[Name, ...] = ()
    """Diagrams to compute; all of them if none is named."""
    setting: Setting = Setting()
    """The network at the center of every diagram; a diagram changes one or two of its fields."""
    slopes: tuple[Fraction, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
    """Slopes of leaky ReLU for negative inputs; 0 is ReLU and 1 is a linear network."""
    budgets: tuple[PositiveFloat, ...] = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
    """Training times of the leaky networks, as multiples of the setting's."""
    batch_sizes: tuple[PositiveInt, ...] = (4, 16, 64, 256, 1024)
    """Examples per step."""
    decays: tuple[NonNegativeFloat, ...] = (0.0, 1e-3, 3e-3, 1e-2, 2e-2)
    """Strengths of weight decay."""
    correlations: tuple[Annotated[float, Field(ge=-1, le=1)], ...] = (
        -1.0, -0.75, -0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5, 0.75, 1.0,
    )  # fmt: skip
    """Correlations of background and label in training: 0 is the paper's, 1 is a shortcut."""
    coherences: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = (0.0, 0.01, 0.03, 0.1, 0.3)
    """Inner products of every two features."""
    sizes: tuple[PositiveInt, ...] = (16, 32, 64, 128)
    """Features d0 of the networks of several widths; half of them are core features."""
    widths: tuple[PositiveFloat, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    """Widths of these networks, as multiples of d0."""
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.125, 0.25, 0.5, 0.75, 0.875)
    """Shares of core features among all features."""
    class_counts: tuple[Annotated[int, Field(ge=2)], ...] = (2, 4, 8, 16)
    """Numbers of classes; these networks have a trained head and the logistic loss."""
    weights: tuple[WeightsName, ...] = ("uniform", "two-point", "sparse", "skewed", "heavy-tailed")
    """Distributions of the weights of all features."""
    depths: tuple[PositiveInt, ...] = (1, 2, 3, 4, 5)
    """Hidden layers of the deep networks, which have one more layer than that."""
    deep_step_size: PositiveFloat = 0.05
    """Step size of the deep networks, which are trained by SGD on the logistic loss."""
    deep_steps: PositiveInt = 500
    """Steps of the deep networks."""
    adaptive_step_size: PositiveFloat = 2e-3
    """Step size of Adam and AdamW."""
    activations: tuple[Activation, ...] = (
        "relu", "leaky_relu", "gelu", "sigmoid", "tanh", "identity",
    )  # fmt: skip
    """Activation functions."""
    critical_slopes: tuple[Fraction, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    """Slopes of leaky ReLU among which the critical one is interpolated; the first must be 0."""
    critical_shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (
        0.125, 0.25, 0.375, 0.5, 0.625,
    )  # fmt: skip
    """Shares of core features among all features whose critical slope is determined."""
    test_examples: PositiveInt = 10_000
    """Held-out examples for each risk."""
    neurons: PositiveInt = 1024
    """Largest number of neurons that the population model follows."""
    seeds: PositiveInt = 16
    """Seeds of every cell."""

    @model_validator(mode="after")
    def _is_standard(self) -> "Config":
        if changed := changed_fields(self.setting, CENTRAL):
            raise ValueError(
                f"{', '.join(changed)} of the setting must keep the default: a diagram sets it; of "
                "data, set the numbers of features alone"
            )
        return self


FULL = Config()
LAPTOP = FULL.model_copy(
    update={
        "setting": Setting(batch_size=256, step_size=4.0, steps=50),
        "slopes": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0),
        "budgets": (0.25, 0.5, 1.0, 2.0),
        "decays": (0.0, 1e-3, 3e-3, 1e-2),
        "correlations": (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0),
        "sizes": (16, 32, 64),
        "widths": (0.5, 1.0, 2.0, 4.0),
        "depths": (1, 2, 3, 5),
        "deep_step_size": 0.1,
        "deep_steps": 300,
        "critical_slopes": (0.0, 0.2, 0.4, 0.6),
        "critical_shares": (0.125, 0.25, 0.375, 0.5),
        "test_examples": 3000,
        "seeds": 6,
    }
)
SMOKE = LAPTOP.model_copy(
    update={
        "setting": Setting(
            data=DataModel(FeatureModel(8, 8, 64)), width=64, batch_size=200, steps=25,
            step_size=4.0,
        ),
        "slopes": (0.0, 0.3, 1.0),
        "budgets": (0.5, 1.0),
        "batch_sizes": (16, 256),
        "decays": (0.0, 1e-2),
        "correlations": (-0.5, 0.0, 0.5, 1.0),
        "coherences": (0.0, 0.1),
        "sizes": (16, 32),
        "widths": (1.0, 4.0),
        "shares": (0.25, 0.75),
        "class_counts": (2, 4),
        "weights": ("uniform", "sparse"),
        "depths": (1, 3),
        "deep_steps": 100,
        "adaptive_step_size": 1e-2,
        "activations": ("relu", "gelu", "identity"),
        "critical_slopes": (0.0, 0.3, 0.6),
        "critical_shares": (0.25, 0.5),
        "test_examples": 1000,
        "neurons": 64,
        "seeds": 2,
    }
)  # fmt: skip


def null(config: Config) -> Config:
    """The config with step sizes at which nothing is learned.

    >>> null(Config()).deep_step_size == NULL_STEP_SIZE
    True
    """
    return config.model_copy(
        update={
            "setting": replace(config.setting, step_size=NULL_STEP_SIZE),
            "deep_step_size": NULL_STEP_SIZE,
            "adaptive_step_size": NULL_STEP_SIZE,
        }
    )
