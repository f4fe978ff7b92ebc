"""Charts of the image experiments as data: accuracies on scaled axes, heat, clouds, many panels."""

import base64
import json
import math
import re
from io import BytesIO
from typing import Any

import altair as alt
import numpy as np
import pytest
import torch
import vl_convert
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contam import plots
from contam.measures.robustness import scale as scaled
from contam.plots.accuracies import AXIS_SCALES, MARGIN, accuracy_ticks
from contam.plots.heat import COVER, SIDE, cividis
from contam.plots.style import rounded
from contam.report.theme import CHARTS

TEXT: Any = {"title": "t"}
AXES: Any = {"x": ("id", "ID accuracy"), "y": ("ood", "OOD accuracy"), "series": ("kind", "kind")}


def chart(panel: plots.Panel) -> Any:
    assert panel.chart is not None
    return panel.chart


def svg(panel: plots.Panel) -> str:
    spec = json.loads(json.dumps(panel.chart, allow_nan=False)) | {
        "width": 400,
        "config": CHARTS["light"],
    }
    return vl_convert.vegalite_to_svg(spec, "6.4")


def model(kind: str, id_: float, ood: float, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "id": id_, "ood": ood, **more}


MODELS = [model("teacher", 0.9, 0.8, pair="a"), model("student", 0.88, 0.5, pair="a"),
          model("ERM", 0.75, 0.4, pair=None)]  # fmt: skip
LINE = [{"id": share, "ood": share / 2, "low": share / 3, "high": share} for share in (0.6, 0.95)]


def layer(panel: plots.Panel, mark: str) -> list[Any]:
    return [one for one in chart(panel)["layer"] if one["mark"]["type"] == mark]


@pytest.mark.parametrize("axis", ["logit", "probit"])
def test_marks_are_at_the_values_of_the_measure(axis: Any) -> None:
    data = chart(plots.accuracies(MODELS, **AXES, **TEXT, scale=axis))["data"]["values"]
    for channel, field in (("x", "id"), ("y", "ood")):
        shares = torch.tensor([row[field] for row in MODELS], dtype=torch.float64)
        assert [row[channel] for row in data] == pytest.approx(
            scaled(shares, axis).tolist(), rel=1e-5
        )


@pytest.mark.parametrize("axis", ["logit", "probit"])
def test_tick_labels_are_accuracies(axis: Any) -> None:
    panel = plots.accuracies(
        [model("a", 0.04, 0.04), model("b", 0.992, 0.992)], **AXES, **TEXT, scale=axis
    )
    labels = re.findall(r">([\d.]+%)<", svg(panel))
    assert labels == ["5%", "10%", "25%", "50%", "75%", "90%", "95%", "99%"] * 2


@given(st.floats(1e-4, 0.9999), st.floats(1e-4, 0.9999), st.sampled_from(["logit", "probit"]))
def test_an_axis_has_few_ticks_within_its_range(a: float, b: float, axis: str) -> None:
    place = AXIS_SCALES[axis][0]
    low, high = sorted((place(a), place(b)))
    ticks = accuracy_ticks((low, high), axis)["values"]
    assert len(ticks) <= 25
    assert all(low <= tick <= high for tick in ticks)
    if min(a, b) < 0.5 < max(a, b):
        assert place(0.5) in ticks


def test_error_bars_on_both_axes_are_clipped_at_one() -> None:
    rows = [model("a", 0.9, 0.5, id_low=0.8, id_high=1.0, ood_low=0.4, ood_high=0.6),
            model("b", 0.7, 0.6)]  # fmt: skip
    panel = plots.accuracies(rows, **AXES, **TEXT)
    first, second = chart(panel)["data"]["values"]
    ends = layer(panel, "point")[0]["encoding"]["x"]["scale"]["domain"]
    assert first["x_high"] == ends[1]
    assert first["y_low"] == pytest.approx(math.log(0.4 / 0.6), rel=1e-5)
    assert "x_low" not in second
    assert {tuple(sorted(set(bar["encoding"]) & {"x2", "y2"})) for bar in layer(panel, "rule")} == {
        ("x2",), ("y2",)
    }  # fmt: skip
    assert first["x_says"] == "90.0% (80.0% to 100.0%)"
    assert second["x_says"] == "70.0%"
    assert layer(plots.accuracies(rows[1:], **AXES, **TEXT), "rule") == []


