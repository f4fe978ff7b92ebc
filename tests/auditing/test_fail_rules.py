"""Rules on verdicts and accuracies."""

import pytest
from support.small_audits import small_audit

from contam.auditing.fail_rules import FailRules

AUDIT = small_audit(
    {"ID": [True] * 9 + [False], "fog": [True] * 4 + [False] * 6, "dim": [True] * 8 + [False] * 2},
    cause="head", lost={"fog": {"head": 0.4, "corruption": 0.1}},
)  # fmt: skip


def failed(rules: FailRules) -> list[str]:
    return [check.name for check in AUDIT.check(rules) if check.failure]


RULES = {
    "no rule": (FailRules(), []),
    "every OOD set": (FailRules(floor=0.5), ["accuracy on fog"]),
    "a set of its own": (FailRules(floor=0.5, floors={"fog": 0.3}), []),
    "an accuracy that is met": (FailRules(floors={"dim": 0.8}), []),
    "the ID set": (FailRules(floors={"ID": 0.95}), ["accuracy on ID"]),
    "the verdict": (FailRules(verdicts=("head", "corruption")), ["verdict is not head"]),
    "any failure": (FailRules(verdicts=("any",)), ["verdict is no failure"]),
}


@pytest.mark.parametrize("case", RULES)
def test_rules_fail_what_they_name(case):
    rules, expected = RULES[case]
    assert failed(rules) == expected


def test_every_ood_set_has_a_check_with_its_numbers():
    fog, dim = AUDIT.check(FailRules())
    assert (fog.name, dim.name) == ("accuracy on fog", "accuracy on dim")
    assert "head: +40.0 points" in fog.details


def test_a_smaller_cause_fails_too():
    verdict = AUDIT.verdict.model_copy(update={"behind": ("corruption",)})
    record = AUDIT.evidence.model_copy(update={"verdict": verdict})
    (check,) = type(AUDIT)(record).check(FailRules(verdicts=("corruption",)))[2:]
    assert "smaller cause is corruption" in check.failure


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"verdicts": ("corruptions",)}, "did you mean 'corruption'"),
        ({"floor": 80}, "share in .0, 1. such as 0.8, not 80"),
        ({"floors": {"fog": float("nan")}}, "not nan"),
    ],
)
def test_bad_rules_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        FailRules(**given)


def test_a_rule_for_a_set_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"no data set 'night' .* ID, fog, dim"):
        AUDIT.check(FailRules(floors={"night": 0.5}))
