"""Shares with both ends of their intervals: counted from chance, compared, and put into words."""

from collections.abc import Callable
from typing import Literal

from contam.auditing.records import Interval, SetScores


def chance(scores: SetScores) -> float:
    """The accuracy of naming the commonest class."""
    return max(each.count for each in scores.by_class.values()) / scores.overall.count


def lost(inside: SetScores, outside: SetScores) -> Interval:
    """Share of the accuracy above chance that is lost; its ends join those of both accuracies."""
    known = above(inside.overall.accuracy, chance(inside))
    new = above(outside.overall.accuracy, chance(outside))
    if known.value <= 0:
        return Interval(value=0.0)
    value = 1 - new.value / known.value
    ends = [each for each in (known.low, known.high, new.low, new.high) if each is not None]
    if len(ends) < 4:
        return Interval(value=value)
    # By the error of a quotient, each half of which is taken from its own interval.
    ratio = new.value / known.value
    halves = [
        (((bad - new.value) / known.value) ** 2 + (ratio * (good - known.value) / known.value) ** 2)
        ** 0.5
        for bad, good in ((ends[2], ends[1]), (ends[3], ends[0]))
    ]
    return Interval(value=value, low=value - halves[1], high=value + halves[0])


def above(share: Interval, chance: float) -> Interval:
    """An accuracy counted from chance, 1 for no error."""
    if chance >= 1:
        return Interval(value=0.0)
    return _moved(share, lambda value: (value - chance) / (1 - chance))


def scaled(share: Interval, by: float) -> Interval:
    """A share in other units; `by` is positive."""
    return _moved(share, lambda value: by * value)


def complement(share: Interval) -> Interval:
    """One minus it, so its ends change places."""
    turned = _moved(share, lambda value: 1 - value)
    return Interval(value=turned.value, low=turned.high, high=turned.low)


def _moved(share: Interval, to: Callable[[float], float]) -> Interval:
    low, high = (None if end is None else to(end) for end in (share.low, share.high))
    return Interval(value=to(share.value), low=low, high=high)


def side(
    found: Interval, threshold: float, *, below: Literal["yes", "no"]
) -> Literal["yes", "no", "undecided"]:
    """Which answer the interval gives, or that it lies on both sides."""
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    if high < threshold:
        return below
    if low > threshold:
        return "no" if below == "yes" else "yes"
    return "undecided"


def shown(found: Interval) -> str:
    """The share and its interval, in percent."""
    if found.low is None or found.high is None:
        return f"{found.value:.1%}"
    return f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"


def points(found: Interval) -> str:
    """A difference and its interval, in points of percent, with their signs."""
    ends = (
        ""
        if found.low is None or found.high is None
        else (f" [{100 * found.low:+.1f}, {100 * found.high:+.1f}]")
    )
    return f"{100 * found.value:+.1f}{ends}"