def test_an_axis_encloses_its_marks_with_a_margin() -> None:
    panel = plots.accuracies(MODELS, **AXES, **TEXT)
    low, high = layer(panel, "point")[0]["encoding"]["x"]["scale"]["domain"]
    inner = [math.log(0.75 / 0.25), math.log(0.9 / 0.1)]
    beyond = MARGIN * (inner[1] - inner[0])
    assert [low, high] == pytest.approx([inner[0] - beyond, inner[1] + beyond], rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_models_that_cannot_be_plotted_are_counted_in_the_title(share: float) -> None:
    rows = [*MODELS, model("ERM", share, 0.4), model("ERM", 0.8, share)]
    panel = plots.accuracies(rows, **AXES, **TEXT)
    assert len(chart(panel)["data"]["values"]) == 3
    assert "2 of 5 models" in " ".join(layer(panel, "point")[0]["encoding"]["x"]["title"])


@pytest.mark.parametrize("line", [(), LINE])
def test_every_model_has_its_mark_beside_a_line_with_points_of_its_own(line: Any) -> None:
    """Marks have a label each, which legends and lines have not."""
    shown = svg(plots.accuracies(MODELS, **AXES, **TEXT, line=line))
    assert len(re.findall(r'aria-roledescription="(?:point|circle|symbol)"', shown)) == len(MODELS)


def test_legend_names_the_line_its_band_and_the_diagonal() -> None:
    shown = svg(plots.accuracies(MODELS, **AXES, **TEXT, line=LINE))
    assert ">fit of standard models<" in shown
    assert ">OOD = ID<" in shown
    without = plots.accuracies(MODELS, **AXES, **TEXT)
    assert ">fit of standard models<" not in svg(without)
    assert len(layer(plots.accuracies(MODELS, **AXES, **TEXT, line=LINE), "area")) == 1
    assert layer(without, "area") == []


def test_the_diagonal_covers_the_range_common_to_both_axes() -> None:
    panel = plots.accuracies(MODELS, **AXES, **TEXT)
    (line,) = layer(panel, "line")
    (start, end) = line["data"]["values"]
    assert start["x"] == start["y"] < end["x"] == end["y"]
    apart = [model("a", 0.9, 0.1), model("b", 0.95, 0.2)]
    assert layer(plots.accuracies(apart, **AXES, **TEXT), "line") == []


def test_pairs_are_connected_only_on_request() -> None:
    joined = plots.accuracies(MODELS, **AXES, **TEXT, join="pair")
    assert [row["pair"] for row in chart(joined)["data"]["values"]] == ["a", "a", None]
    assert (
        len(layer(joined, "line"))
        == len(layer(plots.accuracies(MODELS, **AXES, **TEXT), "line")) + 1
    )


def test_accuracies_in_percent_and_unknown_scales_are_rejected() -> None:
    with pytest.raises(ValueError, match="divide percent by 100"):
        plots.accuracies([model("a", 75.1, 40.0)], **AXES, **TEXT)
    with pytest.raises(ValueError, match="'logit' or 'probit', not 'log'"):
        plots.accuracies(MODELS, **AXES, **TEXT, scale="log")  # pyright: ignore[reportArgumentType]


def test_without_models_the_chart_is_empty() -> None:
    assert plots.accuracies([], **AXES, **TEXT, line=LINE).empty
    assert plots.accuracies([model("a", math.nan, 0.5)], **AXES, **TEXT).empty


CLOUD: Any = {"x": ("x", "x"), "y": ("y", "y"), "series": ("domain", "domain")}


def cloud(domains: str, count: int = 10) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {"x": rng.normal(), "y": rng.normal(), "domain": domain, "class": kind}
        for domain in domains
        for kind in "uvw"
        for _ in range(count)
    ]


