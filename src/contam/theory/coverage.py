"""The settings that the population model covers, and the moments of the weights that it needs."""

from typing import NamedTuple

from contam.theory.distribution import DataModel, Where
from contam.theory.setting import STABLE, Setting
from contam.theory.weights import Weights, quantile_table

FEWEST = 4
"""Features of each kind; a sum of fewer weights is far from Gaussian."""


class Moments(NamedTuple):
    """Mean and variance of a weight."""

    mean: float
    variance: float


def core_moments(data: DataModel) -> Moments:
    """Moments of a core weight.

    Args:
        data: the data model, with one distribution for all core features.

    Returns:
        The mean and the variance.

    Source: ours, the weights of the population model.

    >>> core_moments(DataModel()).mean
    0.5
    """
    weights = _first(data.core_weights)
    return Moments(weights.mean, weights.variance)


def background_moments(data: DataModel, where: Where = "id", y: float | None = None) -> Moments:
    """Moments of a background weight.

    Args:
        data: the data model, with one distribution for all background features.
        where: distribution of the background weights: "id", "ood" or "worst".
        y: the class, on which the weights depend where they are correlated with the label; None
            for both classes.

    Returns:
        The mean and the variance.

    Source: ours, the weights of the population model.

    >>> background_moments(DataModel(), "worst")
    Moments(mean=-1.0, variance=0.0)
    >>> round(background_moments(DataModel(correlation=1.0), y=1.0).mean, 6)
    0.75
    """
    if where == "worst":
        return Moments(-1.0, 0.0)
    weights = _first(data.background_weights if where == "id" else data.ood_weights)
    if where != "id" or y is None or not data.correlation:
        return Moments(weights.mean, weights.variance)
    table, share = quantile_table(weights), abs(data.correlation)
    half = table.view(2, -1)[int(y * data.correlation > 0)]
    first, second = (
        (1 - share) * float((table**power).mean()) + share * float((half**power).mean())
        for power in (1, 2)
    )
    return Moments(first, second - first**2)


def uncovered(setting: Setting) -> str | None:
    """Say why the population model does not cover a setting; None where it does.

    The fields `batch_size`, `engine`, `precision` and `ambient` make no difference to the model.

    Args:
        setting: any setting.

    Returns:
        One line that names the field, the values that are covered, and what to do instead.

    Source: ours, the limits of the standard setting of Sec. 3.1 and Sec. 3.2.

    >>> uncovered(Setting(depth=2))
    'depth must be 1, not 2: this is not modeled; train the network instead'
    """
    data = setting.data
    if setting.activation not in ("relu", "leaky_relu", "identity"):
        return (
            "activation must be one of ['relu', 'leaky_relu', 'identity'], not "
            f"{setting.activation!r}: only "
            "their averages have a closed form; train the network instead"
        )
    if setting.optimizer != "sgd":
        return (
            f"optimizer must be 'sgd', not {setting.optimizer!r}: SGD with momentum b follows the "
            "path of step_size / (1 - b) without it; for others train the network instead"
        )
    for record, name, value in (
        (setting, "loss", "hinge"),
        (setting, "bias", "none"),
        (setting, "depth", 1),
        (setting, "head", "fixed"),
        (setting, "initialization", "gaussian"),
        (setting, "examples", None),
        (data, "classes", 2),
        (data, "coupling", 0),
        (data, "core_shape", "weights"),
    ):
        if getattr(record, name) != value:
            return (
                f"{name} must be {value!r}, not {getattr(record, name)!r}: this is not modeled; "
                "train the network instead"
            )
    for name in ("core", "background"):
        if getattr(data.features, name) < FEWEST:
            return (
                f"{name} must be at least {FEWEST}, not {getattr(data.features, name)}: a sum of "
                "fewer weights is far from Gaussian; train the network instead"
            )
    if changes := setting.intervention.changes:
        return f"{changes[0]} is not modeled; train the network instead"
    return _uncovered_weights(data) or _uncovered_steps(setting)


def _uncovered_weights(data: DataModel) -> str | None:
    for name in ("core_weights", "background_weights", "ood_weights"):
        weights = getattr(data, name)
        if any(other != _first(weights) for other in _all(weights)):
            return f"{name} must be one distribution for all features; train the network instead"
    return None


def _uncovered_steps(setting: Setting) -> str | None:
    step_size = setting.step_size
    if not setting.weight_decay * step_size < 1:
        return (
            f"weight_decay must be in [0, 1 / step_size) = [0, {1 / step_size:g}), not "
            f"{setting.weight_decay}: every step would flip the signs of the weights; lower either"
        )
    curvature = _curvature(setting.data)
    pace = step_size * curvature / setting.width
    if not pace <= STABLE:
        size = "(core + background)" if curvature == setting.data.features.size else "curvature"
        return (
            f"step_size * {size} / width must be at most {STABLE}, not {pace:.3g}: "
            f"a step would overshoot; try step_size {step_size * STABLE / pace:.3g} and more steps"
        )
    return None


def _curvature(data: DataModel) -> float:
    """Number of features, each weighed by its largest squared weight if that is above 1.

    Where features are not orthogonal, the mean input grows along the direction that all share.
    """
    features = data.features
    core, background = (
        max(1.0, *(end**2 for end in (_first(weights).low, _first(weights).high)))
        for weights in (data.core_weights, data.background_weights)
    )
    size = core * features.core + background * features.background
    return size * (1 + (features.size - 1) * features.coherence)


def _all(weights: Weights | tuple[Weights, ...]) -> tuple[Weights, ...]:
    return weights if isinstance(weights, tuple) else (weights,)


def _first(weights: Weights | tuple[Weights, ...]) -> Weights:
    return _all(weights)[0]
