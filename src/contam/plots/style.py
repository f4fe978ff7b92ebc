"""Style of all charts: colors, dashes, sizes, axes, tooltips and legends."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

PALETTE = {
    "light": ("#0072B2", "#C44E00", "#007A5A", "#A8487F", "#8A6D00", "#56747F", "#333333"),
    "dark": ("#79C3F7", "#F0A04B", "#2DB98D", "#E69AC4", "#E5CF4F", "#A9BFC9", "#DDDDDD"),
}
"""Hues of Okabe and Ito, with a contrast of at least 4.5:1 to the theme's background."""

STROKE = {"symbolType": "stroke", "symbolSize": 500, "symbolStrokeWidth": 2.2}
"""Legend symbols of lines."""
DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [12, 4], [4, 1], [1, 3])
ROWS = alt.NamedData("rows")
"""In place of the data while a chart is made; Altair copies data in every step."""
HEIGHT = 240
"""Height of a plot in pixels, without its titles."""
SMALL = 120
"""Height of the plot of a small panel in pixels."""
NARROW = 42
"""Characters on a line of the narrowest panel, on a phone."""
LINE = 14
"""Height of a line of text in pixels."""
SPLIT_LABEL = "split(datum.label, '\\n')"
"""Vega expression for a tick label of several lines."""
TITLE_Y = -10
"""Offset of a y axis title from the top of the axis, in pixels."""
NUMBER_LABEL = (
    "datum.value && (abs(datum.value) < 0.001 || abs(datum.value) >= 1000000)"
    " ? replace(format(datum.value, '~e'), '+', '') : format(datum.value, ',~g')"
)
"""Vega expression for a tick label; very small and very large numbers have an exponent."""


def finite(value: Any) -> float | None:
    """Round a value to six significant digits; return None if it is missing or not finite.

    >>> finite(2 / 3), finite(float("nan"))
    (0.666667, None)
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def plottable(value: Any, *, log: bool) -> float | None:
    """Round a value as `finite` does; return None if a logarithmic axis can't show it.

    >>> plottable(0.0, log=False), plottable(0.0, log=True)
    (0.0, None)
    """
    number = finite(value)
    return None if number is None or (log and number <= 0) else number


def rounded(values: Sequence[float]) -> list[float]:
    """Round the values to a ten-thousandth of their range or slightly finer.

    >>> rounded([0.0, 1 / 3, 1.0])
    [0.0, 0.3333, 1.0]
    """
    span = max(values, default=0) - min(values, default=0)
    places = 4 - math.floor(math.log10(span)) if span > 0 else 6
    return [round(float(value), places) for value in values]


def wrap(text: str, width: int) -> list[str]:
    """Split a text into lines of at most `width` characters without breaking words.

    >>> wrap("OOD accuracy", 8)
    ['OOD', 'accuracy']
    """
    return textwrap.wrap(text, width, break_long_words=False) or [""]


def axis(
    title: str,
    *,
    vertical: bool = False,
    log: Sequence[float] = (),
    label_format: str = "",
    ticks: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the title, ticks and scale of an axis of numbers, as arguments of `alt.X` or `alt.Y`.

    Args:
        title: Axis title; it is wrapped for a phone.
        vertical: Whether it is a y axis, whose title stands above the axis.
        log: Plotted values of a logarithmic axis; empty for a linear one.
        label_format: Format of the tick labels, in the notation of d3.
        ticks: Tick options of `alt.Axis`, used if there is no `label_format`.

    >>> axis("risk")["title"], sorted(axis("risk", log=[1.0, 10.0]))
    (['risk'], ['axis', 'scale', 'title'])
    """
    # Vega reads titles into expressions, too, and can't parse line separators.
    lines = wrap(" ".join(title.split()), NARROW) if title else []
    options: dict[str, Any] = {"tickCount": 6}
    if label_format:
        options["format"] = label_format
    else:
        options |= ticks or {"labelExpr": NUMBER_LABEL}
    if vertical and len(lines) > 1:
        options["titleY"] = TITLE_Y - LINE * (len(lines) - 1)
    scale = {}
    if log:
        domain, options["values"] = log_limits(log)
        scale["scale"] = alt.Scale(type="log", domain=domain, nice=False)
    return {"title": lines or None, "axis": alt.Axis(**options)} | scale


