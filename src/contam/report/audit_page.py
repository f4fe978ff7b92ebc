"""An audit's records as one self-contained HTML page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from PIL import Image

from contam.auditing.records import (
    AuditRecord,
    Example,
    MeasuredRemedy,
    NeuronTable,
    Score,
    SetScores,
)
from contam.auditing.slices import carriers, worst_slices
from contam.plots import Figure, Panel
from contam.report import audit_figures, audit_ledger, audit_words
from contam.report.document import document
from contam.report.view import ROWS_SHOWN, FigureView, figure_view

NEURONS_WITHOUT_SCRIPT = 100
"""Number of neurons that the page shows without JavaScript."""
NEURONS_SHOWN = 2000
"""Number of neurons on the page: the first of the table, which have the largest loss."""
IMAGE_BYTES = 800_000
"""Maximum number of bytes of all images; the page reports how many it leaves out."""
CONFUSED_CLASSES, MOST_CLASSES = 12, 20
"""Rows of the confusion matrix, and classes up to which it is drawn; more have a list of pairs."""
SOME, MANY = 0.05, 0.25
"""Shares of a row's examples from which a cell of the confusion matrix is colored."""
TINY = 96
"""Width in pixels below which an image is enlarged without smoothing."""


def audit_page(record: AuditRecord) -> str:
    """Return the page about one audit: verdict, ledger, reasons, what helps, then the evidence.

    Args:
        record: all results of the audit.

    Raises:
        ValueError: an image is not WebP in base64.

    >>> from contam.auditing.records import Interval, Score, SetScores, Verdict
    >>> score = Score(correct=9, count=10, accuracy=Interval(value=0.9))
    >>> record = AuditRecord(
    ...     contam="1.0", model="ResNet", classes=("cat", "dog"),
    ...     verdict=Verdict(
    ...         cause="healthy", heading="Healthy", sentence="No failure.", reasons=(), steps=()),
    ...     sets=(SetScores(name="photo", role="id", overall=score, by_class={}),))
    >>> "Audit of ResNet" in audit_page(record)
    True
    """
    figures, table = _figures(record), record.neurons
    examples, budget = [], IMAGE_BYTES
    for example in record.examples:
        budget -= len(example.picture) + len(example.heat or "")
        if budget < 0:
            break
        examples.append(example)
    return document(
        "audit.html.j2",
        figures.data,
        styles=["page.css", "audit.css"],
        scripts=["charts.js", "audit.js", "neurons.js"],
        title=f"Audit of {record.model}",
        audit_words=audit_words,
        audit_ledger=audit_ledger,
        bars=audit_ledger.bars(record),
        slices=worst_slices(record.sets),
        carried=_carried(record),
        helps=_helps(record),
        confusion=_confusion(record),
        record=record,
        verdict=record.verdict,
        kind=audit_words.kind(record.verdict.cause),
        sets=sorted(record.sets, key=lambda scores: scores.role != "id"),
        groups_by_column=_by_column(record),
        classes=_classes(record),
        layer_figures=figures.layers,
        views=figures.views,
        layer_names=figures.data["layers"],
        measured=_measured(record),
        favorites=sorted(set(table.favorite[:NEURONS_SHOWN])) if table else [],
        neurons=_rows(table, NEURONS_WITHOUT_SCRIPT),
        shown=min(NEURONS_SHOWN, len(table.index)) if table else 0,
        total=len(table.index) if table else 0,
        groups=_groups(examples),
        pictures_left_out=len(record.examples) - len(examples),
        rows_shown=ROWS_SHOWN,
    )


@dataclass(frozen=True)
class _Figures:
    """The charts of the page, and the data that its scripts read."""

    layers: list[FigureView]
    views: dict[str, FigureView]
    data: dict[str, Any]


@dataclass(frozen=True)
class _Picture:
    """An example with the width of its image in pixels."""

    example: Example
    side: int

    @property
    def tiny(self) -> bool:
        """Whether the image is enlarged without smoothing."""
        return self.side < TINY


