"""Columns of many numbers as short text inside a page's JSON.

A number is a few letters of `LETTERS`, the lowest first: its distance from the column's least, in
steps of the column. The last code is for what is no number. A tenth of the room of numbers spelled
out, and a script reads a million of them at once.
"""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

LETTERS = "".join(map(chr, range(35, 127))).replace("\\", "").replace("<", "").replace("&", "")
"""What needs no escape in JSON or HTML."""
MANY = 8000
"""Steps that a column of measured numbers has at most."""


class Column(TypedDict):
    """A packed column: the number of code c is `start + step * c`."""

    text: str
    letters: int
    """Of each number."""
    start: float
    step: float


def packed(values: Sequence[float | None]) -> Column:
    """Measured numbers: to a thousandth, or coarser where they lie far apart.

    None, and what is not finite, is no number.
    """
    found = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    known = found[np.isfinite(found)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    step = next(
        width
        for power in range(-3, 310)
        for width in (float(f"{digit}e{power}") for digit in (1, 2, 5))
        if high / width - low / width < MANY
    )
    start = math.floor(low / step)
    steps = np.where(np.isfinite(found), np.round(found / step) - start, -1).astype(np.int64)
    return _column(steps, start * step, step)


def counted(values: Sequence[int]) -> Column:
    """Whole numbers from 0 on, exactly."""
    return _column(np.array(values, dtype=np.int64), 0.0, 1.0)


def _column(codes: np.ndarray, start: float, step: float) -> Column:
    base, most = len(LETTERS), int(codes.max(initial=0))
    letters = 1
    while base**letters <= most + 1:
        letters += 1
    codes = np.where(codes < 0, base**letters - 1, codes)
    alphabet = np.frombuffer(LETTERS.encode(), dtype=np.uint8)
    places = codes[:, None] // base ** np.arange(letters) % base
    return Column(text=alphabet[places].tobytes().decode(), letters=letters, start=start, step=step)
