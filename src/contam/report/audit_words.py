"""Numbers and badges of an audit's page."""

import math
from typing import NamedTuple

from contam.auditing.records import UNDECIDED, CauseEvidence, Interval, Step
from contam.report.strip import WIDTH
from contam.report.words import cell, typeset


def kind(cause: str) -> str:
    """Return the color of a cause on the page: 'holds', 'fails' or 'unjudged'.

    Args:
        cause: name of the cause, `healthy` or `undecided`.

    >>> kind("healthy"), kind("new backgrounds")
    ('holds', 'fails')
    """
    return {"healthy": "holds", UNDECIDED: "unjudged"}.get(cause, "fails")


class Gauge(NamedTuple):
    """Positions on a line of length `WIDTH`; values beyond its ends are put at the ends."""

    dot: float
    whisker: tuple[float, float] | None
    limit: float | None


def gauge(share: Interval | None, limit: float | None = None) -> Gauge | None:
    """Place a share between 0 and 1 with its interval and a threshold on a line.

    Args:
        share: the share; the line begins below 0 for negative numbers such as losses.
        limit: the threshold.

    Returns:
        Positions on the line; None without a finite number.

    >>> gauge(Interval(value=0.5, low=0.25, high=0.75), limit=0.1)
    Gauge(dot=66.0, whisker=(33.0, 99.0), limit=13.2)
    """
    if share is None or not math.isfinite(share.value):
        return None
    ends = [end for end in (share.low, share.high) if end is not None and math.isfinite(end)]
    low, high = min(0.0, share.value, *ends), max(1.0, share.value)

    def place(value: float) -> float:
        return round(WIDTH * min(max((value - low) / (high - low), 0.0), 1.0), 1)

    return Gauge(
        place(share.value),
        (place(ends[0]), place(ends[1])) if len(ends) == 2 else None,
        None if limit is None else place(limit),
    )


def number(value: Interval | float | None) -> str:
    """Format a number without its interval.

    Args:
        value: the number; a dash if it is missing.

    >>> number(Interval(value=0.91234)), number(0.5), number(None)
    ('0.912', '0.5', '–')
    """
    value = value.value if isinstance(value, Interval) else value
    if value is None or math.isnan(value):
        return cell(None)
    # Shares to a thousandth; smaller numbers, such as p-values, keep their digits.
    return cell(float(value) if abs(value) < 0.001 else round(float(value), 3))


def points(share: Interval | float) -> str:
    """Format a share of the examples in points of accuracy.

    Args:
        share: the share.

    >>> points(Interval(value=0.1234)), points(-0.02)
    ('12.3', '−2.0')
    """
    value = share.value if isinstance(share, Interval) else share
    return typeset(f"{100 * value:z.1f}") if math.isfinite(value) else cell(None)


def points_ends(share: Interval) -> str:
    """Format the interval of a share in points of accuracy; without ends, the result is empty.

    Args:
        share: the share.

    >>> points_ends(Interval(value=0.1, low=0.05, high=0.15))
    '5.0 to 15.0'
    """
    if share.low is None or share.high is None:
        return ""
    return f"{points(share.low)} to {points(share.high)}"


def gain(change: Interval) -> str:
    """Format a change of an accuracy in percentage points.

    Args:
        change: difference of two shares.

    >>> gain(Interval(value=0.125)), gain(Interval(value=-0.02))
    ('+12.5', '−2.0')
    """
    return _signed(change.value)


def gain_ends(change: Interval) -> str:
    """Format the interval of a change of an accuracy in percentage points.

    Args:
        change: difference of two shares; without ends, the result is empty.

    >>> gain_ends(Interval(value=0.125, low=-0.01, high=0.3))
    '−1.0 to +30.0'
    """
    if change.low is None or change.high is None:
        return ""
    return f"{_signed(change.low)} to {_signed(change.high)}"


def _signed(share: float) -> str:
    if not math.isfinite(share):
        return cell(None)
    return f"{100 * share:+.1f}".replace("-", "−")


def fixed(value: float | None) -> str:
    """Format a number of a column with three decimals.

    Args:
        value: the number; a dash if it is missing or not finite.

    >>> fixed(-0.5), fixed(None)
    ('−0.500', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    return typeset(f"{value:z.3f}")


def ends(interval: Interval | None) -> str:
    """Format the ends of an interval; an empty string if they are unknown.

    Args:
        interval: the interval.

    >>> ends(Interval(value=0.53, low=0.51, high=0.56))
    '0.51 to 0.56'
    """
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"{number(interval.low)} to {number(interval.high)}"


def badge(step: Step) -> str:
    """Return the answer in a few words.

    Args:
        step: a question with its answer.

    >>> badge(Step(
    ...     question="Does a refitted head recover OOD accuracy?", evidence="gain", observed=None,
    ...     threshold=0.1, answer="not asked", leads_to="head", why="Not tested."))
    'Not tested'
    """
    return {"yes": "Yes", "no": "No", "undecided": "Unclear", "not asked": "Not tested"}[
        step.answer
    ]


class EvidenceTable(NamedTuple):
    """The numbers of a cause's evidence with a row for each data set and variant."""

    columns: list[str]
    rows: list[tuple[str, str, list[Interval | None]]]
    """Data set, variant, and a number or None for each column."""
    variants: bool
    """Whether a row names a variant."""


def evidence_table(evidence: CauseEvidence) -> EvidenceTable:
    """Arrange the numbers of a cause's evidence as a table.

    Args:
        evidence: the evidence about one cause.

    >>> from contam.auditing.records import Number
    >>> numbers = [Number(what="accuracy", value=Interval(value=0.9), on="ID")]
    >>> table = evidence_table(
    ...     CauseEvidence(cause="head", title="Is it the head?", method="", numbers=numbers))
    >>> table.columns, table.rows
    (['accuracy'], [('ID', '', [Interval(value=0.9, low=None, high=None)])])
    """
    columns = list(dict.fromkeys(item.what for item in evidence.numbers))
    rows: dict[tuple[str, str], list[Interval | None]] = {}
    for item in evidence.numbers:
        row = rows.setdefault((item.on, item.part), [None] * len(columns))
        row[columns.index(item.what)] = item.value
    return EvidenceTable(
        columns,
        [(on, part, values) for (on, part), values in rows.items()],
        any(part for _, part in rows),
    )
