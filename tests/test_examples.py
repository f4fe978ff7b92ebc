"""The notebooks run from top to bottom, show what their text states, and are kept with outputs."""

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
    all_cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return [cell for cell in all_cells if cell["cell_type"] == kind]


def display(value: Any) -> None:
    """Call the method that a notebook calls to display a cell's last value."""
    for form in ("_repr_mimebundle_", "_repr_html_"):
        if hasattr(value, form):
            assert getattr(value, form)()
            return
    assert value is None or repr(value)


def run(name: str) -> dict[str, Any]:
    """Run a notebook's cells and return its variables."""
    names: dict[str, Any] = {}
    for cell in cells(EXAMPLES / name, "code"):
        tree = ast.parse("".join(cell["source"]), f"{name}, {cell['id']}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{name}, {cell['id']}", "exec"), names)
        if isinstance(last, ast.Expr):
            display(
                eval(compile(ast.Expression(last.value), f"{name}, {cell['id']}", "eval"), names)
            )
    return names


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_contain_the_outputs_of_one_complete_run(notebook):
    code = cells(notebook, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        printed = any(output["output_type"] == "stream" for output in cell["outputs"])
        assert cell["outputs"], cell["id"]
        assert printed or "print(" not in "".join(cell["source"]), cell["id"]
        assert all(output["output_type"] != "error" for output in cell["outputs"]), cell["id"]
    assert notebook.stat().st_size < 200_000
    text = "".join(line for cell in cells(notebook, "markdown") for line in cell["source"])
    assert "http" not in text and "![" not in text
    for link in [part.partition(")")[0] for part in text.split("](")[1:]]:
        assert (EXAMPLES / link).exists(), link


@pytest.mark.slow
def test_outputs_of_the_theory_notebook_match_its_text():
    assert len(cells(EXAMPLES / "theory.ipynb", "code")) == 10
    names = run("theory.ipynb")
    core, label = names["CORE"], names["with_label"]
    assert label[:core].min() > 0.8 and label[core:].abs().max() < 0.05
    assert all(course[-1].loss < 0.02 < course[1].loss for course in names["states"].values())
    one_sided = {
        when: float((names["asymmetry"](rate) > 0.8).double().mean())
        for when, rate in names["rates"].items()
    }
    assert one_sided["before"] < 0.2 and one_sided["after"] > 0.6
    assert names["pulls"]["ReLU"].mean() > 0.1 and names["pulls"]["linear"].abs().max() < 0.01
    ends = {row["network"]: row for row in names["rows"]}
    assert ends["ReLU"]["V"] > 1.5 and abs(ends["linear"]["V"]) < 0.1
    assert ends["ReLU"]["id_hinge"] < 0.02 and ends["ReLU"]["ood_hinge"] > 0.8
    assert ends["ReLU"]["worst_error"] > 0.3 and ends["linear"]["worst_hinge"] < 0.02
    for name, rising in {"ReLU": True, "linear": False}.items():
        risks = [row["risk"] for row in names["moved"] if row["network"] == name]
        assert (risks == sorted(risks) and risks[-1] > 0.8) if rising else max(risks) < 0.02
    sizes = names["sizes"]
    for key in ("contamination", "OOD hinge risk"):
        assert [row[key] for row in sizes] == sorted(row[key] for row in sizes)
    per_feature = [row["contamination"] / row["background features"] for row in sizes]
    assert per_feature == sorted(per_feature, reverse=True)


@pytest.mark.slow
def test_outputs_of_the_phases_notebook_match_its_text():
    names = run("phases.ipynb")
    by_slope = {row["slope"]: row for row in names["rows"] if row["from"] == "SGD"}
    for row in names["rows"]:
        assert row["contamination"] == pytest.approx(
            by_slope[row["slope"]]["contamination"], abs=0.03
        )
        assert row["risk"] == pytest.approx(by_slope[row["slope"]]["risk"], abs=0.03)
    slopes = sorted(by_slope)
    for key in ("contamination", "risk"):
        values = [by_slope[slope][key] for slope in slopes]
        assert values == sorted(values, reverse=True)
    # The risk ends before the contamination does.
    assert by_slope[0.5]["risk"] < 0.2 * by_slope[0.0]["risk"]
    assert by_slope[0.5]["contamination"] > 0.3 * by_slope[0.0]["contamination"]


@pytest.mark.slow
def test_the_audit_notebook_finds_the_cause_and_a_remedy_that_helps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    try:
        names = run("audit.ipynb")
    finally:
        torch.set_num_threads(threads)
    first, result = names["first"], names["result"]
    id_set, *ood_sets = result.evidence.sets
    assert id_set.overall.accuracy.value > 0.8
    assert all(part.overall.accuracy.value < 0.7 for part in ood_sets)
    without_reference, with_reference = (
        next(s for s in audit.verdict.steps if s.leads_to == "information missing")
        for audit in (first, result)
    )
    assert without_reference.answer == "not asked" and with_reference.answer == "no"
    assert result.verdict.cause == "new backgrounds"
    assert contam.Audit.load("audit").evidence == result.evidence
    assert result.verdict.sentence in Path("audit/audit.html").read_text("utf-8")
    printed = capsys.readouterr().out
    assert f"on {names['worst'].name}:" in printed and "attenuation" in printed
    before, after = (
        float(line.split("OOD ")[1]) for line in printed.splitlines() if ", OOD " in line
    )
    assert after > before + 0.05
