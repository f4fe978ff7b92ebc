"""Summaries for pull requests."""

import re

import pytest
from support import audit_records
from support.small_audits import small_audit

from contam.auditing.fail_rules import FailRules
from contam.auditing.markdown import MOST_ROWS, escaped, table
from contam.auditing.multilabel import MultilabelAudit
from contam.auditing.records import AccuracyEstimate, Interval, UnlabeledScores
from contam.auditing.result import Audit
from contam.auditing.tracking import tracked_numbers

HOSTILE = "a|b\n# *c* <img src=x> [link](http://x) `code` [^1] ~~d~~"


def test_a_summary_has_the_verdict_the_accuracies_the_losses_and_what_helps():
    audit = Audit(audit_records.audit(layers=1, count=10, examples=1))
    text = audit.markdown(FailRules(floor=0.5))
    assert audit.verdict.heading in text
    for scores in audit.evidence.sets:
        assert re.search(rf"\| {scores.role.upper()} {scores.name} \| \d", text)
    helps = text.partition("**What helps**")[2]
    gains = [float(number) for number in re.findall(r"\| \+(\d+\.\d) \[", helps)]
    assert gains == sorted(gains, reverse=True)
    assert "| fresh head |" not in helps  # it helps by chance only
    assert "1 of 2 failed" in text


def test_the_ledger_is_a_table():
    audit = small_audit(
        {"ID": [True] * 4, "fog": [False] * 4}, lost={"fog": {"head": 0.7, "geometry": 0.3}}
    )
    rows = [line for line in audit.markdown().splitlines() if "a finding" in line]
    assert rows == ["| head | a finding | +70.0 points |  |",
                    "| geometry | a finding | +30.0 points |  |"]  # fmt: skip


def test_names_cannot_break_the_tables():
    audit = small_audit({HOSTILE: [True] * 4, HOSTILE * 2: [True] * 4}, model=HOSTILE)
    for text in (audit.markdown(), audit.compare(audit).markdown(FailRules(floor=1.0))):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        widths = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
        starts = [k for k, line in enumerate(lines) if set(line) <= set("|- ")]
        assert all(widths[k] == widths[k - 1] == widths[k + 1] for k in starts)
        assert "<img" not in text
        assert not re.search(r"(?<!\\)\]\(", text)
    assert MultilabelAudit({"red": audit, "green": audit}).markdown() == audit.markdown() + (
        "\n" + audit.markdown()
    )


def test_sets_without_labels_have_an_estimate():
    share = Interval(value=0.6, low=0.5, high=0.7)
    estimate = AccuracyEstimate(
        method="average thresholded confidence", on="new", estimate=share, n=9
    )
    scores = UnlabeledScores(
        name="new", count=9, estimates=(estimate,), with_labels=share, widest=share
    )
    audit = small_audit({"ID": [True] * 4}, unlabeled=(scores,))
    row = "| unlabeled new | about 60.0 % [50.0, 70.0], by average thresholded confidence | 9 |"
    assert row in audit.markdown()
    assert tracked_numbers(audit.evidence)["contam/estimated_accuracy/new"] == 0.6
    assert "without labels are not compared" in repr(audit.compare(audit))


@pytest.mark.parametrize("text", ["50.0 % [25.0, 75.0]", "+5.0 [-1.0, +11.0] points", "n 40"])
def test_numbers_stay_readable(text):
    assert escaped(text) == text


def test_long_tables_are_cut_and_say_so():
    lines = table(("set",), [(str(k),) for k in range(MOST_ROWS + 3)]).splitlines()
    assert len(lines) == MOST_ROWS + 3
    assert lines[-1] == "| and 3 more |"
