"""The light and the dark theme: one table of colors for the style sheet and the charts."""

from typing import Any

from contam.plots import PALETTE
from contam.plots.style import LINE, TITLE_Y

COLORS = {
    "light": {
        "paper": "#fcfbf8",
        "sunk": "#f3f1eb",
        "ink": "#1d2227",
        "soft": "#565e66",
        "rule": "#dbd7cd",
        "link": "#0a5a8c",
        "holds": "#17663a",
        "holds-tint": "#e3f1e7",
        "fails": "#a12f16",
        "fails-tint": "#fae7e1",
        "unjudged": "#565b62",
        "unjudged-tint": "#ebe9e3",
    },
    "dark": {
        "paper": "#14171a",
        "sunk": "#1d2125",
        "ink": "#e9e7e2",
        "soft": "#a9afb6",
        "rule": "#353b42",
        "link": "#84c4f2",
        "holds": "#83d6a0",
        "holds-tint": "#17301f",
        "fails": "#f4a793",
        "fails-tint": "#3b2019",
        "unjudged": "#b7bdc4",
        "unjudged-tint": "#282d33",
    },
}

SANS = (
    '-apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", '
    "Arial, sans-serif"
)


def stylesheet() -> str:
    """Return the colors as CSS properties; the page's choice overrides the system's setting.

    >>> "--paper: #fcfbf8;" in stylesheet()
    True
    """
    light, dark = (
        _properties(
            COLORS[name] | {f"series-{place}": color for place, color in enumerate(PALETTE[name])}
        )
        for name in ("light", "dark")
    )
    return (
        f":root {{ color-scheme: light; --sans: {SANS};\n{light} }}\n"
        f":root[data-theme=dark] {{ color-scheme: dark;\n{dark} }}\n"
        "@media (prefers-color-scheme: dark) {\n"
        f":root:not([data-theme]) {{ color-scheme: dark;\n{dark} }}\n}}\n"
        f"@media print {{\n:root, :root[data-theme] {{ color-scheme: light;\n{light} }}\n}}\n"
    )


def _properties(colors: dict[str, str]) -> str:
    return "\n".join(f"--{name}: {value};" for name, value in colors.items())


def chart_config(name: str) -> dict[str, Any]:
    """Return the Vega config of a theme.

    Args:
        name: `light` or `dark`.

    >>> chart_config("dark")["axis"]["titleColor"]
    '#e9e7e2'
    """
    colors = COLORS[name]
    words = {"labelColor": colors["soft"], "titleColor": colors["ink"]}
    return {
        "font": SANS,
        "background": "transparent",
        "padding": {"left": 2, "right": 10, "top": 4, "bottom": 2},
        "autosize": {"type": "fit-x", "contains": "padding"},
        "range": {"category": list(PALETTE[name])},
        "view": {"stroke": None},
        "mark": {"color": PALETTE[name][0]},
        "rule": {"color": colors["ink"]},
        "style": {
            "halo": {"color": colors["paper"], "strokeWidth": 4},
            "reference": {"color": colors["soft"]},
        },
        "text": {"color": colors["ink"]},
        "axis": words
        | {
            "domainColor": colors["soft"],
            "domainWidth": 0.8,
            "tickColor": colors["soft"],
            "tickSize": 4,
            "gridColor": colors["rule"],
            "gridWidth": 0.7,
            "labelFontSize": 12,
            "labelLineHeight": LINE,
            "titleLineHeight": LINE,
            "labelOverlap": "greedy",
            "labelPadding": 5,
            "titleFontSize": 12,
            "titleFontWeight": 500,
            "titlePadding": 8,
        },
        "axisXQuantitative": {"grid": False},
        # The title of a y axis is horizontal and above the axis.
        "axisYQuantitative": {
            "domain": False,
            "ticks": False,
            "titleAngle": 0,
            "titleAlign": "left",
            "titleAnchor": "start",
            "titleBaseline": "bottom",
            "titleX": 0,
            "titleY": TITLE_Y,
        },
        "legend": words
        | {
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": 500,
            "columnPadding": 18,
            "rowPadding": 4,
            "padding": 0,
        },
        "line": {"strokeCap": "butt", "strokeJoin": "round"},
    }


CHARTS = {name: chart_config(name) for name in COLORS}