def column_labels(names: Sequence[str], width: int, **options: Any) -> tuple[dict[str, str], Any]:
    r"""Return wrapped labels for the columns of a table, and the axis that shows them.

    Args:
        names: Names of the columns.
        width: Characters on a line.
        options: Further options of `alt.Axis`.

    Returns:
        Labels by name, all with the same number of lines; and an axis above the table.

    >>> labels, _ = column_labels(["ID", "OOD dim"], 4)
    >>> labels["OOD dim"], labels["ID"].endswith("ID"), labels["ID"].count(chr(10))
    ('OOD\ndim', True, 1)
    """
    lines = {name: wrap(name, width) for name in names}
    most = max(map(len, lines.values()), default=1)
    # Shorter labels begin with blank lines, so that all of them end just above the cells; browsers
    # leave out lines without any character.
    blank = "\N{ZERO WIDTH SPACE}"
    labels = {
        name: "\n".join([*[blank] * (most - len(text)), *text]) for name, text in lines.items()
    }
    above = alt.Axis(
        labelAngle=0, orient="top", labelExpr=SPLIT_LABEL, labelLineHeight=LINE,
        labelPadding=5 + LINE * (most - 1), ticks=False, grid=False, domain=False, **options,
    )  # fmt: skip
    return labels, above


def tooltip(field: str, title: str, *, number_format: str = "") -> Any:
    r"""Return a line of a tooltip.

    Args:
        field: Field and type, such as "y:Q".
        title: Name of the field; it becomes one line, since Vega can't parse line separators.
        number_format: Format of the value, in the notation of d3.

    >>> tooltip("y:Q", "OOD\naccuracy", number_format=".3f").to_dict()["title"]
    'OOD accuracy'
    """
    options: dict[str, Any] = {"format": number_format} if number_format else {}
    return alt.Tooltip(field, title=" ".join(title.split()), **options)


def log_limits(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the limits and the ticks of a logarithmic axis.

    Args:
        values: Positive values.

    Returns:
        The closest numbers of the form 1, 2 or 5 times a power of ten that enclose the values; and
        at most 8 ticks: the powers of ten between them or, if these are fewer than three, all such
        numbers.

    >>> log_limits([0.03, 0.4])
    ([0.02, 0.5], [0.02, 0.05, 0.1, 0.2, 0.5])
    """
    candidates = [
        float(f"{digit}e{power}")
        for power in range(_exponent(min(values)) - 1, _exponent(max(values)) + 2)
        for digit in (1, 2, 5)
    ]
    low = max(tick for tick in candidates if tick <= min(values))
    high = min(tick for tick in candidates if tick >= max(values) and tick > low)
    inside = [tick for tick in candidates if low <= tick <= high]
    powers = [tick for tick in inside if f"{tick:e}".startswith("1.0")]
    return [low, high], powers[:: math.ceil(len(powers) / 7)] if len(powers) > 2 else inside


def _exponent(value: float) -> int:
    """Return the decimal exponent; just below a power of ten it may be that of the power."""
    return int(f"{value:e}".split("e")[1])


def dashes(names: Sequence[str]) -> list[list[int]]:
    """Return a dash pattern for each name.

    The pairs of color and dash stay unique when the colors of the palette repeat.

    >>> dashes(["ID", "OOD"])
    [[1, 0], [7, 3]]
    """
    return [DASHES[(i + i // len(DASHES)) % len(DASHES)] for i in range(len(names))]


def legend_above(title: str, names: Sequence[str], *, axis_title: str, stroke: bool = False) -> Any:
    """Return a legend above the plot, or None for a single name.

    It has as many columns as fit on a phone; a page may give it more.

    Args:
        title: Title of the legend.
        names: Names of the series.
        axis_title: Title of the y axis, which stands between legend and plot; empty without one.
        stroke: Whether the symbols are lines.

    >>> legend_above("network", ["ReLU", "linear"], axis_title="risk").to_dict()["columns"]
    2
    """
    if len(names) < 2:
        return None
    offset = 20 + (LINE * len(wrap(axis_title, NARROW)) if axis_title else 0)
    return _legend(title, names, stroke, orient="top", offset=offset)


def legend_below(title: str, names: Sequence[str], *, stroke: bool = False) -> Any:
    """Return a second legend, below the plot, for shapes or dashes.

    Args:
        title: Title of the legend.
        names: Names of the shapes or dashes.
        stroke: Whether the symbols are lines.

    >>> legend_below("class", ["cat", "dog"]).to_dict()["orient"]
    'bottom'
    """
    return _legend(title, names, stroke, orient="bottom")


def _legend(title: str, names: Sequence[str], stroke: bool, **position: Any) -> Any:
    columns = max(1, min(len(names), NARROW // (max(map(len, names), default=1) + 5)))
    symbols = STROKE if stroke else {}
    return alt.Legend(
        title=title or None, columns=columns, labelLimit=280, symbolOpacity=1, **position, **symbols
    )