def test_color_and_shape_encode_two_columns() -> None:
    panel = plots.scatter(cloud("ab"), **CLOUD, shape=("class", "class"), **TEXT)
    encoding = chart(panel)["encoding"]
    assert encoding["color"]["scale"]["domain"] == ["a", "b"]
    assert encoding["shape"]["scale"]["domain"] == ["u", "v", "w"]
    assert {">domain<", ">class<", ">w<"} <= set(re.findall(r">\w+<", svg(panel)))
    alone = chart(plots.scatter(cloud("ab"), **CLOUD, **TEXT))
    assert alone["encoding"]["shape"]["field"] == "series"
    assert "shape" not in alone["data"]["values"][0]


def test_two_thousand_points_make_a_small_file() -> None:
    panel = plots.scatter(cloud("ab", 333), **CLOUD, shape=("class", "class"), **TEXT)
    assert len(json.dumps(panel.chart)) < 65 * 2000


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_rounding_error_is_below_one_pixel(values: list[float]) -> None:
    span = max(values) - min(values)
    for exact, shown in zip(values, rounded(values), strict=True):
        assert abs(exact - shown) <= max(span / 10_000, 1e-6)


def test_panels_share_shapes_and_colors() -> None:
    whole, part = cloud("ab"), [row for row in cloud("ba") if row["class"] != "u"]
    panels = [
        plots.scatter(rows, **CLOUD, shape=("class", "class"), **TEXT) for rows in (whole, part)
    ]
    first, second = (panel["encoding"] for panel in plots.match_series(panels))  # pyright: ignore[reportOptionalSubscript]
    assert second["shape"]["scale"]["domain"] == ["u", "v", "w"]
    assert second["shape"]["legend"]["values"] == ["v", "w"]
    assert first["shape"]["scale"]["domain"] == ["u", "v", "w"]


def histograms() -> list[plots.Panel]:
    edges = np.linspace(0, 1, 5)
    return [
        plots.histogram({"a": np.array(sample)}, x="rate", edges=edges, small=True, **TEXT)[0]
        for sample in ([0.1, 0.1], [0.1, 0.4, 0.6, 0.9])
    ]


def test_shared_axes_have_the_same_range() -> None:
    high, low = histograms()
    for panel in plots.share_axes([high, low]):
        assert panel.small
        for marks in chart(panel)["layer"]:
            assert marks["encoding"]["y"]["scale"]["domain"] == [0.0, 1.0]
            assert marks["encoding"]["x"]["scale"]["domain"] == [0.0, 1.0]
    assert "scale" not in chart(low)["layer"][0]["encoding"]["y"]
    (only_y,) = plots.share_axes([low], "y")
    assert chart(only_y)["layer"][0]["encoding"]["y"]["scale"]["domain"] == [0.0, 0.25]
    assert "domain" not in chart(only_y)["layer"][0]["encoding"]["x"]["scale"]


def test_shared_axes_include_bands_and_ignore_images() -> None:
    rows = [{"s": i, "n": "a", "v": 2.0 + i, "low": 1.0, "high": 9.0} for i in range(3)]
    lines = plots.lines(rows, x=("s", "s"), y=("v", "v"), series=("n", ""), **TEXT)
    picture = plots.contact_sheet([[np.zeros((2, 2, 3))]], **TEXT)
    drawn, same = plots.share_axes([lines, picture])
    assert same is picture
    assert chart(drawn)["layer"][0]["encoding"]["y"]["scale"]["domain"] == [0.0, 9.0]
    assert chart(drawn)["layer"][0]["encoding"]["x"]["scale"]["domain"] == [0, 2]


def test_categorical_axes_cannot_be_shared() -> None:
    bars = plots.bars([{"g": "a", "v": 1.0}], x=("g", ""), y=("v", ""), **TEXT)
    with pytest.raises(ValueError, match="the x axis of a panel has names"):
        plots.share_axes([bars])
    (agreed,) = plots.share_axes([bars], "y")
    assert chart(agreed)["layer"][0]["encoding"]["y"]["scale"]["domain"] == [0.0, 1.0]


