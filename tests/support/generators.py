"""Generators that yield their progress and return their result."""

from collections.abc import Generator, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def last(items: Iterable[Item]) -> Item:
    """The last item."""
    *_, item = items
    return item


def result_of(steps: Generator[float, None, Result]) -> Result:
    """The returned value; asserts that the yielded progress rises within 0 and 1."""
    last = 0.0
    while True:
        try:
            share = next(steps)
        except StopIteration as end:
            return end.value
        assert last - 1e-9 <= share <= 1 + 1e-9
        last = share


def returned(steps: Generator[Any, None, Result]) -> Result:
    """The returned value, whatever is yielded."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
