"""What an audit's page draws: layers by depth, neurons by value, examples in a plane."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from contam.auditing.records import AuditRecord, Interval, LayerRecord
from contam.plots import Figure, Panel, bars, histogram, lines, scatter

Values = Mapping[str, Interval | float]
Read = Callable[[LayerRecord], Values]
FEW = 2
"""Curves that share a panel with their controls."""
COLORS = 7
"""Kinds of marks that a plane can tell apart."""
CLASSES = 20
"""Classes whose rates are drawn side by side."""
SPREAD = np.linspace(-0.5, 1.5, 41)
SHARE = np.linspace(0, 1, 41)
"""Edges of histograms."""
HISTOGRAMS: tuple[tuple[str, str, np.ndarray, dict[str, str]], ...] = (
    ("Attenuation", "share of the class profile lost", SPREAD, {"neurons": "attenuation"}),
    ("Selectivity", "class selectivity", SHARE,
     {"ID": "selectivity_id", "OOD": "selectivity_ood"}),
    ("Activation rate", "share of examples that it fires for", SHARE,
     {"ID": "rate_id", "OOD": "rate_ood"}),
)  # fmt: skip


def of_layers(record: AuditRecord) -> list[Figure]:
    """Every measure over the depth of the network; measures that nobody took are left out."""
    ood = [each.name for each in record.sets if each.role == "ood"]
    lost = _controlled(
        record, "Profile lost to new data", "share lost, ID to OOD",
        lambda layer: {
            **layer.attenuation,
            **({} if layer.across_domains is None else {"across domains": layer.across_domains}),
        },
        "how much of each layer's class profile is lost",
    ) + _changed(record)  # fmt: skip
    told = [
        _by_depth(record, "Read by a linear probe", "accuracy", lambda layer: layer.probe,
                  "the accuracy of a linear probe fitted on ID data"),
        _by_depth(record, "Usable information", "bits about the class",
                  lambda layer: layer.information, "how many bits about the class can be used"),
        _by_depth(record, "Decided by this layer", "share of examples",
                  lambda layer: layer.decided, "the share of predictions decided by this layer"),
        _by_depth(record, "Error in telling domains", "error rate",
                  lambda layer: _present({"this network": layer.domain_error,
                                          "untrained": layer.untrained_domain_error,
                                          "guessing": layer.domain_chance}),
                  "how often a linear reader mistakes the domain"),
    ]  # fmt: skip
    fire = [
        _by_depth(record, title, unit, read, shows)
        for title, unit, read, shows in (
            ("Class selectivity", "mean over neurons", lambda layer: layer.selectivity,
             "how much more neurons fire for their favorite class"),
            ("Activation asymmetry", "mean over neurons, a rate", lambda layer: layer.asymmetry,
             "how much more often neurons fire for one class than for the average one"),
            ("Activation rate", "share of positive activations", lambda layer: layer.rate,
             "how often neurons fire"),
            ("Density", "mean activation", lambda layer: layer.density,
             "the mean activation"),
        )
    ]  # fmt: skip
    beyond = "ID to each OOD set" if ood else "one ID domain to the others"
    figures = (
        ("Where the response to the class is lost",
         f"The share of each layer’s class profile (its class means, centered) that is gone from "
         f"{beyond}: 0 is all kept, 1 is all lost. Intervals too wide for a panel go beyond it.",
         lost),
        ("What can be read from each layer",
         "By simple readers that were fitted on ID data alone. Where the ID curve rises and the "
         "OOD curve does not, the network breaks.", told),
        ("How its neurons fire", "A trained network beside the same one with drawn weights.", fire),
    )  # fmt: skip
    made = []
    for title, caption, drawn in figures:
        kept = [(panel, rows) for panel, rows in drawn if not panel.empty]
        if kept:
            panels = tuple(panel for panel, _ in kept)
            rows = tuple(row for _, rows in kept for row in rows)
            made.append(Figure(title, caption, "ours", panels, rows))
    return made


def of_neurons(record: AuditRecord) -> tuple[Panel, ...]:
    """Histograms of all neurons in the table, in the order of `HISTOGRAMS`."""
    table = record.neurons
    assert table is not None, "histograms are of a table"
    return tuple(
        histogram(
            {name: np.array(getattr(table, field), dtype=np.float64)
             for name, field in columns.items()},
            title=title, x=unit, edges=edges, series="",
        )[0]
        for title, unit, edges, columns in HISTOGRAMS
    )  # fmt: skip


def of_rates(record: AuditRecord) -> Panel | None:
    """How often a layer fires for each class; the last layer, until another is chosen."""
    known = [layer for layer in record.layers if layer.class_rates]
    if not known or len(record.classes) > CLASSES:
        return None
    rows = [
        {"class": label, "data": on_one_line(name), "rate": rates[k] if k < len(rates) else None}
        for name, rates in known[-1].class_rates.items()
        for k, label in enumerate(record.classes)
    ]
    return bars(
        rows, title="Activation rate by class",
        x=("class", ""), y=("rate", "share of positive activations"), series=("data", ""),
        wide=True,
    )  # fmt: skip


def on_one_line(name: str) -> str:
    """The name as bars can have it: Vega sorts them by expressions, without line separators."""
    return " ".join(name.split())


def of_plane(record: AuditRecord) -> tuple[Panel, ...]:
    """Examples in a layer's two widest directions, by what is told of them."""
    plane = record.plane
    if plane is None:
        return ()
    axes = [
        f"direction {k}, {share:.0%} of the variance" for k, share in enumerate(plane.shares, 1)
    ]
    panels = []
    for title, names in (("By data set", plane.data), ("By class", plane.label),
                         ("By domain", plane.domain)):  # fmt: skip
        if 1 < len(set(names)) <= COLORS:
            rows = [
                {"x": x, "y": y, "series": name}
                for x, y, name in zip(plane.x, plane.y, names, strict=True)
            ]
            panels.append(
                scatter(rows, title=title, x=("x", axes[0]), y=("y", axes[1]),
                        series=("series", ""))
            )  # fmt: skip
    return tuple(panels)


