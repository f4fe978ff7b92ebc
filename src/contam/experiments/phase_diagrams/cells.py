"""The cells of the diagrams: each is one setting, trained from several seeds."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from contam.experiments.phase_diagrams.config import Config, Name, WeightsName
from contam.experiments.support.two_layer_runs import NAMES
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.setting import STABLE, Setting
from contam.theory.weights import Beta, Pareto, TwoPoint, Uniform, Weights

LINEAR = "identity"
WEIGHTS: dict[WeightsName, Weights] = {
    "uniform": Uniform(0.0, 1.0),
    "two-point": TwoPoint(0.5),
    "sparse": TwoPoint(0.15),
    "skewed": Beta(0.5, 2.5),
    "heavy-tailed": Pareto(1.0, 0.01, 1.0),
}
"""Distributions of feature weights on [0, 1].

The last has a density proportional to z ** -2 over two decades. Without its bounds it would have
no mean.
"""
SHIFTED: dict[WeightsName, Weights] = {
    "uniform": Uniform(-1.0, 0.0),
    "two-point": TwoPoint(0.5, -1.0, 0.0),
    "sparse": TwoPoint(0.85, -1.0, 0.0),
    "skewed": Beta(2.5, 0.5, -1.0, 0.0),
    "heavy-tailed": Pareto(1.0, -1.0, -0.01),
}
"""The same distributions with the opposite sign, for the background out of distribution."""


@dataclass(frozen=True)
class Cell:
    """A setting with its place in a diagram."""

    diagram: Name
    x: float | str
    """Value on the diagram's axis."""
    series: float | str
    """Value on the second axis, or name of the curve."""
    setting: Setting
    report_at: tuple[int, ...] = ()
    """Steps at which the network is measured; by default the last one."""
    until_fit: bool = False
    """Whether training ends when the mean margin reaches 1, and the network is measured there."""

    @property
    def part(self) -> str:
        """Name of the part of a run."""
        return f"{self.diagram}/{self.series}/{self.x}".replace(" ", "-")


def cells(config: Config) -> Iterator[Cell]:
    """Yield the cells of two-layer networks of all diagrams of a config.

    >>> {cell.diagram for cell in cells(Config(only=("slope",)))}
    {'slope'}
    """
    for name, make in CELLS.items():
        if name in (config.only or CELLS):
            yield from make(config)


FINER = 16
"""By how much the step size of networks with a trained head is smaller, since both layers grow."""


def _slope(config: Config) -> Iterator[Cell]:
    steps = [max(1, round(budget * config.setting.steps)) for budget in config.budgets]
    for slope in config.slopes:
        setting = replace(config.setting, steps=max(steps), **leaky(slope))
        yield Cell("slope", slope, "leaky ReLU", setting, tuple(sorted(set(steps))))


def leaky(slope: float) -> dict[str, Any]:
    """The fields of a setting with leaky ReLU; ReLU and the linear network have faster engines.

    >>> leaky(0.0)
    {'activation': 'relu'}
    """
    named: dict[float, Any] = {0.0: {"activation": "relu"}, 1.0: {"activation": LINEAR}}
    return named.get(slope, {"activation": "leaky_relu", "slope": slope})


LONGER = 4
"""How many times longer than in the setting a network may be trained until it fits."""


def _critical(config: Config) -> Iterator[Cell]:
    for share in config.critical_shares:
        data = with_share(config.setting.data, share)
        for slope in config.critical_slopes:
            setting = replace(
                config.setting, data=data, steps=LONGER * config.setting.steps, **leaky(slope)
            )
            yield Cell("critical", slope, share, setting, until_fit=True)


def with_share(data: DataModel, share: float) -> DataModel:
    """The same number of features with another share of core features.

    >>> with_share(DataModel(), 0.25).features.core
    16
    """
    features = data.features
    core = min(max(1, round(share * features.size)), features.size - 1)
    return replace(data, features=replace(features, core=core, background=features.size - core))


def _batch(config: Config) -> Iterator[Cell]:
    for size in config.batch_sizes:
        yield Cell("batch", size, "ReLU", replace(config.setting, batch_size=size))


def _decay(config: Config) -> Iterator[Cell]:
    for activation in ("relu", LINEAR):
        for decay in config.decays:
            setting = replace(config.setting, weight_decay=decay, activation=activation)
            yield Cell("decay", decay, NAMES[activation], setting)


def _correlation(config: Config) -> Iterator[Cell]:
    for activation in ("relu", LINEAR):
        for correlation in config.correlations:
            data = replace(config.setting.data, correlation=correlation)
            setting = replace(config.setting, data=data, activation=activation)
            yield Cell("correlation", correlation, NAMES[activation], setting)


