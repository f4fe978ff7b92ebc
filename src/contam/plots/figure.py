"""What an experiment draws: figures made of panels."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contam.plots.style import HEIGHT, finite

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Panel:
    """One view: a Vega-Lite specification, or a picture."""

    title: str
    description: str
    """What a reader who can't see it should know."""
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


def over_seeds(rows: Sequence[Row], keys: Sequence[str], value: str) -> list[dict[str, Any]]:
    """Mean of `value` over the rows that agree in `keys`, with the lowest and highest of them.

    Rows without a finite value are left out.
    """
    groups: dict[tuple, list[float]] = {}
    for row in rows:
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
