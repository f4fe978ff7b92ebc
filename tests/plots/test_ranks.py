"""Critical-difference diagrams: order, whiskers and what Vega makes of them."""

import json
from typing import Any

import pytest
import vl_convert

from contam import plots

ROWS = [
    {"method": name, "rank": rank, "kind": kind}
    for name, rank, kind in (("IRM", 3.0, "a"), ("ERM", 1.5, "b"), ("CORAL", 1.5, "a"))
]
AXES: Any = {"title": "t", "name": ("method", ""), "rank": ("rank", "mean rank")}


def values(panel: plots.Panel) -> list[dict[str, Any]]:
    assert panel.chart is not None
    return panel.chart["data"]["values"]


def test_the_best_method_comes_first_and_equal_ones_keep_their_order():
    panel = plots.ranks(ROWS, **AXES, critical_difference=1.0)
    assert [mark["group"] for mark in values(panel)] == ["ERM", "CORAL", "IRM"]


def test_whiskers_overlap_exactly_if_ranks_differ_by_less_than_the_critical_difference():
    for difference in (1.4, 1.6):
        marks = values(plots.ranks(ROWS, **AXES, critical_difference=difference))
        overlap = marks[0]["high"] > marks[2]["low"]
        assert overlap == (difference > 1.5)
        assert marks[0]["high"] - marks[0]["low"] == pytest.approx(difference)


def test_vega_draws_names_kinds_and_axis():
    panel = plots.ranks(ROWS, **AXES, critical_difference=1.0, series=("kind", ""))
    spec = json.loads(json.dumps(panel.chart, allow_nan=False)) | {"width": 400}
    svg = vl_convert.vegalite_to_svg(spec, "6.4")
    for text in ("ERM", "CORAL", "IRM", "a", "b", "mean rank"):
        assert f">{text}<" in svg
