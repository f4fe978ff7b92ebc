"""An audit's verdict and numbers as a reader meets them."""

import math
from typing import NamedTuple

from contam.auditing.records import AuditRecord, Cause, Interval, Step
from contam.report.strip import WIDTH
from contam.report.words import cell, typeset

HEADINGS: dict[Cause, str] = {
    "healthy": "Healthy: no failure to explain",
    "undertrained": "Undertrained",
    "spurious correlation": "A spurious correlation",
    "core information missing": "The object can’t be seen",
    "head": "The head falls short of its features",
    "contaminated": "Contaminated, as far as one can tell",
    "undecided": "Undecided",
}
MADE_FROM = {
    "masks": "objects cut out along their masks",
    "inpainted": "objects painted over",
    "border": "only the border of each image",
    "labels": "declared background labels",
}
KNOWN_FROM = {
    "labels": "declared background labels",
    "border": "color and spread of the border pixels",
}


def kind(cause: Cause) -> str:
    """Which of the page's three colors a cause has."""
    return {"healthy": "holds", "undecided": "unjudged"}.get(cause, "fails")


class Gauge(NamedTuple):
    """Places on a line of `WIDTH`, from its left end; what lies beyond is put at its end."""

    dot: float
    whisker: tuple[float, float] | None
    limit: float | None


def gauge(found: Interval | None, limit: float | None = None) -> Gauge | None:
    """A share between 0 and 1 with its interval, and where the threshold is.

    Negative numbers, such as gains, have the line begin with them. None without a finite number.
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
    """The number alone."""
    value = found.value if isinstance(found, Interval) else found
    if value is None or math.isnan(value):
        return cell(None)
    # Shares to a thousandth; what is smaller, such as a p-value, keeps its digits.
    return cell(float(value) if abs(value) < 0.001 else round(float(value), 3))


def fixed(value: float | None) -> str:
    """A number among many others in a column, to a thousandth."""
    if value is None or not math.isfinite(value):
        return "–"
    return typeset(f"{value:z.3f}")


def ends(found: Interval | None) -> str:
    """Both ends of its interval: '0.51 to 0.56'; nothing where they are not known."""
    if found is None or found.low is None or found.high is None:
        return ""
    return f"{number(found.low)} to {number(found.high)}"


def decides(step: Step, record: AuditRecord) -> bool:
    """Whether this answer gave the verdict."""
    first = next(
        (each for each in record.verdict.steps
         if each.answer == "yes" and each.leads_to == record.verdict.cause), None
    )  # fmt: skip
    return step is first


def turn(step: Step) -> str:
    """The answer, and where it leads."""
    return {
        "yes": f"Yes: {step.leads_to}",
        "no": f"No, so not {step.leads_to}" if step.leads_to != "healthy" else "No: a failure",
        "undecided": "Open",
        "not asked": "Not asked",
    }[step.answer]
