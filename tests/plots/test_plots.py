"""Charts as data: what is drawn, in which order, how much of it, and what Vega makes of it."""

import json
import math
from io import BytesIO
from typing import Any

import numpy as np
import pandas
import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contam import plots
from contam.plots.curves import PLACES
from contam.plots.style import dashes, legend_above, log_limits

TEXT: Any = {"title": "t"}
AXES: Any = {"x": ("step", "step"), "y": ("value", "risk"), "series": ("net", "network")}
GROUPS: Any = {"x": ("frame", "frame shown"), "y": ("value", "accuracy"), "series": ("net", "net")}


def values(panel: plots.Panel) -> list[dict[str, Any]]:
    assert panel.chart is not None
    return panel.chart["data"]["values"]


def layers(panel: plots.Panel) -> list[Any]:
    assert panel.chart is not None
    return panel.chart["layer"]


def curve(count: int, net: str = "relu") -> list[dict[str, Any]]:
    return [{"step": i, "net": net, "value": math.sin(i / 50)} for i in range(count)]


CELLS = [
    {"frame": frame, "net": net, "value": 0.25 * (i + j), "low": 0.1, "high": 0.9}
    for i, frame in enumerate(("red", "green"))
    for j, net in enumerate(("a", "b", "c"))
]
PANELS = {
    "lines": lambda: plots.lines(curve(90) + curve(90, "linear"), **AXES, **TEXT),
    "bands": lambda: plots.lines(
        [row | {"low": 0.1, "high": 2.0} for row in curve(90)], **AXES, **TEXT, log="xy"
    ),
    "bars": lambda: plots.bars(CELLS, **GROUPS, **TEXT),
    "lying bars": lambda: plots.bars(
        [cell | {"frame": cell["frame"] * 9} for cell in CELLS], **GROUPS, **TEXT
    ),
    "histogram": lambda: plots.histogram(
        {"a": np.arange(9.0), "b": np.zeros(3)}, x="x", edges=np.linspace(0, 8, 5), **TEXT
    )[0],
    "scatter": lambda: plots.scatter(curve(20) + curve(20, "linear"), **AXES, **TEXT),
    "matrix": lambda: plots.matrix(
        CELLS, x=("frame", "shown"), y=("net", "trained"), value=("value", "accuracy"), **TEXT
    ),
}


@pytest.mark.parametrize("kind", PANELS)
def test_vega_renders_every_kind_of_chart_with_title_and_labels(kind: str) -> None:
    spec = json.loads(json.dumps(PANELS[kind]().chart, allow_nan=False)) | {"width": 400}
    svg = vl_convert.vegalite_to_svg(spec, "6.4")
    names = {"lines": ("network", "relu", "linear", "step", "risk"), "bars": ("red", "a", "c"),
             "scatter": ("relu", "linear"), "histogram": ("share of neurons",),
             "matrix": ("0.25", "red", "trained")}  # fmt: skip
    assert svg.count("<path") > 5
    for name in names.get(kind, ()):
        assert f">{name}<" in svg


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("lines", "Line chart, t (step; risk). relu: 0 at 0, 0.978 at 89. linear: 0 at 0, "),
        ("bars", "Bar chart, t (frame shown; accuracy). a: red 0, green 0.25. b: red 0.25, "),
        ("histogram", "Histogram, t (x; share of neurons). a: mean 4, 0 to 8. b: mean 0, 0 to 0."),
        ("scatter", "Scatter plot, t (step; risk). relu: 20 marks around 9.5, 0.188. linear: "),
        ("matrix", "Table of colored cells, t (accuracy). 3 rows, 2 columns. lowest 0 (a, red). "),
    ],
)
def test_a_chart_describes_its_numbers_in_words(kind: str, text: str) -> None:
    panel = PANELS[kind]()
    assert panel.description.startswith(text)
    assert panel.chart is not None
    assert panel.chart["description"] == panel.description


def test_a_description_has_one_line_for_any_title() -> None:
    rows = [{"g": "two\nlines", "v": 0.5}]
    panel = plots.bars(rows, title="a\ntitle", x=("g", "an\naxis"), y=("v", "v"))
    assert panel.description == "Bar chart, a title (an axis; v). two lines 0.5."


def test_a_description_of_many_bars_names_the_first_and_the_last() -> None:
    rows = [{"g": f"class {i}", "v": i / 100} for i in range(100)]
    panel = plots.bars(rows, title="t", x=("g", ""), y=("v", "share"))
    assert panel.description == "Bar chart, t (share). class 0 0, class 99 0.99."


