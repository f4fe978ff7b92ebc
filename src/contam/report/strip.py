"""A claim's number on a short line: the wanted range as a band, the number as a dot."""

import math
from typing import NamedTuple

from contam.experiment import Claim

WIDTH = 132.0


class Strip(NamedTuple):
    """Places on a line of `WIDTH`, from its left end."""

    band: tuple[float, float]
    whisker: tuple[float, float] | None
    dot: float


def strip(claim: Claim) -> Strip | None:
    """Where the number found lies against the range wanted; None when there is nothing to place.

    The line spans everything that is drawn on it, with a margin; an open end of the range goes to
    the end of the line.
    """
    if claim.found is None or not math.isfinite(claim.found):
        return None
    if claim.low is None and claim.high is None:
        return None
    spread = claim.spread if claim.spread and math.isfinite(claim.spread) else 0.0
    ends = [claim.found - spread, claim.found + spread]
    ends += [end for end in (claim.low, claim.high) if end is not None]
    low, high = min(ends), max(ends)
    margin = 0.15 * (high - low) or max(abs(high), 1.0)
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return round(WIDTH * (value - low) / (high - low), 1)

    return Strip(
        band=(
            0.0 if claim.low is None else place(claim.low),
            WIDTH if claim.high is None else place(claim.high),
        ),
        whisker=(place(ends[0]), place(ends[1])) if spread else None,
        dot=place(claim.found),
    )
