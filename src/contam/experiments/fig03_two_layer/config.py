"""Settings of the two-layer networks, and the networks of a config."""

from dataclasses import replace

from pydantic import BaseModel, PositiveFloat, PositiveInt, model_validator

from contam.experiment import NULL_STEP_SIZE
from contam.theory.distribution import Beta, DataModel
from contam.theory.features import FeatureModel
from contam.theory.setting import Setting

LINEAR = "identity"
LINEAR_CLASSIFIER, LINEAR_REGRESSION = "classification/identity", "regression/identity"
RESPONSE_TIMES = (0.0, 0.05, 0.1, 0.25, 1.0)
"""Shares of the training at which each neuron's responses are recorded. Ours: the paper says
"during training"."""
CLASSES = 4
"""Ours: classes of the networks that learn more than two."""
COUPLING, SKEWED = 0.3, Beta(2, 5)
"""Ours: coupling of the background weights, and core weights that are mostly small, for data that
are more general than those of Def. 3.1."""
KINDS = ("no class", "one class", "both classes")
"""How many classes a neuron has a positive mean response to."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are the paper's (App. F.1) unless a field says otherwise."""

    setting: Setting = Setting(examples=1000, optimizer="momentum", step_size=1e-3, steps=20_000)
    """The data, and the network that learns the classes; its linear twin and the regression differ
    from it in a few fields. The momentum and the number of steps are from the published code; the
    text says SGD and does not give the length. Section 3.2 has fresh examples: examples None."""
    regression_step_size: PositiveFloat = 1e-3
    """Step size of regression, for the squared error averaged over outputs."""
    regression_steps: PositiveInt = 20_000
    """Steps of regression, from the published code."""
    long_steps: PositiveInt = 3000
    """Ours: steps on fresh examples, for the background norm in the long run."""
    long_step_size: PositiveFloat = 1.0
    """Ours: their size."""
    test_examples: PositiveInt = 10_000
    """Ours: held-out examples for each risk and each rate."""
    points: PositiveInt = 40
    """Ours: measurements along each curve."""
    seeds: PositiveInt = 4
    """Ours: the paper does not give a number."""

    @model_validator(mode="after")
    def _is_classification(self) -> "Config":
        if self.setting.activation == LINEAR:
            raise ValueError("activation must not be identity, which is the linear twin's")
        if self.setting.loss == "squared":
            raise ValueError("loss must be hinge or logistic; regression is trained in any case")
        return self


PAPER = Config()
LAPTOP = PAPER.model_copy(
    update={
        "setting": Setting(batch_size=500),
        "regression_step_size": 0.2,
        "regression_steps": 1000,
        "test_examples": 3000,
        "points": 16,
    }
)
SMOKE = LAPTOP.model_copy(
    update={
        "setting": Setting(data=DataModel(FeatureModel(8, 8, 64)), width=64, batch_size=200),
        "regression_steps": 50,
        "long_steps": 300,
        "test_examples": 1000,
        "points": 5,
        "seeds": 2,
    }
)


def null(config: Config) -> Config:
    """The config with step sizes at which nothing is learned.

    >>> null(Config()).regression_step_size == NULL_STEP_SIZE
    True
    """
    return config.model_copy(
        update={
            "setting": replace(config.setting, step_size=NULL_STEP_SIZE),
            "regression_step_size": NULL_STEP_SIZE,
            "long_step_size": NULL_STEP_SIZE,
        }
    )


def networks(config: Config) -> dict[str, Setting]:
    """The setting of every network of the experiment, by the name of its part."""
    classification = config.setting
    regression = replace(
        classification,
        loss="squared",
        head="trained",
        # The simulation's loss is half the sum over the outputs, not their mean, so that the same
        # flow and the same decay in a step ask for other values of both.
        step_size=config.regression_step_size * 2 / classification.data.features.core,
        weight_decay=classification.weight_decay * classification.data.features.core / 2,
        steps=config.regression_steps,
    )
    long = replace(
        classification,
        optimizer="sgd",
        step_size=config.long_step_size,
        examples=None,
        steps=config.long_steps,
    )
    tasks = {"classification": classification, "regression": regression, "long": long}
    data = classification.data
    if _has_several_classes(data):
        tasks["several"] = replace(
            classification, data=replace(data, classes=CLASSES), loss="logistic", head="trained"
        )
    tasks["general"] = replace(
        classification, data=replace(data, core_weights=SKEWED, coupling=COUPLING)
    )
    settings = {
        f"{task}/{activation}": replace(setting, activation=activation)
        for activation in (classification.activation, LINEAR)
        for task, setting in tasks.items()
    }
    # The published code's own initialization: PyTorch's default, with a bias.
    examples = classification.examples or classification.batch_size
    script = {"initialization": "uniform", "examples": examples}
    settings["script/relu"] = replace(classification, bias="hidden", **script)
    settings["script-regression/relu"] = replace(regression, bias="all", **script)
    return settings


def _has_several_classes(data: DataModel) -> bool:
    """Whether the data can have `CLASSES` classes instead of two."""
    fits = data.classes == 2 and data.features.core % CLASSES == 0
    return fits and data.correlation == 0 and data.core_shape == "weights"


def flow(config: Config) -> Setting:
    """Plain SGD on fresh examples over the training time of the classification."""
    setting = config.setting
    time = setting.steps * setting.time_per_step
    steps = max(1, round(time))
    return replace(setting, optimizer="sgd", step_size=time / steps, steps=steps, examples=None)