def test_rows_may_be_a_data_frame() -> None:
    rows = [*curve(20), {"step": 20, "net": "relu", "value": None}]
    table = pandas.DataFrame(rows)
    assert plots.lines(table, **AXES, **TEXT) == plots.lines(rows, **AXES, **TEXT)
    assert plots.over_seeds(table, ["net"], "value") == plots.over_seeds(rows, ["net"], "value")


def test_series_keep_the_order_of_the_rows_in_color_dash_and_legend() -> None:
    panel = plots.lines(curve(3, "z") + curve(3, "a"), **AXES, **TEXT)
    for layer in layers(panel):
        assert layer["encoding"]["color"]["scale"]["domain"] == ["z", "a"]
    line = next(layer["encoding"] for layer in layers(panel) if "strokeDash" in layer["encoding"])
    assert line["strokeDash"]["legend"] == line["color"]["legend"]
    assert line["strokeDash"]["scale"]["domain"] == ["z", "a"]


def test_dashes_change_when_colors_repeat() -> None:
    colors = len(plots.PALETTE["light"])
    looks = [(i % colors, tuple(dash)) for i, dash in enumerate(dashes(["x"] * 3 * colors))]
    assert len(set(looks)) == len(looks)


@pytest.mark.parametrize("log", ["", "x"])
def test_a_thinned_curve_keeps_its_ends_and_its_extremes(log: str) -> None:
    rows = curve(50_000)[1:]
    rows[777]["value"], rows[-300]["value"] = 9.0, -9.0
    drawn = values(plots.lines(rows, **AXES, **TEXT, log=log))
    assert len(drawn) <= 2 * PLACES + 4
    assert [drawn[0]["x"], drawn[-1]["x"]] == [1, 49_999]
    heights = [point["y"] for point in drawn]
    assert max(heights) == 9.0
    assert min(heights) == -9.0
    assert [point["x"] for point in drawn] == sorted(point["x"] for point in drawn)


def test_a_short_curve_is_not_thinned() -> None:
    rows = curve(2 * PLACES)
    assert [point["y"] for point in values(plots.lines(rows, **AXES, **TEXT))] == pytest.approx(
        [row["value"] for row in rows], rel=1e-5
    )


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_curve_breaks_where_its_value_is_missing(missing: float | None) -> None:
    rows = curve(5)
    rows[2]["value"] = missing
    drawn = [point["y"] for point in values(plots.lines(rows, **AXES, **TEXT))]
    assert drawn[2] is None
    assert drawn.count(None) == 1


def test_a_logarithmic_axis_omits_values_that_are_not_positive() -> None:
    rows = [
        {"step": step, "net": "a", "value": value, "low": low, "high": 4.0}
        for step, value, low in ((0, 1.0, 1.0), (1, 0.0, 0.0), (10, 0.5, -1.0), (100, 2.0, 1.0))
    ]
    drawn = values(plots.lines(rows, **AXES, **TEXT, log="xy"))
    assert [point["x"] for point in drawn] == [1, 10, 100]
    assert [point["y"] for point in drawn] == [None, 0.5, 2.0]
    assert [point["low"] for point in drawn] == [0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("given", "domain", "shown"),
    [
        ([1, 1000], [1, 1000], [1, 10, 100, 1000]),
        ([0.03, 0.4], [0.02, 0.5], [0.02, 0.05, 0.1, 0.2, 0.5]),
        ([7], [5, 10], [5, 10]),
        ([1], [1, 2], [1, 2]),
        ([0.99999999, 2], [0.5, 2], [0.5, 1, 2]),
        ([0.00098, 0.25], [5e-4, 0.5], [0.001, 0.01, 0.1]),
    ],
)
def test_logarithmic_ticks_by_hand(
    given: list[float], domain: list[float], shown: list[float]
) -> None:
    assert log_limits(given) == (domain, shown)


@given(st.lists(st.floats(1e-300, 1e300), min_size=1))
def test_logarithmic_axes_enclose_their_values_with_few_ticks(given: list[float]) -> None:
    (low, high), shown = log_limits(given)
    assert low <= min(given) <= max(given) <= high
    assert low < high
    assert 2 <= len(shown) <= 8
    assert all(low <= tick <= high for tick in shown)


