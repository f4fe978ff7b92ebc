"""One style for every figure: rows of numbers in, charts out.

A `Panel` is one Vega-Lite view as wide as the place it is put in; a `Figure` is one or more panels
under one title. Colors come from the page's theme by position (light and dark differ), so a chart
names series and never a color; line dashes repeat what color says.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import altair as alt
import numpy as np
from PIL import Image

PALETTE = {
    "light": ("#0072B2", "#C44E00", "#007A5A", "#A8487F", "#8A6D00", "#56747F", "#333333"),
    "dark": ("#62B5EC", "#F0A04B", "#3FCBA0", "#E69AC4", "#E5CF4F", "#A9BFC9", "#DDDDDD"),
}
"""Okabe and Ito's hues, darkened or lightened until each stands 4.5:1 against its background."""

DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [12, 4], [4, 1], [1, 3])
HEIGHT = 240

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
    """Mean of `value` over the rows that agree in `keys`, with the lowest and highest of them."""
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        if row.get(value) is not None:
            groups.setdefault(tuple(row[key] for key in keys), []).append(float(row[value]))
    return [
        dict(zip(keys, group, strict=True))
        | {value: statistics.fmean(values), "low": min(values), "high": max(values)}
        | {"seeds": len(values)}
        for group, values in groups.items()
    ]


def lines(
    rows: Sequence[Row],
    *,
    title: str,
    description: str,
    x: tuple[str, str],
    y: tuple[str, str],
    series: tuple[str, str],
    log: str = "",
    points: bool = False,
    wide: bool = False,
) -> Panel:
    """Curves with bands: `x`, `y` and `series` are (field, axis title).

    Rows that have `low` and `high` get a band between them. `log` names logarithmic axes ("x",
    "y", "xy"). Rows keep their order within a series.
    """
    field, name = series
    order = list(dict.fromkeys(row[field] for row in rows))
    legend = _legend(name)
    axes = {
        "x": _axis(alt.X, x, "x" in log),
        "color": alt.Color(f"{field}:N", sort=order, legend=legend),
    }
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows]))
    dash = alt.StrokeDash(
        f"{field}:N", sort=order, legend=legend, scale=alt.Scale(range=list(DASHES), domain=order)
    )
    tips = [
        alt.Tooltip(f"{field}:N", title=name or "series"),
        alt.Tooltip(f"{x[0]}:Q", title=x[1], format=".4~g"),
        alt.Tooltip(f"{y[0]}:Q", title=y[1], format=".4~g"),
    ]
    layers = []
    if any("low" in row for row in rows):
        band = base.mark_area(opacity=0.18).encode(
            **axes, y=_axis(alt.Y, ("low", y[1]), "y" in log), y2="high:Q"
        )
        layers.append(band)
    mark = base.mark_line(point=alt.OverlayMarkDef(size=45) if points else False, strokeWidth=2.2)
    layers.append(mark.encode(**axes, y=_axis(alt.Y, y, "y" in log), strokeDash=dash, tooltip=tips))
    return _panel(alt.layer(*layers), title, description, wide)


def bars(
    rows: Sequence[Row],
    *,
    title: str,
    description: str,
    x: tuple[str, str],
    y: tuple[str, str],
    series: tuple[str, str] | None = None,
    wide: bool = False,
) -> Panel:
    """Bars, side by side within a group when there are series.

    Rows with `low` and `high` get whiskers.
    """
    groups = list(dict.fromkeys(row[x[0]] for row in rows))
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows]))
    encoding: dict[str, Any] = {
        "x": alt.X(
            f"{x[0]}:N",
            title=x[1] or None,
            sort=groups,
            axis=alt.Axis(labelAngle=0, labelLimit=120),
        )
    }
    color: dict[str, Any] = {}
    if series is not None:
        order = list(dict.fromkeys(row[series[0]] for row in rows))
        encoding["xOffset"] = alt.XOffset(f"{series[0]}:N", sort=order)
        color["color"] = alt.Color(f"{series[0]}:N", sort=order, legend=_legend(series[1]))
    tips = [
        alt.Tooltip(f"{x[0]}:N", title=x[1] or "group"),
        alt.Tooltip(f"{y[0]}:Q", title=y[1], format=".4~g"),
    ]
    layers = [
        base.mark_bar().encode(**encoding, **color, y=_axis(alt.Y, y, log=False), tooltip=tips)
    ]
    if any("low" in row for row in rows):
        layers.append(
            base.mark_rule(strokeWidth=1.6).encode(**encoding, y=alt.Y("low:Q"), y2="high:Q")
        )
    return _panel(alt.layer(*layers), title, description, wide)


