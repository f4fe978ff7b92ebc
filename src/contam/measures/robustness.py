"""Effective robustness: OOD accuracy above that of standard models with the same ID accuracy.

The ID and OOD accuracies of standard models, trained on ID data alone, lie on a line on a logit or
probit scale. Effective robustness is the distance of a model above that line at its own ID
accuracy. Accuracies are shares in [0, 1], effective robustness is in points.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from contam.measures.accuracy import Accuracy, clopper_pearson

Axis = Literal["logit", "probit"]

_SCALES: dict[Axis, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "logit": (torch.logit, torch.sigmoid),
    "probit": (torch.special.ndtri, torch.special.ndtr),
}


@dataclass(frozen=True)
class Line:
    """Line of standard models: OOD accuracy as a linear function of ID accuracy on scaled axes."""

    slope: float
    intercept: float
    r_squared: float
    """Share of the variance of the scaled OOD accuracies that the line explains."""
    count: int
    """Number of models to which the line is fitted."""
    axis: Axis = "logit"
    dropped: tuple[int, ...] = ()
    """Indices of excluded models, which have an accuracy of 0 or 1."""
    residual: float | None = None
    """Standard deviation of the models around the line, on the scaled axis; None if unknown, or if
    there are fewer than three models."""
    center: float = 0.0
    """Mean scaled ID accuracy of the models."""
    width: float = 1.0
    """Root of the sum of squared distances of the scaled ID accuracies from their mean."""

    def expected(self, id_accuracy: Float[Tensor, " models"]) -> Float[Tensor, " models"]:
        """Return the OOD accuracy of a standard model with this ID accuracy."""
        scaled = scale(id_accuracy, self.axis)
        # A level line has its intercept everywhere, also where the scale is infinite.
        steps = self.slope * scaled if self.slope else torch.zeros_like(scaled)
        return _SCALES[self.axis][1](self.intercept + steps)

    def interval(
        self, id_accuracy: Float[Tensor, " models"], confidence: float = 0.95
    ) -> tuple[Float[Tensor, " models"], Float[Tensor, " models"]]:
        """Return both ends of the interval of the line itself, by Student's t on the scaled axes.

        It is exact for independent normal residuals of equal variance. If `residual` is unknown,
        the line counts as known.

        Args:
            id_accuracy: ID accuracy of each model, in [0, 1].
            confidence: Level of the interval.

        Source: ours, since the percentile bootstrap of few models covers too seldom.
        """
        middle = self.expected(id_accuracy)
        if self.residual is None:
            return middle, middle
        scaled = scale(id_accuracy, self.axis)
        error = self.residual * (1 / self.count + ((scaled - self.center) / self.width) ** 2).sqrt()
        quantile = float(stdtrit(self.count - 2, (1 + confidence) / 2))
        forth, back = _SCALES[self.axis]
        low, high = (back(forth(middle) + sign * quantile * error) for sign in (-1, 1))
        # At ID accuracies of 0 and 1 the line has no interval other than its limit.
        return low.where(low.isfinite(), middle), high.where(high.isfinite(), middle)


IMAGENET_LINES: dict[str, Line] = {
    "ImageNetV2": Line(0.9232, -0.4977, 0.996, 85),
    "ImageNet-R": Line(0.9116, -1.5999, 0.877, 80),
    "ObjectNet": Line(1.1993, -2.0243, 0.941, 85),
    "ImageNet-Sketch": Line(1.0709, -2.3701, 0.869, 85),
    "ImageNet-A": Line(3.0516, -6.2917, 0.773, 84),
}
"""The lines of standard ImageNet models, logit axes: slope, intercept, R squared, models.

Fitted to the standard models of the testbed of Taori et al. (2020); ID is all of ImageNet's
validation set. `contam.measures.testbed` has the accuracies of an earlier version of the testbed's
table, with 80 standard models instead of 85. Its lines differ from these by at most 0.3 points for
ID accuracies of 55 to 80 %, on ImageNet-A by at most 1.1.

