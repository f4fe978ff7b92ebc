"""One style for every figure: rows of numbers in, charts out.

A `Panel` is one Vega-Lite view as wide as the place it is put in; a `Figure` is one or more panels
under one title. Colors come from the page's theme by position (light and dark differ), so a chart
names series and never a color; line dashes repeat what color says.
"""

import math
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
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
"""Pixels of a panel's plot, without its titles."""
NARROW = 42
"""Characters that fit side by side in the narrowest panel, on a phone."""
PLACES = 200
"""Places along the x axis at which a curve is drawn; a panel has few more pixels."""

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
        found = _finite(row.get(value))
        if found is not None:
            groups.setdefault(tuple(row[key] for key in keys), []).append(found)
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
    "y", "xy"). Rows keep their order within a series. A curve breaks where its value is missing,
    not finite, or not positive on a logarithmic axis; a long one keeps the lowest and the highest
    value at each of `PLACES` places.
    """
    curves = _curves(rows, x[0], y[0], series[0], log)
    data = [point for curve in curves.values() for point in curve]
    for curve in curves.values():
        for point in curve if points else curve[:: math.ceil(len(curve) / 40)]:
            point["tip"] = True
    names = list(curves)
    legend = _legend(series[1], names, symbolType="stroke", symbolSize=500, symbolStrokeWidth=2.2)
    color = alt.Color("series:N", scale=alt.Scale(domain=names), legend=legend)
    # A second round through the palette meets other dashes than the first.
    turns = [DASHES[(i + i // len(DASHES)) % len(DASHES)] for i in range(len(names))]
    dash = alt.StrokeDash("series:N", scale=alt.Scale(domain=names, range=turns), legend=legend)
    across = alt.X("x:Q", title=_wrap(x[1]), axis=_ticks(), scale=_scale("x" in log, zero=False))
    up: dict[str, Any] = {"title": _wrap(y[1]), "axis": _ticks(), "scale": _scale("y" in log)}
    base = alt.Chart(alt.Data(values=data)).encode(x=across, color=color)
    curve = base.mark_line(strokeWidth=2.2).encode(y=alt.Y("y:Q", **up), strokeDash=dash)
    # Dots carry the tooltips; unless they are wanted, or a curve is one dot, nobody sees them.
    seen = points or any(len(curve) == 1 for curve in curves.values())
    dots = (
        base.mark_point(filled=True, size=45 if seen else 150, opacity=1 if seen else 0)
        .transform_filter("datum.tip")
        .encode(
            y=alt.Y("y:Q", **up),
            tooltip=[
                alt.Tooltip("series:N", title=series[1] or "series"),
                alt.Tooltip("x:Q", title=x[1], format=".4~g"),
                alt.Tooltip("y:Q", title=y[1], format=".4~g"),
            ],
        )
    )
    layers = [curve, dots]
    if any("low" in point for point in data):
        band = base.mark_area(opacity=0.16, tooltip=None)
        layers.insert(0, band.encode(y=alt.Y("low:Q", **up), y2="high:Q"))
    return _panel(alt.layer(*layers), title, description, wide=wide)


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

    Rows with `low` and `high` get whiskers. Bars whose labels don't fit side by side lie down.
    """
    groups = list(dict.fromkeys(str(row[x[0]]) for row in rows))
    names = list(dict.fromkeys(str(row[series[0]]) for row in rows)) if series else []
    room = max(NARROW // max(len(groups), 1) - 1, 4)
    lying = any(max(map(len, _lines(group, room))) > room for group in groups)
    label = {group: "\n".join(_lines(group, 24 if lying else room)) for group in groups}
    data = []
    for row in rows:
        bar = {"group": label[str(row[x[0]])], "y": _finite(row[y[0]])}
        bar |= {end: _finite(row[end]) for end in ("low", "high") if end in row}
        data.append(bar | ({"series": str(row[series[0]])} if series else {}))
    data = [bar for bar in data if bar["y"] is not None]

    place, shift, size, end = (
        (alt.Y, alt.YOffset, alt.X, "x2") if lying else (alt.X, alt.XOffset, alt.Y, "y2")
    )
    axis = alt.Axis(labelAngle=0, labelExpr="split(datum.label, '\\n')", ticks=False, grid=False)
    encoding: list[Any] = [
        place("group:N", title=x[1] or None, sort=list(label.values()), axis=axis,
              scale=alt.Scale(domain=list(label.values()), paddingInner=0.25, paddingOuter=0.15))
    ]  # fmt: skip
    tips = [
        alt.Tooltip("group:N", title=x[1] or "group"),
        alt.Tooltip("y:Q", title=y[1], format=".4~g"),
    ]
    paint: list[Any] = []
    if series is not None:
        encoding.append(shift("series:N", scale=alt.Scale(domain=names)))
        paint.append(
            alt.Color("series:N", scale=alt.Scale(domain=names), legend=_legend(series[1], names))
        )
        tips.insert(0, alt.Tooltip("series:N", title=series[1] or "series"))
    value = {"title": _wrap(y[1]), "axis": _ticks()}
    base = alt.Chart(alt.Data(values=data)).encode(*encoding)
    layers = [base.mark_bar().encode(size("y:Q", **value), *paint, tooltip=tips)]
    if any("low" in bar for bar in data):
        whisker = base.mark_rule(strokeWidth=1.5)
        layers.append(whisker.encode(size("low:Q", **value), **{end: "high:Q"}))
    height = (18 * max(len(names), 1) + 14) * len(groups) if lying else HEIGHT
    return _panel(alt.layer(*layers), title, description, wide=wide, height=height)


def histogram(
    samples: Mapping[str, np.ndarray],
    *,
    title: str,
    description: str,
    x: str,
    edges: np.ndarray,
    series: str = "",
    y: str = "share of neurons",
    wide: bool = False,
) -> tuple[Panel, list[dict[str, Any]]]:
    """Shares of each sample between `edges`, laid over one another; and the rows drawn.

    What lies beyond the edges counts in the outermost bins.
    """
    rows: list[dict[str, Any]] = []
    for name, values in samples.items():
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        shares = counts / max(len(values), 1)
        rows += [
            {"series": name, "from": float(start), "to": float(end), "share": float(share)}
            for start, end, share in zip(edges[:-1], edges[1:], shares, strict=True)
        ]
    # A step holds from its place to the next one, so the last bin is said again at its end.
    steps = []
    for name, bins in groupby(rows, key=lambda row: row["series"]):
        steps += [{"series": name, "x": row["from"], "y": row["share"]} for row in (*bins,)]
        steps.append({"series": name, "x": float(edges[-1]), "y": steps[-1]["y"]})
    names = list(samples)
    legend = _legend(series, names, symbolType="stroke", symbolSize=500, symbolStrokeWidth=2)
    scale = alt.Scale(domain=names)
    percent = alt.Axis(format="~%", tickCount=5)
    base = alt.Chart(alt.Data(values=steps)).encode(
        x=alt.X("x:Q", title=_wrap(x), axis=_ticks(), scale=alt.Scale(zero=False, nice=False)),
        y=alt.Y("y:Q", title=_wrap(y), stack=None, axis=percent),
        color=alt.Color("series:N", scale=scale, legend=legend),
    )
    dash = alt.StrokeDash(
        "series:N", scale=alt.Scale(domain=names, range=list(DASHES[: len(names)])), legend=legend
    )
    layers = (
        base.mark_area(interpolate="step-after", opacity=0.16, tooltip=None),
        base.mark_line(interpolate="step-after", strokeWidth=1.8).encode(strokeDash=dash),
    )
    return _panel(alt.layer(*layers), title, description, wide=wide), rows


def scatter(
    rows: Sequence[Row],
    *,
    title: str,
    description: str,
    x: tuple[str, str],
    y: tuple[str, str],
    series: tuple[str, str],
    wide: bool = False,
) -> Panel:
    """One mark for each row; its shape repeats what its color says."""
    data = [
        {"series": str(row[series[0]]), "x": _finite(row[x[0]]), "y": _finite(row[y[0]])}
        for row in rows
    ]
    names = list(dict.fromkeys(point["series"] for point in data))
    legend = _legend(series[1], names)
    scale = alt.Scale(domain=names)
    chart = (
        alt.Chart(alt.Data(values=data))
        .mark_point(opacity=0.75, size=28, strokeWidth=1.4)
        .encode(
            x=alt.X("x:Q", title=_wrap(x[1]), axis=_ticks()),
            y=alt.Y("y:Q", title=_wrap(y[1]), axis=_ticks()),
            color=alt.Color("series:N", scale=scale, legend=legend),
            shape=alt.Shape("series:N", scale=scale, legend=legend),
            tooltip=[
                alt.Tooltip("series:N", title=series[1] or "series"),
                alt.Tooltip("x:Q", title=x[1], format=".3~g"),
                alt.Tooltip("y:Q", title=y[1], format=".3~g"),
            ],
        )
    )
    return _panel(chart, title, description, wide=wide)


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
    columns = list(dict.fromkeys(str(row[x[0]]) for row in rows))
    label = {column: "\n".join(_lines(column, 9)) for column in columns}
    names = list(dict.fromkeys(str(row[y[0]]) for row in rows))
    data = []
    for row in rows:
        found = _finite(row[value[0]])
        text = "–" if found is None else f"{found:.2f}"
        data.append({"x": label[str(row[x[0]])], "y": str(row[y[0]]), "value": found, "text": text})
    top = alt.Axis(
        labelAngle=0, orient="top", labelExpr="split(datum.label, '\\n')", labelLineHeight=13,
        ticks=False, grid=False, domain=False,
    )  # fmt: skip
    side = alt.Axis(labelLimit=150, ticks=False, grid=False, domain=False)
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("x:N", title=x[1] or None, sort=list(label.values()), axis=top),
        y=alt.Y("y:N", title=y[1] or None, sort=names, axis=side),
    )
    scale = alt.Scale(scheme="cividis", domain=[0, 1])
    cells = base.mark_rect().encode(
        color=alt.Color("value:Q", legend=None, scale=scale),
        tooltip=[
            alt.Tooltip("y:N", title=y[1] or "row"),
            alt.Tooltip("x:N", title=x[1] or "column"),
            alt.Tooltip("value:Q", title=value[1], format=".3f"),
        ],
    )
    # Cividis is light from the middle up, in both themes, so the ink depends on the cell alone.
    ink = alt.ColorValue(
        "#fff",
        condition=[
            {"test": "!isValid(datum.value)", "value": "#808080"},
            {"test": "datum.value > 0.48", "value": "#111"},
        ],
    )
    numbers = base.mark_text(fontSize=12).encode(text="text:N", color=ink)
    return _panel(
        alt.layer(cells, numbers),
        title,
        description,
        wide=wide,
        height=32 * len(names),
        least_width=46 * len(columns) + 7 * min(max(map(len, names), default=0), 22) + 20,
    )


