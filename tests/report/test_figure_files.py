"""Figures as files: the width is exact, PDF text is selectable, nothing is cut."""

import re
import zlib
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from contam.plots import Figure, Tile, accuracies, bars, contact_sheet, heat_maps, lines, matrix
from contam.report.figure_files import figure_file, name_of, points_of

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ("teacher of many words", "student of many words", "a standard network", "untrained")


def curves(title: str = "Accuracy", names: tuple[str, ...] = NAMES):
    rows = [{"step": s, "a": 0.1 * i + 0.01 * s, "net": n} for i, n in enumerate(names)
            for s in (0, 10)]  # fmt: skip
    return lines(rows, title=title, x=("step", "step"), y=("a", "accuracy"), series=("net", ""))


def figure(*panels) -> Figure:
    return Figure("Accuracy & risk", "A caption.", "ours", panels or (curves(),))


def drawn(svg: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: bytes) -> list[str]:
    return [node.text or "" for node in drawn(svg).iter(f"{SVG}text")]


def pdf_text(pdf: bytes) -> str:
    """The letters of a PDF file in order, by the tables that map glyphs of its fonts to Unicode."""
    objects = dict(re.findall(rb"(\d+) 0 obj(.*?)endobj", pdf, re.DOTALL))
    fonts: dict[bytes, dict[int, str]] = {}
    for name, number in re.findall(rb"/(fo\d+) (\d+) 0 R", pdf):
        unicode = re.search(rb"/ToUnicode (\d+) 0 R", objects[number])
        assert unicode is not None
        fonts[name] = {
            int(glyph, 16): bytes.fromhex(letter.decode()).decode("utf-16-be")
            for glyph, letter in re.findall(
                rb"<([0-9A-Fa-f]{4})> <([0-9A-Fa-f]+)>\n", objects[unicode[1]]
            )
        }  # fmt: skip
    shown = ""
    for body in objects.values():
        stream = re.search(rb"stream\r?\n(.*)\r?\nendstream", body, re.DOTALL)
        if stream is None or b"FlateDecode" not in body.split(b"stream")[0]:
            continue
        content = zlib.decompress(stream[1])
        for font, text in re.findall(rb"/(fo\d+) [\d.]+ Tf\n\((.*?)\) Tj", content, re.DOTALL):
            raw = re.sub(rb"\\([0-7]{3}|.)", _byte, text, flags=re.DOTALL)
            glyphs = [int.from_bytes(raw[i : i + 2]) for i in range(0, len(raw), 2)]
            shown += "".join(fonts[font].get(glyph, "?") for glyph in glyphs)
    return shown


def _byte(match: re.Match[bytes]) -> bytes:
    named = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
    code = match[1]
    return bytes([int(code, 8)]) if len(code) == 3 else named.get(code, code)


@pytest.mark.parametrize("width", ["3.25in", "17cm"])
def test_the_width_is_exact_in_every_format(width):
    points = points_of(width)
    svg, pdf = (figure_file(figure(), kind, points) for kind in ("svg", "pdf"))
    assert float(drawn(svg.content).attrib["width"].removesuffix("pt")) == pytest.approx(
        points, abs=1e-3
    )
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf.content)
    assert box is not None
    assert float(box[1]) == pytest.approx(points, abs=0.01)
    assert float(box[2]) == pytest.approx(pdf.height, abs=0.01)


def test_a_png_has_300_dots_per_inch_on_white():
    small = bars([{"net": "ReLU", "r": 1.0}], title="Risk", x=("net", ""), y=("r", "risk"))
    png = figure_file(figure(small), "png", 144.0)
    with Image.open(BytesIO(png.content)) as image:
        assert image.width == pytest.approx(600, abs=1)
        assert image.info["dpi"][0] == pytest.approx(300, abs=0.1)
        assert (np.asarray(image.convert("RGBA"))[..., 3] == 255).all()


def test_the_text_of_a_pdf_is_selectable_and_its_fonts_are_embedded():
    pdf = figure_file(figure(), "pdf", 234.0).content
    descriptors = re.findall(rb"/Type /FontDescriptor.*?endobj", pdf, re.DOTALL)
    assert descriptors and all(b"/FontFile" in one for one in descriptors)
    text = pdf_text(pdf)
    assert "accuracy" in text and "step" in text
    assert all(name in text for name in NAMES)


