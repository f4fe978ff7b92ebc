"""Effective robustness: how far a model is above the line on which standard models lie.

Standard models, trained on ID data alone, lie on a line when both accuracies are drawn on a logit
or probit scale. What a model has above that line at its own ID accuracy, it does not owe to being
good in distribution. Accuracies are shares in [0, 1], effective robustness is in points.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from contam.measures.accuracy import Accuracy, clopper_pearson
from contam.rng import generator_for

Axis = Literal["logit", "probit"]

_SCALES: dict[Axis, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "logit": (torch.logit, torch.sigmoid),
    "probit": (torch.special.ndtri, torch.special.ndtr),
}


@dataclass(frozen=True)
class Line:
    """Where standard models lie: OOD accuracy as a straight line in ID accuracy on scaled axes."""

    slope: float
    intercept: float
    r_squared: float
    """The share of the variance of the scaled OOD accuracies that the line explains."""
    count: int
    """The models that the line was fitted to."""
    axis: Axis = "logit"
    dropped: tuple[int, ...] = ()
    """The models that were left out: one of their accuracies is 0 or 1, which no scale can show."""

    def expected(self, id_accuracy: Float[Tensor, " models"]) -> Float[Tensor, " models"]:
        """The OOD accuracy of a standard model with this ID accuracy; the limit at 0 and at 1."""
        scaled = scale(id_accuracy, self.axis)
        # Zero times infinity: a level line has its intercept everywhere.
        steps = self.slope * scaled if self.slope else torch.zeros_like(scaled)
        return _SCALES[self.axis][1](self.intercept + steps)


IMAGENET_LINES: dict[str, Line] = {
    "ImageNetV2": Line(0.9232, -0.4977, 0.996, 85),
    "ImageNet-R": Line(0.9116, -1.5999, 0.877, 80),
    "ObjectNet": Line(1.1993, -2.0243, 0.941, 85),
    "ImageNet-Sketch": Line(1.0709, -2.3701, 0.869, 85),
    "ImageNet-A": Line(3.0516, -6.2917, 0.773, 84),
}
"""The lines of standard ImageNet models, logit axes: slope, intercept, R squared, models.

Fitted to the standard models in a published table of 338 models' accuracies; ID is ImageNet's
validation set.

Source: ours, computed by the protocol of Taori et al. (2020).
"""


@dataclass(frozen=True)
class Band:
    """Between which OOD accuracies the line lies, at some ID accuracies."""

    at: Float[Tensor, " points"]
    """ID accuracies."""
    low: Float[Tensor, " points"]
    high: Float[Tensor, " points"]
    resamples: int
    """How many resamples had a line; the others drew one ID accuracy alone."""


def scale(accuracies: Float[Tensor, "*any"], axis: Axis = "logit") -> Float[Tensor, "*any"]:
    """Accuracies on the axis on which standard models lie on a line, in double precision.

    The logit is ln(a / (1 - a)), the probit the normal quantile; 0 and 1 become infinite.

    Source: ours; Taori et al. (2020) for the logit, Miller et al. (2021) for the probit.

    Raises:
        ValueError: no share, or another word for the axis.
    """
    if axis not in _SCALES:
        raise ValueError(f"the axis is 'logit' or 'probit', not {axis!r}")
    accuracies = accuracies.double()
    if not torch.all((accuracies >= 0) & (accuracies <= 1)):
        raise ValueError(
            "accuracies are shares in [0, 1], and one is not: found "
            f"{float(accuracies.min()):.4g} to {float(accuracies.max()):.4g}; divide percent by 100"
        )
    return _SCALES[axis][0](accuracies)


def fit_line(
    id_accuracy: Float[Tensor, " models"],
    ood_accuracy: Float[Tensor, " models"],
    *,
    axis: Axis = "logit",
) -> Line:
    """The line of standard models, by ordinary least squares on scaled axes.

    Give models trained on ID data without any intervention for robustness, of reasonable accuracy.
    A model with an accuracy of exactly 0 or 1 is left out and named in the line's `dropped`.

    Source: Sec. 2; Taori et al. (2020).

    Raises:
        ValueError: fewer than two different ID accuracies are left, or something is no share.
    """
    x, y, kept = _usable(id_accuracy, ood_accuracy, axis)
    dropped = tuple((~kept).nonzero().flatten().tolist())
    if len(x.unique()) < 2:
        raise ValueError(
            f"a line needs two different ID accuracies; of {len(kept)} models {len(x)} are "
            f"strictly between 0 and 1, with {len(x.unique())}; add standard models"
        )
    slope, intercept = (float(part) for part in _least_squares(x, y))
    left = (y - intercept - slope * x).square().sum()
    spread = (y - y.mean()).square().sum()
    # Equal OOD accuracies leave nothing to explain, and the level line misses nothing.
    explained = float(1 - left / spread) if spread > 0 else 1.0
    return Line(slope, intercept, explained, len(x), axis, dropped)


def effective_robustness(
    id_accuracy: Float[Tensor, " models"], ood_accuracy: Float[Tensor, " models"], line: Line
) -> Float[Tensor, " models"]:
    """Return the OOD accuracy of models minus that of standard models with the same ID accuracy.

    Args:
        id_accuracy: ID accuracies in [0, 1].
        ood_accuracy: OOD accuracies in [0, 1].
        line: the fit to standard models.

    Returns:
        Percentage points in (-100, 100).

    Raises:
        ValueError: an accuracy is outside [0, 1].

    Source: Sec. 2; Taori et al. (2020).

    >>> import torch
    >>> standard = torch.tensor([0.5, 0.7, 0.9])
    >>> line = fit_line(standard, standard)
    >>> effective_robustness(torch.tensor([0.8]), torch.tensor([0.9]), line).round().tolist()
    [10.0]
    """
    scale(ood_accuracy, line.axis)  # refuses what is no share
    return 100 * (ood_accuracy.double() - line.expected(id_accuracy))


def robustness_interval(
    in_distribution: Accuracy,
    out_of_distribution: Accuracy,
    line: Line,
    *,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Both ends of the effective robustness, in points, that finite test sets leave open.

    Each accuracy has its Clopper-Pearson interval at half the doubt, so that both hold together at
    least as often as `confidence` says, also where the two tests share images. The line is taken
    as known; its own doubt is `bootstrap_band`.

    Source: ours, since the plots show each accuracy's interval but not the distance's.

    Raises:
        ValueError: a confidence outside (0, 1).
    """
    each = (1 + confidence) / 2
    ends = clopper_pearson(in_distribution.correct, in_distribution.count, each)
    ood = clopper_pearson(out_of_distribution.correct, out_of_distribution.count, each)
    expected = line.expected(torch.tensor(ends, dtype=torch.float64))
    return 100 * (ood[0] - float(expected.max())), 100 * (ood[1] - float(expected.min()))


