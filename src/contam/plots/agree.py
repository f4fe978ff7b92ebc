"""Panels of one figure agree: a series looks the same wherever it is drawn."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from contam.plots.figure import Panel
from contam.plots.style import dashes

LOOKS = ("color", "strokeDash", "shape")


def in_agreement(panels: Sequence[Panel]) -> list[Mapping[str, Any] | None]:
    """The charts of the panels, each with the colors of the fullest panel that has all its series.

    Series count as the same when their names and the titles of their legends are.
    """
    series = [_series(panel) for panel in panels]
    charts: list[Mapping[str, Any] | None] = []
    for panel, (title, names) in zip(panels, series, strict=True):
        fuller = [all_ for other, all_ in series if other == title and set(names) <= set(all_)]
        whole = max(fuller, key=len)
        charts.append(panel.chart if whole == names else _recolored(panel, names, whole))
    return charts


def _series(panel: Panel) -> tuple[str, list[str]]:
    """The title of the panel's legend and the names in it; a panel without series has none."""
    found = next(_scales(panel.chart), None)
    if found is None:
        return panel.title, []
    return str((found.get("legend") or {}).get("title")), found["scale"]["domain"]


def _recolored(panel: Panel, names: list[str], whole: list[str]) -> Mapping[str, Any]:
    chart: Any = deepcopy(panel.chart)
    for encoding in _scales(chart):
        encoding["scale"]["domain"] = whole
        if "range" in encoding["scale"]:
            encoding["scale"]["range"] = dashes(whole)
        if encoding.get("legend"):
            encoding["legend"]["values"] = names
    return chart


def _scales(chart: Mapping[str, Any] | None) -> Iterator[Any]:
    """Everything in the chart that tells series apart."""
    for view in (chart, *(chart or {}).get("layer", ())):
        for channel in LOOKS:
            encoding = (view or {}).get("encoding", {}).get(channel, {})
            if encoding.get("field") == "series":
                yield encoding
