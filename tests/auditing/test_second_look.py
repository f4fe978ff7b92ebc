"""A gain that may be chance is judged once more, on more examples and at half the p-value."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from contam.auditing.causes.background import NewBackgrounds
from contam.auditing.causes.cause import Cause, CauseTest
from contam.auditing.causes.input_mismatch import InputMismatch
from contam.auditing.causes.label_mismatch import LabelMismatch
from contam.auditing.comparison import Treatment
from contam.auditing.ledger import rows_of
from contam.auditing.records import Interval

NOTHING = Treatment("new backgrounds", "nothing", 1)


def looks(
    gained: int,
    more: int,
    *,
    cause: Cause | None = None,
    kept: int = 300,
    every: bool = False,
    loss: float = 0.3,
) -> tuple[str, list[int]]:
    """The answer where 100 examples gain some and others gain more, and the looks' sizes.

    Five of the first 100 lose. The last 48 of all that are kept chose the treatment.
    """
    right = torch.zeros(kept, dtype=torch.bool)
    right[:gained] = right[100 : 100 + more] = True
    before = torch.zeros(kept, dtype=torch.bool)
    before[90:95] = True
    sizes: list[int] = []

    def answers(rows: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(rows))
        return before[rows], right[rows]

    comparison: Any = SimpleNamespace(
        name="OOD", loss=Interval(value=loss), judged=torch.arange(100),
        others=torch.arange(kept - 48),
    )  # fmt: skip
    test = (cause or NewBackgrounds()).judged_twice(
        comparison, NOTHING, answers, method="", again=torch.arange(kept) if every else None
    )
    assert test.again == (len(sizes) == 2)
    return test.step.answer, sizes


@pytest.mark.parametrize(
    ("gained", "more", "answer", "sizes"),
    [
        (30, 0, "yes", [100]),
        (14, 26, "yes", [100, 252]),
        (14, 5, "no", [100, 252]),
        (14, 2, "undecided", [100, 160]),
        (6, 40, "no", [100]),
    ],
    ids=["sure at once", "sure with more", "small with more", "never sure", "too little"],
)
def test_only_a_large_gain_that_may_be_chance_is_looked_at_again(
    gained: int, more: int, answer: str, sizes: list[int]
) -> None:
    assert looks(gained, more, kept=sizes[-1] + 48) == (answer, sizes)


def test_what_no_example_chose_is_judged_on_all():
    assert looks(14, 30, every=True) == ("yes", [100, 300])


def test_there_is_no_second_look_without_more_examples():
    assert looks(14, 0, kept=148) == ("undecided", [100])


def test_plumbing_faults_have_one_look():
    """They give most of the loss back, and their test shows the network few images."""
    assert looks(14, 26, cause=InputMismatch(), loss=0.1) == ("undecided", [100])


@pytest.mark.parametrize(
    ("again", "plumbing", "rows"),
    [(False, False, 100), (True, False, 252), (True, True, 100)],
    ids=["sure at once", "sure with more", "beside a renamed class"],
)
def test_shares_are_measured_where_the_tests_were_decided(
    again: bool, plumbing: bool, rows: int
) -> None:
    """A renaming of classes is fitted to the examples of a second look, so it has none."""
    causes: list[Cause] = [NewBackgrounds(), *([LabelMismatch()] if plumbing else [])]
    tests = [
        CauseTest(cause.step(Interval(value=0.9), "yes", ""), treatment=NOTHING, again=again)
        for cause in causes
    ]
    comparison: Any = SimpleNamespace(judged=torch.arange(100), others=torch.arange(252))
    assert len(rows_of(comparison, tests)) == rows