def histogram(
    samples: Mapping[str, np.ndarray],
    *,
    title: str,
    description: str,
    x: str,
    edges: np.ndarray,
    series: str = "",
    wide: bool = False,
) -> tuple[Panel, list[dict[str, Any]]]:
    """Shares of each sample between `edges`, laid over one another; and the rows drawn."""
    rows = []
    for name, values in samples.items():
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        shares = counts / max(len(values), 1)
        rows += [
            {"series": name, "from": float(start), "to": float(end), "share": float(share)}
            for start, end, share in zip(edges[:-1], edges[1:], shares, strict=True)
        ]
    order = list(samples)
    legend = _legend(series)
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(opacity=0.55, binSpacing=0)
        .encode(
            x=alt.X("from:Q", bin="binned", title=x, axis=alt.Axis(tickCount=6)),
            x2="to:Q",
            y=alt.Y("share:Q", title="share of neurons", stack=None, axis=alt.Axis(format="%")),
            color=alt.Color("series:N", sort=order, legend=legend),
            tooltip=[
                alt.Tooltip("series:N", title=series or "series"),
                alt.Tooltip("from:Q", format=".3~g"),
                alt.Tooltip("share:Q", format=".1%"),
            ],
        )
    )
    return _panel(chart, title, description, wide), rows


def matrix(
    rows: Sequence[Row],
    *,
    title: str,
    description: str,
    x: tuple[str, str],
    y: tuple[str, str],
    value: tuple[str, str],
    wide: bool = True,
) -> Panel:
    """A table as colored cells with the number in each; values lie in [0, 1]."""
    data = alt.Data(values=[dict(row) for row in rows])
    columns = list(dict.fromkeys(row[x[0]] for row in rows))
    lines_ = list(dict.fromkeys(row[y[0]] for row in rows))
    base = alt.Chart(data).encode(
        x=alt.X(f"{x[0]}:N", title=x[1], sort=columns, axis=alt.Axis(labelAngle=0, orient="top")),
        y=alt.Y(f"{y[0]}:N", title=y[1], sort=lines_, axis=alt.Axis(labelLimit=160)),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            f"{value[0]}:Q", legend=None, scale=alt.Scale(scheme="cividis", domain=[0, 1])
        ),
        tooltip=[
            f"{y[0]}:N",
            f"{x[0]}:N",
            alt.Tooltip(f"{value[0]}:Q", title=value[1], format=".3f"),
        ],
    )
    # Cividis is light from the middle up, in both themes, so the ink depends on the cell alone.
    ink = alt.condition(f"datum['{value[0]}'] > 0.5", alt.value("#111"), alt.value("#fff"))
    numbers = base.mark_text(fontSize=12).encode(
        text=alt.Text(f"{value[0]}:Q", format=".2f"), color=ink
    )
    return _panel(alt.layer(cells, numbers), title, description, wide, height=34 * len(lines_) + 10)


def contact_sheet(
    pictures: Sequence[Sequence[np.ndarray]], *, title: str, description: str, scale: int = 3
) -> Panel:
    """Rows of pictures, each (height, width, 3) with values in [0, 1], as one WebP image."""
    gap = 4
    tiles = [
        [np.asarray(p).clip(0, 1).repeat(scale, 0).repeat(scale, 1) for p in row]
        for row in pictures
    ]
    height, width = tiles[0][0].shape[:2]
    across = max(len(row) for row in tiles)
    sheet = np.zeros((len(tiles) * (height + gap) - gap, across * (width + gap) - gap, 4), np.uint8)
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width, :3] = np.rint(255 * tile)
            sheet[top : top + height, left : left + width, 3] = 255
    file = BytesIO()
    Image.fromarray(sheet, "RGBA").save(file, "WEBP", lossless=True)
    return Panel(title, description, picture=file.getvalue(), wide=True)


def _axis(kind: Any, field: tuple[str, str], log: bool) -> Any:
    look: Any = {"format": "~g"} if log else {"format": "~g", "tickCount": 6}
    scale: Any = alt.Scale(type="log") if log else alt.Undefined
    return kind(f"{field[0]}:Q", title=field[1], scale=scale, axis=alt.Axis(**look))


def _legend(title: str) -> Any:
    return alt.Legend(title=title or None, orient="top", columns=3, labelLimit=260)


def _panel(chart: Any, title: str, description: str, wide: bool, height: int = HEIGHT) -> Panel:
    spec = chart.properties(width="container", height=height).to_dict(validate=False)
    spec.pop("config", None)
    return Panel(title, description, chart=spec | {"description": description}, wide=wide)
