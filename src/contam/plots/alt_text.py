"""Descriptions of charts in words, generated from the numbers that they show.

A screen reader reads them, and a page shows them where charts can't be drawn.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Point = Mapping[str, Any]

FEW = 12
"""Values that a description lists one by one; of more it gives the first and the last."""


def described(kind: str, title: str, facts: Iterable[str], *, axes: Iterable[str] = ()) -> str:
    """A description: what kind of chart, of what, over which axes, and its numbers.

    >>> described("Bar chart", "Accuracy", ["a: 0.5"], axes=["share"])
    'Bar chart, Accuracy (share). a: 0.5.'
    """
    named = [" ".join(axis.split()) for axis in axes if axis.strip()]
    head = f"{kind}, {' '.join(title.split())}" + (f" ({'; '.join(named)})" if named else "")
    return " ".join(f"{text}." for text in (head, *facts))


def curves(points: Sequence[Point]) -> list[str]:
    """The first and the last value of each series: points have `series`, `x` and `y`.

    >>> curves([{"series": "ID", "x": step, "y": 1 / step} for step in (1, 2, 4)])
    ['ID: 1 at 1, 0.25 at 4']
    """
    facts = []
    for name, some in _by_series(points).items():
        ends = [some[0], some[-1]] if len(some) > 1 else some
        facts.append(f"{name}: " + ", ".join(f"{_short(p['y'])} at {_short(p['x'])}" for p in ends))
    return facts


def groups(points: Sequence[Point]) -> list[str]:
    """The bars of each series: points have `group`, `y`, and `series` if there are several.

    >>> groups([{"group": "red", "y": 0.9}, {"group": "cyan", "y": 0.25}])
    ['red 0.9, cyan 0.25']
    """
    facts = []
    for name, some in _by_series(points).items():
        shown = some if len(points) <= FEW or len(some) < 3 else [some[0], some[-1]]
        text = ", ".join(f"{' '.join(p['group'].split())} {_short(p['y'])}" for p in shown)
        facts.append(f"{name}: {text}" if name else text)
    return facts


def clouds(points: Sequence[Point]) -> list[str]:
    """How many marks each series has and where their center is: `series`, `x` and `y`.

    >>> clouds([{"series": "a", "x": 0, "y": 1}, {"series": "a", "x": 2, "y": 1}])
    ['a: 2 marks around 1, 1']
    """
    facts = []
    for name, some in _by_series(points).items():
        right, up = (sum(point[axis] for point in some) / len(some) for axis in ("x", "y"))
        marks = "1 mark at" if len(some) == 1 else f"{len(some)} marks around"
        facts.append(f"{name}: {marks} {_short(right)}, {_short(up)}")
    return facts


def cells(points: Sequence[Point]) -> list[str]:
    """The lowest and the highest cell of a table: points have `row`, `column` and `value`.

    >>> cells([{"row": "a", "column": c, "value": v} for c, v in (("ID", 0.9), ("OOD", 0.2))])
    ['1 row, 2 columns', 'lowest 0.2 (a, OOD)', 'highest 0.9 (a, ID)']
    """
    rows, columns = (len({point[key] for point in points}) for key in ("row", "column"))
    facts = [f"{rows} row{'s' * (rows != 1)}, {columns} column{'s' * (columns != 1)}"]
    known = [point for point in points if point["value"] is not None]
    for word, pick in (("lowest", min), ("highest", max)):
        if known:
            end = pick(known, key=lambda point: point["value"])
            facts.append(f"{word} {_short(end['value'])} ({end['row']}, {end['column']})")
    return facts


def samples(values: Mapping[str, np.ndarray]) -> list[str]:
    """The mean and the range of each sample; NaN counts nowhere.

    >>> samples({"ReLU": np.array([0.0, 0.5, 1.0, np.nan])})
    ['ReLU: mean 0.5, 0 to 1']
    """
    facts = []
    for name, sample in values.items():
        known = sample[~np.isnan(sample)]
        if known.size:
            ends = f"{_short(known.min())} to {_short(known.max())}"
            facts.append(f"{name}: mean {_short(known.mean())}, {ends}")
    return facts


def _by_series(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points that have a value, by their series."""
    found: dict[str, list[Point]] = {}
    for point in points:
        if point.get("y") is not None:
            found.setdefault(point.get("series", ""), []).append(point)
    return found


def _short(value: float) -> str:
    """A number in three digits."""
    return f"{value:.3g}" if math.isfinite(value) else str(value)
