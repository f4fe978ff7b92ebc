"""Heat maps over images, in rows and columns."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import altair as alt
import numpy as np
from PIL import Image

from contam.plots.alt_text import describe
from contam.plots.figure import Panel, panel
from contam.plots.style import LINE, ROWS, SPLIT_LABEL, column_labels, tooltip, wrap

SIDE = 96
"""Pixels of a tile's longer side on the page; a smaller picture is enlarged by whole numbers."""
GAP = 6
NOTE = 18
"""Pixels of the line below a tile."""
COVER = 0.6
"""Opacity of the heat over the gray image."""
CIVIDIS = (
    "002051", "0a326a", "2b446e", "4d566d", "696970", "7f7c75", "948f78", "ada476", "caba6a",
    "ead156", "fdea45",
)  # fmt: skip
"""Evenly spaced colors from no heat to the maximum; their lightness increases."""


@dataclass(frozen=True)
class Tile:
    """An image with its place in the sheet and the heat map of a network."""

    column: str
    row: str
    picture: np.ndarray
    """(height, width, 3), values in [0, 1]."""
    heat: np.ndarray | None = None
    """(rows, columns) of any resolution, not negative; None shows the picture itself."""
    note: str = ""
    """Short text below the tile."""


def tile_row(
    row: str,
    columns: Sequence[str],
    pictures: Sequence[np.ndarray],
    heat: Sequence[np.ndarray | None] | np.ndarray = (),
    notes: Sequence[str] = (),
) -> list[Tile]:
    """Return a row of tiles.

    Args:
        row: Name of the row.
        columns: Names of the columns.
        pictures: The picture of each tile.
        heat: The heat map of each tile; empty for pictures alone.
        notes: The text below each tile; empty for none.

    >>> [tile.column for tile in tile_row("teacher", ["ID", "OOD"], 2 * [np.zeros((2, 2, 3))])]
    ['ID', 'OOD']
    """
    maps = [*heat] or [None] * len(columns)
    texts = notes or [""] * len(columns)
    places = zip(columns, pictures, maps, texts, strict=True)
    return [Tile(column, row, picture, heat, text) for column, picture, heat, text in places]


