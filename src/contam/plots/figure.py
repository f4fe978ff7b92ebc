"""What an experiment draws: figures made of panels."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from contam.plots.style import HEIGHT, finite

Row = Mapping[str, Any]
Rows: TypeAlias = Sequence[Row] | Any
"""Rows as a list of mappings, or as a `pandas.DataFrame`, which has no type stubs."""


@dataclass(frozen=True)
class Panel:
    """One view: a Vega-Lite specification, or a picture."""

    title: str
    description: str
    """What it shows, in words: for readers who can't see it."""
    chart: Mapping[str, Any] | None = None
    """Vega-Lite, as a dictionary."""
    picture: bytes | None = None
    """WebP."""
    wide: bool = False
    """Whether it wants a line of its own."""
    least_width: int = 0
    """Pixels below which it scrolls sideways rather than shrink."""
    small: bool = False
    """Whether it is one of many; a figure of small panels alone has them closer together."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see."""
        return self.picture is None and not (self.chart or {}).get("data", {}).get("values")


@dataclass(frozen=True)
class Figure:
    """Panels under one title, with the numbers that they show."""

    title: str
    caption: str
    source: str
    """The figure of the paper that this one redraws, or 'ours'."""
    panels: tuple[Panel, ...]
    rows: tuple[Row, ...] = ()
    """The plotted numbers, for the table below the figure."""


def records(rows: Rows) -> Sequence[Row]:
    """The rows of a list or of a pandas table, with None for what is missing.

    >>> import pandas
    >>> records(pandas.DataFrame({"risk": [0.5, float("nan")]}))
    [{'risk': 0.5}, {'risk': None}]
    """
    if isinstance(rows, Sequence):
        return rows
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def over_seeds(rows: Rows, keys: Sequence[str], value: str) -> list[dict[str, Any]]:
    """The mean of `value` over the rows that agree in `keys`, with its range.

    Rows without a finite value are left out.

    Returns:
        For each group, in the order of the rows, a row with the `keys`, `value` (the mean), `low`
        and `high` (the range), and `seeds` (how many values there are).

    >>> over_seeds([{"net": "a", "risk": 1.0}, {"net": "a", "risk": 3.0}], ["net"], "risk")
    [{'net': 'a', 'risk': 2.0, 'low': 1.0, 'high': 3.0, 'seeds': 2}]
    """
    groups: dict[tuple, list[float]] = {}
    for row in records(rows):
        found = finite(row.get(value))
        if found is not None:
            groups.setdefault(tuple(row[key] for key in keys), []).append(found)
    return [
        dict(zip(keys, group, strict=True))
        | {value: statistics.fmean(values), "low": min(values), "high": max(values)}
        | {"seeds": len(values)}
        for group, values in groups.items()
    ]


def panel(
    chart: Any,
    title: str,
    description: str,
    *,
    wide: bool,
    height: int = HEIGHT,
    least_width: int = 0,
    small: bool = False,
) -> Panel:
    """The panel that holds an Altair chart, as wide as its place."""
    spec = chart.properties(width="container", height=height).to_dict(validate=False)
    spec.pop("config", None)
    spec["description"] = description
    return Panel(title, description, chart=spec, wide=wide, least_width=least_width, small=small)
