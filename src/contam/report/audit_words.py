"""Numbers and badges of an audit's page."""

import math
from typing import NamedTuple

from contam.auditing.records import UNDECIDED, AuditRecord, CauseEvidence, Interval, Step
from contam.report.strip import WIDTH
from contam.report.words import cell, typeset


def kind(cause: str) -> str:
    """Return which of the page's three colors a cause has."""
    return {"healthy": "holds", UNDECIDED: "unjudged"}.get(cause, "fails")


class Gauge(NamedTuple):
    """Positions on a line of length `WIDTH`; values beyond its ends are put at the ends."""

    dot: float
    whisker: tuple[float, float] | None
    limit: float | None


def gauge(found: Interval | None, limit: float | None = None) -> Gauge | None:
    """Place a share between 0 and 1 with its interval and a threshold on a line.

    The line begins below 0 for negative numbers such as losses. None without a finite number.
    """
    if found is None or not math.isfinite(found.value):
        return None
    ends = [end for end in (found.low, found.high) if end is not None and math.isfinite(end)]
    low, high = min(0.0, found.value, *ends), max(1.0, found.value)

    def place(value: float) -> float:
        return round(WIDTH * min(max((value - low) / (high - low), 0.0), 1.0), 1)

    return Gauge(
        place(found.value),
        (place(ends[0]), place(ends[1])) if len(ends) == 2 else None,
        None if limit is None else place(limit),
    )


def number(found: Interval | float | None) -> str:
    """Format a number without its interval."""
    value = found.value if isinstance(found, Interval) else found
    if value is None or math.isnan(value):
        return cell(None)
    # Shares to a thousandth; smaller numbers, such as p-values, keep their digits.
    return cell(float(value) if abs(value) < 0.001 else round(float(value), 3))


def fixed(value: float | None) -> str:
    """Format a number of a column to a thousandth."""
    if value is None or not math.isfinite(value):
        return "–"
    return typeset(f"{value:z.3f}")


def ends(found: Interval | None) -> str:
    """Format the ends of an interval as '0.51 to 0.56'; an empty string if they are unknown."""
    if found is None or found.low is None or found.high is None:
        return ""
    return f"{number(found.low)} to {number(found.high)}"


def decides(step: Step, record: AuditRecord) -> bool:
    """Return whether this answer gave the verdict."""
    first = next(
        (each for each in record.verdict.steps
         if each.answer == "yes" and each.leads_to == record.verdict.cause), None
    )  # fmt: skip
    return step is first


def badge(step: Step) -> str:
    """Return the answer in a few words."""
    return {
        "yes": f"Yes: {step.leads_to}",
        "no": "No, it fails" if step.leads_to == "healthy" else f"No, not {step.leads_to}",
        "undecided": "Unclear",
        "not asked": "Not asked",
    }[step.answer]


class EvidenceTable(NamedTuple):
    """The numbers of a cause's evidence with a row for each data set and variant."""

    columns: list[str]
    rows: list[tuple[str, str, list[Interval | None]]]
    """Data set, variant, and a number or None for each column."""
    variants: bool
    """Whether a row names a variant."""


def evidence_table(evidence: CauseEvidence) -> EvidenceTable:
    """Arrange the numbers of a cause's evidence as a table."""
    columns = list(dict.fromkeys(number.what for number in evidence.numbers))
    rows: dict[tuple[str, str], list[Interval | None]] = {}
    for each in evidence.numbers:
        row = rows.setdefault((each.on, each.part), [None] * len(columns))
        row[columns.index(each.what)] = each.value
    return EvidenceTable(
        columns,
        [(on, part, values) for (on, part), values in rows.items()],
        any(part for _, part in rows),
    )


def capitalized(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]