def _coherence(config: Config) -> Iterator[Cell]:
    for activation in ("relu", LINEAR):
        for coherence in config.coherences:
            features = config.setting.data.features
            if coherence > 0:
                features = replace(features, dictionary="coherent", coherence=coherence)
            data = replace(config.setting.data, features=features)
            setting = replace(config.setting, data=data, activation=activation)
            # The mean input grows along the direction that all features share.
            largest = 1 + (features.size - 1) * coherence
            yield Cell(
                "coherence", coherence, NAMES[activation], in_smaller_steps(setting, largest)
            )


def in_smaller_steps(setting: Setting, curvature: float) -> Setting:
    """The same training time in so many steps that a loss of a larger curvature stays stable.

    Args:
        setting: a training that is stable at a curvature of 1.
        curvature: by which factor the loss is more curved.

    >>> smaller = in_smaller_steps(Setting(step_size=2.0, steps=100), curvature=20.0)
    >>> smaller.step_size, smaller.steps
    (0.5, 400)
    """
    stable = STABLE * setting.width / setting.data.features.size / curvature
    factor = max(1, math.ceil(setting.step_size / stable))
    return replace(setting, step_size=setting.step_size / factor, steps=setting.steps * factor)


def _width(config: Config) -> Iterator[Cell]:
    setting = config.setting
    pace = setting.step_size * setting.data.features.size / setting.width
    spread = setting.data.features.dimension / setting.data.features.size
    for size in config.sizes:
        features = FeatureModel(size // 2, size - size // 2, round(spread * size))
        data = replace(setting.data, features=features)
        for multiple in config.widths:
            width = max(2, round(multiple * size))
            # Learning takes a time of order m / (eta d0): all cells are trained equally far.
            step_size = pace * width / size
            yield Cell("width", multiple, size,
                       replace(setting, data=data, width=width, step_size=step_size))  # fmt: skip


def _share(config: Config) -> Iterator[Cell]:
    for share in config.shares:
        data = with_share(config.setting.data, share)
        yield Cell("share", share, "ReLU", replace(config.setting, data=data))


def _classes(config: Config) -> Iterator[Cell]:
    for activation in ("relu", LINEAR):
        for classes in config.class_counts:
            data = replace(config.setting.data, classes=classes)
            setting = replace(
                config.setting, data=data, activation=activation, loss="logistic", head="trained",
                step_size=config.setting.step_size / FINER, steps=config.setting.steps * FINER // 2,
            )  # fmt: skip
            yield Cell("classes", classes, NAMES[activation], setting)


def _weights(config: Config) -> Iterator[Cell]:
    for name in config.weights:
        weights = WEIGHTS[name]
        data = replace(
            config.setting.data, core_weights=weights, background_weights=weights,
            ood_weights=SHIFTED[name],
        )  # fmt: skip
        # Both the gradient and the output are proportional to the mean weight, 1/2 in the setting.
        # Learned coordinates grow with its inverse, so that less decay keeps the penalty the same.
        pace = (2 * weights.mean) ** 2
        setting = replace(
            config.setting, data=data, step_size=config.setting.step_size / pace,
            weight_decay=config.setting.weight_decay * pace,
        )  # fmt: skip
        yield Cell("weights", name, "ReLU", in_smaller_steps(setting, 1.0))


def _optimizer(config: Config) -> Iterator[Cell]:
    setting, features = config.setting, config.setting.data.features
    adaptive = {"step_size": config.adaptive_step_size, "steps": 3 * setting.steps}
    optimizers: dict[str, dict[str, Any]] = {
        "sgd": {},
        "momentum": {"step_size": setting.step_size * (1 - setting.momentum)},
        "adam": adaptive,
        "adamw": adaptive,
    }
    for dictionary in ("axes", "rotated"):
        rotated = dictionary == "rotated"
        data = replace(setting.data, features=replace(features, dictionary=dictionary))
        for optimizer, fields in optimizers.items():
            cell = replace(setting, data=data, ambient=rotated, optimizer=optimizer, **fields)
            yield Cell("optimizer", OPTIMIZERS[optimizer], dictionary, cell)


OPTIMIZERS = {"sgd": "SGD", "momentum": "momentum", "adam": "Adam", "adamw": "AdamW"}
"""Names of the optimizers."""


def _activation(config: Config) -> Iterator[Cell]:
    for activation in config.activations:
        # The slope of sigmoid is at most 1/4, so that outputs grow at a sixteenth of the pace.
        steps = config.setting.steps * (16 if activation == "sigmoid" else 1)
        setting = replace(config.setting, activation=activation, steps=steps)
        yield Cell("activation", NAMES[activation], "hinge", setting)


CELLS = {
    "slope": _slope,
    "batch": _batch,
    "decay": _decay,
    "correlation": _correlation,
    "coherence": _coherence,
    "width": _width,
    "share": _share,
    "classes": _classes,
    "weights": _weights,
    "optimizer": _optimizer,
    "activation": _activation,
    "critical": _critical,
}
"""The cells of each diagram of two-layer networks."""
