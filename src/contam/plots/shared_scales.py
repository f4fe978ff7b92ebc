"""Scales that panels of a figure share: the colors of series, and the limits of axes."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from contam.plots.figure import Panel
from contam.plots.style import dashes

CHANNELS = ("color", "strokeDash", "shape")
"""Encoding channels that identify a series."""
FIELDS = ("series", "shape")
"""Fields that these channels encode; the shape of a scatter plot may encode a field of its own."""


def match_series(panels: Sequence[Panel]) -> list[Mapping[str, Any] | None]:
    """Give a series the same color, dash and shape in all panels.

    A panel takes the scale of the panel that has all of its series and the most others. Series are
    the same if their names and the titles of their legends are.

    Args:
        panels: Panels of one figure; they are not changed.

    Returns:
        The chart of each panel, None for a picture.

    >>> from contam.plots import lines
    >>> def chart(*names):
    ...     rows = [{"step": 0, "risk": 1.0, "net": name} for name in names]
    ...     return lines(rows, title="", x=("step", "step"), y=("risk", "risk"), series=("net", ""))
    >>> _, second = match_series([chart("ReLU", "linear"), chart("linear")])
    >>> second["layer"][0]["encoding"]["color"]["scale"]["domain"]
    ['ReLU', 'linear']
    """
    charts = [panel.chart for panel in panels]
    for field in FIELDS:
        series = [_series(panel, field) for panel in panels]
        for i, (title, names) in enumerate(series):
            supersets = [
                others for other, others in series if other == title and set(names) <= set(others)
            ]
            largest = max(supersets, key=len)
            if largest != names:
                charts[i] = _with_domain(charts[i], field, names, largest)
    return charts


def share_axes(panels: Sequence[Panel], channels: str = "xy") -> tuple[Panel, ...]:
    """Give the panels the same axis limits, so that their values can be compared.

    Args:
        panels: Panels whose axes show numbers and are not logarithmic. Pictures and empty panels
            stay unchanged.
        channels: Axes to share: "x", "y" or both.

    Returns:
        New panels, in the same order.

    Raises:
        ValueError: an axis shows names.

    >>> from contam.plots import bars
    >>> def chart(accuracy):
    ...     rows = [{"net": "ReLU", "accuracy": accuracy}]
    ...     return bars(rows, title="", x=("net", ""), y=("accuracy", "accuracy"))
    >>> first, second = share_axes([chart(0.5), chart(0.9)], "y")
    >>> first.chart["layer"][0]["encoding"]["y"]["scale"]["domain"]
    [0.0, 0.9]
    """
    shown = [panel for panel in panels if panel.chart is not None and not panel.empty]
    charts = {id(panel): deepcopy(panel.chart) for panel in shown}
    for channel in channels:
        encodings = [
            (chart, encoding) for chart in charts.values() for encoding in _axes(chart, channel)
        ]
        if any(encoding["type"] != "quantitative" for _, encoding in encodings):
            raise ValueError(
                f"only axes of numbers can be shared, and the {channel} axis of a panel has names; "
                f"choose channels other than {channel!r}"
            )
        limits = [end for chart, encoding in encodings for end in _limits(chart, channel, encoding)]
        for _, encoding in encodings:
            nice = (encoding.get("scale") or {}).get("nice", True)
            domain = [min(limits), max(limits)]
            encoding["scale"] = {"domain": domain, "zero": False, "nice": nice}
    return tuple(
        replace(panel, chart=charts[id(panel)]) if id(panel) in charts else panel
        for panel in panels
    )


def _series(panel: Panel, field: str) -> tuple[str, list[str]]:
    """Return the title of the panel's legend and its names; both are unique without series."""
    encoding = next(_series_encodings(panel.chart, field), None)
    if encoding is None:
        return panel.title, []
    return str((encoding.get("legend") or {}).get("title")), encoding["scale"]["domain"]


def _with_domain(
    chart: Mapping[str, Any] | None, field: str, names: list[str], domain: list[str]
) -> Mapping[str, Any]:
    """Return a copy of the chart whose scale has all names of `domain`, and its legend `names`."""
    changed: Any = deepcopy(chart)
    for encoding in _series_encodings(changed, field):
        encoding["scale"]["domain"] = domain
        if "range" in encoding["scale"]:
            encoding["scale"]["range"] = dashes(domain)
        if encoding.get("legend"):
            encoding["legend"]["values"] = names
    return changed


def _series_encodings(chart: Mapping[str, Any] | None, field: str) -> Iterator[Any]:
    """Yield all encodings of the chart that identify series by this field."""
    for encodings in _encodings(chart):
        for channel in CHANNELS:
            encoding = encodings.get(channel, {})
            if encoding.get("field") == field:
                yield encoding


def _axes(chart: Any, channel: str) -> Iterator[Any]:
    """Yield the encodings of an axis in all layers of the chart."""
    for encodings in _encodings(chart):
        if "field" in encodings.get(channel, {}):
            yield encodings[channel]


def _encodings(chart: Mapping[str, Any] | None) -> Iterator[Any]:
    for view in (chart, *(chart or {}).get("layer", ())):
        yield (view or {}).get("encoding", {})


def _limits(chart: Any, channel: str, encoding: Any) -> list[float]:
    """Return values that the axis must include: its own limits, or its data and often zero."""
    scale = encoding.get("scale") or {}
    if "domain" in scale:
        return scale["domain"]
    fields = {encoding["field"], *(("high",) if encoding["field"] == "low" else ())}
    values = [row[field] for row in chart["data"]["values"] for field in fields if field in row]
    zero = [0.0] if scale.get("zero", True) else []
    return [value for value in values if value is not None] + zero
