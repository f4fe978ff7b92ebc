"""Accuracy out of distribution against accuracy in distribution, where standard models form a line.

An accuracy stands at its logit or probit, and the ticks say the accuracy itself.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal

import altair as alt

from contam.plots.alt_text import FEW, clouds, described
from contam.plots.figure import Panel, Row, Rows, panel, records
from contam.plots.style import axis, finite, legend_below, legend_of, tip

HEIGHT = 300
TICKS = (
    (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999),
    (0.01, 0.02, 0.05, *(ten / 10 for ten in range(1, 10)), 0.95, 0.98, 0.99),
    tuple(percent / 100 for percent in (1, 2, 3, *range(5, 100, 5), 97, 98, 99)),
    tuple(percent / 100 for percent in range(1, 100)),
    tuple(half / 200 for half in range(1, 200)),
    tuple(permille / 1000 for permille in range(1, 1000)),
)
"""Accuracies that an axis may name; the first of these with three of them in sight is taken."""
MARGIN = 0.06
"""How far an axis goes beyond its outermost mark, as a share of what the marks span."""
LINE, DIAGONAL = "fit of standard models", "OOD = ID"
DASHES = {LINE: [1, 0], DIAGONAL: [2, 4]}

AXIS_SCALES = {
    "logit": (lambda share: math.log(share / (1 - share)), "1 / (1 + exp(-datum.value))"),
    "probit": (NormalDist().inv_cdf, "cumulativeNormal(datum.value)"),
}
"""Where an accuracy stands, and the accuracy that stands there as a Vega expression."""

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
    """One mark for each model, above or below the line of standard models and the diagonal.

    `x`, `y` and `series` are (field, axis title); accuracies are shares in [0, 1]. For a field
    `id`, rows that have `id_low` and `id_high` get an error bar; so it is upwards. `name` is the
    field that says which model one points at. Rows of `line` have the fields of `x` and `y`, and
    `low` and `high` where there is a band. Rows with the same value in the field `join`, other than
    None, are connected: a teacher and its student.

    Accuracies of 0 and 1 have no place on these axes: the title of the x axis counts their models.

    Raises:
        ValueError: another word for the scale, or an accuracy that is no share.
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
    up = axis(y[1], up=True, ticks=accuracy_ticks(top, scale)) | _domain(top)
    at = {"x": alt.X("x:Q", **across), "y": alt.Y("y:Q", **up)}

    names = list(dict.fromkeys(model["series"] for model in data))
    legend = legend_of(series[1], names, above=y[1])
    color = alt.Color("series:N", scale=alt.Scale(domain=names), legend=legend)
    shape = alt.Shape("series:N", scale=alt.Scale(domain=names), legend=legend)
    base = alt.Chart().encode(**at)
    layers = _references(line, {"x": x[0], "y": y[0]}, scale, at, (right, top)) if data else []
    if any(model["pair"] is not None for model in data):
        pairs = base.transform_filter("isValid(datum.pair)").encode(detail="pair:N")
        layers.append(pairs.mark_line(style="reference", strokeWidth=1, opacity=0.5, tooltip=None))
    bars = base.mark_rule(strokeWidth=1.2, opacity=0.6, clip=True, tooltip=None)
    if any("x_low" in model for model in data):
        layers.append(bars.encode(color=color, x=alt.X("x_low:Q", **across), x2="x_high:Q"))
    if any("y_low" in model for model in data):
        layers.append(bars.encode(color=color, y=alt.Y("y_low:Q", **up), y2="y_high:Q"))
    tips = [tip("name:N", "model")] if name else []
    tips += [tip("series:N", series[1] or "series"), tip("x_says:N", x[1]), tip("y_says:N", y[1])]
    marks = base.mark_point(filled=True, size=70 if len(data) <= 60 else 30, opacity=0.85)
    layers.append(marks.encode(color=color, shape=shape, tooltip=tips))
    chart = alt.layer(*layers, data=alt.Data(values=_whole(data, right, top)))
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
    said = described("Scatter plot", title, facts, axes=(x[1], y[1]))
    return panel(chart, title, said, wide=wide, height=HEIGHT)


def _placed(row: Row, fields: Mapping[str, str], scale: str) -> dict[str, Any]:
    """Where a row's accuracies stand, between which ends, and what pointing at them tells."""
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
    """Where an accuracy stands; 0 and 1 stand nowhere."""
    if not 0 <= share <= 1:
        raise ValueError(
            f"accuracies are shares in [0, 1], and one is {share:.4g}; divide percent by 100"
        )
    return finite(AXIS_SCALES[scale][0](share)) if 0 < share < 1 else None


def _ends(models: Sequence[Row], channel: str) -> Ends:
    """From where to where an axis goes, so that every mark and every end of a bar is inside."""
    fields = (channel, f"{channel}_low", f"{channel}_high")
    seen = [model[field] for model in models for field in fields if model.get(field) is not None]
    low, high = min(seen, default=-1.0), max(seen, default=1.0)
    beyond = MARGIN * (high - low) or 0.5
    return low - beyond, high + beyond


def _whole(models: Sequence[Row], right: Ends, top: Ends) -> list[dict[str, Any]]:
    """The models, whose error bars end where an axis does if they reach an accuracy of 0 or 1."""
    edges = {"x_low": right[0], "x_high": right[1], "y_low": top[0], "y_high": top[1]}
    return [
        {
            key: edges[key] if key in edges and value is None else value
            for key, value in each.items()
        }
        for each in models
    ]


def accuracy_ticks(ends: Ends, scale: str) -> dict[str, Any]:
    """The round accuracies in sight, and how to write them."""
    place, accuracy = AXIS_SCALES[scale]
    inside = [
        [place(tick) for tick in ticks if ends[0] <= place(tick) <= ends[1]] for ticks in TICKS
    ]
    values = next((ticks for ticks in inside if len(ticks) > 2), inside[-1])
    # Vega leaves out every other value of more than it counts on.
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
    """The band and the line of standard models, and the line on which both accuracies agree."""
    curve = []
    for row in line:
        point = {channel: _place(row[field], scale) for channel, field in fields.items()}
        point |= {end: _place(row[end], scale) for end in ("low", "high") if end in row}
        if None not in point.values():
            curve.append(point | {"line": LINE})
    low, high = max(each[0] for each in ends), min(each[1] for each in ends)
    equal = [{"x": end, "y": end, "line": DIAGONAL} for end in (low, high) if low < high]
    kinds = list(dict.fromkeys(point["line"] for point in curve + equal))
    if not kinds:
        return []
    look: dict[str, Any] = {"style": "reference", "clip": True, "tooltip": None}
    dash = alt.StrokeDash(
        "line:N",
        scale=alt.Scale(domain=kinds, range=[DASHES[kind] for kind in kinds]),
        legend=legend_below("", kinds, symbol="stroke"),
    )
    lines = alt.Chart(alt.Data(values=curve + equal)).encode(**at, strokeDash=dash)
    layers = [lines.mark_line(strokeWidth=1.8, **look)]
    if any("low" in point for point in curve):
        band = alt.Chart(alt.Data(values=curve)).mark_area(opacity=0.14, **look)
        between = alt.Y("low:Q", **{key: at["y"][key] for key in ("title", "axis", "scale")})
        layers.insert(0, band.encode(x=at["x"], y=between, y2="high:Q"))
    return layers
