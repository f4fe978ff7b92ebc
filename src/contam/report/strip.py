"""A claim on a small scale: the expected range as a band and the result as a dot."""

import math
from typing import NamedTuple

from contam.experiment import Claim

WIDTH = 132.0


class Strip(NamedTuple):
    """Positions on a line of length `WIDTH`, from its left end."""

    band: tuple[float, float]
    whisker: tuple[float, float] | None
    dot: float


def strip(claim: Claim) -> Strip | None:
    """Place a claim's result and its expected range on a line.

    The line spans the result, its standard deviation and the range, with a margin. An open end of
    the range extends to the end of the line.

    Args:
        claim: the claim.

    Returns:
        The positions; None if the claim has no finite result or no range.

    >>> strip(Claim("The shift costs accuracy", "ours", "risk", observed=0.5, low=0.0, high=1.0))
    Strip(band=(15.2, 116.8), whisker=None, dot=66.0)
    """
    if claim.observed is None or not math.isfinite(claim.observed):
        return None
    if claim.low is None and claim.high is None:
        return None
    spread = claim.spread if claim.spread and math.isfinite(claim.spread) else 0.0
    ends = [claim.observed - spread, claim.observed + spread]
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
        dot=place(claim.observed),
    )
