"""One style for every figure: rows of numbers in, charts out.

A `Panel` is one Vega-Lite view as wide as the place it is put in; a `Figure` is one or more panels
under one title. Colors come from the page's theme by position (light and dark differ), so a chart
names series and never a color; line dashes repeat what color says, and panels of a figure agree.
"""

from contam.plots.accuracies import accuracies
from contam.plots.agree import in_agreement, on_same_axes
from contam.plots.curves import histogram, lines
from contam.plots.figure import Figure, Panel, Row, over_seeds
from contam.plots.heat import Tile, heat_maps
from contam.plots.marks import bars, matrix, scatter
from contam.plots.pictures import contact_sheet
from contam.plots.style import PALETTE

__all__ = [
    "PALETTE",
    "Figure",
    "Panel",
    "Row",
    "Tile",
    "accuracies",
    "bars",
    "contact_sheet",
    "heat_maps",
    "histogram",
    "in_agreement",
    "lines",
    "matrix",
    "on_same_axes",
    "over_seeds",
    "scatter",
]
