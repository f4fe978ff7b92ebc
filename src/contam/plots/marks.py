"""Bar charts, scatter plots and tables of colored cells."""

from typing import Any

import altair as alt

from contam.plots import alt_text
from contam.plots.alt_text import describe
from contam.plots.figure import Panel, Rows, panel, records
from contam.plots.style import (
    HEIGHT,
    LINE,
    NARROW,
    PALETTE,
    ROWS,
    SPLIT_LABEL,
    axis,
    column_labels,
    finite,
    legend_above,
    legend_below,
    plottable,
    rounded,
    tooltip,
    wrap,
)

DIFFERENCES = (PALETTE["light"][1], "#f4f1ea", PALETTE["light"][0])
"""Colors of the lowest difference, of no difference and of the highest."""


def bars(
    rows: Rows,
    *,
    title: str,
    x: tuple[str, str],
    y: tuple[str, str],
    series: tuple[str, str] | None = None,
    wide: bool = False,
) -> Panel:
    """Draw a bar chart, with the bars of a group side by side.

    Bars are horizontal if their labels do not fit side by side.

    Args:
        rows: One row for each bar; rows without a finite value are left out. Those with `low` and
            `high` get whiskers.
        title: Title of the panel.
        x: Field of the group, and axis title.
        y: Field of the value, and axis title.
        series: Field of the series, and legend title; None for a single series.
        wide: See `Panel`.

    >>> rows = [{"net": "ReLU", "risk": 0.85}, {"net": "linear", "risk": 0.31}]
    >>> bars(rows, title="Risk", x=("net", ""), y=("risk", "OOD risk")).description
    'Bar chart, Risk (OOD risk). ReLU 0.85, linear 0.31.'
    """
    rows = records(rows)
    groups = list(dict.fromkeys(str(row[x[0]]) for row in rows))
    names = list(dict.fromkeys(str(row[series[0]]) for row in rows)) if series else []
    width = max(NARROW // max(len(groups), 1) - 1, 4)
    horizontal = any(max(map(len, wrap(group, width))) > width for group in groups)
    label = {group: "\n".join(wrap(group, 24 if horizontal else width)) for group in groups}
    data = []
    for row in rows:
        bar = {"group": label[str(row[x[0]])], "y": finite(row[y[0]])}
        bar |= {end: finite(row[end]) for end in ("low", "high") if end in row}
        data.append(bar | ({"series": str(row[series[0]])} if series else {}))
    data = [bar for bar in data if bar["y"] is not None]

    group_axis, offset, value_axis, end = (
        (alt.Y, alt.YOffset, alt.X, "x2") if horizontal else (alt.X, alt.XOffset, alt.Y, "y2")
    )
    ticks = alt.Axis(labelAngle=0, labelExpr=SPLIT_LABEL, ticks=False, grid=False)
    encoding: list[Any] = [
        group_axis(
            "group:N",
            title=x[1] or None,
            sort=list(label.values()),
            axis=ticks,
            scale=alt.Scale(domain=list(label.values()), paddingInner=0.25, paddingOuter=0.15),
        )
    ]
    tooltips = [
        tooltip("group:N", x[1] or "group"),
        tooltip("y:Q", y[1], number_format=".4~g"),
    ]
    colors: list[Any] = []
    if series is not None:
        legend = legend_above(series[1], names, axis_title="" if horizontal else y[1])
        if horizontal and legend is not None:
            legend.columns = 1
        encoding.append(offset("series:N", scale=alt.Scale(domain=names)))
        colors.append(alt.Color("series:N", scale=alt.Scale(domain=names), legend=legend))
        tooltips.insert(0, tooltip("series:N", series[1] or "series"))
    value = axis(y[1], vertical=not horizontal)
    base = alt.Chart(ROWS).encode(*encoding)
    layers = [base.mark_bar().encode(value_axis("y:Q", **value), *colors, tooltip=tooltips)]
    if any("low" in bar for bar in data):
        # The halo separates a whisker from a bar of nearly the same lightness.
        for whisker in (base.mark_rule(style="halo"), base.mark_rule(strokeWidth=1.5)):
            layers.append(whisker.encode(value_axis("low:Q", **value), **{end: "high:Q"}))
    height = (18 * max(len(names), 1) + 14) * len(groups) if horizontal else HEIGHT
    description = describe("Bar chart", title, alt_text.groups(data), axes=(x[1], y[1]))
    return panel(alt.layer(*layers), data, title, description, wide=wide, height=height)


def scatter(
    rows: Rows,
    *,
    title: str,
    x: tuple[str, str],
    y: tuple[str, str],
    series: tuple[str, str],
    shape: tuple[str, str] | None = None,
    log: str = "",
    wide: bool = False,
) -> Panel:
    """Draw a scatter plot with a mark for each row.

    Coordinates are rounded to a ten-thousandth of their range. Two thousand marks are drawn without
    delay.

    Args:
        rows: One row for each mark; rows without finite coordinates are left out.
        title: Title of the panel.
        x: Field of the horizontal coordinate, and axis title.
        y: Field of the vertical coordinate, and axis title.
        series: Field that the color shows, and legend title.
        shape: Field that the shape shows, with at most eight values, and legend title; by default
            the series.
        log: "x" for a logarithmic horizontal axis; rows that are not positive are left out.
        wide: See `Panel`.

    >>> rows = [{"id": 0.9, "ood": 0.5, "kind": "ERM"}]
    >>> axes = {"x": ("id", "ID"), "y": ("ood", "OOD"), "series": ("kind", "")}
    >>> scatter(rows, title="Models", **axes).description
    'Scatter plot, Models (ID; OOD). ERM: 1 mark at 0.9, 0.5.'
    """
    shape = shape or series
    known = [
        row
        for row in records(rows)
        if None not in (plottable(row[x[0]], log="x" in log), finite(row[y[0]]))
    ]
    across, up = ([row[field] for row in known] for field in (x[0], y[0]))
    # Rounding to a share of the range would merge small values on a logarithmic axis.
    across, up = [float(v) for v in across] if "x" in log else rounded(across), rounded(up)
    data = [
        {"series": str(row[series[0]]), "shape": str(row[shape[0]]), "x": x_, "y": y_}
        for row, x_, y_ in zip(known, across, up, strict=True)
    ]
    names, shapes = (list(dict.fromkeys(point[of] for point in data)) for of in ("series", "shape"))
    legend = legend_above(series[1], names, axis_title=y[1])
    color = alt.Color("series:N", scale=alt.Scale(domain=names), legend=legend)
    tooltips = [
        tooltip("series:N", series[1] or "series"),
        tooltip("x:Q", x[1], number_format=".3~g"),
        tooltip("y:Q", y[1], number_format=".3~g"),
    ]
    if shape == series:
        for point in data:
            del point["shape"]
        encoding = alt.Shape("series:N", scale=alt.Scale(domain=names), legend=legend)
    else:
        encoding = alt.Shape(
            "shape:N", scale=alt.Scale(domain=shapes), legend=legend_below(shape[1], shapes)
        )
        tooltips.insert(1, tooltip("shape:N", shape[1] or "kind"))
    chart = (
        alt.Chart(ROWS)
        .mark_point(opacity=0.75, size=28, strokeWidth=1.4)
        .encode(
            x=alt.X("x:Q", **axis(x[1], log=across if "x" in log and across else ())),
            y=alt.Y("y:Q", **axis(y[1], vertical=True)),
            color=color,
            shape=encoding,
            tooltip=tooltips,
        )
    )
    description = describe("Scatter plot", title, alt_text.clouds(data), axes=(x[1], y[1]))
    return panel(chart, data, title, description, wide=wide)


def matrix(
    rows: Rows,
    *,
    title: str,
    x: tuple[str, str],
    y: tuple[str, str],
    value: tuple[str, str],
    limits: tuple[float, float] | None = (0.0, 1.0),
    signed: bool = False,
    sure: str = "",
    wide: bool = True,
) -> Panel:
    """Draw a table of numbers as colored cells.

    Args:
        rows: One row for each cell; a cell without a finite value shows a dash.
        title: Title of the panel.
        x: Field of the column, and axis title.
        y: Field of the row, and axis title.
        value: Field of the number, and its name.
        limits: Numbers with the first and the last color; None takes the range of the numbers.
        signed: Whether the numbers are differences: cells above zero are blue, those below are
            orange, and there are no limits.
        sure: Field that is true for numbers in bold; empty for none.
        wide: See `Panel`.

    >>> rows = [{"trained": "red", "shown": s, "v": v} for s, v in (("red", 1), ("cyan", 0))]
    >>> axes = {"x": ("shown", ""), "y": ("trained", ""), "value": ("v", "accuracy")}
    >>> matrix(rows, title="Frames", **axes).description.split(". ")[1:3]
    ['1 row, 2 columns', 'lowest 0 (red, cyan)']
    """
    rows = records(rows)
    label, top = column_labels(list(dict.fromkeys(str(row[x[0]]) for row in rows)), 9)
    names = list(dict.fromkeys(str(row[y[0]]) for row in rows))
    beside = {name: "\n".join(wrap(name, 24)) for name in names}
    numbers = [finite(row[value[0]]) for row in rows]
    known = [number for number in numbers if number is not None] or [0.0]
    low, high = limits or (min(known), max(known))
    if signed:
        high = max(map(abs, known))
        low = -high
    span = high - low or 1.0
    data = []
    for row, number in zip(rows, numbers, strict=True):
        text = "–"
        if number is not None:
            text = f"{number:+z.1f}" if signed else f"{number:z.2f}" if limits else f"{number:z.3g}"
        column, name = str(row[x[0]]), str(row[y[0]])
        place = {"x": label[column], "column": column, "y": beside[name], "row": name}
        data.append(place | {"value": number, "text": text.replace("-", "−")})
        if sure:
            data[-1]["sure"] = bool(row[sure])
    # The first line of a label is beside the middle of its row; two lines move up by half a line.
    two_lines = {"test": "indexof(datum.value, '\\n') >= 0", "value": -LINE / 2}
    side = alt.Axis(
        labelLimit=160, labelExpr=SPLIT_LABEL, labelLineHeight=LINE, ticks=False, grid=False,
        labelOffset={"condition": two_lines, "value": 0}, domain=False,
    )  # fmt: skip
    base = alt.Chart(ROWS).encode(
        x=alt.X("x:N", title=x[1] or None, sort=list(label.values()), axis=top),
        y=alt.Y("y:N", title=y[1] or None, sort=list(beside.values()), axis=side),
    )
    # Ink that has contrast on the colors, which are the same in both themes.
    scale = alt.Scale(scheme="cividis", domain=[low, low + span])
    dark = f"datum.value > {low + 0.48 * span:.6g}"
    if signed:
        ends = [low, 0, low + span]
        scale = alt.Scale(domain=ends, range=list(DIFFERENCES), interpolate="rgb")
        dark = f"abs(datum.value) < {0.45 * span:.6g}"
    cells = base.mark_rect().encode(
        color=alt.Color("value:Q", legend=None, scale=scale),
        tooltip=[
            tooltip("row:N", y[1] or "row"),
            tooltip("column:N", x[1] or "column"),
            tooltip("value:Q", value[1], number_format=".3f" if limits else ".4~g"),
        ],
    )
    ink = alt.ColorValue(
        "#fff",
        condition=[
            {"test": "!isValid(datum.value)", "value": "#808080"},
            {"test": dark, "value": "#111"},
        ],
    )
    facts = alt_text.cells(data)
    written = [base.mark_text(fontSize=12).encode(text="text:N", color=ink)]
    if sure:
        bold = base.mark_text(fontSize=12, fontWeight="bold").encode(text="text:N", color=ink)
        written = [
            written[0].transform_filter("!datum.sure"), bold.transform_filter("datum.sure")
        ]  # fmt: skip
    return panel(
        alt.layer(cells, *written),
        data,
        title,
        describe("Table of colored cells", title, facts, axes=(value[1],)),
        wide=wide,
        height=32 * len(names),
        least_width=46 * len(label) + 7 * min(max(map(len, names), default=0), 22) + 20,
    )
