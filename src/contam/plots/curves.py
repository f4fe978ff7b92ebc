"""Line charts and histograms."""

import math
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import altair as alt
import numpy as np

from contam.plots import alt_text
from contam.plots.alt_text import describe
from contam.plots.figure import Panel, Row, Rows, panel, records
from contam.plots.style import (
    HEIGHT,
    NUMBER_LABEL,
    ROWS,
    SMALL,
    axis,
    dashes,
    finite,
    legend_above,
    plottable,
    tooltip,
)

PLACES = 200
"""Number of bins along the x axis in which a long curve is thinned; about one per two pixels."""


def lines(
    rows: Rows,
    *,
    title: str,
    x: tuple[str, str],
    y: tuple[str, str],
    series: tuple[str, str],
    log: str = "",
    points: bool = False,
    wide: bool = False,
) -> Panel:
    """Draw a curve for each series.

    A curve breaks where its value is missing, not finite, or not positive on a logarithmic axis.
    Of a long curve, the lowest and the highest point in each of `PLACES` bins are kept.

    Args:
        rows: Points in their order within a series. Those with `low` and `high` get a band.
        title: Title of the panel.
        x: Field of the horizontal coordinate, and axis title.
        y: Field of the vertical coordinate, and axis title.
        series: Field of the series, and legend title.
        log: Logarithmic axes: "x", "y" or "xy".
        points: Whether to mark each point.
        wide: See `Panel`.

    >>> rows = [{"step": step, "risk": 1 / step, "net": "ReLU"} for step in (1, 2, 4)]
    >>> axes = {"x": ("step", "step"), "y": ("risk", "risk"), "series": ("net", "network")}
    >>> lines(rows, title="Training", **axes).description
    'Line chart, Training (step; risk). ReLU: 1 at 1, 0.25 at 4.'
    """
    curves = _curves(records(rows), x[0], y[0], series[0], log)
    data = [point for curve in curves.values() for point in curve]
    for curve in curves.values():
        for point in curve if points else curve[:: math.ceil(len(curve) / 40)]:
            point["tip"] = True
    names = list(curves)
    legend = legend_above(series[1], names, axis_title=y[1], stroke=True)
    color = alt.Color("series:N", scale=alt.Scale(domain=names), legend=legend)
    dash = alt.StrokeDash(
        "series:N", scale=alt.Scale(domain=names, range=dashes(names)), legend=legend
    )
    whole = {"labelExpr": f"datum.value % 1 ? '' : {NUMBER_LABEL}", "tickMinStep": 1}
    across = axis(
        x[1], log=_values(data, "x") if "x" in log else (),
        ticks=whole if all(point["x"] % 1 == 0 for point in data) else None,
    )  # fmt: skip
    if "x" not in log:
        across["scale"] = alt.Scale(zero=False)
    up = axis(y[1], vertical=True, log=_values(data, "y", "low", "high") if "y" in log else ())
    base = alt.Chart(ROWS).encode(x=alt.X("x:Q", **across), color=color)
    curve = base.mark_line(strokeWidth=2.2).encode(y=alt.Y("y:Q", **up), strokeDash=dash)
    # Dots carry the tooltips. They are invisible, unless they were requested or a curve is one dot.
    visible = points or any(len(curve) == 1 for curve in curves.values())
    dots = (
        base.mark_point(filled=True, size=45 if visible else 150, opacity=1 if visible else 0)
        .transform_filter("datum.tip")
        .encode(
            y=alt.Y("y:Q", **up),
            tooltip=[
                tooltip("series:N", series[1] or "series"),
                tooltip("x:Q", x[1], number_format=".4~g"),
                tooltip("y:Q", y[1], number_format=".4~g"),
            ],
        )
    )
    layers = [curve, dots]
    if any("low" in point for point in data):
        band = base.mark_area(opacity=0.16, tooltip=None)
        layers.insert(0, band.encode(y=alt.Y("low:Q", **up), y2="high:Q"))
    description = describe("Line chart", title, alt_text.curves(data), axes=(x[1], y[1]))
    return panel(alt.layer(*layers), data, title, description, wide=wide)