GRAY = np.full((4, 8, 3), 0.5)


def pixels(cell: dict[str, Any]) -> np.ndarray:
    file = BytesIO(base64.b64decode(cell["url"].removeprefix("data:image/webp;base64,")))
    return np.asarray(Image.open(file).convert("RGB")) / 255


def test_heat_uses_the_color_scale_of_its_row() -> None:
    heats = [np.full((2, 2), top) for top in (4.0, 2.0, 0.0)]
    tiles = [plots.Tile(f"c{i}", "net", GRAY, heat) for i, heat in enumerate(heats)]
    tiles.append(plots.Tile("c0", "other", GRAY, np.full((1, 1), 0.1)))
    tiles.append(plots.Tile("c1", "plain", GRAY))
    panel = plots.heat_maps(tiles, **TEXT)
    cells = chart(panel)["data"]["values"]
    for cell, share in zip(cells, (1, 0.5, 0, 1), strict=False):
        expected = COVER * cividis(np.array(share)) + (1 - COVER) * 0.5
        assert np.abs(pixels(cell) - expected).max() < 0.03
    assert np.abs(pixels(cells[-1]) - 0.5).max() < 0.03
    assert [cell["y"] for cell in cells[2:]] == [
        "net\nheat 0 to 4",
        "other\nheat 0 to 0.1",
        "plain",
    ]
    assert pixels(cells[0]).shape == (4 * 12, SIDE, 3)


def test_heat_is_drawn_at_its_position() -> None:
    heat = np.zeros((8, 8))
    heat[1, 6] = 1.0
    panel = plots.heat_maps([plots.Tile("c", "r", np.zeros((64, 64, 3)), heat)], **TEXT)
    light = pixels(chart(panel)["data"]["values"][0]).sum(axis=2)
    top, left = np.unravel_index(light.argmax(), light.shape)
    assert abs(top / light.shape[0] - 1.5 / 8) < 0.03
    assert abs(left / light.shape[1] - 6.5 / 8) < 0.03


def test_heat_maps_and_charts_use_the_same_colors() -> None:
    places = [i / 20 for i in range(21)]
    color = alt.Color("v:Q", scale=alt.Scale(scheme="cividis", domain=[0, 1]), legend=None)
    values = alt.Data(values=[{"v": place} for place in places])
    cells = alt.Chart(values).mark_rect().encode(x="v:O", color=color)
    drawn = vl_convert.vegalite_to_svg(cells.to_dict(), "6.4")
    colors = [
        [int(level) for level in rgb] for rgb in re.findall(r"rgb\((\d+), (\d+), (\d+)\)", drawn)
    ]
    assert np.abs(np.array(colors) - 255 * cividis(np.array(places))).max() <= 5


def test_the_sheet_labels_rows_columns_notes_and_scale() -> None:
    tiles = [plots.Tile("ID", "teacher", GRAY, np.ones((2, 2)), "61 %")]
    names = re.findall(r">([^<>]+)<", svg(plots.heat_maps(tiles, **TEXT, heat="logit")))
    assert {"ID", "teacher", "logit 0 to 1", "61 %", "most in the row"} <= set(names)


@pytest.mark.parametrize(
    ("tiles", "said"),
    [
        ([plots.Tile("c", "r", GRAY), plots.Tile("d", "r", GRAY[:2])], "pictures of one size"),
        ([plots.Tile("c", "r", GRAY, -np.ones((2, 2)))], "at least 0 and finite"),
        ([plots.Tile("c", "r", GRAY, np.full((2, 2), np.nan))], "at least 0 and finite"),
        ([plots.Tile("c", "r", GRAY)] * 2, "two tiles are in column 'c' of row 'r'"),
    ],
)
def test_a_sheet_of_invalid_tiles_is_rejected(tiles: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plots.heat_maps(tiles, **TEXT)


def test_a_sheet_without_tiles_is_empty() -> None:
    assert plots.heat_maps([], **TEXT).empty