def contact_sheet(
    pictures: Sequence[Sequence[np.ndarray]], *, title: str, description: str, scale: int = 3
) -> Panel:
    """Rows of pictures, each (height, width, 3) with values in [0, 1], as one WebP image.

    Raises:
        ValueError: there are none, or they differ in size.
    """
    sizes = {np.shape(picture) for row in pictures for picture in row}
    if len(sizes) != 1:
        raise ValueError(
            f"a contact sheet needs pictures of one size, not {sorted(sizes) or 'none at all'}"
        )
    height, width = (scale * side for side in next(iter(sizes))[:2])
    gap = 4
    across = max(len(row) for row in pictures)
    shape = (len(pictures) * (height + gap) - gap, across * (width + gap) - gap, 4)
    sheet = np.zeros(shape, np.uint8)
    for i, row in enumerate(pictures):
        for j, picture in enumerate(row):
            tile = np.asarray(picture).clip(0, 1).repeat(scale, 0).repeat(scale, 1)
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width, :3] = np.rint(255 * tile)
            sheet[top : top + height, left : left + width, 3] = 255
    file = BytesIO()
    Image.fromarray(sheet, "RGBA").save(file, "WEBP", lossless=True)
    return Panel(title, description, picture=file.getvalue(), wide=True)


def _curves(
    rows: Iterable[Row], x: str, y: str, series: str, log: str
) -> dict[str, list[dict[str, Any]]]:
    """The points of each series in the order given, under the names that the charts use."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        curve = curves.setdefault(str(row[series]), [])
        point: dict[str, Any] = {
            "series": str(row[series]),
            "x": _drawn(row[x], "x" in log),
            "y": _drawn(row[y], "y" in log),
        }
        if "low" in row and "high" in row:
            point |= {"low": _finite(row["low"]), "high": _drawn(row["high"], "y" in log)}
        if point["x"] is not None:
            curve.append(point)
    ends = [
        p[end] for curve in curves.values() for p in curve for end in ("y", "low") if p.get(end)
    ]
    if not any(point["y"] is not None for curve in curves.values() for point in curve):
        return {}
    if "y" in log:
        # A band that reaches zero goes down to the lowest value that can be drawn.
        floor = min(end for end in ends if end > 0)
        for curve in curves.values():
            for point in curve:
                if point.get("low") is not None:
                    point["low"] = max(point["low"], floor)
    return {name: _thinned(curve, "x" in log) for name, curve in curves.items()}


def _thinned(curve: list[dict[str, Any]], log: bool) -> list[dict[str, Any]]:
    """The curve as a few hundred pixels can show it: at each place its lowest and highest point."""
    if len(curve) <= 2 * PLACES:
        return curve
    at = [math.log(point["x"]) if log else point["x"] for point in curve]
    step = (max(at) - min(at)) / PLACES or 1.0
    kept: list[int] = [0, len(curve) - 1]
    for _, many in groupby(range(len(curve)), key=lambda i: int((at[i] - min(at)) / step)):
        here = list(many)
        seen = [i for i in here if curve[i]["y"] is not None]
        kept += (
            [min(seen, key=lambda i: curve[i]["y"]), max(seen, key=lambda i: curve[i]["y"])]
            if seen
            else here[:1]
        )
    return [curve[i] for i in sorted(set(kept))]


def _finite(value: Any) -> float | None:
    """The value to six digits, which no screen can tell from the whole; None when there is none."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def _drawn(value: Any, log: bool) -> float | None:
    found = _finite(value)
    return None if found is None or (log and found <= 0) else found


