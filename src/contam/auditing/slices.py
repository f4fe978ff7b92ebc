"""The classes, domains and metadata groups on which an OOD set loses the most accuracy."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from contam.auditing.records import Interval, Score, SetScores

LEAST_EXAMPLES = 10
"""Smallest number of OOD examples of a slice, and of ID examples to compare it with."""


class Slice(NamedTuple):
    """Some examples of an OOD set that have one value in common."""

    column: str
    """`class`, or the metadata column."""
    value: str
    on: str
    """Name of the OOD set."""
    id_score: Score
    """Accuracy on the ID examples with the same value, or on all ID examples if none has it."""
    ood_score: Score
    loss: Interval
    """ID accuracy minus OOD accuracy, as a share."""
    carried: float
    """Accuracy on the whole OOD set that these examples cost, as a share."""


def worst_slices(sets: Sequence[SetScores], most: int = 8) -> list[Slice]:
    """Return the slices of OOD sets that lose the most accuracy, the largest loss first.

    Args:
        sets: accuracies on the ID set and on OOD sets.
        most: maximum number of slices.

    Returns:
        Slices with a loss above zero and at least `LEAST_EXAMPLES` examples.

    Source: ours, groups that lose more than the others show where to look.

    >>> def score(correct, count):
    ...     return Score(correct=correct, count=count, accuracy=Interval(value=correct / count))
    >>> own = SetScores(name="meadow", role="id", overall=score(80, 100),
    ...                 by_class={"cow": score(40, 50), "camel": score(40, 50)})
    >>> new = SetScores(name="beach", role="ood", overall=score(50, 100),
    ...                 by_class={"cow": score(10, 50), "camel": score(40, 50)})
    >>> [(one.value, round(one.loss.value, 2)) for one in worst_slices([own, new])]
    [('cow', 0.6)]
    """
    own = next((scores for scores in sets if scores.role == "id"), None)
    if own is None:
        return []
    slices = [
        one
        for scores in sets
        if scores.role == "ood"
        for one in _slices(own, scores)
        if min(one.ood_score.count, one.id_score.count) >= LEAST_EXAMPLES and one.loss.value > 0
    ]
    return sorted(slices, key=lambda one: -one.loss.value)[:most]


def _slices(own: SetScores, scores: SetScores) -> Iterator[Slice]:
    known = {(column, value): score for column, value, score in own.groups()}
    columns = [("class", value, score) for value, score in scores.by_class.items()]
    for column, value, score in (*columns, *scores.groups()):
        if column == "class":
            beside = own.by_class.get(value)
        else:
            beside = known.get((column, value), own.overall)
        if beside is None or score.count == scores.overall.count:
            continue
        loss = difference(beside.accuracy, score.accuracy)
        weight = score.count / scores.overall.count
        yield Slice(column, value, scores.name, beside, score, loss, weight * loss.value)


def difference(one: Interval, other: Interval) -> Interval:
    """Return the difference of two independent shares with its interval.

    Args:
        one: a share with its interval.
        other: the share that is subtracted.

    Source: Newcombe (1998), the interval of a difference from those of both shares.

    >>> difference(Interval(value=0.75, low=0.5, high=1.0), Interval(value=0.5, low=0.5, high=0.5))
    Interval(value=0.25, low=0.0, high=0.5)
    """
    value = one.value - other.value
    ends = one.low, one.high, other.low, other.high
    if any(end is None for end in ends):
        return Interval(value=value)
    low, high, other_low, other_high = (float(end) for end in ends if end is not None)
    below = ((one.value - low) ** 2 + (other_high - other.value) ** 2) ** 0.5
    above = ((high - one.value) ** 2 + (other.value - other_low) ** 2) ** 0.5
    return Interval(value=value, low=value - below, high=value + above)


def carriers(own: SetScores, scores: SetScores) -> tuple[list[str], float]:
    """Return the fewest classes that carry at least half of the loss of an OOD set.

    Args:
        own: accuracy on the ID set.
        scores: accuracy on the OOD set.

    Returns:
        The classes, the largest loss first, and their share of the loss of all classes that lose.

    >>> def score(correct, count):
    ...     return Score(correct=correct, count=count, accuracy=Interval(value=correct / count))
    >>> own = SetScores(name="meadow", role="id", overall=score(80, 100),
    ...                 by_class={"cow": score(40, 50), "camel": score(40, 50)})
    >>> new = SetScores(name="beach", role="ood", overall=score(40, 100),
    ...                 by_class={"cow": score(10, 50), "camel": score(30, 50)})
    >>> names, part = carriers(own, new)
    >>> names, round(part, 2)
    (['cow'], 0.75)
    """
    lost = {
        one.value: one.carried
        for one in _slices(own, scores)
        if one.column == "class" and one.carried > 0
    }
    total, names, part = sum(lost.values()), [], 0.0
    for name in sorted(lost, key=lambda name: -lost[name]):
        if part >= total / 2:
            break
        names.append(name)
        part += lost[name]
    return names, part / total if total else 0.0
