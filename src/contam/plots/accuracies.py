"""Accuracy out of distribution against accuracy in distribution, where standard models form a line.

Accuracies are placed at their logit or probit, and the ticks show the accuracies themselves.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal

import altair as alt

from contam.plots.alt_text import FEW, clouds, describe
from contam.plots.figure import Panel, Row, Rows, panel, records
from contam.plots.style import ROWS, axis, finite, legend_above, legend_below, tooltip

HEIGHT = 300
TICKS = (
    (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999),
    (0.01, 0.02, 0.05, *(ten / 10 for ten in range(1, 10)), 0.95, 0.98, 0.99),
    tuple(percent / 100 for percent in (1, 2, 3, *range(5, 100, 5), 97, 98, 99)),
    tuple(percent / 100 for percent in range(1, 100)),
    tuple(half / 200 for half in range(1, 200)),
    tuple(permille / 1000 for permille in range(1, 1000)),
)
"""Candidate ticks; an axis uses the first list with at least three in its range."""
MARGIN = 0.06
"""Margin between the outermost mark and the end of an axis, as a share of the range of marks."""
LEAST_SPAN = 0.2
"""Length of an axis at least, so that it has ticks where all marks are close together."""
LINE, DIAGONAL = "fit of standard models", "OOD = ID"
DASHES = {LINE: [1, 0], DIAGONAL: [2, 4]}

AXIS_SCALES = {
    "logit": (lambda share: math.log(share / (1 - share)), "1 / (1 + exp(-datum.value))"),
    "probit": (NormalDist().inv_cdf, "cumulativeNormal(datum.value)"),
}
"""Function from an accuracy to its place, and its inverse as a Vega expression."""

Ends = tuple[float, float]


def accuracies(
    rows: Rows,
    *,
    title: str,
    x: tuple[str, str],
    y: tuple[str, str],
    series: tuple[str, str],
    name: str = "",
    line: Sequence[Row] = (),
    scale: Literal["logit", "probit"] = "logit",
    join: str = "",
    wide: bool = False,
) -> Panel:
    """Draw OOD accuracy over ID accuracy, with the line of standard models and the diagonal.

    Accuracies of 0 and 1 have no place on these axes; the title of the x axis counts their models.

    Args:
        rows: One row for each model; rows without finite accuracies are left out. For a field `id`,
            rows that have `id_low` and `id_high` get an error bar.
        title: Title of the panel.
        x: Field of the ID accuracy, as a share in [0, 1], and axis title.
        y: Field of the OOD accuracy, as a share in [0, 1], and axis title.
        series: Field of the series, and legend title.
        name: Field with the model's name, for tooltips.
        line: Points of the line of standard models, with the fields of `x` and `y`, and `low` and
            `high` if there is a band.
        scale: "logit" or "probit".
        join: Field whose equal values connect models, such as a teacher and its student.
        wide: See `Panel`.

    Raises:
        ValueError: the scale is unknown, or an accuracy is not in [0, 1].

    >>> rows = [{"id": 0.9, "ood": 0.5, "kind": "ERM"}]
    >>> axes = {"x": ("id", "ID"), "y": ("ood", "OOD"), "series": ("kind", "")}
    >>> accuracies(rows, title="Models", **axes).description
    'Scatter plot, Models (ID; OOD). ERM: 90.0%, 50.0%.'
    """
    if scale not in AXIS_SCALES:
        raise ValueError(f"the scale is 'logit' or 'probit', not {scale!r}")
    models = [
        _placed(row, {"x": x[0], "y": y[0]}, scale)
        | {"series": str(row[series[0]]), "name": str(row.get(name)), "pair": row.get(join)}
        for row in records(rows)
        if finite(row[x[0]]) is not None and finite(row[y[0]]) is not None
    ]
    data = [model for model in models if None not in (model["x"], model["y"])]
    gone = len(models) - len(data)
    note = f" ({gone} of {len(models)} models not shown: at 0 or 100 %)" if gone else ""
    right, top = _ends(data, "x"), _ends(data, "y")
    across = axis(x[1] + note, ticks=accuracy_ticks(right, scale)) | _domain(right)
    up = axis(y[1], vertical=True, ticks=accuracy_ticks(top, scale)) | _domain(top)
    at = {"x": alt.X("x:Q", **across), "y": alt.Y("y:Q", **up)}

    names = list(dict.fromkeys(model["series"] for model in data))
    legend = legend_above(series[1], names, axis_title=y[1])
    color = alt.Color("series:N", scale=alt.Scale(domain=names), legend=legend)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=names), legend=legend)
    base = alt.Chart().encode(**at)  # takes the rows from the chart of all layers
    layers = _references(line, {"x": x[0], "y": y[0]}, scale, at, (right, top)) if data else []
    if any(model["pair"] is not None for model in data):
        pairs = base.transform_filter("isValid(datum.pair)").encode(detail="pair:N")
        layers.append(pairs.mark_line(style="reference", strokeWidth=1, opacity=0.5, tooltip=None))
    bars = base.mark_rule(strokeWidth=1.2, opacity=0.6, clip=True, tooltip=None)
    if any("x_low" in model for model in data):
        layers.append(bars.encode(color=color, x=alt.X("x_low:Q", **across), x2="x_high:Q"))
    if any("y_low" in model for model in data):
        layers.append(bars.encode(color=color, y=alt.Y("y_low:Q", **up), y2="y_high:Q"))
    tooltips = [tooltip("name:N", "model")] if name else []
    tooltips += [
        tooltip("series:N", series[1] or "series"),
        tooltip("x_says:N", x[1]),
        tooltip("y_says:N", y[1]),
    ]
    marks = base.mark_point(filled=True, size=70 if len(data) <= 60 else 30, opacity=0.85)
    layers.append(marks.encode(color=color, shape=shape, tooltip=tooltips))
    chart = alt.layer(*layers, data=ROWS)
    facts = [
        f"{model['name'] if name else model['series']}: {model['x_says']}, {model['y_says']}"
        for model in models
    ]
    if len(facts) > FEW:
        shares = [
            {"series": str(row[series[0]]), "x": finite(row[x[0]]), "y": finite(row[y[0]])}
            for row in records(rows)
        ]
        facts = clouds([share for share in shares if None not in (share["x"], share["y"])])
    said = describe("Scatter plot", title, facts, axes=(x[1], y[1]))
    return panel(chart, _clipped(data, right, top), title, said, wide=wide, height=HEIGHT)


def _placed(row: Row, fields: Mapping[str, str], scale: str) -> dict[str, Any]:
    """Return the places of a row's accuracies, of their error bars, and their tooltips."""
    placed: dict[str, Any] = {}
    for channel, field in fields.items():
        placed[channel] = _place(row[field], scale)
        placed[f"{channel}_says"] = f"{row[field]:.1%}"
        low, high = (finite(row.get(f"{field}_{end}")) for end in ("low", "high"))
        if low is not None and high is not None:
            placed[f"{channel}_says"] += f" ({low:.1%} to {high:.1%})"
            placed[f"{channel}_low"] = _place(low, scale)
            placed[f"{channel}_high"] = _place(high, scale)
    return placed