@pytest.mark.parametrize("kind", ["lines", "bars", "scatter", "matrix"])
@pytest.mark.parametrize("rows", [[], [{"step": 1, "frame": "f", "net": "n", "value": None}]])
def test_a_panel_without_numbers_is_empty(kind: str, rows: list[dict[str, Any]]) -> None:
    cells: Any = {"x": ("frame", ""), "y": ("net", ""), "value": ("value", "")}
    draw = {
        "lines": lambda: plots.lines(rows, **AXES, **TEXT, log="xy"),
        "bars": lambda: plots.bars(rows, **GROUPS, **TEXT),
        "scatter": lambda: plots.scatter(rows, **AXES, **TEXT),
        "matrix": lambda: plots.matrix(rows, **cells, **TEXT),
    }[kind]
    # A cell without a number is still a cell: its dash is drawn.
    assert draw().empty == (kind != "matrix" or not rows)


@pytest.mark.parametrize(
    ("how", "text"),
    [({}, "0.00"), ({"signed": True}, "+0.0"), ({"limits": None}, "−0.0001")],
)
def test_a_cell_that_rounds_to_zero_has_no_minus(how: dict[str, Any], text: str) -> None:
    rows = [{"frame": "f", "net": "n", "value": -0.0001}]
    cells: Any = {"x": ("frame", ""), "y": ("net", ""), "value": ("value", "")}
    chart = plots.matrix(rows, **cells, **TEXT, **how).chart
    assert chart is not None and chart["data"]["values"][0]["text"] == text


def test_a_curve_of_a_single_point_is_visible() -> None:
    def opacity(panel: plots.Panel) -> float:
        return next(layer["mark"] for layer in layers(panel) if layer["mark"]["type"] == "point")[
            "opacity"
        ]

    assert opacity(plots.lines(curve(1), **AXES, **TEXT)) == 1
    assert opacity(plots.lines(curve(2), **AXES, **TEXT)) == 0
    assert opacity(plots.lines(curve(2), **AXES, **TEXT, points=True)) == 1


def test_bars_are_horizontal_when_their_labels_do_not_fit() -> None:
    standing, lying = PANELS["bars"](), PANELS["lying bars"]()
    assert layers(standing)[0]["encoding"]["x"]["field"] == "group"
    assert layers(lying)[0]["encoding"]["y"]["field"] == "group"
    assert "xOffset" in layers(standing)[0]["encoding"]
    assert "yOffset" in layers(lying)[0]["encoding"]


def test_bars_without_low_and_high_have_no_whiskers() -> None:
    rows = [{"frame": "red", "net": "a", "value": 0.5}]
    assert len(layers(plots.bars(rows, **GROUPS, **TEXT))) == 1
    assert len(layers(PANELS["bars"]())) > 1


def test_shares_of_a_histogram_by_hand() -> None:
    sample = {"a": np.array([-9.0, 0.1, 0.6, 0.7]), "b": np.array([0.5, np.nan, 7.0, 0.9])}
    panel, rows = plots.histogram(sample, x="x", edges=np.array([0.0, 0.5, 1.0]), **TEXT)
    assert [row["share"] for row in rows] == [0.5, 0.5, 0.0, 0.75]
    assert [row["from"] for row in rows] == [0.0, 0.5, 0.0, 0.5]
    steps = [(point["series"], point["x"], point["y"]) for point in values(panel)]
    assert steps[:3] == [("a", 0.0, 0.5), ("a", 0.5, 0.5), ("a", 1.0, 0.5)]


def test_a_matrix_of_differences_has_signs_equal_limits_and_bold_numbers() -> None:
    rows = [{"r": "a", "c": v, "v": v, "sure": v > 0} for v in (-2.0, 8.04)]
    panel = plots.matrix(
        rows, x=("c", ""), y=("r", ""), value=("v", "v"), signed=True, sure="sure", **TEXT
    )
    assert [cell["text"] for cell in values(panel)] == ["−2.0", "+8.0"]
    cells, plain, bold = layers(panel)
    domain = cells["encoding"]["color"]["scale"]["domain"]
    assert domain == [-8.04, 0, 8.04]
    assert bold["mark"]["fontWeight"] == "bold" and "fontWeight" not in plain["mark"]


def test_a_matrix_prints_a_dash_for_missing_values() -> None:
    rows = [{"c": c, "r": "r", "v": v} for c, v in (("x", 0.125), ("y", None), ("z", math.nan))]
    panel = plots.matrix(rows, x=("c", ""), y=("r", ""), value=("v", "v"), **TEXT)
    assert [cell["text"] for cell in values(panel)] == ["0.12", "–", "–"]
    assert panel.least_width > 3 * 40


