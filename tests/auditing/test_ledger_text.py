"""The ledger in the text of an audit, in notebooks and in its tables."""

import csv

import pytest
from support.audit_records import HOSTILE, audit, hostile

from contam.auditing.records import UNEXPLAINED, Interval
from contam.auditing.result import Audit, ledger_lines

AUDIT = Audit(audit(layers=1, count=10, examples=0))


def test_the_text_has_a_line_for_each_share_of_the_loss_before_the_reasons():
    text = repr(AUDIT)
    assert "  33.6 points  new backgrounds: OOD objects on ID backgrounds (given back)" in text
    assert "   5.6 points  corruption: noise as in the OOD images (imitated)" in text
    assert f"   8.4 points  {UNEXPLAINED}: no test accounts for them" in text
    places = [text.index(line) for line in (
        AUDIT.verdict.sentence, "56.0 points lost on textures:", "46.0 points lost on photos:",
        f"- {AUDIT.verdict.reasons[0]}", "helps most: batch-norm statistics", "ID id: accuracy",
    )]  # fmt: skip
    assert places == sorted(places)


def test_an_unexplained_rest_of_nothing_has_no_line():
    ledger = AUDIT.evidence.ledgers[0]
    rest = ledger.entries[-1].model_copy(update={"points": Interval(value=1e-9)})
    entries = (*ledger.entries[:-1], rest)
    lines = ledger_lines(ledger.model_copy(update={"entries": entries}))
    assert len(lines) == len(entries) - 1


def test_the_html_has_the_ledger_and_the_best_repair_and_no_live_markup():
    page = AUDIT._repr_html_()
    assert "56.0 points lost on textures" in page
    assert "33.6 points  new backgrounds: OOD objects on ID backgrounds (given back)" in page
    assert "Helps most: batch-norm statistics" in page
    assert "<script>" not in Audit(hostile(HOSTILE))._repr_html_()


def test_the_tables_have_the_rows_of_each_ledger_and_these_add_up(tmp_path):
    rows = AUDIT.records()
    for ledger in AUDIT.evidence.ledgers:
        own = [row for row in rows if row["what"].startswith("ledger: ") and row["on"] == ledger.on]
        loss, *shares = own
        assert loss["what"] == "ledger: loss"
        assert [row["what"] for row in shares] == [f"ledger: {e.cause}" for e in ledger.entries]
        assert sum(row["value"] for row in shares) == pytest.approx(loss["value"])
    with (AUDIT.save(tmp_path) / "evidence.csv").open() as file:
        saved = [row["what"] for row in csv.DictReader(file)]
    assert saved == [row["what"] for row in rows]