Source: ours, computed by the protocol of Taori et al. (2020).
"""


def scale(accuracies: Float[Tensor, "*any"], axis: Axis = "logit") -> Float[Tensor, "*any"]:
    """Return accuracies on a logit or probit scale, in double precision.

    The logit is ln(a / (1 - a)), the probit the normal quantile; 0 and 1 become infinite.

    Args:
        accuracies: Shares in [0, 1].
        axis: Scale.

    Raises:
        ValueError: If an accuracy is not in [0, 1] or the axis is unknown.

    Source: ours; Taori et al. (2020) for the logit, Miller et al. (2021) for the probit.

    >>> scale(torch.tensor([0.5, 1.0])).tolist()
    [0.0, inf]
    """
    if axis not in _SCALES:
        raise ValueError(f"axis must be 'logit' or 'probit', got {axis!r}")
    accuracies = accuracies.double()
    if not torch.all((accuracies >= 0) & (accuracies <= 1)):
        raise ValueError(
            "accuracies must be shares in [0, 1], got "
            f"{float(accuracies.min()):.4g} to {float(accuracies.max()):.4g}; divide percent by 100"
        )
    return _SCALES[axis][0](accuracies)


def fit_line(
    id_accuracy: Float[Tensor, " models"],
    ood_accuracy: Float[Tensor, " models"],
    *,
    axis: Axis = "logit",
) -> Line:
    """Fit the line of standard models by ordinary least squares on scaled axes.

    Use models of reasonable accuracy, trained on ID data without any intervention for robustness.

    Args:
        id_accuracy: ID accuracy of each model, in [0, 1].
        ood_accuracy: OOD accuracy of each model, in [0, 1].
        axis: Scale.

    Returns:
        The line; models with an accuracy of exactly 0 or 1 are excluded and listed in `dropped`.

    Raises:
        ValueError: If there are fewer than two different ID accuracies, or one is not in [0, 1].

    Source: Sec. 2; Taori et al. (2020).

    >>> line = fit_line(torch.tensor([0.5, 0.6, 0.7]), torch.tensor([0.5, 0.6, 0.7]))
    >>> round(line.slope, 6), round(line.r_squared, 6)
    (1.0, 1.0)
    """
    x, y, kept = _usable(id_accuracy, ood_accuracy, axis)
    dropped = tuple((~kept).nonzero().flatten().tolist())
    if len(x.unique()) < 2:
        raise ValueError(
            f"a line needs two different ID accuracies; {len(x)} of {len(kept)} models are "
            f"strictly between 0 and 1, with {len(x.unique())} different ones; add standard models"
        )
    slope, intercept = (float(part) for part in _least_squares(x, y))
    left = (y - intercept - slope * x).square().sum()
    spread = (y - y.mean()).square().sum()
    # With equal OOD accuracies the level line fits exactly.
    explained = float(1 - left / spread) if spread > 0 else 1.0
    residual = float((left / (len(x) - 2)).sqrt()) if len(x) > 2 else None
    width = float((x - x.mean()).square().sum().sqrt())
    return Line(
        slope, intercept, explained, len(x), axis, dropped, residual, float(x.mean()), width
    )


def effective_robustness(
    id_accuracy: Float[Tensor, " models"], ood_accuracy: Float[Tensor, " models"], line: Line
) -> Float[Tensor, " models"]:
    """Return the OOD accuracy of models above that of standard models with their ID accuracy.

    Args:
        id_accuracy: ID accuracy of each model, in [0, 1].
        ood_accuracy: OOD accuracy of each model, in [0, 1].
        line: Line of standard models, such as one of `IMAGENET_LINES`.

    Returns:
        Points in (-100, 100).

    Raises:
        ValueError: If an accuracy is not in [0, 1].

    Source: Sec. 2; Taori et al. (2020).

    >>> line = Line(slope=1.0, intercept=0.0, r_squared=1.0, count=10)
    >>> effective_robustness(torch.tensor([0.5]), torch.tensor([0.75]), line).tolist()
    [25.0]
    """
    scale(ood_accuracy, line.axis)  # rejects values outside [0, 1]
    return 100 * (ood_accuracy.double() - line.expected(id_accuracy))


def robustness_interval(
    in_distribution: Accuracy,
    out_of_distribution: Accuracy,
    line: Line,
    *,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return both ends of the interval of effective robustness, in points.

    The deviations of three intervals are combined in quadrature (Zou & Donner, 2008): the
    Clopper-Pearson intervals of both accuracies, and that of the line (`Line.interval`). This holds
    for test sets that are independent; if both sets show the same objects, the interval is wider
    than necessary.

    Args:
        in_distribution: ID accuracy with its number of examples.
        out_of_distribution: OOD accuracy with its number of examples.
        line: Line of standard models.
        confidence: Level of the interval.

    Raises:
        ValueError: If the confidence is outside (0, 1).

    Source: ours, since the plots show the interval of each accuracy but not of the distance.

    >>> line = Line(slope=1.0, intercept=0.0, r_squared=1.0, count=10)
    >>> low, high = robustness_interval(Accuracy(50, 100), Accuracy(75, 100), line)
    >>> low < 25 < high
    True
    """
    own, other = in_distribution, out_of_distribution
    ends = clopper_pearson(own.correct, own.count, confidence)
    low, high = clopper_pearson(other.correct, other.count, confidence)
    accuracies = torch.tensor([own.share, *ends], dtype=torch.float64)
    middle, *by_images = line.expected(accuracies).tolist()
    by_line = [float(end[0]) for end in line.interval(accuracies, confidence)]
    value = other.share - middle
    down = math.hypot(other.share - low, *(max(*some) - middle for some in (by_images, by_line)))
    up = math.hypot(high - other.share, *(middle - min(*some) for some in (by_images, by_line)))
    return 100 * max(value - down, -1.0), 100 * min(value + up, 1.0)


def _usable(id_accuracy: Tensor, ood_accuracy: Tensor, axis: Axis) -> tuple[Tensor, Tensor, Tensor]:
    """Return the finite scaled accuracies, and which models have them."""
    x, y = scale(id_accuracy, axis), scale(ood_accuracy, axis)
    kept = x.isfinite() & y.isfinite()
    return x[kept], y[kept], kept


def _least_squares(
    x: Float[Tensor, "*any models"], y: Float[Tensor, "*any models"]
) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
    """Return slope and intercept of y on x."""
    centered = x - x.mean(dim=-1, keepdim=True)
    slope = (centered * y).sum(dim=-1) / centered.square().sum(dim=-1)
    return slope, y.mean(dim=-1) - slope * x.mean(dim=-1)
