"""Long work as a generator that yields the share that is done and returns what it found."""

from collections.abc import Generator
from typing import TypeVar

Found = TypeVar("Found")


def finished(steps: Generator[float, None, Found]) -> Found:
    """What is found in the end, for those who do not want to know how far it is."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def scaled(
    steps: Generator[float, None, Found], begin: float, size: float
) -> Generator[float, None, Found]:
    """The shares of a part of the work as shares of the whole."""
    while True:
        try:
            done = next(steps)
        except StopIteration as end:
            return end.value
        yield begin + size * done