def heat_maps(
    tiles: Sequence[Tile],
    *,
    title: str,
    x: str = "",
    y: str = "",
    heat: str = "heat",
    wide: bool = True,
) -> Panel:
    """Draw images with heat maps in named rows and columns.

    All heat maps of a row share a scale from 0 to the maximum of the row, which is printed below
    the row's name.

    Args:
        tiles: Images of one size.
        title: Title of the panel.
        x: Title of the columns.
        y: Title of the rows.
        heat: Name of the quantity that the heat shows.
        wide: See `Panel`.

    Raises:
        ValueError: pictures of several sizes, heat that is negative or not finite, or two tiles in
            one place.

    >>> tile = Tile("ID", "teacher", np.zeros((2, 2, 3)), heat=np.ones((2, 2)))
    >>> heat_maps([tile], title="Grad-CAM").description
    'Heat maps, Grad-CAM. teacher, ID: mean heat 1.'
    """
    sizes = {np.shape(tile.picture) for tile in tiles}
    if len(sizes) > 1:
        raise ValueError(f"a sheet of heat maps needs pictures of one size, not {sorted(sizes)}")
    places = [(tile.column, tile.row) for tile in tiles]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise ValueError(
            f"two tiles are in column {twice[0]!r} of row {twice[1]!r}; number the columns"
        )
    most = _most(tiles)
    names = {
        row: [*wrap(row, 16), *([f"{heat} 0 to {top:.3g}"] if top else [])]
        for row, top in most.items()
    }
    label = {row: "\n".join(lines) for row, lines in names.items()}
    columns = list(dict.fromkeys(tile.column for tile in tiles))
    height, width = _tile_size(next(iter(sizes))[:2]) if sizes else (SIDE, SIDE)
    head, top = column_labels(columns, width // 7, labelOverlap=False, titleAnchor="start")
    data = [
        {
            "x": head[tile.column],
            "y": label[tile.row],
            "url": _data_uri(tile, most[tile.row]),
            "note": tile.note,
            "top": 0 if tile.heat is None else 1,
            "column": tile.column,
            "row": tile.row,
            "mean": "" if tile.heat is None else f"{np.mean(tile.heat):.3g}",
        }
        for tile in tiles
    ]
    below = NOTE if any(tile.note for tile in tiles) else 0
    steps = (width + GAP, height + GAP + below)
    # The lines of a label run down from where it stands, which is the middle of tile and note.
    lift = (LINE * (max(map(len, names.values()), default=1) - 1) + below) / 2
    side = alt.Axis(
        labelExpr=SPLIT_LABEL, labelLineHeight=LINE, labelOffset=-lift, labelLimit=150,
        labelOverlap=False, ticks=False, grid=False, domain=False,
    )  # fmt: skip
    across = alt.Scale(range=[0, steps[0] * len(columns)], paddingInner=0, paddingOuter=0)
    base = alt.Chart(ROWS).encode(
        x=alt.X("x:N", title=x or None, sort=list(head.values()), axis=top, scale=across),
        y=alt.Y("y:N", title=y or None, sort=list(label.values()), axis=side,
                scale=alt.Scale(paddingInner=0, paddingOuter=0)),
    )  # fmt: skip
    tooltips = [
        tooltip("column:N", x or "column"),
        tooltip("row:N", y or "row"),
        tooltip("mean:N", f"mean {heat}"),
    ]
    pictures = base.mark_image(width=width, height=height, yOffset=-below / 2).encode(
        url="url:N", tooltip=tooltips
    )
    notes = base.mark_text(fontSize=12, baseline="bottom", yOffset=steps[1] / 2 - GAP / 2).encode(
        text="note:N"
    )
    layers = [pictures, notes]
    if any(most.values()):
        # These points are invisible; they create the legend.
        bar = alt.Legend(
            type="gradient", orient="bottom", direction="horizontal", title=heat, values=[0, 1],
            labelExpr="datum.value ? 'most in the row' : '0'", gradientLength=160,
        )  # fmt: skip
        ends = alt.Color("top:Q", scale=alt.Scale(scheme="cividis", domain=[0, 1]), legend=bar)
        layers.append(base.mark_point(opacity=0, tooltip=None).encode(color=ends))
    facts = [
        ", ".join(
            filter(None, (f"{tile.row}, {tile.column}: mean {heat} {point['mean']}", tile.note))
        )
        for tile, point in zip(tiles, data, strict=True)
        if tile.heat is not None
    ]
    return panel(
        alt.layer(*layers),
        data,
        title,
        describe("Heat maps", title, facts, axes=(x, y)),
        wide=wide,
        height=steps[1] * len(label),
        least_width=steps[0] * len(columns) + 130,
    )


def _most(tiles: Sequence[Tile]) -> dict[str, float]:
    """Return the maximum heat of each row; 0 for a row without heat."""
    most: dict[str, float] = {}
    for tile in tiles:
        low, high = (0.0, 0.0) if tile.heat is None else (np.min(tile.heat), np.max(tile.heat))
        if not (low >= 0 and math.isfinite(high)):
            raise ValueError(
                f"heat is at least 0 and finite, and that of {tile.column!r} in {tile.row!r} goes "
                f"from {low:.3g} to {high:.3g}; cut it below zero"
            )
        most[tile.row] = max(most.get(tile.row, 0.0), float(high))
    return most


def _tile_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a tile on the page, in pixels."""
    height, width = size
    return round(SIDE * height / max(size)), round(SIDE * width / max(size))


def _data_uri(tile: Tile, most: float) -> str:
    """Encode the image, under its heat map if it has one, as a data URI."""
    pixels = np.asarray(tile.picture, np.float64).clip(0, 1)
    times = math.ceil(SIDE / max(pixels.shape[:2]))
    pixels = pixels.repeat(times, 0).repeat(times, 1)
    if tile.heat is not None:
        height, width = pixels.shape[:2]
        heat = Image.fromarray(np.asarray(tile.heat, np.float32)).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        gray = pixels @ np.array([0.299, 0.587, 0.114])
        share = np.asarray(heat) / (most or 1.0)
        pixels = COVER * cividis(share) + (1 - COVER) * gray[..., None]
    file = BytesIO()
    Image.fromarray(np.rint(255 * pixels).astype(np.uint8)).save(file, "WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def cividis(shares: np.ndarray) -> np.ndarray:
    """Map values in [0, 1] to colors.

    Args:
        shares: Values of any shape.

    Returns:
        Red, green and blue in [0, 1] along a further, last axis.

    >>> cividis(np.array([0.0, 1.0])).shape
    (2, 3)
    """
    colors = np.array([[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code in CIVIDIS]) / 255
    places = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(shares, places, colors[:, i]) for i in range(3)], axis=-1)
