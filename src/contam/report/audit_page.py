"""What an audit found -> one self-contained HTML page, from the records alone."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from PIL import Image

from contam.auditing.records import AuditRecord, Example, NeuronTable, SetScores
from contam.plots import Figure, Panel
from contam.report import audit_figures, audit_words
from contam.report.columns import LETTERS, Column, counted, packed
from contam.report.document import document
from contam.report.view import ROWS_SHOWN, FigureView, figure_view

NEURONS_SHOWN = 100
"""Neurons in the page without its script; with it, all of the table."""
MOST_NEURONS = 100_000
"""Neurons that a page holds at most: the first of the table, which are the most coupled."""
NEURON = 12
"""Bytes of each, at least."""
AROUND_PICTURE = 1500
"""Bytes of what is said of each picture, at most."""
MOST_BYTES = 2_950_000
"""Of a page: pictures that don't fit are left out, and the page says how many."""
TINY = 96
"""Pixels across, below which a picture is enlarged without smoothing."""


def audit_page(record: AuditRecord) -> str:
    """The page about one audit: its verdict first, then the evidence in linked views.

    Neurons after the first `MOST_NEURONS` are left out, and pictures and then more neurons where
    the page would grow beyond `MOST_BYTES`; the page says so.

    Raises:
        ValueError: a picture is not one in base64.
    """
    record = _with_neurons(record, MOST_NEURONS)
    shown = _shown(record)
    room = MOST_BYTES - len(_html(record, shown, ()).encode())
    if room < 0 and record.neurons is not None:
        record = _with_neurons(record, max(len(record.neurons.index) + room // NEURON, 1))
        shown = _shown(record)
        room = MOST_BYTES - len(_html(record, shown, ()).encode())
    examples = []
    for example in record.examples:
        room -= len(example.picture) + len(example.heat or "") + AROUND_PICTURE
        if room < 0:
            break
        examples.append(example)
    return _html(record, shown, examples)


@dataclass(frozen=True)
class _Shown:
    """What is drawn, and what scripts read of it."""

    layers: list[FigureView]
    views: dict[str, FigureView]
    data: dict[str, Any]


@dataclass(frozen=True)
class _Picture:
    """An example with the size of its picture."""

    example: Example
    side: int

    @property
    def tiny(self) -> bool:
        return self.side < TINY


def _with_neurons(record: AuditRecord, most: int) -> AuditRecord:
    """The record with the first of its neurons."""
    table = record.neurons
    if table is None or len(table.index) <= most:
        return record
    names = [name for name in NeuronTable.model_fields if name != "total"]
    fewer = table.model_copy(update={name: getattr(table, name)[:most] for name in names})
    return record.model_copy(update={"neurons": fewer})


def _shown(record: AuditRecord) -> _Shown:
    numbered = count(1)
    layers = [figure_view(each, next(numbered)) for each in audit_figures.of_layers(record)]
    rates = audit_figures.of_rates(record)
    extra = {
        "rates": (rates,) if rates else (),
        "plane": audit_figures.of_plane(record),
        "neurons": audit_figures.of_neurons(record) if record.neurons else (),
    }
    views = {name: _plain(panels, next(numbered)) for name, panels in extra.items() if panels}
    figures = [*layers, *views.values()]
    table = record.neurons
    names = [layer.name for layer in record.layers] + list(table.layer if table else ())
    names = list(dict.fromkeys(names))
    data: dict[str, Any] = {
        "charts": {
            panel.anchor: panel.chart
            for figure in figures
            for panel in figure.panels
            if panel.chart is not None
        },
        # What the charts hold is not said twice: the page's script reads it there.
        "numbers": {},
        "layers": names,
        "sizes": [layer.neurons for layer in record.layers],
    }
    if table is not None:
        data["neurons"] = _columns(table, names)
        data["histograms"] = {
            panel.anchor: {"edges": edges.round(6).tolist(), "columns": columns}
            for panel, (_, _, edges, columns) in zip(
                views["neurons"].panels, audit_figures.HISTOGRAMS, strict=True
            )
        }
    if rates is not None:
        data["rates"] = _rates(record, views["rates"].panels[0].anchor)
    return _Shown(layers, views, data)


def _html(record: AuditRecord, shown: _Shown, examples: Sequence[Example]) -> str:
    verdict, table = record.verdict, record.neurons
    return document(
        "audit.html.j2",
        shown.data,
        styles=["page.css", "audit.css"],
        scripts=["charts.js", "audit.js", "neurons.js"],
        title=f"Audit of {record.model}",
        said=audit_words,
        record=record,
        verdict=verdict,
        kind=audit_words.kind(verdict.cause),
        sets=sorted(record.sets, key=lambda each: each.role != "id"),
        classes=_classes(record),
        layer_figures=shown.layers,
        views=shown.views,
        layer_names=shown.data["layers"],
        measured=_measured(record),
        favorites=sorted(set(table.favorite)) if table else [],
        neurons=_first(table),
        held=len(table.index) if table else 0,
        groups=_groups(examples),
        pictures_left_out=len(record.examples) - len(examples),
        rows_shown=ROWS_SHOWN,
    )


def _plain(panels: Sequence[Panel], number: int) -> FigureView:
    return figure_view(Figure("", "", "ours", tuple(panels)), number)


def _columns(table: NeuronTable, layers: Sequence[str]) -> dict[str, Any]:
    """The table as the page's script reads it, in the table's order."""
    favorites = sorted(set(table.favorite))
    layer_at, favorite_at = (
        {name: k for k, name in enumerate(names)} for names in (layers, favorites)
    )
    columns: dict[str, Column] = {
        "layer": counted([layer_at[name] for name in table.layer]),
        "index": counted(table.index),
        "favorite": counted([favorite_at[name] for name in table.favorite]),
    }
    for name in ("attenuation", "selectivity_id", "selectivity_ood", "rate_id", "rate_ood"):
        columns[name] = packed(getattr(table, name))
    return {
        "letters": LETTERS,
        "count": len(table.index),
        "favorites": favorites,
        "columns": columns,
    }


def _first(table: NeuronTable | None) -> list[tuple[Any, ...]]:
    """The rows that are there without a script."""
    if table is None:
        return []
    few = slice(NEURONS_SHOWN)
    return list(
        zip(table.layer[few], table.index[few], table.favorite[few], table.attenuation[few],
            table.selectivity_id[few], table.selectivity_ood[few], table.rate_id[few],
            table.rate_ood[few], strict=True)
    )  # fmt: skip


def _rates(record: AuditRecord, anchor: str) -> dict[str, Any]:
    """Activation rates by layer, data set and class, for the panel that follows the layer."""
    values = {
        layer.name: {
            audit_figures.on_one_line(name): [
                None if rate is None else round(rate, 4) for rate in rates
            ]
            for name, rates in layer.class_rates.items()
        }
        for layer in record.layers
        if layer.class_rates
    }
    return {"anchor": anchor, "values": values}


def _classes(record: AuditRecord) -> list[tuple[str, list[Any]]]:
    """Classes with their scores in each set, those that lose most first."""
    ordered = sorted(record.sets, key=lambda each: each.role != "id")

    def lost(row: tuple[str, list[Any]]) -> float:
        found = [None if score is None else score.accuracy.value for score in row[1]]
        others = [value for value in found[1:] if value is not None]
        return min(others) - found[0] if others and found[0] is not None else 0.0

    names = [name for name in record.classes if any(name in each.by_class for each in ordered)]
    return sorted(
        ((name, [each.by_class.get(name) for each in ordered]) for name in names), key=lost
    )


def _measured(record: AuditRecord) -> list[tuple[str, str, list[Any]]]:
    """Columns of the table of layers: measure, data set, and a value for each layer or None."""
    sets: Sequence[SetScores] = sorted(record.sets, key=lambda each: each.role != "id")
    columns = [
        (title, each.name, [getattr(layer, name).get(each.name) for layer in record.layers])
        for title, name in (("Profile lost", "attenuation"), ("Selectivity", "selectivity"),
                            ("Probe", "probe"))
        for each in sets
    ]  # fmt: skip
    return [column for column in columns if any(value is not None for value in column[2])]


def _groups(examples: Sequence[Example]) -> dict[str, list[_Picture]]:
    groups: dict[str, list[_Picture]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(_Picture(example, _side(example)))
    return groups


def _side(example: Example) -> int:
    """Pixels across the picture, by its header."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(example.picture, validate=True))) as picture:
            return picture.width
    except (ValueError, OSError) as error:
        raise ValueError(
            f"the picture of example {example.index} of {example.data!r} can't be read ({error}); "
            "want WebP in base64"
        ) from None
