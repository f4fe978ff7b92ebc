"""Bars, points and colored cells."""

from typing import Any

import altair as alt

from contam.plots import alt_text
from contam.plots.alt_text import described
from contam.plots.figure import Panel, Rows, panel, records
from contam.plots.style import (
    HEIGHT,
    IN_LINES,
    NARROW,
    axis,
    finite,
    heads,
    in_lines,
    legend_below,
    legend_of,
    rounded,
    tip,
)


def bars(
    rows: Rows,
    *,
    title: str,
    x: tuple[str, str],
    y: tuple[str, str],
    series: tuple[str, str] | None = None,
    wide: bool = False,
) -> Panel:
    """Bars, side by side within a group when there are series.

    Rows with `low` and `high` get whiskers. Bars whose labels don't fit side by side lie down.
    """
    rows = records(rows)
    groups = list(dict.fromkeys(str(row[x[0]]) for row in rows))
    names = list(dict.fromkeys(str(row[series[0]]) for row in rows)) if series else []
    room = max(NARROW // max(len(groups), 1) - 1, 4)
    lying = any(max(map(len, in_lines(group, room))) > room for group in groups)
    label = {group: "\n".join(in_lines(group, 24 if lying else room)) for group in groups}
    data = []
    for row in rows:
        bar = {"group": label[str(row[x[0]])], "y": finite(row[y[0]])}
        bar |= {end: finite(row[end]) for end in ("low", "high") if end in row}
        data.append(bar | ({"series": str(row[series[0]])} if series else {}))
    data = [bar for bar in data if bar["y"] is not None]

    place, shift, size, end = (
        (alt.Y, alt.YOffset, alt.X, "x2") if lying else (alt.X, alt.XOffset, alt.Y, "y2")
    )
    names_axis = alt.Axis(labelAngle=0, labelExpr=IN_LINES, ticks=False, grid=False)
    encoding: list[Any] = [
        place("group:N", title=x[1] or None, sort=list(label.values()), axis=names_axis,
              scale=alt.Scale(domain=list(label.values()), paddingInner=0.25, paddingOuter=0.15))
    ]  # fmt: skip
    tips = [
        tip("group:N", x[1] or "group"),
        tip("y:Q", y[1], format=".4~g"),
    ]
    paint: list[Any] = []
    if series is not None:
        legend = legend_of(series[1], names, above="" if lying else y[1])
        if lying and legend is not None:
            legend.columns = 1
        encoding.append(shift("series:N", scale=alt.Scale(domain=names)))
        paint.append(
            alt.Color(
                "series:N",
                scale=alt.Scale(domain=names),
                legend=legend,
            )
        )
        tips.insert(0, tip("series:N", series[1] or "series"))
    value = axis(y[1], up=not lying)
    base = alt.Chart(alt.Data(values=data)).encode(*encoding)
    layers = [base.mark_bar().encode(size("y:Q", **value), *paint, tooltip=tips)]
    if any("low" in bar for bar in data):
        # The halo parts a whisker from a bar of nearly its own lightness.
        for whisker in (base.mark_rule(style="halo"), base.mark_rule(strokeWidth=1.5)):
            layers.append(whisker.encode(size("low:Q", **value), **{end: "high:Q"}))
    height = (18 * max(len(names), 1) + 14) * len(groups) if lying else HEIGHT
    said = described("Bar chart", title, alt_text.groups(data), axes=(x[1], y[1]))
    return panel(alt.layer(*layers), title, said, wide=wide, height=height)


def scatter(
    rows: Rows,
    *,
    title: str,
    x: tuple[str, str],
    y: tuple[str, str],
    series: tuple[str, str],
    shape: tuple[str, str] | None = None,
    wide: bool = False,
) -> Panel:
    """One mark for each row; its shape repeats what its color says, or says something of its own.

    Coordinates are rounded to what a screen can show. Two thousand marks are easily drawn; there
    are eight shapes.
    """
    shape = shape or series
    seen = [row for row in records(rows) if None not in (finite(row[x[0]]), finite(row[y[0]]))]
    data = [
        {"series": str(row[series[0]]), "shape": str(row[shape[0]]), "x": right, "y": up}
        for row, right, up in zip(
            seen, rounded([r[x[0]] for r in seen]), rounded([r[y[0]] for r in seen]), strict=True
        )
    ]
    names, kinds = (list(dict.fromkeys(point[of] for point in data)) for of in ("series", "shape"))
    legend = legend_of(series[1], names, above=y[1])
    color = alt.Color("series:N", scale=alt.Scale(domain=names), legend=legend)
    tips = [
        tip("series:N", series[1] or "series"),
        tip("x:Q", x[1], format=".3~g"),
        tip("y:Q", y[1], format=".3~g"),
    ]
    if shape == series:
        for point in data:
            del point["shape"]
        look = alt.Shape("series:N", scale=alt.Scale(domain=names), legend=legend)
    else:
        look = alt.Shape(
            "shape:N", scale=alt.Scale(domain=kinds), legend=legend_below(shape[1], kinds)
        )
        tips.insert(1, tip("shape:N", shape[1] or "kind"))
    chart = (
        alt.Chart(alt.Data(values=data))
        .mark_point(opacity=0.75, size=28, strokeWidth=1.4)
        .encode(
            x=alt.X("x:Q", **axis(x[1])),
            y=alt.Y("y:Q", **axis(y[1], up=True)),
            color=color,
            shape=look,
            tooltip=tips,
        )
    )
    said = described("Scatter plot", title, alt_text.clouds(data), axes=(x[1], y[1]))
    return panel(chart, title, said, wide=wide)


def matrix(
    rows: Rows,
    *,
    title: str,
    x: tuple[str, str],
    y: tuple[str, str],
    value: tuple[str, str],
    wide: bool = True,
) -> Panel:
    """A table as colored cells with the number in each; values lie in [0, 1]."""
    rows = records(rows)
    label, top = heads(list(dict.fromkeys(str(row[x[0]]) for row in rows)), 9)
    names = list(dict.fromkeys(str(row[y[0]]) for row in rows))
    data = []
    for row in rows:
        found = finite(row[value[0]])
        text = "–" if found is None else f"{found:.2f}"
        place = {"x": label[str(row[x[0]])], "column": str(row[x[0]]), "y": str(row[y[0]])}
        data.append(place | {"value": found, "text": text})
    side = alt.Axis(labelLimit=150, ticks=False, grid=False, domain=False)
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X("x:N", title=x[1] or None, sort=list(label.values()), axis=top),
        y=alt.Y("y:N", title=y[1] or None, sort=names, axis=side),
    )
    scale = alt.Scale(scheme="cividis", domain=[0, 1])
    cells = base.mark_rect().encode(
        color=alt.Color("value:Q", legend=None, scale=scale),
        tooltip=[
            tip("y:N", y[1] or "row"),
            tip("column:N", x[1] or "column"),
            tip("value:Q", value[1], format=".3f"),
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
    facts = alt_text.cells([cell | {"row": cell["y"]} for cell in data])
    numbers = base.mark_text(fontSize=12).encode(text="text:N", color=ink)
    return panel(
        alt.layer(cells, numbers),
        title,
        described("Table of colored cells", title, facts, axes=(value[1],)),
        wide=wide,
        height=32 * len(names),
        least_width=46 * len(label) + 7 * min(max(map(len, names), default=0), 22) + 20,
    )
