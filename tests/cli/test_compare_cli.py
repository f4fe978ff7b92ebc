"""`contam compare`: the table in every format, mistakes in one line, and the guide's own method."""

import csv
import json
import re
import shlex
from io import StringIO
from pathlib import Path

import pytest
from support import trees
from support.command_line import run_contam

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "compare-your-method.md"
TINY = ("smoke", "--trials", 1, "--steps", 1, "--out", "runs")
FOLDER = (*TINY, "--data", "folder", "--folder", "photos", "--side", 32)
FAULTY = """
from contam.training.algorithms import Objective

class Infinite(Objective):
    name = "Infinite"
    def losses(self, batches):
        return {"risk": self.network.head.weight.sum() / 0}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_is_text_csv_json_latex_or_markdown(here, capsys):
    command = ("compare", *TINY, "--method", "fresh head")
    code, text, error = run_contam(capsys, *command)
    assert code == 0, error
    assert text.startswith("shapes: 1 trial, 1 draw of") and "minus ERM" in text
    assert "contam report runs" in text
    tables = {}
    for form in ("csv", "json", "latex", "markdown"):
        code, tables[form], error = run_contam(capsys, *command, "--format", form)
        assert code == 0 and "already finished" in error
    rows = list(csv.DictReader(StringIO(tables["csv"])))
    assert [row["method"] for row in rows] == ["ERM", "fresh head"]
    assert float(rows[1]["ood"]) == pytest.approx(json.loads(tables["json"])[1]["ood"])
    assert r"\toprule" in tables["latex"] and "| ERM |" in tables["markdown"]


def test_methods_that_are_left_out_are_printed_with_their_reasons(here, capsys):
    """IRM needs two examples of every domain."""
    command = ("compare", *TINY, "--method", "IRM", "--batch-size", 1)
    line = "left out: IRM on shapes: IRM splits the minibatch of a domain in two"
    code, text, error = run_contam(capsys, *command)
    assert code == 0, error
    assert text.count(line) == 1 and re.search(r"method +trials +ID", text)
    code, text, error = run_contam(capsys, *command, "--format", "csv")
    assert code == 0 and error.count(line) == 1 and line not in text
    assert [row["trials"] for row in csv.DictReader(StringIO(text))] == ["1"]
    flags = ("--methods", "IRM", "--networks.steps", 1, "--networks.batch-size", 1, "--trials", 1)
    code, text, error = run_contam(
        capsys, "run", "tab04_baselines", "smoke", *flags, "--out", "runs"
    )
    assert code == 0, error
    assert text.count(line) == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--method", "coarl"), "no method 'coarl'; did you mean 'CORAL'?"),
        (("lptop",), "no preset 'lptop'; did you mean 'laptop'?"),
        (("--method", "no_such_module:Mine"), "can't find no_such_module:Mine"),
        (("--data", "shapse"), "field 'data.0'"),
        (("--steps", 0), "field 'networks.steps'"),
        (("--selection", "best"), "invalid choice"),
        (("pacs", "--folder", "nowhere"), "nowhere is not a complete pacs"),
    ],
)
def test_mistakes_are_one_line(here, capsys, arguments, line):
    code, _, error = run_contam(capsys, "compare", *arguments, "--out", "runs")
    assert code == 2 and line in error and error.count("\n") == 1, error
    assert not list(Path().rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("folders", "line"),
    [
        (("art/cat", "art/dog", "sketch/cat", "sketch/dog"), "at least 2 training domains, got 1"),
        (
            ("art/cat", "art/dog", "photo/cat", "sketch/cat", "sketch/dog"),
            "no example of class 'dog'",
        ),
    ],
)
def test_a_missing_domain_or_class_is_one_line(here, capsys, folders, line):
    trees.tree(here / "photos", folders, images=5)
    code, _, error = run_contam(capsys, "compare", *FOLDER)
    assert code == 2 and line in error.splitlines()[-1], error


def test_a_loss_that_is_not_finite_is_one_line(here, capsys):
    Path("faulty_methods.py").write_text(FAULTY, "utf-8")
    code, _, error = run_contam(capsys, "compare", *TINY, "--method", "faulty_methods:Infinite")
    assert code == 2
    assert "Infinite: the loss 'risk' is not finite at step 1" in error.splitlines()[-1]


@pytest.mark.slow
def test_the_method_of_the_guide_runs_and_is_short(here, capsys):
    """The command of the guide, with the smoke preset."""
    text = GUIDE.read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) < 40
    Path("decoupled.py").write_text(code, "utf-8")
    command = next(line for line in text.splitlines() if "decoupled:Decoupled" in line)
    words = ["smoke" if word == "laptop" else word for word in shlex.split(command)[1:]]
    status, table, error = run_contam(capsys, *words)
    assert status == 0, error
    for method in ("decoupled:Decoupled", "CORAL", "distillation", "teacher", "ERM"):
        assert re.search(rf"^ *{re.escape(method)} ", table, re.MULTILINE), table