@dataclass(frozen=True)
class _Confusion:
    """The predictions on one OOD set: a matrix, or pairs of classes if there are many."""

    on: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, tuple[tuple[int, str], ...], int], ...] = ()
    """True class, its cells (number of examples, CSS class), and the number of its examples."""
    rows_left_out: int = 0
    pairs: tuple[tuple[str, str, int, int], ...] = ()
    """True class, predicted class, number of examples, and number of the true class's examples."""


def _helps(record: AuditRecord) -> list[MeasuredRemedy]:
    """Return the measured repairs, those of the OOD set with the largest loss first."""
    order = [ledger.on for ledger in record.ledgers]
    return sorted(
        record.helps, key=lambda row: order.index(row.on) if row.on in order else len(order)
    )


def _worst(record: AuditRecord) -> tuple[SetScores, SetScores] | None:
    """Return the scores on the ID set and on the OOD set with the lowest accuracy."""
    own = next((scores for scores in record.sets if scores.role == "id"), None)
    ood = [scores for scores in record.sets if scores.role == "ood"]
    if own is None or not ood:
        return None
    return own, min(ood, key=lambda scores: scores.overall.accuracy.value)


def _carried(record: AuditRecord) -> str:
    """Return which classes carry the loss, if there is one."""
    both = _worst(record)
    names, share = carriers(*both) if both else ([], 0.0)
    if not both or not names:
        return ""
    on, count = both[1].name, len(both[1].by_class)
    if len(names) <= max(1, min(3, count // 3)):
        classes = " and ".join(f"“{name}”" for name in names)
        verb = "carries" if len(names) == 1 else "carry"
        return f"{classes} {verb} {100 * share:.0f} % of the accuracy that classes lose on {on}."
    return f"The loss on {on} is spread: {len(names)} of {count} classes carry half of it."


def _confusion(record: AuditRecord) -> _Confusion | None:
    """Return the predictions on the OOD set with the lowest accuracy, if any is wrong."""
    both = _worst(record)
    if both is None or not both[1].confused:
        return None
    own, scores = both
    counts = {(pair.label, pair.predicted): pair.count for pair in scores.confused}
    if len(record.classes) > MOST_CLASSES:
        pairs = tuple(
            (pair.label, pair.predicted, pair.count, scores.by_class[pair.label].count)
            for pair in scores.confused[:CONFUSED_CLASSES]
        )
        return _Confusion(scores.name, pairs=pairs)

    def lost(name: str) -> float:
        known = own.by_class.get(name, own.overall).accuracy.value
        return known - scores.by_class[name].accuracy.value

    names = sorted(scores.by_class, key=lost, reverse=True)[:CONFUSED_CLASSES]
    others = [name for name in record.classes if name not in names]
    rows = []
    for name in names:
        total, right = scores.by_class[name].count, scores.by_class[name].correct
        cells = [
            (right, "right") if other == name else _cell(counts.get((name, other), 0), total)
            for other in names
        ]
        if others:
            cells.append(_cell(sum(counts.get((name, other), 0) for other in others), total))
        rows.append((name, tuple(cells), total))
    columns = (*names, "other classes") if others else tuple(names)
    return _Confusion(scores.name, columns, tuple(rows), len(scores.by_class) - len(names))


def _cell(count: int, total: int) -> tuple[int, str]:
    share = count / total
    return count, "most" if share >= MANY else "many" if share >= SOME else ""


def _figures(record: AuditRecord) -> _Figures:
    numbered = count(1)
    explained: set[str] = set()
    layers = [
        figure_view(figure, next(numbered), explained) for figure in audit_figures.of_layers(record)
    ]
    rates = audit_figures.of_rates(record)
    extra = {
        "rates": (rates,) if rates else (),
        "projection": audit_figures.of_projection(record),
        "neurons": audit_figures.of_neurons(record, NEURONS_SHOWN) if record.neurons else (),
    }
    views = {name: _view(panels, next(numbered)) for name, panels in extra.items() if panels}
    table = record.neurons
    names = list(
        dict.fromkeys(
            [
                *(layer.name for layer in record.layers),
                *(table.layer[:NEURONS_SHOWN] if table else ()),
            ]
        )
    )
    data: dict[str, Any] = {
        "charts": {
            panel.anchor: panel.chart
            for figure in [*layers, *views.values()]
            for panel in figure.panels
            if panel.chart is not None
        },
        # The page's script reads the numbers of the charts from the charts themselves.
        "numbers": {},
        "layers": names,
        "sizes": [layer.neurons for layer in record.layers],
    }
    if table is not None:
        data["neurons"] = _rows(table, NEURONS_SHOWN)
        data["histograms"] = {
            panel.anchor: {"edges": edges.round(6).tolist(), "columns": columns}
            for panel, (_, _, edges, columns) in zip(
                views["neurons"].panels, audit_figures.HISTOGRAMS, strict=True
            )
        }
    if rates is not None:
        data["rates"] = _rates(record, views["rates"].panels[0].anchor)
    return _Figures(layers, views, data)


def _view(panels: Sequence[Panel], number: int) -> FigureView:
    return figure_view(Figure("", "", "ours", tuple(panels)), number)


def _rows(table: NeuronTable | None, most: int) -> list[tuple[Any, ...]]:
    """Return the first neurons, with columns in the order of the page."""
    if table is None:
        return []
    columns = (
        table.layer, table.index, table.favorite, table.attenuation, table.selectivity_id,
        table.selectivity_ood, table.rate_id, table.rate_ood,
    )  # fmt: skip
    return list(zip(*(column[:most] for column in columns), strict=True))


def _rates(record: AuditRecord, anchor: str) -> dict[str, Any]:
    """Return activation rates by layer, data set and class, for the chart of the selected layer."""
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


def _by_column(record: AuditRecord) -> dict[str, list[tuple[str, str, Score]]]:
    """Return data set, value and accuracy of each group of examples, by metadata column."""
    columns: dict[str, list[tuple[str, str, Score]]] = {}
    for scores in sorted(record.sets, key=lambda scores: scores.role != "id"):
        for column, value, score in scores.groups():
            columns.setdefault(column, []).append((scores.name, value, score))
    return columns


def _classes(record: AuditRecord) -> list[tuple[str, list[Any]]]:
    """Return classes with their scores in each set, the largest accuracy drop first."""
    ordered = sorted(record.sets, key=lambda scores: scores.role != "id")

    def change(row: tuple[str, list[Any]]) -> float:
        values = [None if score is None else score.accuracy.value for score in row[1]]
        others = [value for value in values[1:] if value is not None]
        return min(others) - values[0] if others and values[0] is not None else 0.0

    names = [name for name in record.classes if any(name in s.by_class for s in ordered)]
    return sorted(
        ((name, [scores.by_class.get(name) for scores in ordered]) for name in names), key=change
    )


def _measured(record: AuditRecord) -> list[tuple[str, str, list[Any]]]:
    """Return the columns of the layer table: measure, data set, and one value or None per layer."""
    sets = sorted(record.sets, key=lambda scores: scores.role != "id")
    columns = [
        (title, scores.name, [getattr(layer, name).get(scores.name) for layer in record.layers])
        for title, name in (("Attenuation", "attenuation"), ("Selectivity", "selectivity"),
                            ("Probe", "probe"))
        for scores in sets
    ]  # fmt: skip
    return [column for column in columns if any(value is not None for value in column[2])]


def _groups(examples: Sequence[Example]) -> dict[str, list[_Picture]]:
    groups: dict[str, list[_Picture]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(_Picture(example, _side(example)))
    return groups


def _side(example: Example) -> int:
    """Return the width of an image in pixels, from its header."""
    try:
        content = io.BytesIO(base64.b64decode(example.picture, validate=True))
        with Image.open(content, formats=["WEBP"]) as picture:
            return picture.width
    except (ValueError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"the picture of example {example.index} of {example.data!r} can't be read ({error}); "
            "expected WebP in base64"
        ) from None