def histogram(
    samples: Mapping[str, np.ndarray],
    *,
    title: str,
    x: str,
    edges: np.ndarray,
    series: str = "",
    y: str = "share of neurons",
    wide: bool = False,
    small: bool = False,
) -> tuple[Panel, list[dict[str, Any]]]:
    """Draw a histogram of each sample, one over the other.

    Values beyond the edges count in the outermost bins, and NaN in none of them.

    Args:
        samples: Values by name.
        title: Title of the panel.
        x: Title of the horizontal axis.
        edges: Edges of the bins, increasing.
        series: Title of the legend.
        y: Title of the vertical axis, which shows the share of a sample in a bin.
        wide: See `Panel`.
        small: Whether it is one of many; `share_axes` makes those comparable.

    Returns:
        The panel; and a row for each bin of each sample, with `series`, `from`, `to` and `share`.

    >>> edges = np.array([0.0, 0.5, 1.0])
    >>> _, rows = histogram({"a": np.array([0.1, 0.9, 0.8])}, title="Rates", x="rate", edges=edges)
    >>> [round(row["share"], 2) for row in rows]
    [0.33, 0.67]
    """
    rows: list[dict[str, Any]] = []
    for name, sample in samples.items():
        values = np.ravel(sample)
        counts, _ = np.histogram(values[~np.isnan(values)].clip(edges[0], edges[-1]), edges)
        shares = counts / max(len(values), 1)
        rows += [
            {"series": name, "from": float(start), "to": float(end), "share": float(share)}
            for start, end, share in zip(edges[:-1], edges[1:], shares, strict=True)
        ]
    # A step holds from its place to the next one, so the last bin is repeated at its end.
    steps = []
    for name, bins in groupby(rows, key=lambda row: row["series"]):
        steps += [{"series": name, "x": bin_["from"], "y": bin_["share"]} for bin_ in bins]
        steps.append({"series": name, "x": float(edges[-1]), "y": steps[-1]["y"]})
    names = list(samples)
    legend = legend_above(series, names, axis_title=y, stroke=True)
    scale = alt.Scale(domain=names)
    base = alt.Chart(ROWS).encode(
        x=alt.X("x:Q", **axis(x), scale=alt.Scale(zero=False, nice=False)),
        y=alt.Y("y:Q", **axis(y, vertical=True, label_format="~%"), stack=None),
        color=alt.Color("series:N", scale=scale, legend=legend),
    )
    dash = alt.StrokeDash(
        "series:N", scale=alt.Scale(domain=names, range=dashes(names)), legend=legend
    )
    layers = (
        base.mark_area(interpolate="step-after", opacity=0.16, tooltip=None),
        base.mark_line(interpolate="step-after", strokeWidth=1.8).encode(strokeDash=dash),
    )
    height = SMALL if small else HEIGHT
    chart = alt.layer(*layers)
    facts = alt_text.samples({name: np.ravel(sample) for name, sample in samples.items()})
    description = describe("Histogram", title, facts, axes=(x, y))
    return panel(chart, steps, title, description, wide=wide, height=height, small=small), rows


def _curves(
    rows: Iterable[Row], x: str, y: str, series: str, log: str
) -> dict[str, list[dict[str, Any]]]:
    """Return the points of each series with the fields that charts use."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        curve = curves.setdefault(str(row[series]), [])
        point: dict[str, Any] = {
            "series": str(row[series]),
            "x": plottable(row[x], log="x" in log),
            "y": plottable(row[y], log="y" in log),
        }
        if "low" in row and "high" in row:
            point |= {"low": finite(row["low"]), "high": plottable(row["high"], log="y" in log)}
        if point["x"] is not None:
            curve.append(point)
    known = [point for curve in curves.values() for point in curve if point["y"] is not None]
    if not known:
        return {}
    if "y" in log:
        # A band that reaches zero ends at the lowest value that can be drawn.
        floor = min(end for end in _values(known, "y", "low") if end > 0)
        for curve in curves.values():
            for point in curve:
                if point.get("low") is not None:
                    point["low"] = max(point["low"], floor)
    return {name: _thinned(curve, "x" in log) for name, curve in curves.items()}


def _values(points: Iterable[Row], *fields: str) -> list[float]:
    """Return the values of these fields that are not missing."""
    return [point[field] for point in points for field in fields if point.get(field) is not None]


def _thinned(curve: list[dict[str, Any]], log: bool) -> list[dict[str, Any]]:
    """Keep the lowest and the highest point in each of `PLACES` bins along the x axis."""
    if len(curve) <= 2 * PLACES:
        return curve
    at = [math.log(point["x"]) if log else point["x"] for point in curve]
    start = min(at)
    step = (max(at) - start) / PLACES or 1.0
    kept: list[int] = [0, len(curve) - 1]
    for _, indices in groupby(range(len(curve)), key=lambda i: int((at[i] - start) / step)):
        points = list(indices)
        known = sorted(
            (i for i in points if curve[i]["y"] is not None), key=lambda i: curve[i]["y"]
        )
        # A bin without a value keeps one point, so that the curve breaks there.
        kept += [known[0], known[-1]] if known else points[:1]
    return [curve[i] for i in sorted(set(kept))]
