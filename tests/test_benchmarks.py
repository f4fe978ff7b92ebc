"""Benchmarks end alike, and `make benchmarks` runs all of them."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
conclude = runpy.run_path(str(ROOT / "benchmarks" / "outcome.py"))["conclude"]


@pytest.mark.parametrize(
    ("limits", "line", "code"),
    [
        ({"at_least": 2}, "ratio 3 (wanted at least 2)", 0),
        ({"at_least": 3}, "ratio 3 (wanted at least 3)", 0),
        ({"at_least": 3.5}, "ratio 3 (wanted at least 3.5)", 1),
        ({"at_most": 2}, "ratio 3 (wanted at most 2)", 1),
        ({}, "ratio 3 (wanted nothing on this machine)", 0),
    ],
)
def test_a_ratio_outside_its_limits_fails(limits, line, code, capsys):
    assert conclude(3.0, **limits) == code
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_a_wrong_result_fails_at_any_ratio(capsys):
    assert conclude(3.0, at_least=2, wrong=["values: they differ"]) == 1
    assert capsys.readouterr().out == "WRONG values: they differ\nratio 3 (wanted at least 2)\n"
    assert conclude(float("nan"), at_least=2) == 1


def test_make_benchmarks_runs_every_benchmark():
    runnable = {
        file.stem
        for file in (ROOT / "benchmarks").glob("*.py")
        if '__name__ == "__main__"' in file.read_text("utf-8")
    }
    listed = re.search(r"^BENCHMARKS := (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert listed is not None and set(listed[1].split()) == runnable
