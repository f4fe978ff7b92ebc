"""Panels of one figure agree: a series looks the same wherever it is drawn, and so do axes."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from contam.plots.figure import Panel
from contam.plots.style import dashes

LOOKS = ("color", "strokeDash", "shape")
FIELDS = ("series", "shape")
"""What tells marks apart: their series, and in a scatter perhaps something besides."""


def in_agreement(panels: Sequence[Panel]) -> list[Mapping[str, Any] | None]:
    """The charts of the panels, each with the colors of the fullest panel that has all its series.

    Series count as the same when their names and the titles of their legends are.
    """
    charts = [panel.chart for panel in panels]
    for field in FIELDS:
        series = [_series(panel, field) for panel in panels]
        for i, (title, names) in enumerate(series):
            fuller = [all_ for other, all_ in series if other == title and set(names) <= set(all_)]
            whole = max(fuller, key=len)
            if whole != names:
                charts[i] = _recolored(charts[i], field, names, whole)
    return charts


def on_same_axes(panels: Sequence[Panel], channels: str = "xy") -> tuple[Panel, ...]:
    """The panels with the same ends of their axes, so that one sees which is higher.

    `channels` are the axes that agree: "x", "y" or both. They are axes of numbers, not logarithmic;
    pictures and empty panels stay as they are.

    Raises:
        ValueError: an axis of names.
    """
    shown = [panel for panel in panels if panel.chart is not None and not panel.empty]
    charts = {id(panel): deepcopy(panel.chart) for panel in shown}
    for channel in channels:
        encodings = [(chart, each) for chart in charts.values() for each in _axes(chart, channel)]
        names = next((each["field"] for _, each in encodings if each["type"] != "quantitative"), "")
        if names:
            raise ValueError(
                f"only axes of numbers can have the same ends, and the {channel} axis of a panel "
                f"has names; choose channels other than {channel!r}"
            )
        ends = [end for chart, each in encodings for end in _ends(chart, channel, each)]
        for _, each in encodings:
            nice = (each.get("scale") or {}).get("nice", True)
            each["scale"] = {"domain": [min(ends), max(ends)], "zero": False, "nice": nice}
    return tuple(
        replace(panel, chart=charts[id(panel)]) if id(panel) in charts else panel
        for panel in panels
    )


def _series(panel: Panel, field: str) -> tuple[str, list[str]]:
    """The title of the panel's legend and the names in it; a panel without series has none."""
    found = next(_scales(panel.chart, field), None)
    if found is None:
        return panel.title, []
    return str((found.get("legend") or {}).get("title")), found["scale"]["domain"]


def _recolored(
    chart: Mapping[str, Any] | None, field: str, names: list[str], whole: list[str]
) -> Mapping[str, Any]:
    changed: Any = deepcopy(chart)
    for encoding in _scales(changed, field):
        encoding["scale"]["domain"] = whole
        if "range" in encoding["scale"]:
            encoding["scale"]["range"] = dashes(whole)
        if encoding.get("legend"):
            encoding["legend"]["values"] = names
    return changed


def _scales(chart: Mapping[str, Any] | None, field: str) -> Iterator[Any]:
    """Everything in the chart that tells marks apart by this field."""
    for encodings in _encodings(chart):
        for channel in LOOKS:
            encoding = encodings.get(channel, {})
            if encoding.get("field") == field:
                yield encoding


def _axes(chart: Any, channel: str) -> Iterator[Any]:
    """The encodings of an axis in all layers of the chart."""
    for encodings in _encodings(chart):
        if "field" in encodings.get(channel, {}):
            yield encodings[channel]


def _encodings(chart: Mapping[str, Any] | None) -> Iterator[Any]:
    for view in (chart, *(chart or {}).get("layer", ())):
        yield (view or {}).get("encoding", {})


def _ends(chart: Any, channel: str, encoding: Any) -> list[float]:
    """Where an axis has to reach: its own ends, or its values, and zero unless it does without."""
    scale = encoding.get("scale") or {}
    if "domain" in scale:
        return scale["domain"]
    fields = {encoding["field"], *(("high",) if encoding["field"] == "low" else ())}
    values = [row[field] for row in chart["data"]["values"] for field in fields if field in row]
    zero = [0.0] if scale.get("zero", True) else []
    return [value for value in values if value is not None] + zero
