"""Figures, made of panels, and the rows of numbers that they show."""

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
    """Alternative text for screen readers."""
    chart: Mapping[str, Any] | None = None
    """Vega-Lite specification as a dictionary."""
    picture: bytes | None = None
    """WebP image."""
    wide: bool = False
    """Whether the panel takes a whole line of the page."""
    least_width: int = 0
    """Width in pixels below which the panel scrolls sideways instead of shrinking."""
    small: bool = False
    """Whether it is one of many; a figure of small panels alone has them closer together."""

    @property
    def empty(self) -> bool:
        """Whether the panel has neither a picture nor data."""
        return self.picture is None and not (self.chart or {}).get("data", {}).get("values")


@dataclass(frozen=True)
class Figure:
    """Panels under one title, with the numbers that they show."""

    title: str
    caption: str
    source: str
    """Figure of the paper that this one reproduces, or 'ours'."""
    panels: tuple[Panel, ...]
    rows: tuple[Row, ...] = ()
    """Plotted numbers, for the table below the figure."""
    notes: tuple[str, ...] = ()
    """Sentences that a page shows once, below the caption of the first figure that has them."""


def records(rows: Rows) -> Sequence[Row]:
    """Return the rows of a list or of a pandas table, with None for missing values.

    >>> import pandas
    >>> records(pandas.DataFrame({"risk": [0.5, float("nan")]}))
    [{'risk': 0.5}, {'risk': None}]
    """
    if isinstance(rows, Sequence):
        return rows
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def over_seeds(rows: Rows, keys: Sequence[str], value: str) -> list[dict[str, Any]]:
    """Average a field over the rows that agree in all keys, and give its range.

    Args:
        rows: Rows of several seeds. Those without a finite value are left out.
        keys: Fields that identify a group.
        value: Field to average.

    Returns:
        A row for each group, in order of first appearance, with the `keys`, `value` (the mean),
        `low` and `high` (minimum and maximum), and `seeds` (the number of values).

    >>> over_seeds([{"net": "a", "risk": 1.0}, {"net": "a", "risk": 3.0}], ["net"], "risk")
    [{'net': 'a', 'risk': 2.0, 'low': 1.0, 'high': 3.0, 'seeds': 2}]
    """
    groups: dict[tuple, list[float]] = {}
    for row in records(rows):
        number = finite(row.get(value))
        if number is not None:
            groups.setdefault(tuple(row[key] for key in keys), []).append(number)
    return [
        dict(zip(keys, group, strict=True))
        | {value: statistics.fmean(values), "low": min(values), "high": max(values)}
        | {"seeds": len(values)}
        for group, values in groups.items()
    ]


def panel(
    chart: Any,
    data: Sequence[Row],
    title: str,
    description: str,
    *,
    wide: bool,
    height: int = HEIGHT,
    least_width: int = 0,
    small: bool = False,
) -> Panel:
    """Make a panel of an Altair chart that is as wide as its container.

    Args:
        chart: Altair chart of `contam.plots.style.ROWS`.
        data: Rows that its marks show.
        title: Title of the panel.
        description: Alternative text.
        wide: See `Panel`.
        height: Height of the plot in pixels.
        least_width: See `Panel`.
        small: See `Panel`.

    >>> import altair
    >>> from contam.plots.style import ROWS
    >>> bar = altair.Chart(ROWS).mark_bar().encode(y="y:Q")
    >>> panel(bar, [{"y": 1}], "One bar", "A bar of height 1.", wide=False).chart["width"]
    'container'
    """
    spec = chart.properties(width="container", height=height).to_dict(validate=False)
    spec.pop("config", None)
    spec |= {"data": {"values": data}, "description": description}
    return Panel(title, description, chart=spec, wide=wide, least_width=least_width, small=small)
