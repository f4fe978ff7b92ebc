"""Claims: what holds, what does not, and what is left unjudged."""

import math

import pytest

from contam.experiment import Claim, judge, number


def claim(values, **ends):
    return judge("says", values, source="ours", quantity="q", **ends)


def test_by_hand():
    found = claim([1.0, 2.0, 3.0], low=1.5, high=2.5)
    assert (found.found, found.spread, found.n, found.holds) == (2.0, 1.0, 3, True)


@pytest.mark.parametrize(
    ("values", "low", "high", "holds"),
    [
        ([0.5], None, None, True),
        ([0.5], 0.5, None, True),
        ([0.5], None, 0.5, True),
        ([0.5], 0.51, None, False),
        ([0.5], None, 0.49, False),
        ([math.nan], None, None, False),
        ([1.0, math.nan], 0.0, 2.0, False),
    ],
)
def test_the_mean_is_judged_by_the_range(values, low, high, holds):
    assert claim(values, low=low, high=high).holds is holds


def test_in_every_seed_is_stricter_than_on_average():
    assert claim([0.0, 4.0], low=1.0).holds is True
    assert claim([0.0, 4.0], low=1.0, every_seed=True).holds is False
    assert "in every seed" in claim([0.0, 4.0], low=1.0, every_seed=True).wanted


def test_no_seed_is_no_verdict():
    found = claim([], low=1.0)
    assert found.holds is None
    assert found.found is None
    assert found.not_run


def test_a_number_may_stand_unjudged():
    assert Claim("says", "ours", "q", found=1.0, n=1, low=2.0, not_run="other sizes").holds is None


def test_one_seed_has_no_spread():
    assert claim([1.0]).spread is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.8467, "0.847"),
        (12.34, "12.3"),
        (1234.5, "1234"),
        (20_000.0, "20000"),
        (0.00012, "1.2e-04"),
        (-0.5, "-0.5"),
        (1e6, "1.0e+06"),
    ],
)
def test_numbers_as_printed(value, text):
    assert number(value) == text
