"""What every chart has in common: colors, dashes, room, ticks and legends."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

PALETTE = {
    "light": ("#0072B2", "#C44E00", "#007A5A", "#A8487F", "#8A6D00", "#56747F", "#333333"),
    "dark": ("#79C3F7", "#F0A04B", "#2DB98D", "#E69AC4", "#E5CF4F", "#A9BFC9", "#DDDDDD"),
}
"""Okabe and Ito's hues, darkened or lightened until each stands 4.5:1 against its background."""

STROKE = {"symbolType": "stroke", "symbolSize": 500, "symbolStrokeWidth": 2.2}
"""How a legend shows lines."""
DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [12, 4], [4, 1], [1, 3])
HEIGHT = 240
"""Pixels of a panel's plot, without its titles."""
SMALL = 120
"""The same of a small panel."""
NARROW = 42
"""Characters that fit side by side in the narrowest panel, on a phone."""
LINE = 14
"""Pixels of a line of text."""
IN_LINES = "split(datum.label, '\\n')"
"""The label of a tick that has several lines, as a Vega expression."""
LIFT = -10
"""Pixels below the top of a y axis at which its title stands."""
EXPONENT = (
    "datum.value && (abs(datum.value) < 0.001 || abs(datum.value) >= 1000000)"
    " ? replace(format(datum.value, '~e'), '+', '') : format(datum.value, ',~g')"
)
"""The label of a tick, as a Vega expression."""


def finite(value: Any) -> float | None:
    """The value to six digits, which no screen can tell from the whole; None when there is none."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def drawn(value: Any, log: bool) -> float | None:
    """The value where its axis can show it: a logarithmic one has no place for zero."""
    found = finite(value)
    return None if found is None or (log and found <= 0) else found


def rounded(values: Sequence[float]) -> list[float]:
    """The values to a ten-thousandth of what they span, or a little finer."""
    span = max(values, default=0) - min(values, default=0)
    places = 4 - math.floor(math.log10(span)) if span > 0 else 6
    return [round(float(value), places) for value in values]


def in_lines(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` characters; words stay whole."""
    return textwrap.wrap(text, width, break_long_words=False) or [""]


def axis(
    title: str,
    *,
    up: bool = False,
    log: Sequence[float] = (),
    form: str = "",
    ticks: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Title and ticks of an axis of numbers; values in `log` make it a logarithmic one.

    Very small and very large numbers have an exponent, unless `form` says how to write them, or
    `ticks` does, in Vega-Lite's words. The title has as many lines as a phone needs; that of an
    axis that goes `up` stands on its top, so each further line lifts it.
    """
    # Vega reads titles into expressions, too, and can't parse line separators.
    lines = in_lines(" ".join(title.split()), NARROW) if title else []
    look: dict[str, Any] = {"tickCount": 6}
    if form:
        look["format"] = form
    else:
        look |= ticks or {"labelExpr": EXPONENT}
    if up and len(lines) > 1:
        look["titleY"] = LIFT - LINE * (len(lines) - 1)
    scale = {}
    if log:
        domain, look["values"] = log_limits(log)
        scale["scale"] = alt.Scale(type="log", domain=domain, nice=False)
    return {"title": lines or None, "axis": alt.Axis(**look)} | scale


def heads(names: Sequence[str], width: int, **look: Any) -> tuple[dict[str, str], Any]:
    """Labels above the columns of a table, in lines of `width` characters, and their axis."""
    split = {name: in_lines(name, width) for name in names}
    most = max(map(len, split.values()), default=1)
    # Shorter labels begin with blank lines, so that all of them end just above the cells; browsers
    # leave out lines without any character.
    blank = "\N{ZERO WIDTH SPACE}"
    labels = {
        name: "\n".join([*[blank] * (most - len(text)), *text]) for name, text in split.items()
    }
    above = alt.Axis(
        labelAngle=0, orient="top", labelExpr=IN_LINES, labelLineHeight=LINE,
        labelPadding=5 + LINE * (most - 1), ticks=False, grid=False, domain=False, **look,
    )  # fmt: skip
    return labels, above


def tip(field: str, title: str, **look: Any) -> Any:
    """What pointing at a mark tells; its title is one line, as Vega can't parse line separators."""
    return alt.Tooltip(field, title=" ".join(title.split()), **look)


def log_limits(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The round numbers that enclose the values, and those between them: the powers of ten.

    2 and 5 join them where there would be fewer than three.
    """
    rounds = [
        float(f"{digit}e{power}")
        for power in range(_exponent(min(values)) - 1, _exponent(max(values)) + 2)
        for digit in (1, 2, 5)
    ]
    low = max(each for each in rounds if each <= min(values))
    high = min(each for each in rounds if each >= max(values) and each > low)
    inside = [each for each in rounds if low <= each <= high]
    powers = [each for each in inside if f"{each:e}".startswith("1.0")]
    return [low, high], powers[:: math.ceil(len(powers) / 7)] if len(powers) > 2 else inside


def _exponent(value: float) -> int:
    """The power of ten in a number's usual spelling; just below a power it may be the next one."""
    return int(f"{value:e}".split("e")[1])


def dashes(names: Sequence[str]) -> list[list[int]]:
    """A dash for each name; the palette's second round meets other dashes than its first."""
    return [DASHES[(i + i // len(DASHES)) % len(DASHES)] for i in range(len(names))]


def legend_of(title: str, names: Sequence[str], *, above: str, symbol: str | None = None) -> Any:
    """A legend above the plot and the title of its y axis; one name needs none.

    It has as many columns as a phone has room for; a page may give it more.
    """
    if len(names) < 2:
        return None
    look: dict[str, Any] = {"title": title or None, "columns": _columns(names), "labelLimit": 280}
    look["offset"] = 20 + (LINE * len(in_lines(above, NARROW)) if above else 0)
    if symbol == "stroke":
        look |= STROKE
    return alt.Legend(orient="top", symbolOpacity=1, **look)


def legend_below(title: str, names: Sequence[str], *, symbol: str | None = None) -> Any:
    """A second legend, below the plot: what shapes or lines say beside the colors."""
    look = STROKE if symbol == "stroke" else {}
    return alt.Legend(
        title=title or None,
        orient="bottom",
        columns=_columns(names),
        labelLimit=280,
        symbolOpacity=1,
        **look,
    )


def _columns(names: Sequence[str]) -> int:
    return max(1, min(len(names), NARROW // (max(map(len, names), default=1) + 5)))