def _lines(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False) or [""]


def _wrap(title: str) -> Any:
    """An axis title in as many lines as a phone needs."""
    return _lines(title, NARROW) if title else None


def _scale(log: bool, *, zero: bool = True) -> Any:
    return alt.Scale(type="log") if log else alt.Scale(zero=zero)


def _ticks() -> Any:
    """Numbers at the ticks, very small and very large ones with an exponent."""
    return alt.Axis(
        tickCount=6,
        labelExpr="datum.value && (abs(datum.value) < 0.001 || abs(datum.value) >= 100000)"
        " ? format(datum.value, '~e') : format(datum.value, ',~g')",
    )


def _legend(title: str, names: Sequence[str], **look: Any) -> Any:
    """A legend above the plot with as many columns as a phone has room for; one name needs none."""
    if len(names) < 2:
        return None
    longest = max(map(len, names))
    columns = max(1, min(len(names), NARROW // (longest + 5)))
    return alt.Legend(title=title or None, orient="top", columns=columns, labelLimit=280, **look)


def _panel(
    chart: Any,
    title: str,
    description: str,
    *,
    wide: bool,
    height: int = HEIGHT,
    least_width: int = 0,
) -> Panel:
    spec = chart.properties(width="container", height=height).to_dict(validate=False)
    spec.pop("config", None)
    return Panel(
        title,
        description,
        chart=spec | {"description": description},
        wide=wide,
        least_width=least_width,
    )
