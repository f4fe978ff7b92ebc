"""Figures as SVG, PDF and PNG files of an exact width, for papers and slides.

The panels of a figure are drawn one by one, as wide as their place in the figure, and put together
in one drawing. Letters of 12 pixels on a page are letters of 8 points in a file.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any, Literal, NamedTuple, TypeAlias

import altair
import vl_convert
from PIL import Image

from contam.plots import Figure, Panel, match_series
from contam.plots.style import wrap
from contam.report.theme import chart_config

FigureFormat: TypeAlias = Literal["svg", "pdf", "png"]

LETTERS, POINTS = 12, 8
"""Size of the letters in pixels of the drawing, and in points in the file."""
UNITS = {"in": 72.0, "cm": 72 / 2.54, "mm": 72 / 25.4, "pt": 1.0}
"""Points in each unit of length."""
NARROWEST, WIDEST = 72.0, 72.0 * 40
"""Limits of the width in points."""
LEAST_PANEL, LEAST_SMALL_PANEL = 320, 150
"""Width in pixels from which panels, and small panels, are put side by side."""
GAP = 24
"""Pixels between panels."""
TITLE_LINE = 17
"""Height of a line of a panel's title in pixels."""
LETTER_WIDTH = 6.6
"""Mean width of a bold letter of a title in pixels."""
DOTS_PER_INCH = 300
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
"""Liberation Sans, which the converter contains, has the metrics of Arial."""


@dataclass(frozen=True)
class FigureFile:
    """A drawn figure."""

    content: bytes
    width: float
    """Width in points."""
    height: float
    """Height in points."""
    letters: float
    """Size of the smallest letters of axes and legends in points."""


class _Drawing(NamedTuple):
    """Markup of a drawing, and its size in pixels."""

    markup: str
    width: float
    height: float
    shrunk: float = 1.0
    """Factor by which it was shrunk to fit its place."""


