"""`contam sweep`: what it prints and refuses."""

import json

import pytest
from support.command_line import run_contam

from contam.run import Run

SMALL = ("sweep", "simulation", "smoke", "--seeds", 2, "--jobs", 1)


def test_a_sweep_prints_its_numbers_and_its_page(tmp_path, capsys):
    words = (*SMALL, "--grid", "width=8,16", "steps=2", "--out", tmp_path / "runs")
    code, out, _ = run_contam(capsys, *words, "--page", tmp_path / "page.html")
    assert code == 0
    assert "2 runs of simulation vary width (2 values) and steps (1 value)." in out
    (folder,) = (tmp_path / "runs").glob("sweep-*")
    assert f"contam report {folder}" in out
    page = (tmp_path / "page.html").read_text()
    assert "Line chart" in page and "ID risk, end over start" in page
    assert run_contam(capsys, "sweep", "--resume", folder)[0] == 0
    assert len(list((tmp_path / "runs").glob("simulation-*"))) == 2
    claims = run_contam(capsys, "claims", folder, "--format", "json")
    assert claims[0] == 0 and json.loads(claims[1]) == []


def test_words_become_values_of_the_fields(tmp_path, capsys):
    code, *_ = run_contam(
        capsys, *SMALL[:-4], "--seeds", 1, "--jobs", 1, "--out", tmp_path, "--grid", "steps=1",
        "examples=none,300", "core_weights=uniform:0:1,beta:2:5", "ambient=false,True",
    )  # fmt: skip
    assert code == 0
    configs = [Run.load(folder).config["setting"] for folder in tmp_path.glob("simulation-*")]
    assert len(configs) == 8
    assert {config["examples"] for config in configs} == {None, 300}
    assert {config["ambient"] for config in configs} == {False, True}
    assert {"a" in config["data"]["core_weights"] for config in configs} == {False, True}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "which experiment? contam sweep NAME PRESET --grid FIELD=VALUES ..."),
        (("simulaton",), "no experiment 'simulaton'; did you mean 'simulation'?"),
        (("simulation", "smok"), "simulation has no preset 'smok'; did you mean 'smoke'?"),
        (("simulation",), "a sweep needs at least one field with values, such as width=64,128"),
        (("simulation", "--grid", "width"), "--grid 'width': write FIELD=VALUE,VALUE"),
        (("simulation", "--grid", "width="), "--grid 'width=': write FIELD=VALUE,VALUE"),
        (("simulation", "--grid", "widht=1"), "no field 'widht'; did you mean 'width'?"),
        (("simulation", "--grid", "width=8", "width=9"), "--grid gives field 'width' twice"),
        (("simulation", "--grid", "width=0"), "width=0 must be at least 1"),
        (("simulation", "--grid", "width=x"), "field 'setting.width': input should be"),
        (("simulation", "--grid", "activation=rel"), "'tanh', not 'rel'"),
        (("simulation", "--grid", "step_size=log:0:1:3"), "range 'log:0:1:3': write"),
        (("simulation", "--grid", "step_size=log:0.1:1"), "a grid needs a number of values"),
        (("simulation", "--grid", "core_weights=beta:2"), "is not a distribution"),
        (("simulation", "--grid", "width=8", "--seeds", "0"), "field 'seeds'"),
        (("simulation", "--grid", "width=8", "--random", "0"), "draws=0 must be at least 1"),
        (("simulation", "--grid", "width=8", "--jobs", "0"), "jobs=0 must be at least 1"),
        (("simulation", "--grid", "width=8", "--address", "a:1"), "--address needs --engine ray"),
        (
            ("simulation", "--grid", "width=8", "--engine", "ray", "--jobs", "2"),
            "--jobs is for the",
        ),
        (("simulation", "--grid", "width=8", "--resume", "x"), "--resume takes all configs"),
        (("--resume", "x"), "x: is not a folder"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(words, line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, said = run_contam(capsys, "sweep", *words)
    assert (code, out, said.count("\n")) == (2, "", 1), said
    assert line in said
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:step_size=1e")
def test_a_failed_run_is_named_and_ends_with_exit_code_1(tmp_path, capsys):
    code, out, _ = run_contam(
        capsys, *SMALL, "--grid", "step_size=1,1e30", "steps=3", "--out", tmp_path
    )
    assert code == 1
    assert "1 of them failed: loss is not finite" in out