def test_letters_have_eight_points_and_names_of_series_are_whole_at_every_width():
    for width in (234.0, 486.0):
        file = figure_file(figure(), "svg", width)
        assert file.letters == pytest.approx(8, abs=0.01)
        assert set(NAMES) <= set(texts(file.content))
        scale = width / float(drawn(file.content).attrib["viewBox"].split()[2])
        sizes = re.findall(rb'font-size="([\d.]+)(?:px)?"', file.content)
        assert sizes and min(map(float, sizes)) * scale >= 7.9


def test_nothing_is_drawn_outside_of_the_file():
    """A margin that is added around the drawing stays empty."""
    file = figure_file(figure(curves(), curves("Risk")), "svg", 234.0).content.decode()
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', file)
    assert box is not None
    width, height = float(box[1]), float(box[2])
    wider = file.replace(box[0], f'viewBox="-20 -20 {width + 40} {height + 40}"')
    wider = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"',
                   f'width="{width + 40}" height="{height + 40}"', wider, count=1)  # fmt: skip
    import vl_convert

    with Image.open(BytesIO(vl_convert.svg_to_png(wider))) as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    edge = 18
    for border in (alpha[:edge], alpha[-edge:], alpha[:, :edge], alpha[:, -edge:]):
        assert not border.any()


def test_panels_are_side_by_side_where_they_fit_and_have_titles_if_there_are_several():
    narrow, wide = (figure_file(figure(curves(), curves("Risk")), "svg", w) for w in (234.0, 486.0))
    assert narrow.height > 1.8 * wide.height
    assert {"Accuracy", "Risk"} <= set(texts(wide.content))
    assert "Accuracy" not in texts(figure_file(figure(), "svg", 234.0).content)


def test_names_of_clip_paths_are_unique():
    models = [{"id": 0.5 + 0.1 * k, "ood": 0.4 + 0.1 * k, "kind": "ERM"} for k in range(3)]
    axes: Any = {"x": ("id", "ID"), "y": ("ood", "OOD"), "series": ("kind", "")}
    one, other = (accuracies(models, title=title, **axes) for title in ("A", "B"))
    content = figure_file(figure(one, other), "svg", 234.0).content
    names = re.findall(rb'\bid="([^"]+)"', content)
    assert names and len(names) == len(set(names))
    assert set(re.findall(rb"url\(#([^)]+)\)", content)) <= set(names)


def test_pictures_are_png_and_sheets_wider_than_the_column_are_shrunk():
    gray = np.full((8, 8, 3), 0.5)
    sheet = contact_sheet([[gray] * 30], title="Samples")
    tiles = [Tile(str(k), "net", gray, np.ones((2, 2)), note="cat") for k in range(8)]
    file = figure_file(figure(sheet, heat_maps(tiles, title="Heat")), "svg", 234.0)
    assert b"image/webp" not in file.content and file.content.count(b"image/png") == 9
    assert file.letters < 8
    pdf = figure_file(figure(sheet), "pdf", 234.0).content
    assert b"/Subtype /Image" in pdf


def test_a_wide_table_says_how_small_its_letters_are():
    cells = [{"net": "ERM", "test": f"test {k}", "a": k / 20} for k in range(20)]
    panel = matrix(cells, title="Scores", x=("test", ""), y=("net", ""), value=("a", "accuracy"))
    small, large = (figure_file(figure(panel), "svg", width) for width in (234.0, 1000.0))
    assert small.letters < 4 and large.letters == pytest.approx(8, abs=0.01)


def test_a_figure_describes_itself_and_special_characters_are_escaped():
    root = drawn(figure_file(figure(bars([{"net": "<b>", "r": 1.0}], title="A & <B>", x=("net", ""),
                                         y=("r", "risk"))), "svg", 234.0).content)  # fmt: skip
    assert root[0].text == "Accuracy & risk"
    assert "Bar chart" in (root[1].text or "") and "<b>" in (root[1].text or "")


def test_a_figure_without_numbers_is_rejected():
    with pytest.raises(ValueError, match="no numbers to draw"):
        figure_file(figure(bars([], title="Empty", x=("net", ""), y=("r", ""))), "svg", 234.0)


@pytest.mark.parametrize("width", ["3.25", "wide", "0.5in", "100in", "3 miles", "-3in", "nanin"])
def test_a_bad_width_is_rejected_in_one_line(width):
    with pytest.raises(ValueError, match="such as 3\\.25in"):
        points_of(width)


def test_names_are_short_and_safe():
    title = "Figure 1: teachers, their students / standard models, and everything else that is long"
    name = name_of(Figure(title, "", "ours", ()))
    assert re.fullmatch(r"[a-z0-9-]{1,60}", name) and name.startswith("figure-1-teachers")
    assert name_of(Figure("Θ", "", "ours", ())) == "figure"