def points_of(width: str) -> float:
    """Return a length in points.

    Args:
        width: number and unit: in, cm, mm or pt.

    Raises:
        ValueError: the text is not such a length, or it is not between 1 in and 40 in.

    >>> points_of("3.25in"), points_of("72 pt")
    (234.0, 72.0)
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]+)\s*", width.lower())
    points = float(match[1]) * UNITS.get(match[2], math.nan) if match else math.nan
    if not NARROWEST <= points <= WIDEST:
        raise ValueError(
            f"the width is a number and a unit ({', '.join(UNITS)}) from 1in to 40in, such as "
            f"3.25in; got {width!r}"
        )
    return points


def name_of(figure: Figure) -> str:
    """Return a short name for a figure's file, made of its title.

    >>> name_of(Figure("Risk of ReLU networks (d = 64)", "", "ours", ()))
    'risk-of-relu-networks-d-64'
    """
    words = re.sub(r"[^a-z0-9]+", "-", figure.title.lower()).strip("-")
    return words[:60].rpartition("-")[0] if len(words) > 60 else words or "figure"


def figure_file(figure: Figure, file_format: FigureFormat, width: float) -> FigureFile:
    """Draw a figure as a file.

    Args:
        figure: the figure.
        file_format: a PDF file has selectable text and embedded fonts; a PNG file has 300 dots
            per inch.
        width: width of the file in points, exactly.

    Raises:
        ValueError: no panel of the figure has anything to draw.

    >>> from contam.plots import bars
    >>> rows = [{"net": "ReLU", "risk": 0.85}, {"net": "linear", "risk": 0.31}]
    >>> panel = bars(rows, title="Risk", x=("net", ""), y=("risk", "OOD risk"))
    >>> file = figure_file(Figure("Risk", "", "ours", (panel,)), "svg", 234.0)
    >>> file.content[:23], file.letters
    (b'<svg xmlns="http://www.', 8.0)
    """
    drawing = _figure(figure, width * LETTERS / POINTS)
    scale = POINTS / LETTERS
    height = math.ceil(drawing.height * scale * 100) / 100
    # The converter takes a pixel as a point of PDF, and as 1/72 inch of PNG.
    unit = "pt" if file_format == "svg" else ""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'version="1.1" width="{width:g}{unit}" height="{height:g}{unit}" '
        f'viewBox="0 0 {drawing.width:g} {height / scale:g}" role="img">'
        f"<title>{escape(figure.title)}</title><desc>{escape(_description(figure))}</desc>"
        f"{drawing.markup}</svg>\n"
    )
    convert = {
        "svg": str.encode,
        "pdf": vl_convert.svg_to_pdf,
        "png": lambda text: vl_convert.svg_to_png(_on_white(text), ppi=DOTS_PER_INCH),
    }
    return FigureFile(convert[file_format](svg), width, height, POINTS * drawing.shrunk)


def _figure(figure: Figure, width: float) -> _Drawing:
    """All panels of a figure, in lines as wide as the figure."""
    charts = match_series(figure.panels)
    shown = [
        (panel, chart)
        for panel, chart in zip(figure.panels, charts, strict=True)
        if not panel.empty
    ]
    if not shown:
        raise ValueError(f"the figure {figure.title!r} has no numbers to draw")
    markup, top, shrunk = [], 0.0, 1.0
    lines = _lines([panel for panel, _ in shown], width)
    place = 0
    for line, columns in lines:
        across = (width - GAP * (columns - 1)) / columns
        bottom = top
        for column in range(line):
            panel, chart = shown[place]
            part = _titled(panel, chart, across, str(place), titled=len(shown) > 1)
            markup.append(_moved(part.markup, column * (across + GAP), top))
            bottom, shrunk = max(bottom, top + part.height), min(shrunk, part.shrunk)
            place += 1
        top = bottom + GAP
    return _Drawing("".join(markup), width, top - GAP, shrunk)


def _lines(panels: Sequence[Panel], width: float) -> list[tuple[int, int]]:
    """How many panels each line has, and for how many it has places."""
    lines: list[tuple[int, int]] = []
    for panel in panels:
        least = LEAST_SMALL_PANEL if panel.small else max(LEAST_PANEL, panel.least_width)
        columns = max(1, int((width + GAP) // (least + GAP)))
        columns = 1 if panel.wide or len(panels) == 1 else min(columns, len(panels))
        if lines and lines[-1][1] == columns and lines[-1][0] < columns:
            lines[-1] = lines[-1][0] + 1, columns
        else:
            lines.append((1, columns))
    return lines


def _titled(
    panel: Panel, chart: Mapping[str, Any] | None, width: float, name: str, *, titled: bool
) -> _Drawing:
    drawing = _picture(panel, width) if chart is None else _chart(panel, chart, width, name)
    if not titled:
        return drawing
    lines = wrap(panel.title, max(8, int(width / LETTER_WIDTH)))
    text = "".join(
        f'<text x="2" y="{13 + TITLE_LINE * i}" font-family="{FONT}" font-size="13" '
        f'font-weight="bold" fill="#1d2227">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    above = TITLE_LINE * len(lines) + 8
    return drawing._replace(
        markup=text + _moved(drawing.markup, 0, above), height=drawing.height + above
    )


def _chart(panel: Panel, chart: Mapping[str, Any], width: float, name: str) -> _Drawing:
    """A chart; one that needs more width is drawn at this width and shrunk."""
    drawn = max(width, panel.least_width)
    spec: Any = deepcopy(dict(chart)) | {"width": drawn}
    _widen_legends(spec, drawn)
    config = chart_config("light")
    config["font"], config["style"]["halo"]["color"] = FONT, "#ffffff"
    release = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    svg = vl_convert.vegalite_to_svg(spec, vl_version=release, config=config)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert box is not None, "the converter writes a view box"
    inside = _with_png_pictures(svg[svg.index(">") + 1 : svg.rindex("</svg>")])
    # Names of clip paths and gradients are unique in each chart alone.
    inside = re.sub(r'\bid="', f'id="p{name}-', inside)
    inside = re.sub(r"url\(#", f"url(#p{name}-", inside)
    scale = width / float(box[1])
    return _Drawing(
        f'<g transform="scale({scale:.6g})">{inside}</g>', width, scale * float(box[2]),
        min(1.0, scale),
    )  # fmt: skip


def _widen_legends(spec: Any, width: float) -> None:
    """Give legends as many columns as fit; a chart has those that fit on a phone."""
    for view in (spec, *spec.get("layer", ())):
        encodings = view.get("encoding", {})
        # A legend starts at the left edge of the plot, to the right of the names on the y axis.
        available = width - (190 if encodings.get("y", {}).get("type") == "nominal" else 50)
        for encoding in encodings.values():
            legend = encoding.get("legend") if isinstance(encoding, dict) else None
            if not legend or legend.get("type") == "gradient":
                continue
            names = legend.get("values") or encoding["scale"]["domain"]
            longest = max((len(str(name)) for name in names), default=1)
            legend["labelLimit"] = width - 70
            legend["columns"] = max(1, min(len(names), int(available // (6.4 * longest + 46))))


def _picture(panel: Panel, width: float) -> _Drawing:
    assert panel.picture is not None
    with Image.open(BytesIO(panel.picture)) as image:
        scale = min(1.0, width / image.width)
        size = image.width * scale, image.height * scale
        address = _png_address(image)
    markup = (
        f'<image width="{size[0]:g}" height="{size[1]:g}" xlink:href="{address}" '
        'style="image-rendering: pixelated"/>'
    )
    return _Drawing(markup, width, size[1])


def _with_png_pictures(markup: str) -> str:
    """Replace WebP pictures, which few readers of SVG and PDF know."""

    def replaced(match: re.Match[str]) -> str:
        with Image.open(BytesIO(base64.b64decode(match[1]))) as image:
            return _png_address(image)

    data = r"data:image/webp;base64,([A-Za-z0-9+/=]+)"
    # Labels for screen readers repeat the whole picture.
    return re.sub(data, replaced, re.sub(f"; url: {data}", "", markup))


def _png_address(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _moved(markup: str, x: float, y: float) -> str:
    return f'<g transform="translate({x:g},{y:g})">{markup}</g>'


def _on_white(svg: str) -> str:
    start = svg.index(">") + 1
    return f'{svg[:start]}<rect width="100%" height="100%" fill="#ffffff"/>{svg[start:]}'


def _description(figure: Figure) -> str:
    return " ".join(panel.description for panel in figure.panels if not panel.empty)
