"""Text of the page: numbers, durations, verdicts, JSON."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contam.report import words


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ((18, 1, 1, 0), "18 of 20 claims hold, 1 does not hold here, 1 was not judged."),
        ((2, 2, 2, 0), "2 of 6 claims hold, 2 do not hold here, 2 were not judged."),
        ((3, 0, 0, 0), "All 3 claims hold."),
        ((1, 0, 0, 0), "The one claim holds."),
        ((0, 1, 0, 0), "0 of 1 claims hold, 1 does not hold here."),
        ((0, 0, 0, 0), "No claim was judged."),
        (
            (0, 0, 0, 1),
            "No claim was judged. One run is unfinished; its claims are not judged yet.",
        ),
        (
            (2, 0, 0, 3),
            "All 2 claims hold. 3 runs are unfinished; their claims are not judged yet.",
        ),
    ],
)
def test_headline(counts: tuple[int, int, int, int], line: str) -> None:
    assert words.headline(*counts) == line


def test_tally() -> None:
    assert words.tally(5, 1, 0) == "5 hold, 1 does not"
    assert words.tally(1, 2, 3) == "1 holds, 2 do not, 3 not judged"
    assert words.tally(0, 0, 0) == "no claims"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "0.0 s"), (9.96, "10.0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (192, "3 min 12 s"),
     (3 * 3600 + 59, "3 h 0 min")],
)  # fmt: skip
def test_duration(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"), (True, "yes"), (20_000, "20,000"), (20_000.0, "20,000"), (-0.5, "−0.5"),
        (0.12345, "0.123"), (1.2e-5, "1.2\xa0×\xa010⁻⁵"), (3e12, "3.0\xa0×\xa010¹²"),
        (math.nan, "not a number"), (-math.inf, "−∞"), ([1, 0.5], "1, 0.5"), ([], "none"),
        ("a-1", "a-1"), ("nan", "nan"),
    ],
)  # fmt: skip
def test_cell(value: object, said: str) -> None:
    assert words.cell(value) == said


def test_a_spread_has_two_digits() -> None:
    assert words.rough(0.012345) == "0.012"
    assert words.rough(1.2345e-6) == "1.2\xa0×\xa010⁻⁶"


def test_typeset_does_not_change_words() -> None:
    said = words.typeset("ICML-2024, x-1, 1-2 and -3 of (-.5): 90 % at 1e-05")
    assert said == "ICML-2024, x-1, 1-2 and −3 of (−.5): 90\N{NO-BREAK SPACE}% at 1\xa0×\xa010⁻⁵"


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(),
                    lambda value: st.lists(value) | st.dictionaries(st.text(), value)))  # fmt: skip
def test_json_is_safe_in_html_and_keeps_its_values(value: object) -> None:
    text = str(words.json_in_html(value))
    assert "<" not in text
    assert "\u2028" not in text

    def plain(part: object) -> object:
        if isinstance(part, dict):
            return {key: plain(inner) for key, inner in part.items()}
        if isinstance(part, list):
            return [plain(inner) for inner in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    assert json.loads(text) == plain(value)


def test_json_accepts_arrays_and_numpy_numbers() -> None:
    value = {"a": np.arange(2), "b": np.float32(0.5), "c": np.float64("nan")}
    assert json.loads(str(words.json_in_html(value))) == {"a": [0, 1], "b": 0.5, "c": None}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain -1 %", "plain −1\xa0%"),
        ("use `a < -1` & go", "use <code>a &lt; -1</code> &amp; go"),
        ("one ` alone <b>", "one ` alone &lt;b&gt;"),
        ("", ""),
    ],
)
def test_prose_marks_code(text: str, said: str) -> None:
    assert str(words.prose(text)) == said
