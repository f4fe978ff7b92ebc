"""A gain that may be chance is judged once more, on more examples and at half the p-value."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from contam.auditing.causes.background import NewBackgrounds
from contam.auditing.comparison import Treatment
from contam.auditing.records import Interval

NOTHING = Treatment("new backgrounds", "nothing", 1)


def looks(gained: int, more: int) -> tuple[str, list[int]]:
    """The answer where 100 examples gain some and 48 others gain more, and the looks' sizes.

    Five of the first 100 lose.
    """
    right = torch.zeros(148, dtype=torch.bool)
    right[:gained] = right[100 : 100 + more] = True
    before = torch.zeros(148, dtype=torch.bool)
    before[90:95] = True
    sizes: list[int] = []

    def answers(rows: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(rows))
        return before[rows], right[rows]

    comparison: Any = SimpleNamespace(
        name="OOD", loss=Interval(value=0.3), judged=torch.arange(100), tried_on=torch.arange(148)
    )
    test = NewBackgrounds().judged_twice(comparison, NOTHING, answers, method="")
    return test.step.answer, sizes


@pytest.mark.parametrize(
    ("gained", "more", "answer", "sizes"),
    [
        (30, 0, "yes", [100]),
        (14, 14, "yes", [100, 148]),
        (14, 3, "undecided", [100, 148]),
        (6, 40, "no", [100]),
    ],
    ids=["sure at once", "sure with more", "never sure", "too little"],
)
def test_only_a_large_gain_that_may_be_chance_is_looked_at_again(
    gained: int, more: int, answer: str, sizes: list[int]
) -> None:
    assert looks(gained, more) == (answer, sizes)
