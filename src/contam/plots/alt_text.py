"""Alternative text of charts, generated from the numbers that they show.

Screen readers read it, and a page shows it where charts can't be drawn.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

ChartPoint = Mapping[str, Any]

FEW = 12
"""Number of values up to which a description lists all of them; otherwise the first and last."""


def describe(kind: str, title: str, facts: Iterable[str], *, axes: Iterable[str] = ()) -> str:
    """Describe a chart in one line.

    Args:
        kind: Kind of chart, such as "Bar chart".
        title: Title of the chart.
        facts: Statements about its numbers, without a full stop.
        axes: Axis titles; empty ones are left out.

    >>> describe("Bar chart", "Accuracy", ["a: 0.5"], axes=["share"])
    'Bar chart, Accuracy (share). a: 0.5.'
    """
    named = [" ".join(axis.split()) for axis in axes if axis.strip()]
    head = f"{kind}, {' '.join(title.split())}" + (f" ({'; '.join(named)})" if named else "")
    return " ".join(f"{text}." for text in (head, *facts))


def curves(points: Sequence[ChartPoint]) -> list[str]:
    """State the first and the last value of each series.

    Args:
        points: Points with `series`, `x` and `y`.

    >>> curves([{"series": "ID", "x": step, "y": 1 / step} for step in (1, 2, 4)])
    ['ID: 1 at 1, 0.25 at 4']
    """
    facts = []
    for name, series in _by_series(points).items():
        ends = [series[0], series[-1]] if len(series) > 1 else series
        facts.append(f"{name}: " + ", ".join(f"{_short(p['y'])} at {_short(p['x'])}" for p in ends))
    return facts


def groups(points: Sequence[ChartPoint]) -> list[str]:
    """State the height of the bars of each series.

    Args:
        points: Bars with `group`, `y`, and `series` if there are several.

    >>> groups([{"group": "red", "y": 0.9}, {"group": "cyan", "y": 0.25}])
    ['red 0.9, cyan 0.25']
    """
    facts = []
    for name, series in _by_series(points).items():
        few = len(points) <= FEW or len(series) < 3
        listed = series if few else [series[0], series[-1]]
        text = ", ".join(f"{' '.join(p['group'].split())} {_short(p['y'])}" for p in listed)
        facts.append(f"{name}: {text}" if name else text)
    return facts


def clouds(points: Sequence[ChartPoint]) -> list[str]:
    """State the number of marks of each series and their center.

    Args:
        points: Marks with `series`, `x` and `y`.

    >>> clouds([{"series": "a", "x": 0, "y": 1}, {"series": "a", "x": 2, "y": 1}])
    ['a: 2 marks around 1, 1']
    """
    facts = []
    for name, series in _by_series(points).items():
        x, y = (sum(point[axis] for point in series) / len(series) for axis in ("x", "y"))
        marks = "1 mark at" if len(series) == 1 else f"{len(series)} marks around"
        facts.append(f"{name}: {marks} {_short(x)}, {_short(y)}")
    return facts


def cells(points: Sequence[ChartPoint]) -> list[str]:
    """State the size of a table, and its lowest and highest cell.

    Args:
        points: Cells with `row`, `column` and `value`.

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
    """State the mean and the range of each sample, without NaN.

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


def _by_series(points: Sequence[ChartPoint]) -> dict[str, list[ChartPoint]]:
    """Group the points that have a value by series."""
    series: dict[str, list[ChartPoint]] = {}
    for point in points:
        if point.get("y") is not None:
            series.setdefault(point.get("series", ""), []).append(point)
    return series


def _short(value: float) -> str:
    """Format a number with three significant digits."""
    return f"{value:.3g}" if math.isfinite(value) else str(value)
