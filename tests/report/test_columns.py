"""Columns of numbers as letters: nothing is lost but what the step says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contam.report.columns import LETTERS, MANY, Column, counted, packed


def read(column: Column) -> list[float]:
    """The numbers again, as the page's script reads them."""
    n, base, found = column["letters"], len(LETTERS), []
    text = column["text"]
    for at in range(0, len(text), n):
        code = sum(LETTERS.index(letter) * base**k for k, letter in enumerate(text[at : at + n]))
        none = code == base**n - 1
        found.append(math.nan if none else column["start"] + column["step"] * code)
    return found


def test_by_hand() -> None:
    column = packed([0.0, 0.002, None])
    assert (column["step"], column["start"], column["letters"]) == (0.001, 0.0, 1)
    assert column["text"] == LETTERS[0] + LETTERS[2] + LETTERS[-1]


def test_thousandths_are_exact_where_shares_lie() -> None:
    values = [k / 1000 for k in range(-500, 1501)]
    column = packed(values)
    assert column["letters"] == 2
    assert [round(each, 9) for each in read(column)] == values


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32) | st.none(), max_size=20))
def test_every_number_is_within_a_step(values: list[float | None]) -> None:
    column = packed(values)
    for value, found in zip(values, read(column), strict=True):
        if value is None or not math.isfinite(value):
            assert math.isnan(found)
        else:
            assert abs(found - value) <= column["step"] * (1 + 1e-6) + 1e-6 * abs(value)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_the_step_is_the_smallest_with_few_enough_steps(values: list[float]) -> None:
    span, step = max(values) - min(values), packed(values)["step"]
    assert span / step <= MANY
    assert step == 0.001 or span / step > MANY / 3


@given(st.lists(st.integers(0, 10**6), max_size=20))
def test_whole_numbers_are_exact(values: list[int]) -> None:
    assert read(counted(values)) == values


@pytest.mark.parametrize("code", [len(LETTERS) - 2, len(LETTERS) - 1, len(LETTERS) ** 2 - 1])
def test_no_number_is_taken_for_none(code: int) -> None:
    assert read(counted([code])) == [code]


def test_letters_need_no_escape() -> None:
    assert len(set(LETTERS)) == len(LETTERS) > 85
    assert not set(LETTERS) & set("\"\\<& '" + "\x7f") - {"'"}
    assert LETTERS.isascii()