def test_long_column_names_are_aligned_at_their_end() -> None:
    rows = [{"c": c, "r": "r", "v": 0.5} for c in ("red", "a frame of many words")]
    panel = plots.matrix(rows, x=("c", ""), y=("r", ""), value=("v", "v"), **TEXT)
    lines = [cell["x"].split("\n") for cell in values(panel)]
    assert len({len(line) for line in lines}) == 1
    assert lines[0][-1] == "red"
    assert [cell["column"] for cell in values(panel)] == ["red", "a frame of many words"]


def test_a_contact_sheet_contains_its_images() -> None:
    red, blue = np.zeros((2, 3, 3)), np.zeros((2, 3, 3))
    red[..., 0], blue[..., 2] = 1, 2  # values beyond 1 are cut
    panel = plots.contact_sheet([[red, blue], [blue]], **TEXT, scale=2)
    assert panel.picture is not None
    sheet = np.asarray(Image.open(BytesIO(panel.picture)))
    assert sheet.shape == (2 * 4 + 4, 2 * 6 + 4, 4)
    assert sheet[0, 0].tolist() == [255, 0, 0, 255]
    assert sheet[0, -1].tolist() == [0, 0, 255, 255]
    assert sheet[-1, -1, 3] == 0
    assert sheet[5, 0, 3] == 0


@pytest.mark.parametrize("pictures", [[], [[]], [[np.zeros((2, 2, 3)), np.zeros((3, 2, 3))]]])
def test_a_contact_sheet_without_images_or_of_several_sizes_is_rejected(pictures: Any) -> None:
    with pytest.raises(ValueError, match="pictures of one size"):
        plots.contact_sheet(pictures, **TEXT)


def test_over_seeds_by_hand() -> None:
    rows = [
        {"net": "a", "step": 1, "risk": 1.0},
        {"net": "b", "step": 1, "risk": 5.0},
        {"net": "a", "step": 1, "risk": 3.0},
        {"net": "a", "step": 1, "risk": None},
        {"net": "b", "step": 1, "risk": math.nan},
        {"net": "c", "step": 1},
    ]
    assert plots.over_seeds(rows, ["net", "step"], "risk") == [
        {"net": "a", "step": 1, "risk": 2.0, "low": 1.0, "high": 3.0, "seeds": 2},
        {"net": "b", "step": 1, "risk": 5.0, "low": 5.0, "high": 5.0, "seeds": 1},
    ]


def test_legend_columns_fit_on_a_phone() -> None:
    def columns(*names: str) -> int:
        return legend_above("", names, axis_title="y").to_dict()["columns"]

    assert columns("ID", "OOD", "worst") == 3
    assert columns("a name of some length", "b") == 1
    assert legend_above("", ["alone"], axis_title="y") is None


def domains(chart: Any) -> set[tuple[str, ...]]:
    return {tuple(layer["encoding"]["color"]["scale"]["domain"]) for layer in chart["layer"]}


def test_a_series_has_the_same_color_in_all_panels() -> None:
    both = plots.lines(curve(3, "relu") + curve(3, "linear"), **AXES, **TEXT)
    alone = plots.lines(curve(3, "linear"), **AXES, **TEXT)
    third = plots.lines(curve(3, "linear") + curve(3, "tanh"), **AXES, **TEXT)
    whole = plots.lines(curve(3, "tanh") + curve(3, "linear") + curve(3, "relu"), **AXES, **TEXT)
    charts = plots.match_series([both, third])
    assert [domains(chart) for chart in charts] == [{("relu", "linear")}, {("linear", "tanh")}]
    assert charts[0] is both.chart
    charts = plots.match_series([third, whole])
    assert domains(charts[0]) == {("tanh", "linear", "relu")} == domains(charts[1])
    marks: Any = charts[0]
    line = next(m["encoding"] for m in marks["layer"] if "strokeDash" in m["encoding"])
    assert line["strokeDash"]["scale"]["range"] == dashes(["tanh", "linear", "relu"])
    assert line["strokeDash"]["legend"]["values"] == ["linear", "tanh"]
    assert domains(third.chart) == {("linear", "tanh")}
    assert domains(plots.match_series([alone])[0]) == {("linear",)}


def test_images_and_bars_without_series_are_unchanged() -> None:
    picture = plots.contact_sheet([[np.zeros((2, 2, 3))]], **TEXT)
    bars = plots.bars(CELLS[:1], **GROUPS | {"series": None}, **TEXT)
    assert plots.match_series([picture, bars, bars]) == [None, bars.chart, bars.chart]
