"""Benchmarks end alike, and `make benchmarks` runs all of them."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUNNABLE = sorted(
    file.stem
    for file in (ROOT / "benchmarks").glob("*.py")
    if '__name__ == "__main__"' in file.read_text("utf-8")
)
SMALL = {
    "algorithms": ("--steps", 4, "--batch-size", 4, "--only", "ERM", "IRM", "Fish"),
    "embedded_training": ("--width", 4, "--steps", 2, "--rounds", 1),
}
"""Sizes at which a benchmark ends within seconds; its ratio means nothing then."""
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
    listed = re.search(r"^BENCHMARKS := (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert listed is not None and sorted(listed[1].split()) == RUNNABLE


def run_python(*words: object) -> tuple[int, str, str]:
    """Run Python in a process of its own; return exit code, output and errors."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


HELP = """
import runpy, sys
for name in sys.argv[1:]:
    sys.argv = [f"{name}.py", "--help"]
    try:
        runpy.run_path(f"benchmarks/{name}.py", run_name="__main__")
    except SystemExit as leaving:
        assert leaving.code == 0, name
"""


@pytest.mark.slow
def test_every_benchmark_has_a_help():
    code, out, error = run_python("-c", f"import sys; sys.path[0] = 'benchmarks'{HELP}", *RUNNABLE)
    assert code == 0, error
    assert re.findall(r"^usage: (\w+).py", out, re.M) == RUNNABLE


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_small_benchmark_reaches_its_ratio(name):
    code, out, error = run_python(f"benchmarks/{name}.py", *SMALL[name])
    assert code in (0, 1) and "Traceback" not in error, error
    assert re.match(r"ratio \S+ \(wanted ", out.splitlines()[-1]), out
