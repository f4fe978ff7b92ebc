"""Accuracies counted from chance, with both ends of their intervals; comparisons and texts."""

from collections.abc import Callable
from typing import Literal

from contam.auditing.records import Interval, SetScores


def chance_accuracy(scores: SetScores) -> float:
    """Return the accuracy of always predicting the most frequent class of a data set.

    >>> from contam.auditing.records import Score
    >>> cows = Score(correct=60, count=80, accuracy=Interval(value=0.75))
    >>> camels = Score(correct=10, count=20, accuracy=Interval(value=0.5))
    >>> overall = Score(correct=70, count=100, accuracy=Interval(value=0.7))
    >>> by_class = {"cow": cows, "camel": camels}
    >>> chance_accuracy(SetScores(name="farm", role="id", overall=overall, by_class=by_class))
    0.8
    """
    return max(score.count for score in scores.by_class.values()) / scores.overall.count


def above_chance(accuracy: Interval, chance: float) -> Interval:
    """Rescale an accuracy so that chance is 0 and a perfect score is 1.

    >>> above_chance(Interval(value=0.75, low=0.5, high=1.0), 0.5)
    Interval(value=0.5, low=0.0, high=1.0)
    """
    if chance >= 1:
        return Interval(value=0.0)
    return _mapped(accuracy, lambda value: (value - chance) / (1 - chance))


def accuracy_lost(id_scores: SetScores, ood_scores: SetScores) -> Interval:
    """Return the share of the above-chance ID accuracy that is lost on an OOD set.

    The ends follow from the errors of both accuracies by propagation through the quotient.

    Source: ours, the relative accuracy drop.

    >>> from contam.auditing.records import Score
    >>> def scores(name, role, correct):
    ...     half = Score(correct=correct, count=50, accuracy=Interval(value=correct / 50))
    ...     whole = Score(correct=2 * correct, count=100, accuracy=Interval(value=correct / 50))
    ...     by_class = {"cow": half, "camel": half}
    ...     return SetScores(name=name, role=role, overall=whole, by_class=by_class)
    >>> round(accuracy_lost(scores("meadow", "id", 45), scores("beach", "ood", 35)).value, 3)
    0.5
    """
    known = above_chance(id_scores.overall.accuracy, chance_accuracy(id_scores))
    new = above_chance(ood_scores.overall.accuracy, chance_accuracy(ood_scores))
    if known.value <= 0:
        return Interval(value=0.0)
    ratio = new.value / known.value
    ends = [end for end in (new.low, known.high, new.high, known.low) if end is not None]
    if len(ends) < 4:
        return Interval(value=1 - ratio)
    worse, better = (
        (((ood - new.value) / known.value) ** 2 + (ratio * (own - known.value) / known.value) ** 2)
        ** 0.5
        for ood, own in (ends[:2], ends[2:])
    )
    return Interval(value=1 - ratio, low=1 - ratio - better, high=1 - ratio + worse)


def scaled(interval: Interval, factor: float) -> Interval:
    """Multiply an interval by a positive factor.

    >>> scaled(Interval(value=0.5, low=0.4, high=0.6), 2).value
    1.0
    """
    return _mapped(interval, lambda value: factor * value)


def above_zero(interval: Interval) -> bool:
    """Return whether the whole interval lies above zero; one without ends does not.

    >>> above_zero(Interval(value=0.2, low=0.1, high=0.3)), above_zero(Interval(value=0.2))
    (True, False)
    """
    return interval.low is not None and interval.low > 0


def compare(
    interval: Interval, threshold: float, *, below: Literal["yes", "no"]
) -> Literal["yes", "no", "undecided"]:
    """Answer whether the interval lies below or above a threshold, if it lies on one side.

    Args:
        interval: without ends, its value decides.
        threshold: in the same units.
        below: the answer if the whole interval lies below.

    >>> compare(Interval(value=0.5, low=0.3, high=0.6), 0.7, below="yes")
    'yes'
    >>> compare(Interval(value=0.5, low=0.3, high=0.8), 0.7, below="yes")
    'undecided'
    """
    low = interval.value if interval.low is None else interval.low
    high = interval.value if interval.high is None else interval.high
    if high < threshold:
        return below
    if low > threshold:
        return "no" if below == "yes" else "yes"
    return "undecided"


def percent(interval: Interval) -> str:
    """Format a share with its interval.

    >>> percent(Interval(value=0.5, low=0.25, high=0.75))
    '50.0 % [25.0, 75.0]'
    """
    ends = ""
    if interval.low is not None and interval.high is not None:
        ends = f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    return f"{100 * interval.value:.1f} %{ends}"


def points(interval: Interval) -> str:
    """Format a difference of shares in percentage points.

    >>> points(Interval(value=0.05, low=-0.01, high=0.11))
    '+5.0 [-1.0, +11.0] points'
    """
    ends = ""
    if interval.low is not None and interval.high is not None:
        ends = f" [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    return f"{100 * interval.value:+.1f}{ends} points"


def _mapped(interval: Interval, function: Callable[[float], float]) -> Interval:
    low, high = (None if end is None else function(end) for end in (interval.low, interval.high))
    return Interval(value=function(interval.value), low=low, high=high)
