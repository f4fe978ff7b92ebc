"""Claims that hold, that fail, and that are not judged."""

import math

import pytest

from contam.experiment import Claim, NotJudged, Pooled, Statement, judge, judge_all, number


def claim(values, **ends):
    return judge("says", values, source="ours", quantity="q", **ends)


def test_by_hand():
    result = claim([1.0, 2.0, 3.0], low=1.5, high=2.5)
    assert (result.observed, result.spread, result.n, result.holds) == (2.0, 1.0, 3, True)


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
def test_a_claim_holds_if_the_mean_is_in_the_range(values, low, high, holds):
    assert claim(values, low=low, high=high).holds is holds


def test_every_seed_is_stricter_than_the_mean():
    assert claim([0.0, 4.0], low=1.0).holds is True
    assert claim([0.0, 4.0], low=1.0, every_seed=True).holds is False
    assert "in every seed" in claim([0.0, 4.0], low=1.0, every_seed=True).expected_range


@pytest.mark.parametrize(
    ("source", "low", "high", "range_source"),
    [
        ("Thm. 4.3", 0.8, None, "ours"),
        ("Thm. 4.3", -0.1, 0.1, "ours"),
        ("Thm. 4.3", 0.0, None, "Thm. 4.3"),
        ("Fig. 6", None, 1.0, "Fig. 6"),
        ("ours", 0.0, None, "ours"),
    ],
)
def test_a_range_is_ours_unless_it_is_a_direction(source, low, high, range_source):
    claim = Claim("It grows", source, "growth", observed=0.5, low=low, high=high)
    assert claim.range_source == claim.record("toy")["range_source"] == range_source
    assert claim.expected_range.endswith("(ours)") is (range_source == "ours" != source)


def test_a_claim_without_seeds_is_not_judged():
    result = claim([], low=1.0)
    assert result.holds is None
    assert result.observed is None
    assert result.not_judged


def test_a_claim_without_a_range_is_not_judged():
    assert (
        Claim("says", "ours", "q", observed=1.0, n=1, low=2.0, not_judged="other sizes").holds
        is None
    )


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
def test_format_of_numbers(value, text):
    assert number(value) == text


def double(values):
    return [2 * value for value in values]


def test_a_statement_is_judged_by_its_measure():
    statement = Statement(
        "{name} doubles", "ours", "twice {name}", double, low=3.0, every_seed=True
    )
    claim = statement.judge([1.0, 2.0], name="it")
    assert (claim.says, claim.quantity) == ("it doubles", "twice it")
    assert (claim.observed, claim.holds, claim.in_every_seed) == (3.0, False, False)


def test_a_statement_may_pool_all_seeds():
    statement = Statement("s", "ours", "q", lambda rows: Pooled(sum(rows), len(rows), "pair"))
    claim = statement.judge([1.0, 2.0])
    assert (claim.observed, claim.spread, claim.n, claim.of) == (3.0, None, 2, "pair")


def test_a_statement_that_is_not_judged_has_a_reason():
    def measure(rows):
        raise NotJudged("there is no student")

    claim = Statement("s", "ours", "q", measure, low=1.0, published="2").judge([])
    assert (claim.holds, claim.verdict) == (None, "not judged")
    assert (claim.not_judged, claim.low, claim.published) == ("there is no student", 1.0, "2")


def test_a_table_of_statements_keeps_its_order():
    table = [Statement(f"s{i}", "ours", "q", double) for i in range(3)]
    assert [claim.says for claim in judge_all(table, [1.0])] == ["s0", "s1", "s2"]


def test_a_number_outside_the_settings_of_its_claim_may_still_lie_in_the_range():
    result = Claim("says", "ours", "q", observed=1.0, n=1, low=0.5, not_judged="other sizes")
    assert (result.holds, result.in_range) == (None, True)
    assert Claim("says", "ours", "q", not_judged="nothing measured").in_range is None


def test_a_statement_is_judged_only_under_its_condition():
    def require(rows):
        if not rows:
            raise NotJudged("nothing was learned")

    statement = Statement("s", "ours", "q", double, low=1.0, given=require)
    assert statement.judge([1.0]).holds
    assert statement.judge([]).not_judged == "nothing was learned"


def test_claims_are_about_learning_unless_they_say_otherwise():
    statement = Statement("s", "ours", "q", double, about_learning=False)
    assert claim([1.0]).record("toy")["about_learning"] is True
    assert statement.judge([1.0]).record("toy")["about_learning"] is False
