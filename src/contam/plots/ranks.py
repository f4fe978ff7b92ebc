"""Critical-difference diagrams: mean ranks of methods, and which of them differ beyond chance."""

from typing import Any

import altair as alt

from contam.plots import alt_text
from contam.plots.alt_text import describe
from contam.plots.figure import Panel, Rows, panel, records
from contam.plots.style import ROWS, axis, finite, legend_above, tooltip


def ranks(
    rows: Rows,
    *,
    title: str,
    name: tuple[str, str],
    rank: tuple[str, str],
    critical_difference: float,
    series: tuple[str, str] | None = None,
    wide: bool = True,
) -> Panel:
    """Draw the mean rank of each method with a whisker of half a critical difference on each side.

    Methods whose whiskers do not overlap differ beyond chance.

    Args:
        rows: One row for each method.
        title: Title of the panel.
        name: Field of the method's name, and its axis title.
        rank: Field of the mean rank, where 1 is the best, and axis title.
        critical_difference: Difference of mean ranks that is beyond chance.
        series: Field of the kind of method, and legend title; None for a single kind.
        wide: See `Panel`.

    >>> rows = [{"method": "CORAL", "rank": 2.5}, {"method": "ERM", "rank": 1.5}]
    >>> axes = {"name": ("method", ""), "rank": ("rank", "mean rank")}
    >>> ranks(rows, title="Ranks", **axes, critical_difference=1.9).description
    'Critical-difference diagram, Ranks (mean rank; whiskers of 0.95). ERM 1.5, CORAL 2.5.'
    """
    half = critical_difference / 2
    data = []
    for row in sorted(records(rows), key=lambda row: row[rank[0]]):
        place = float(row[rank[0]])
        mark = {"group": str(row[name[0]]), "y": finite(place)}
        mark |= {"low": finite(place - half), "high": finite(place + half)}
        data.append(mark | ({"series": str(row[series[0]])} if series else {}))
    groups = [mark["group"] for mark in data]
    base = alt.Chart(ROWS).encode(
        y=alt.Y(
            "group:N", title=name[1] or None, sort=groups,
            axis=alt.Axis(ticks=False, grid=False, labelLimit=260),
        )
    )  # fmt: skip
    across = axis(rank[1])
    across["scale"] = alt.Scale(zero=False)
    tooltips = [tooltip("group:N", name[1] or "method"), tooltip("y:Q", rank[1])]
    color: dict[str, Any] = {}
    if series is not None:
        names = list(dict.fromkeys(mark["series"] for mark in data))
        legend = legend_above(series[1], names, axis_title="")
        scale = alt.Scale(domain=names)
        color = {"color": alt.Color("series:N", scale=scale, legend=legend)}
        color["shape"] = alt.Shape("series:N", scale=scale, legend=legend)
        tooltips.insert(1, tooltip("series:N", series[1] or "kind"))
    whiskers = base.mark_rule(strokeWidth=1.5, opacity=0.6, tooltip=None).encode(
        x=alt.X("low:Q", **across), x2="high:Q"
    )
    marks = base.mark_point(filled=True, size=60).encode(
        x=alt.X("y:Q", **across), tooltip=tooltips, **color
    )
    said = describe(
        "Critical-difference diagram", title, alt_text.groups(data),
        axes=(rank[1], f"whiskers of {half:.3g}"),
    )  # fmt: skip
    chart = alt.layer(whiskers, marks)
    return panel(chart, data, title, said, wide=wide, height=18 * max(len(groups), 1) + 14)
