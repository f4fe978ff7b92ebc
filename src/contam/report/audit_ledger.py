"""The ledger of lost points as a stacked bar for each OOD set, drawn without JavaScript."""

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass

from contam.auditing.records import AuditRecord, Ledger, LostPoints, SetScores

BARS_SHOWN = 6
"""Maximum number of OOD sets with a bar; the table of data sets has all."""
FILLS = 6
"""Number of different fills: a color and a hatching each."""
NUMBERED = 3.0
"""Width in percent of the bar from which a segment has its number in it."""
LEAST_REST = 0.0005
"""Smallest unexplained share that is shown."""


@dataclass(frozen=True)
class Segment:
    """A part of the bar; positions are percentages of its width, which is 100 % accuracy."""

    start: float
    width: float
    fill: str
    """Name of the fill: `kept`, `cause-0` and so on, `rest`, or `untested`."""
    entry: LostPoints | None = None
    number: int | None = None
    """Number of the cause in the bar and in the list below it; None for the rest."""

    @property
    def middle(self) -> float:
        """Position of the segment's number."""
        return round(self.start + self.width / 2, 2)

    @property
    def numbered(self) -> bool:
        """Whether the segment is wide enough for its number."""
        return self.number is not None and self.width >= NUMBERED


@dataclass(frozen=True)
class Bar:
    """The accuracy on one OOD set, and the points that it lost."""

    own: SetScores
    """Accuracy on the ID set."""
    scores: SetScores
    segments: tuple[Segment, ...]
    ledger: Ledger | None

    @property
    def id_at(self) -> float:
        """Position of the ID accuracy."""
        return _percent(self.own.overall.accuracy.value)

    @property
    def ood_at(self) -> float:
        """Position of the OOD accuracy."""
        return _percent(self.scores.overall.accuracy.value)

    @property
    def lost(self) -> float:
        """ID accuracy minus OOD accuracy."""
        return self.own.overall.accuracy.value - self.scores.overall.accuracy.value

    @property
    def listed(self) -> tuple[Segment, ...]:
        """The segments of the ledger's entries."""
        return tuple(segment for segment in self.segments if segment.entry is not None)


def bars(record: AuditRecord) -> list[Bar]:
    """Return a bar for each of the first OOD sets, those with a ledger first.

    A cause has the same fill and number in all bars. An OOD set without a ledger has its whole loss
    in one segment.

    Args:
        record: the audit.

    Source: ours, the loss of each OOD set, split by cause, in one line.

    >>> from contam.auditing.records import Interval, Score, SetScores, Verdict
    >>> def scores(name, role, correct):
    ...     score = Score(correct=correct, count=10, accuracy=Interval(value=correct / 10))
    ...     return SetScores(name=name, role=role, overall=score, by_class={})
    >>> record = AuditRecord(
    ...     contam="1.0", model="ResNet", classes=("cow", "camel"),
    ...     verdict=Verdict(
    ...         cause="unexplained shift", heading="", sentence="", reasons=(), steps=()),
    ...     sets=(scores("meadow", "id", 9), scores("beach", "ood", 6)))
    >>> [described(bar) for bar in bars(record)]
    ['ID accuracy 90.0 %, accuracy on beach 60.0 %; 30.0 points lost.']
    """
    own = next((scores for scores in record.sets if scores.role == "id"), None)
    if own is None:
        return []
    ledgers = {ledger.on: ledger for ledger in record.ledgers}
    ood = [scores for scores in record.sets if scores.role == "ood"]
    order = list(ledgers)
    ood.sort(key=lambda scores: order.index(scores.name) if scores.name in ledgers else len(order))
    causes = dict.fromkeys(
        entry.cause for ledger in record.ledgers for entry in ledger.entries if entry.how != "rest"
    )
    places = {cause: place for place, cause in enumerate(causes)}
    return [
        Bar(own, scores, _segments(own, scores, ledgers.get(scores.name), places),
            ledgers.get(scores.name))
        for scores in ood[:BARS_SHOWN]
    ]  # fmt: skip


def _segments(
    own: SetScores, scores: SetScores, ledger: Ledger | None, places: dict[str, int]
) -> tuple[Segment, ...]:
    start = _percent(scores.overall.accuracy.value)
    segments = [Segment(0.0, start, "kept")]
    if ledger is None:
        lost = _percent(own.overall.accuracy.value) - start
        return (*segments, Segment(start, round(lost, 2), "untested")) if lost > 0 else (*segments,)
    for entry in ledger.entries:
        width = min(_percent(entry.points.value), 100.0 - start)
        if entry.how == "rest":
            if entry.points.value < LEAST_REST:
                continue
            segments.append(Segment(start, width, "rest", entry))
        else:
            place = places[entry.cause]
            segments.append(Segment(start, width, f"cause-{place % FILLS}", entry, place + 1))
        start = round(start + width, 2)
    return tuple(segments)


def _percent(share: float) -> float:
    """A share as a position between 0 and 100."""
    return round(100 * min(max(share, 0.0), 1.0), 2) if math.isfinite(share) else 0.0


def described(bar: Bar) -> str:
    """Return the bar in words, for readers who do not see it.

    Args:
        bar: the bar.

    >>> from contam.auditing.records import Interval, Score
    >>> def scores(name, role, correct):
    ...     score = Score(correct=correct, count=10, accuracy=Interval(value=correct / 10))
    ...     return SetScores(name=name, role=role, overall=score, by_class={})
    >>> noise = LostPoints(
    ...     cause="corruption", what="noise", how="given back", points=Interval(value=0.2))
    >>> bar = Bar(scores("meadow", "id", 9), scores("beach", "ood", 6),
    ...           (Segment(60.0, 20.0, "cause-0", noise, 1),), None)
    >>> described(bar)
    'ID accuracy 90.0 %, accuracy on beach 60.0 %; 30.0 points lost: 20.0 points corruption.'
    """
    parts: Sequence[str] = [
        f"{100 * segment.entry.points.value:.1f} points {segment.entry.cause}"
        for segment in bar.listed
        if segment.entry is not None
    ]
    split = f": {', '.join(parts)}" if parts else ""
    return (
        f"ID accuracy {bar.id_at:.1f} %, accuracy on {bar.scores.name} {bar.ood_at:.1f} %; "
        f"{100 * bar.lost:.1f} points lost{split}."
    )


def is_code(fix: str) -> bool:
    """Return whether a fix begins with a line of Python, and is not an instruction.

    Args:
        fix: the fix of an entry of a ledger.

    >>> is_code("x = x / 255"), is_code("train on more varied backgrounds")
    (True, False)
    """
    try:
        tree = ast.parse(fix.strip().split("\n", maxsplit=1)[0])
    except (SyntaxError, ValueError):
        return False
    return bool(tree.body)
