"""Comparisons of two audits: paired tests, moved causes, and what cannot be compared."""

import pytest
import torch
from scipy.stats import binom
from support.small_audits import labels, small_audit

from contam.auditing.fail_rules import FailRules
from contam.auditing.records import Interval
from contam.auditing.result import Audit

N = 40
ID = {"ID": [True] * N}
HALF = [True, False] * (N // 2)


def flipped(answers: list[bool], *places: int) -> list[bool]:
    return [good ^ (k in places) for k, good in enumerate(answers)]


def ends(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def test_the_paired_test_counts_the_examples_that_change():
    after = flipped(HALF, 1, 3, 5, 7, 9, 0)  # five become correct, one becomes wrong
    comparison = small_audit(ID | {"fog": HALF}).compare(small_audit(ID | {"fog": after}))
    same, fog = comparison.sets
    assert (fog.gained, fog.lost, fog.unpaired) == (5, 1, "")
    assert fog.change.value == pytest.approx(4 / N)
    assert fog.p_value == pytest.approx(2 * binom.cdf(1, 6, 0.5))
    assert (same.p_value, same.beyond_chance) == (1.0, False)
    low, high = ends(same.change)
    assert low < 0 < high


def test_exchanging_the_audits_changes_only_the_sign():
    first, second = small_audit(ID | {"fog": HALF}), small_audit(ID | {"fog": [True] * N})
    there, back = first.compare(second).sets[1], second.compare(first).sets[1]
    assert there.change.value == -back.change.value
    assert ends(there.change)[0] == pytest.approx(-ends(back.change)[1])
    assert there.p_value == back.p_value
    assert back.is_loss
    assert not there.is_loss


def test_audits_are_paired_after_saving_and_in_another_order_of_classes(tmp_path):
    first = small_audit(ID | {"fog": HALF})
    swapped = {name: [1 - k for k in labels(N)] for name in ("ID", "fog")}
    second = small_audit(ID | {"fog": HALF}, y=swapped, classes=("dog", "cat"))
    loaded = Audit.load(first.save(tmp_path)).compare(second)
    assert [one.unpaired for one in loaded.sets] == ["", ""]
    assert [one.gained for one in loaded.sets] == [0, 0]


UNPAIRED = {
    "other labels": (HALF, [1 - k for k in labels(N)], "labels or their order differ"),
    "another number": (HALF[:30], labels(30), "40 examples before and 30 after"),
}


@pytest.mark.parametrize("case", UNPAIRED)
def test_other_examples_are_not_paired(case):
    answers, y, reason = UNPAIRED[case]
    before = small_audit(ID | {"fog": [True] * N})
    comparison = before.compare(small_audit(ID | {"fog": answers}, y={"fog": y}))
    fog = comparison.sets[1]
    assert reason in fog.unpaired
    assert fog.unpaired in repr(comparison)
    assert fog.gained is None
    assert fog.is_loss


def test_audits_without_single_answers_are_not_paired():
    audit = small_audit(ID)
    old = [scores.model_copy(update={"correct": None}) for scores in audit.evidence.sets]
    older = Audit(audit.evidence.model_copy(update={"sets": tuple(old)}))
    assert "does not hold" in older.compare(audit).sets[0].unpaired


def test_equal_networks_rarely_seem_to_lose_accuracy():
    generator = torch.Generator().manual_seed(0)
    names = ["ID", "a", "b", "c", "d"]
    alarms = 0
    for _ in range(100):
        before, after = (
            small_audit({k: (torch.rand(60, generator=generator) < 0.7).tolist() for k in names})
            for _ in range(2)
        )
        alarms += any(one.is_loss for one in before.compare(after).sets)
    assert alarms <= 5


def test_causes_of_both_ledgers_are_listed():
    before = small_audit(ID | {"fog": HALF}, lost={"fog": {"head": 0.4, "corruption": 0.1}})
    after = small_audit(ID | {"fog": HALF}, lost={"fog": {"corruption": 0.2, "geometry": 0.3}})
    moved = {one.cause: (one.before, one.after) for one in before.compare(after).causes}
    assert moved == {"head": (0.4, 0.0), "corruption": (0.1, 0.2), "geometry": (0.0, 0.3)}


def test_a_loss_without_a_ledger_is_not_tested_and_no_loss_has_no_causes():
    before = small_audit(ID | {"fog": HALF}, lost={"fog": {"head": 0.5}})
    (untested,) = before.compare(small_audit(ID | {"fog": HALF})).causes
    (solved,) = before.compare(small_audit(ID | {"fog": [True] * N})).causes
    assert (untested.after, untested.change) == (None, None)
    assert (solved.after, solved.change) == (0.0, -0.5)


BAD = {
    "another data set": (small_audit(ID | {"night": HALF}), "different data sets, ID, fog before"),
    "no OOD set": (small_audit(ID), "different data sets"),
    "another class": (small_audit(ID | {"fog": HALF}, classes=("cat", "cow")), "'cow' is only in"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_data_cannot_be_compared(case):
    other, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        small_audit(ID | {"fog": HALF}).compare(other)


def test_every_form_names_both_verdicts_and_escapes_names():
    sets = ID | {"<fog>": HALF}
    before = small_audit(sets, cause="head", lost={"<fog>": {"head": 0.5}}, model="<b>")
    comparison = before.compare(small_audit(sets, cause="healthy", lost={"<fog>": {"head": 0.1}}))
    page = comparison._repr_html_()
    for text in (repr(comparison), comparison.markdown(), page.replace("&gt;", ">")):
        assert "head -> healthy" in text
    assert "<fog>" not in page
    assert "<b>" not in page
    assert "&lt;fog" in comparison.markdown()
    rows = comparison.records()
    assert [(row["what"], row["on"]) for row in rows] == [
        ("accuracy", "ID"), ("accuracy", "<fog>"), ("lost accuracy", "<fog>"),
    ]  # fmt: skip
    assert len({tuple(row) for row in rows}) == 1


def test_rules_judge_the_later_audit():
    before = small_audit(ID | {"fog": [True] * N}, cause="healthy")
    comparison = before.compare(small_audit(ID | {"fog": HALF}, cause="head"))
    rules = FailRules(verdicts=("head",), floor=0.8, loss=True)
    failed = [check.name for check in comparison.check(rules) if check.failure]
    assert failed == ["accuracy on fog", "no accuracy lost on fog", "verdict is not head"]
    assert not any(check.failure for check in comparison.check(FailRules()))
