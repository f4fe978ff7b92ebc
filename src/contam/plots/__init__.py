"""Charts in one style: functions from rows of numbers to Vega-Lite specifications.

A `Panel` is one Vega-Lite view as wide as its container; a `Figure` is one or more panels under one
title. A chart names its series, and the page's theme assigns colors by position, since the light
and the dark theme differ. Line dashes repeat what colors encode. A series has the same color in all
panels of a figure.
"""

from contam.plots.accuracies import accuracies
from contam.plots.curves import histogram, lines
from contam.plots.figure import Figure, Panel, Row, over_seeds
from contam.plots.heat import Tile, heat_maps, tile_row
from contam.plots.marks import bars, matrix, scatter
from contam.plots.pictures import channels_last, contact_sheet
from contam.plots.ranks import ranks
from contam.plots.shared_scales import match_series, share_axes
from contam.plots.style import PALETTE

__all__ = [
    "PALETTE",
    "Figure",
    "Panel",
    "Row",
    "Tile",
    "accuracies",
    "bars",
    "channels_last",
    "contact_sheet",
    "heat_maps",
    "histogram",
    "lines",
    "match_series",
    "matrix",
    "over_seeds",
    "ranks",
    "scatter",
    "share_axes",
    "tile_row",
]
