"""Curves over an axis, and shares between edges."""

import math
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import altair as alt
import numpy as np

from contam.plots import alt_text
from contam.plots.alt_text import described
from contam.plots.figure import Panel, Row, Rows, panel, records
from contam.plots.style import HEIGHT, SMALL, axis, dashes, drawn, finite, legend_of, tip

PLACES = 200
"""Places along the x axis at which a long curve is drawn; a panel has few more pixels."""


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
    """Curves with bands: `x`, `y` and `series` are (field, axis title).

    Rows that have `low` and `high` get a band between them. `log` names logarithmic axes ("x",
    "y", "xy"). Rows keep their order within a series. A curve breaks where its value is missing,
    not finite, or not positive on a logarithmic axis; a long one keeps the lowest and the highest
    value at each of `PLACES` places.
    """
    curves = _curves(records(rows), x[0], y[0], series[0], log)
    data = [point for curve in curves.values() for point in curve]
    for curve in curves.values():
        for point in curve if points else curve[:: math.ceil(len(curve) / 40)]:
            point["tip"] = True
    names = list(curves)
    legend = legend_of(series[1], names, above=y[1], symbol="stroke")
    color = alt.Color("series:N", scale=alt.Scale(domain=names), legend=legend)
    dash = alt.StrokeDash(
        "series:N", scale=alt.Scale(domain=names, range=dashes(names)), legend=legend
    )
    across = axis(x[1], log=_values(data, "x") if "x" in log else ())
    if "x" not in log:
        across["scale"] = alt.Scale(zero=False)
    up = axis(y[1], up=True, log=_values(data, "y", "low", "high") if "y" in log else ())
    base = alt.Chart(alt.Data(values=data)).encode(x=alt.X("x:Q", **across), color=color)
    curve = base.mark_line(strokeWidth=2.2).encode(y=alt.Y("y:Q", **up), strokeDash=dash)
    # Dots carry the tooltips; unless they are wanted, or a curve is one dot, nobody sees them.
    seen = points or any(len(curve) == 1 for curve in curves.values())
    dots = (
        base.mark_point(filled=True, size=45 if seen else 150, opacity=1 if seen else 0)
        .transform_filter("datum.tip")
        .encode(
            y=alt.Y("y:Q", **up),
            tooltip=[
                tip("series:N", series[1] or "series"),
                tip("x:Q", x[1], format=".4~g"),
                tip("y:Q", y[1], format=".4~g"),
            ],
        )
    )
    layers = [curve, dots]
    if any("low" in point for point in data):
        band = base.mark_area(opacity=0.16, tooltip=None)
        layers.insert(0, band.encode(y=alt.Y("low:Q", **up), y2="high:Q"))
    said = described("Line chart", title, alt_text.curves(data), axes=(x[1], y[1]))
    return panel(alt.layer(*layers), title, said, wide=wide)


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
    """Shares of each sample between `edges`, laid over one another; and the rows drawn.

    What lies beyond the edges counts in the outermost bins, and NaN nowhere. A `small` one is for
    many side by side, a block of a network each; `on_same_axes` makes those comparable.
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
    # A step holds from its place to the next one, so the last bin is said again at its end.
    steps = []
    for name, bins in groupby(rows, key=lambda row: row["series"]):
        steps += [{"series": name, "x": bin_["from"], "y": bin_["share"]} for bin_ in bins]
        steps.append({"series": name, "x": float(edges[-1]), "y": steps[-1]["y"]})
    names = list(samples)
    legend = legend_of(series, names, above=y, symbol="stroke")
    scale = alt.Scale(domain=names)
    base = alt.Chart(alt.Data(values=steps)).encode(
        x=alt.X("x:Q", **axis(x), scale=alt.Scale(zero=False, nice=False)),
        y=alt.Y("y:Q", **axis(y, up=True, form="~%"), stack=None),
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
    said = described("Histogram", title, facts, axes=(x, y))
    return panel(chart, title, said, wide=wide, height=height, small=small), rows


def _curves(
    rows: Iterable[Row], x: str, y: str, series: str, log: str
) -> dict[str, list[dict[str, Any]]]:
    """The points of each series in the order given, under the names that the charts use."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        curve = curves.setdefault(str(row[series]), [])
        point: dict[str, Any] = {
            "series": str(row[series]),
            "x": drawn(row[x], "x" in log),
            "y": drawn(row[y], "y" in log),
        }
        if "low" in row and "high" in row:
            point |= {"low": finite(row["low"]), "high": drawn(row["high"], "y" in log)}
        if point["x"] is not None:
            curve.append(point)
    shown = [point for curve in curves.values() for point in curve if point["y"] is not None]
    if not shown:
        return {}
    if "y" in log:
        # A band that reaches zero goes down to the lowest value that can be drawn.
        floor = min(end for end in _values(shown, "y", "low") if end > 0)
        for curve in curves.values():
            for point in curve:
                if point.get("low") is not None:
                    point["low"] = max(point["low"], floor)
    return {name: _thinned(curve, "x" in log) for name, curve in curves.items()}


def _values(points: Iterable[Row], *fields: str) -> list[float]:
    """What the points have in these fields."""
    return [point[field] for point in points for field in fields if point.get(field) is not None]


def _thinned(curve: list[dict[str, Any]], log: bool) -> list[dict[str, Any]]:
    """The curve as a few hundred pixels can show it: at each place its lowest and highest point."""
    if len(curve) <= 2 * PLACES:
        return curve
    at = [math.log(point["x"]) if log else point["x"] for point in curve]
    start = min(at)
    step = (max(at) - start) / PLACES or 1.0
    kept: list[int] = [0, len(curve) - 1]
    for _, many in groupby(range(len(curve)), key=lambda i: int((at[i] - start) / step)):
        here = list(many)
        seen = sorted((i for i in here if curve[i]["y"] is not None), key=lambda i: curve[i]["y"])
        # A place without a value keeps one point, so that the curve breaks there.
        kept += [seen[0], seen[-1]] if seen else here[:1]
    return [curve[i] for i in sorted(set(kept))]