def _place(share: float, scale: str) -> float | None:
    """Return the place of an accuracy on its axis; None for 0 and 1."""
    if not 0 <= share <= 1:
        raise ValueError(
            f"accuracies are shares in [0, 1], and one is {share:.4g}; divide percent by 100"
        )
    return finite(AXIS_SCALES[scale][0](share)) if 0 < share < 1 else None


def _ends(models: Sequence[Row], channel: str) -> Ends:
    """Return the limits of an axis that contains all marks and error bars."""
    fields = (channel, f"{channel}_low", f"{channel}_high")
    places = [model[field] for model in models for field in fields if model.get(field) is not None]
    low, high = min(places, default=-1.0), max(places, default=1.0)
    span = high - low
    beyond = MARGIN * span + max(0.0, LEAST_SPAN - span) / 2 if span else 0.5
    return low - beyond, high + beyond


def _clipped(models: Sequence[Row], right: Ends, top: Ends) -> list[dict[str, Any]]:
    """Return the models, with error bars to 0 or 1 cut at the end of the axis."""
    edges = {"x_low": right[0], "x_high": right[1], "y_low": top[0], "y_high": top[1]}
    return [
        {
            key: edges[key] if key in edges and value is None else value
            for key, value in model.items()
        }
        for model in models
    ]


def accuracy_ticks(ends: Ends, scale: str) -> dict[str, Any]:
    """Return the tick options of an axis of accuracies.

    Args:
        ends: Limits of the axis, as logits or probits.
        scale: "logit" or "probit".

    >>> accuracy_ticks((-2.5, 2.5), "logit")["tickCount"]
    5
    """
    place, accuracy = AXIS_SCALES[scale]
    inside = [
        [place(tick) for tick in ticks if ends[0] <= place(tick) <= ends[1]] for ticks in TICKS
    ]
    values = next((ticks for ticks in inside if len(ticks) > 2), inside[-1])
    # Vega leaves out every other tick if there are more than `tickCount`.
    look = {"values": values, "tickCount": len(values)}
    return look | {"labelExpr": f"format({accuracy}, '.2~%')"}


def _domain(ends: Ends) -> dict[str, Any]:
    return {"scale": alt.Scale(domain=list(ends), nice=False, zero=False)}


def _references(
    line: Sequence[Row],
    fields: Mapping[str, str],
    scale: str,
    at: Mapping[str, Any],
    ends: tuple[Ends, Ends],
) -> list[Any]:
    """Return layers for the band and the line of standard models, and for the diagonal."""
    curve = []
    for row in line:
        point = {channel: _place(row[field], scale) for channel, field in fields.items()}
        point |= {end: _place(row[end], scale) for end in ("low", "high") if end in row}
        if None not in point.values():
            curve.append(point | {"line": LINE})
    low, high = max(start for start, _ in ends), min(end for _, end in ends)
    equal = [{"x": end, "y": end, "line": DIAGONAL} for end in (low, high) if low < high]
    kinds = list(dict.fromkeys(point["line"] for point in curve + equal))
    if not kinds:
        return []
    look: dict[str, Any] = {"style": "reference", "clip": True, "tooltip": None}
    dash = alt.StrokeDash(
        "line:N",
        scale=alt.Scale(domain=kinds, range=[DASHES[kind] for kind in kinds]),
        legend=legend_below("", kinds, stroke=True),
    )
    lines = alt.Chart(alt.Data(values=curve + equal)).encode(**at, strokeDash=dash)
    layers = [lines.mark_line(strokeWidth=1.8, **look)]
    if any("low" in point for point in curve):
        band = alt.Chart(alt.Data(values=curve)).mark_area(opacity=0.14, **look)
        between = alt.Y("low:Q", **{key: at["y"][key] for key in ("title", "axis", "scale")})
        layers.insert(0, band.encode(x=at["x"], y=between, y2="high:Q"))
    return layers