def bootstrap_band(
    id_accuracy: Float[Tensor, " models"],
    ood_accuracy: Float[Tensor, " models"],
    at: Float[Tensor, " points"],
    *,
    axis: Axis = "logit",
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Band:
    """Where the line would lie had other standard models been drawn: percentiles over resamples.

    The band is pointwise in `at`. Models with an accuracy of 0 or 1 are left out as in `fit_line`.

    Source: Sec. 2; Taori et al. (2020).

    Raises:
        ValueError: fewer than three models are left, no resamples, or a confidence outside (0, 1).
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"want at least 1 resample and a confidence in (0, 1), not {resamples} and {confidence}"
        )
    x, y, _ = _usable(id_accuracy, ood_accuracy, axis)
    if len(x) < 3 or len(x.unique()) < 2:
        raise ValueError(
            f"a band needs three models with two different ID accuracies strictly between 0 and 1, "
            f"not {len(x)} models with {len(x.unique())}; add standard models"
        )
    generator = generator_for(seed, "the line of standard models")
    drawn = torch.randint(len(x), (resamples, len(x)), generator=generator)
    drawn = drawn[x[drawn].amin(dim=1) < x[drawn].amax(dim=1)]
    slopes, intercepts = _least_squares(x[drawn], y[drawn])
    lines = intercepts[:, None] + slopes[:, None] * scale(at, axis)
    tail = (1 - confidence) / 2
    low, high = _SCALES[axis][1](lines.quantile(torch.tensor([tail, 1 - tail]).double(), dim=0))
    return Band(at, low, high, len(drawn))


def _usable(id_accuracy: Tensor, ood_accuracy: Tensor, axis: Axis) -> tuple[Tensor, Tensor, Tensor]:
    """Both scaled accuracies of the models that have them, and which ones those are."""
    x, y = scale(id_accuracy, axis), scale(ood_accuracy, axis)
    kept = x.isfinite() & y.isfinite()
    return x[kept], y[kept], kept


def _least_squares(
    x: Float[Tensor, "*any models"], y: Float[Tensor, "*any models"]
) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
    """Slope and intercept of y on x."""
    centered = x - x.mean(dim=-1, keepdim=True)
    slope = (centered * y).sum(dim=-1) / centered.square().sum(dim=-1)
    return slope, y.mean(dim=-1) - slope * x.mean(dim=-1)
