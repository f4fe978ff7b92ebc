"""The charts of an audit: lost points, layers by depth, neurons by value, projected examples."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from contam.auditing.records import AuditRecord, Interval, LayerRecord
from contam.measures.attenuation import above_one
from contam.plots import Figure, Panel, bars, histogram, lines, scatter

Values = Mapping[str, Interval | float]
Read = Callable[[LayerRecord], Values]
FEW = 2
"""Maximum number of curves that share a panel with their controls."""
COLORS = 7
"""Maximum number of series of the projection."""
CLASSES = 20
"""Maximum number of classes whose rates are drawn side by side."""
SPREAD = np.linspace(-0.5, 1.5, 41)
SHARE = np.linspace(0, 1, 41)
"""Edges of histograms."""
HISTOGRAMS: tuple[tuple[str, str, np.ndarray, dict[str, str]], ...] = (
    ("Class-profile attenuation", "share of the class profile lost", SPREAD,
     {"neurons": "attenuation"}),
    ("Selectivity", "class selectivity", SHARE,
     {"ID": "selectivity_id", "OOD": "selectivity_ood"}),
    ("Activation rate", "share of positive activations", SHARE,
     {"ID": "rate_id", "OOD": "rate_ood"}),
)  # fmt: skip


def of_audit(record: AuditRecord) -> list[Figure]:
    """Return all figures of an audit, for files.

    Args:
        record: the audit; what it did not measure has no figure.

    >>> from contam.auditing.records import Score, SetScores, Verdict
    >>> score = Score(correct=9, count=10, accuracy=Interval(value=0.9))
    >>> record = AuditRecord(
    ...     contam="1.0", model="ResNet", classes=("cat", "dog"),
    ...     verdict=Verdict(
    ...         cause="healthy", heading="Healthy", sentence="No failure.", reasons=(), steps=()),
    ...     sets=(SetScores(name="photo", role="id", overall=score, by_class={}),))
    >>> [figure.title for figure in of_audit(record)]
    ['Accuracy and lost points']
    """
    rates, table = of_rates(record), record.neurons
    figures = [_of_loss(record), *of_layers(record)]
    if rates is not None:
        figures.append(
            Figure("Activation rates of the classes", "Mean over the neurons of the last layer "
                   "with rates, by class.", "ours", (rates,), tuple(_rate_rows(record)))
        )  # fmt: skip
    if table is not None:
        drawn = _histograms(record, len(table.index))
        figures.append(
            Figure("Neurons", "How many neurons have which value.", "ours",
                   tuple(panel for panel, _ in drawn),
                   tuple({"measure": panel.title} | row for panel, rows in drawn for row in rows))
        )  # fmt: skip
    if panels := of_projection(record):
        plane = record.projection
        assert plane is not None, "panels are of a projection"
        columns = zip(plane.x, plane.y, plane.data, plane.label, plane.domain, strict=True)
        rows = tuple(
            {"x": x, "y": y, "data": data, "class": label, "domain": domain}
            for x, y, data, label, domain in columns
        )
        figures.append(
            Figure("Examples in two principal directions", f"Activations of {plane.layer}.",
                   "ours", panels, rows)
        )  # fmt: skip
    return figures


def _of_loss(record: AuditRecord) -> Figure:
    """Return the accuracy on each data set, and the points that each cause takes from it."""
    sets = [
        {"data": on_one_line(scores.name), "accuracy": interval.value}
        | {"low": interval.low, "high": interval.high}
        for scores in record.sets
        for interval in [scores.overall.accuracy]
    ]
    lost = [
        {"data": on_one_line(ledger.on), "cause": entry.cause}
        | {key: None if value is None else 100 * value for key, value in ends.items()}
        for ledger in record.ledgers
        for entry in ledger.entries
        for ends in [{"points": entry.points.value, "low": entry.points.low,
                      "high": entry.points.high}]
    ]  # fmt: skip
    panels = [bars(sets, title="Accuracy", x=("data", ""), y=("accuracy", "accuracy"))]
    if lost:
        series = ("data", "") if len(record.ledgers) > 1 else None
        panels.append(
            bars(lost, title="Lost points by cause", x=("cause", ""),
                 y=("points", "points of accuracy"), series=series)
        )  # fmt: skip
    return Figure(
        "Accuracy and lost points",
        "Accuracy on each data set. The accuracy that an OOD set loses is split among causes, and "
        "what no test accounts for is unexplained. Whiskers: 95 % intervals.",
        "ours",
        tuple(panels),
        tuple([*sets, *lost]),
    )


def of_layers(record: AuditRecord) -> list[Figure]:
    """Return figures of the measures over the depth of the network.

    Args:
        record: the audit; measures without numbers have no panel.

    >>> from contam.auditing.records import Verdict
    >>> verdict = Verdict(cause="healthy", heading="Healthy", sentence="", reasons=(), steps=())
    >>> layer = LayerRecord(name="conv1", neurons=8, probe={"photo": Interval(value=0.9)})
    >>> record = AuditRecord(contam="1.0", model="ResNet", classes=("cat", "dog"), verdict=verdict,
    ...                      sets=(), layers=(layer,))
    >>> [(figure.title, figure.panels[0].title) for figure in of_layers(record)]
    [('What can be read from each layer', 'Linear probe')]
    """
    ood = [scores.name for scores in record.sets if scores.role == "ood"]
    lost = _controlled(
        record, "Class signal lost under shift", "attenuation, ID to OOD",
        lambda layer: {
            **layer.attenuation,
            **({} if layer.across_domains is None else {"across domains": layer.across_domains}),
        },
    ) + _changed(record)  # fmt: skip
    probes = [
        _by_depth(record, title, unit, read)
        for title, unit, read in (
            ("Linear probe", "accuracy", lambda layer: layer.probe),
            ("Usable information", "bits about the class", lambda layer: layer.information),
            ("Decided by this layer", "share of predictions with a depth",
             lambda layer: layer.decided),
            ("Error of a domain probe", "error rate",
             lambda layer: _present({"this network": layer.domain_error,
                                     "untrained": layer.untrained_domain_error,
                                     "most frequent domain": layer.domain_chance})),
        )
    ]  # fmt: skip
    activity = [
        _by_depth(record, title, unit, read)
        for title, unit, read in (
            ("Class selectivity", "mean over neurons", lambda layer: layer.selectivity),
            ("Activation asymmetry", "largest minus mean rate", lambda layer: layer.asymmetry),
            ("Activation rate", "share of positive activations", lambda layer: layer.rate),
            ("Density", "mean activation", lambda layer: layer.density),
        )
    ]
    between = "ID to each OOD set" if ood else "one ID domain to the others"
    figures = (
        ("Where the class signal is lost",
         f"Class-profile attenuation from {between}: the share of a layer’s class profile (its "
         "class means, centered) that is lost. 0 means that nothing is lost, 1 that nothing "
         "remains. Intervals that are too wide for a panel are cut off.",
         lost, above_one(row["value"] for _, rows in lost for row in rows)),
        ("What can be read from each layer",
         "Probes that were fitted on ID data alone. The network fails at the layers where the ID "
         "curve rises and the OOD curve does not. The untrained network sees fewer examples, which "
         f"lowers its probes.{_without_depth(record)}", probes, ()),
        ("Activity of the neurons", "The network beside an untrained copy of it.", activity, ()),
    )  # fmt: skip
    made = []
    for title, caption, drawn, notes in figures:
        kept = [(panel, rows) for panel, rows in drawn if not panel.empty]
        if kept:
            panels = tuple(panel for panel, _ in kept)
            rows = tuple(row for _, rows in kept for row in rows)
            made.append(Figure(title, caption, "ours", panels, rows, notes))
    return made


def of_neurons(record: AuditRecord, most: int) -> tuple[Panel, ...]:
    """Return histograms of the first neurons of the table, in the order of `HISTOGRAMS`.

    Args:
        record: an audit with a table of neurons.
        most: maximum number of neurons.

    >>> from contam.auditing.records import NeuronTable, Verdict
    >>> verdict = Verdict(cause="healthy", heading="Healthy", sentence="", reasons=(), steps=())
    >>> neurons = NeuronTable(
    ...     layer=("conv1",), index=(0,), favorite=("cat",), selectivity_id=(0.8,),
    ...     selectivity_ood=(0.2,), rate_id=(0.5,), rate_ood=(0.1,), attenuation=(0.9,))
    >>> record = AuditRecord(contam="1.0", model="ResNet", classes=("cat", "dog"), verdict=verdict,
    ...                      sets=(), neurons=neurons)
    >>> [panel.title for panel in of_neurons(record, most=100)]
    ['Class-profile attenuation', 'Selectivity', 'Activation rate']
    """
    return tuple(panel for panel, _ in _histograms(record, most))


def _histograms(record: AuditRecord, most: int) -> list[tuple[Panel, list[dict[str, Any]]]]:
    table = record.neurons
    assert table is not None, "histograms are of a table"
    return [
        histogram(
            {name: _finite(getattr(table, field)[:most]) for name, field in columns.items()},
            title=title, x=unit, edges=edges, series="",
        )
        for title, unit, edges, columns in HISTOGRAMS
    ]  # fmt: skip


def _finite(values: Sequence[float | None]) -> np.ndarray:
    """Return the numbers of a column, with nan for missing and non-finite ones."""
    column = np.array(values, dtype=np.float64)
    return np.where(np.isfinite(column), column, np.nan)


def of_rates(record: AuditRecord) -> Panel | None:
    """Return the chart of activation rates by class, with those of the last layer.

    Args:
        record: the audit.

    Returns:
        The chart; None without rates or for more than `CLASSES` classes.

    >>> from contam.auditing.records import Verdict
    >>> verdict = Verdict(cause="healthy", heading="Healthy", sentence="", reasons=(), steps=())
    >>> layer = LayerRecord(name="conv1", neurons=8, class_rates={"photo": (0.5, 0.2)})
    >>> record = AuditRecord(contam="1.0", model="ResNet", classes=("cat", "dog"), verdict=verdict,
    ...                      sets=(), layers=(layer,))
    >>> of_rates(record).title
    'Activation rate by class'
    """
    rows = _rate_rows(record)
    if not rows or len(record.classes) > CLASSES:
        return None
    return bars(
        rows, title="Activation rate by class",
        x=("class", ""), y=("rate", "share of positive activations"), series=("data", ""),
        wide=True,
    )  # fmt: skip


def _rate_rows(record: AuditRecord) -> list[dict[str, Any]]:
    """Return the rates of each class on each data set, in the last layer that has any."""
    known = [layer for layer in record.layers if layer.class_rates]
    return [
        {"class": label, "data": on_one_line(name), "rate": rates[k] if k < len(rates) else None}
        for layer in known[-1:]
        for name, rates in layer.class_rates.items()
        for k, label in enumerate(record.classes)
    ]


def on_one_line(name: str) -> str:
    r"""Return a name without line separators, which Vega's expressions cannot parse.

    Args:
        name: the name.

    >>> on_one_line("two\u2028lines")
    'two lines'
    """
    return " ".join(name.split())


def of_projection(record: AuditRecord) -> tuple[Panel, ...]:
    """Return charts of examples in two principal directions, by data set, class and domain.

    Args:
        record: the audit.

    Returns:
        One chart for each of these with 2 to `COLORS` values; none without a projection.

    >>> from contam.auditing.records import Projection, Verdict
    >>> verdict = Verdict(cause="healthy", heading="Healthy", sentence="", reasons=(), steps=())
    >>> plane = Projection(layer="conv1", shares=(0.6, 0.3), x=(0.0, 1.0), y=(0.0, 1.0),
    ...                    data=("photo", "photo"), domain=("day", "day"), label=("cat", "dog"))
    >>> record = AuditRecord(contam="1.0", model="ResNet", classes=("cat", "dog"), verdict=verdict,
    ...                      sets=(), projection=plane)
    >>> [panel.title for panel in of_projection(record)]
    ['By class']
    """
    plane = record.projection
    if plane is None:
        return ()
    axes = [
        f"principal direction {k} ({share:.0%} of the variance)"
        for k, share in enumerate(plane.shares, 1)
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
    record: AuditRecord, title: str, unit: str, read: Read
) -> list[tuple[Panel, list[dict[str, Any]]]]:
    """Return a measure and its control, in one panel if there are few curves."""
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
        )  # fmt: skip
        return _comparable([one])
    both = [
        _by_depth(record, title, unit, read),
        _by_depth(record, f"{title}, untrained", unit, control),
    ]
    return _comparable(both)


def _changed(record: AuditRecord) -> list[tuple[Panel, list[dict[str, Any]]]]:
    """Return a panel for each change of the ID images, with the control."""
    changes = dict.fromkeys(key for layer in record.layers for key in layer.counterfactual)

    def panel(change: str) -> tuple[Panel, list[dict[str, Any]]]:
        def read(layer: LayerRecord) -> Values:
            tables = {"changed": layer.counterfactual, "untrained": layer.untrained_attenuation}
            return {name: table[change] for name, table in tables.items() if change in table}

        return _by_depth(record, f"Class signal lost when changed: {change}", "attenuation", read)

    return _comparable([panel(change) for change in changes])


def _comparable(
    both: Sequence[tuple[Panel, list[dict[str, Any]]]],
) -> list[tuple[Panel, list[dict[str, Any]]]]:
    """Give panels a common y axis that includes all numbers but not the ends of wide intervals."""
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


def _without_depth(record: AuditRecord) -> str:
    """Return a sentence about the predictions that no layer is said to decide, or nothing."""
    shares = {key: share for layer in record.layers for key, share in layer.undefined.items()}
    if not any(shares.values()):
        return ""
    listed = ", ".join(f"{share:.0%} of {key}" for key, share in shares.items())
    return (
        " Predictions have no depth where the nearest neighbors at the output disagree with the "
        f"network ({listed}); the shares that a layer decides are of the others."
    )


def _by_depth(
    record: AuditRecord, title: str, unit: str, read: Read
) -> tuple[Panel, list[dict[str, Any]]]:
    """Return a curve over the layers for each key, and the numbers for the table."""
    rows = []
    order = dict.fromkeys(scores.name for scores in record.sets)
    order |= dict.fromkeys(key for layer in record.layers for key in read(layer))
    for key in order:
        for place, layer in enumerate(record.layers, 1):
            value = read(layer).get(key)
            if value is None:
                continue
            whole = value if isinstance(value, Interval) else Interval(value=value)
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
    """Return the panel with all layers along its axis and their names in the tooltip."""
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
