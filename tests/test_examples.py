"""The notebooks run from top to bottom, show what they promise, and are kept without outputs."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import contam

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    found = json.loads(notebook.read_text("utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def shown(value: Any) -> None:
    """Ask for what a notebook would show of a cell's last value."""
    for form in ("_repr_mimebundle_", "_repr_html_"):
        if hasattr(value, form):
            assert getattr(value, form)()
            return
    assert value is None or repr(value)


def run(name: str) -> dict[str, Any]:
    """The names that a notebook leaves behind, once each of its cells has run and shown itself."""
    names: dict[str, Any] = {}
    for cell in cells(EXAMPLES / name, "code"):
        tree = ast.parse("".join(cell["source"]), f"{name}, {cell['id']}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{name}, {cell['id']}", "exec"), names)
        if isinstance(last, ast.Expr):
            shown(eval(compile(ast.Expression(last.value), f"{name}, {cell['id']}", "eval"), names))
    return names


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_kept_as_they_were_written(notebook):
    for cell in cells(notebook, "code"):
        assert not cell["outputs"] and cell["execution_count"] is None
    text = "".join(line for cell in cells(notebook, "markdown") for line in cell["source"])
    assert "http" not in text and "![" not in text
    for link in [part.partition(")")[0] for part in text.split("](")[1:]]:
        assert (EXAMPLES / link).exists(), link


@pytest.mark.slow
def test_the_theory_has_ten_cells_which_say_what_is_so():
    assert len(cells(EXAMPLES / "theory.ipynb", "code")) == 10
    found = run("theory.ipynb")
    core, label = found["CORE"], found["with_label"]
    assert label[:core].min() > 0.8 and label[core:].abs().max() < 0.05
    assert all(course[-1].loss < 0.02 < course[1].loss for course in found["states"].values())
    sided = {
        when: float((found["asymmetry"](r) > 0.8).double().mean())
        for when, r in found["rates"].items()
    }
    assert sided["before"] < 0.2 and sided["after"] > 0.6
    assert found["pulls"]["ReLU"].mean() > 0.1 and found["pulls"]["linear"].abs().max() < 0.01
    ends = {row["network"]: row for row in found["rows"]}
    assert ends["ReLU"]["V"] > 1.5 and abs(ends["linear"]["V"]) < 0.1
    assert ends["ReLU"]["id_hinge"] < 0.02 and ends["ReLU"]["ood_hinge"] > 0.8
    assert ends["ReLU"]["worst_error"] > 0.3 and ends["linear"]["worst_hinge"] < 0.02
    for name, rising in {"ReLU": True, "linear": False}.items():
        risks = [row["risk"] for row in found["moved"] if row["network"] == name]
        assert (risks == sorted(risks) and risks[-1] > 0.8) if rising else max(risks) < 0.02
    sizes = found["sizes"]
    for key in ("contamination", "OOD hinge risk"):
        assert [row[key] for row in sizes] == sorted(row[key] for row in sizes)
    each = [row["contamination"] / row["background features"] for row in sizes]
    assert each == sorted(each, reverse=True)


@pytest.mark.slow
def test_the_audit_of_a_network_finds_out_why_it_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    try:
        found = run("audit.ipynb")
    finally:
        torch.set_num_threads(threads)
    sets = found["found"].evidence.sets
    assert sets[0].overall.accuracy.value > 0.8
    assert all(each.overall.accuracy.value < 0.7 for each in sets[1:])
    alone, judged = (
        next(s for s in found[each].verdict.steps if s.leads_to == "core information missing")
        for each in ("first", "found")
    )
    assert "own features" in alone.why and "own features" not in judged.why
    assert judged.answer == "no" and found["found"].verdict.cause == "contaminated"
    assert contam.Audit.load("audit").evidence == found["found"].evidence
    assert found["found"].verdict.sentence in Path("audit/audit.html").read_text("utf-8")
    said = capsys.readouterr().out
    assert f"on {found['worst'].name}:" in said and " loses " in said
    before, after = (float(line.split("OOD ")[1]) for line in said.splitlines() if ", OOD " in line)
    assert after > before + 0.05