def _controlled(
    record: AuditRecord, title: str, unit: str, read: Read, shows: str
) -> list[tuple[Panel, list[dict[str, Any]]]]:
    """A measure and its control: in one panel where curves are few, else side by side."""
    names = dict.fromkeys(key for layer in record.layers for key in read(layer))

    def control(layer: LayerRecord) -> Values:
        return {key: layer.untrained_attenuation[key]
                for key in names if key in layer.untrained_attenuation}  # fmt: skip

    if len(names) <= FEW:
        one = _by_depth(
            record, title, unit,
            lambda layer: {
                **read(layer),
                **{f"{key}, untrained": value for key, value in control(layer).items()},
            },
            shows,
        )  # fmt: skip
        return _comparable([one])
    both = [
        _by_depth(record, title, unit, read, shows),
        _by_depth(record, f"{title}, untrained", unit, control, f"{shows}, in drawn weights"),
    ]
    return _comparable(both)


def _changed(record: AuditRecord) -> list[tuple[Panel, list[dict[str, Any]]]]:
    """A panel for each change of the ID images: a curve for each strength, and the control."""
    keys = dict.fromkeys(key for layer in record.layers for key in layer.counterfactual)
    both = []
    for change in dict.fromkeys(key.rpartition(" ")[0] for key in keys):
        strengths = {
            key: key.rpartition(" ")[2] for key in keys if key.rpartition(" ")[0] == change
        }

        def read(layer: LayerRecord, strengths: Mapping[str, str] = strengths) -> Values:
            return {
                said: layer.counterfactual[key]
                for key, said in strengths.items()
                if key in layer.counterfactual
            } | {
                f"{said}, untrained": layer.untrained_attenuation[key]
                for key, said in strengths.items()
                if key in layer.untrained_attenuation
            }

        both.append(
            _by_depth(
                record, "Profile lost to changes" + (f": {change}" if change else ""),
                "share lost, by strength", read,
                "how much of the class profile is lost when ID images are changed",
            )
        )  # fmt: skip
    return _comparable(both)


def _comparable(
    both: Sequence[tuple[Panel, list[dict[str, Any]]]],
) -> list[tuple[Panel, list[dict[str, Any]]]]:
    """The panels on one y axis that holds every number, but not the ends of wide intervals."""
    values = [row["value"] for _, rows in both for row in rows if math.isfinite(row["value"])]
    ends = [min(0.0, *values), max(1.0, *values)] if values else [0.0, 1.0]
    made = []
    for panel, rows in both:
        chart: Any = deepcopy(panel.chart)
        for layer in chart["layer"]:
            layer["encoding"]["y"]["scale"] = {"domain": ends, "nice": True, "zero": False}
            layer["mark"]["clip"] = layer["mark"]["type"] == "area"
        made.append((replace(panel, chart=chart), rows))
    return made


def _by_depth(
    record: AuditRecord, title: str, unit: str, read: Read, shows: str
) -> tuple[Panel, list[dict[str, Any]]]:
    """A curve for each key, over the layers in their order; and the numbers for the table."""
    rows = []
    order = dict.fromkeys(each.name for each in record.sets)
    order |= dict.fromkeys(key for layer in record.layers for key in read(layer))
    for key in order:
        for place, layer in enumerate(record.layers, 1):
            found = read(layer).get(key)
            if found is None:
                continue
            whole = found if isinstance(found, Interval) else Interval(value=found)
            rows.append(
                {"place": place, "layer": layer.name, "measure": title, "data": key}
                | {end: _short(getattr(whole, end)) for end in ("value", "low", "high")}
            )
    drawn = [
        row if row["low"] is not None and row["high"] is not None
        else {key: row[key] for key in ("place", "data", "value")}
        for row in rows
    ]  # fmt: skip
    panel = lines(
        drawn, title=title, x=("place", "layer, from input to output"), y=("value", unit),
        series=("data", ""), points=True,
    )  # fmt: skip
    return _naming(panel, [layer.name for layer in record.layers]), rows


def _naming(panel: Panel, names: Sequence[str]) -> Panel:
    """The panel with all layers along its axis, and their names where one points."""
    chart: Any = deepcopy(panel.chart)
    for point in chart["data"]["values"]:
        point["x"] = int(point["x"])
    # Escapes only: Vega's expressions can't parse line separators.
    name = {"calculate": f"{json.dumps(list(names))}[datum.x - 1]", "as": "layer"}
    for layer in chart["layer"]:
        encoding = layer["encoding"]
        encoding["x"]["axis"] |= {"tickMinStep": 1, "tickCount": min(len(names), 10)}
        if len(names) > 1:
            encoding["x"]["scale"] = {"domain": [1, len(names)], "zero": False, "nice": False}
        for tip in encoding.get("tooltip") or ():
            if tip["field"] == "x":
                layer["transform"].append(name)
                tip |= {"field": "layer", "type": "nominal", "title": "layer"}
                tip.pop("format")
    return replace(panel, chart=chart)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _present(values: Mapping[str, Interval | float | None]) -> Values:
    return {key: value for key, value in values.items() if value is not None}
