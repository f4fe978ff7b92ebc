"""Sweeps on this machine: runs in their own folders, one table, and nothing computed twice."""

import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from scipy import stats
from support.toy_experiment import TOY, Config

from contam.experiments import EXPERIMENTS
from contam.run import Run, RunError
from contam.sweep import SWEEP, Member, run_locally, space, sweep
from contam.sweep.member import compute_member, read_files, write_files
from contam.sweep.sweep import resumed

HERE = partial(run_locally, jobs=1)


def computed(grid, out: Path, engine=HERE, **fields) -> Run:
    """The finished run of a sweep of the toy experiment."""
    stages = sweep(TOY, space("toy", Config(**fields), grid), out=out, engine=engine)
    while True:
        try:
            next(stages)
        except StopIteration as finished:
            return finished.value


def test_every_config_is_an_ordinary_run(tmp_path):
    run = computed({"width": [1, 2], "rate": [0.5, 1.5]}, tmp_path)
    for row in run.table("runs").to_dict("records"):
        member = Run.load(tmp_path / row["run"])
        assert member.finished and member.experiment == "toy"
        config = Config.model_validate(member.config)
        assert (config.width, config.inner.rate) == (row["width"], row["rate"])
        assert member.folder == Run.place(tmp_path, "toy", config)


def test_the_table_has_each_number_with_its_t_interval(tmp_path):
    run = computed({"rate": [0.5, 1.5]}, tmp_path, seeds=5)
    table = run.table("numbers")
    for row in table.to_dict("records"):
        values = [4 * row["rate"] + seed for seed in range(5)]
        assert row["observed"] == pytest.approx(sum(values) / 5)
        low, high = stats.t.interval(0.95, 4, row["observed"], stats.sem(values))
        assert (row["low"], row["high"]) == pytest.approx((low, high))
        assert row["quantity"] == "value" and row["n"] == 5 and row["holds"] is True


def test_finished_runs_are_never_computed_again(tmp_path):
    log = tmp_path / "log"
    first = computed({"width": [1, 2]}, tmp_path / "runs", log=str(log))
    again = computed({"width": [1, 2]}, tmp_path / "runs", log=str(log))
    assert first.folder == again.folder
    wider = computed({"width": [1, 2, 3]}, tmp_path / "runs", log=str(log))
    lines = log.read_text().split()
    assert len(lines) == len(set(lines)) == 6
    assert wider.folder != first.folder and len(wider.read("runs")) == 3


def test_an_interrupted_sweep_resumes(tmp_path):
    log = tmp_path / "log"
    grid = space("toy", Config(log=str(log)), {"width": [1, 2, 3]})
    stages = sweep(TOY, grid, out=tmp_path / "runs", engine=HERE)
    assert next(stages).done == pytest.approx(1 / 3)
    stages.close()
    (folder,) = (tmp_path / "runs").glob("sweep-*")
    assert not Run.load(folder).finished
    assert resumed(folder) == grid
    rest = list(sweep(TOY, resumed(folder), out=tmp_path / "runs", engine=HERE))
    assert [round(stage.done, 2) for stage in rest] == [0.33, 0.67, 1.0]
    lines = log.read_text().split()
    assert len(lines) == len(set(lines)) == 6
    with pytest.raises(RunError, match="is a run of 'toy', not a sweep"):
        resumed(next((tmp_path / "runs").glob("toy-*")))


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(tmp_path):
    grid = {"rate": [-1.0, 1.0]}
    run = computed(grid, tmp_path)
    assert [row["error"] for row in run.read("runs")] == ["the rate is negative", ""]
    assert len(run.read("numbers")) == 1
    assert SWEEP.alert(run) == "1 of 2 runs failed: the rate is negative"
    assert "1 of them failed: the rate is negative" in SWEEP.summary(run)
    assert run.folder == computed(grid, tmp_path).folder


def test_two_sweeps_at_once_are_refused(tmp_path):
    grid = space("toy", Config(), {"width": [1, 2]})
    first = sweep(TOY, grid, out=tmp_path, engine=HERE)
    next(first)
    with pytest.raises(RunError, match="another process is writing"):
        next(sweep(TOY, grid, out=tmp_path, engine=HERE))
    first.close()


def test_jobs_must_be_positive():
    with pytest.raises(ValueError, match="jobs=0"):
        run_locally([], jobs=0)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_every_experiment_can_be_sent_to_another_process(experiment):
    member = Member.of(0, Path("runs"), experiment, experiment.presets["smoke"])
    assert pickle.loads(pickle.dumps(member)) == member


def test_a_run_that_was_sent_back_is_the_run(tmp_path):
    made = Member.of(0, tmp_path / "there", TOY, Config())
    outcome = compute_member(made)
    arrived = Member.of(0, tmp_path / "here", TOY, Config())
    # What an interrupted computation left is replaced; a finished run is not.
    (arrived.folder / "tables").mkdir(parents=True)
    write_files(arrived.folder, read_files(made.folder))
    assert read_files(arrived.folder) == read_files(made.folder)
    write_files(arrived.folder, {"run.json": b"of a second computation"})
    assert arrived.finished and compute_member(arrived).numbers == outcome.numbers
    assert [path.name for path in (tmp_path / "here").iterdir()] == [arrived.folder.name]


def test_the_figures_are_bars_curves_maps_or_marks(tmp_path):
    kinds = {
        "Line chart": {"width": [1, 2, 4]},
        "Bar chart": {"name": ["a", "b"]},
        "Table of colored cells": {"width": [1, 2, 4], "rate": [0.1, 0.2]},
    }
    for kind, grid in kinds.items():
        (figure,) = SWEEP.draw(computed(grid, tmp_path))
        assert kind in " ".join(panel.description for panel in figure.panels)
        assert not any(panel.empty for panel in figure.panels)
        assert len(figure.rows) == len(space("toy", Config(), grid).points())
    names = [f"name {index}" for index in range(13)]
    (figure,) = SWEEP.draw(computed({"name": names, "width": [1, 2], "rate": [0.1, 0.2]}, tmp_path))
    assert not figure.panels and "Too many fields to draw" in figure.caption


def test_random_draws_are_marks_over_each_field(tmp_path):
    fields = {"rate": "log:1e-3:1", "name": ["a", "b"]}
    drawn = space("toy", Config(), fields, draws=12)
    list(sweep(TOY, drawn, out=tmp_path, engine=HERE))
    (figure,) = SWEEP.draw(Run.find(tmp_path, "sweep", drawn))
    kinds = [panel.description.split(",")[0] for panel in figure.panels]
    assert kinds == ["Scatter plot", "Bar chart"]
    assert '"type": "log"' in json.dumps(figure.panels[0].chart)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_its_run_resumes(tmp_path):
    log = tmp_path / "log"
    run = computed(
        {"width": [1, 2]}, tmp_path / "runs", partial(run_locally, jobs=2),
        log=str(log), dies=True,
    )  # fmt: skip
    assert [row["error"] for row in run.read("runs")] == [""] * 2
    lines = log.read_text().split()
    assert len(lines) == len(set(lines)) == 4
    members = [Run.load(tmp_path / "runs" / row["run"]) for row in run.read("runs")]
    assert [len(member.sessions) for member in members] == [2] * 2
    assert os.getpid() not in {session.process for member in members for session in member.sessions}


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told_to_have_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from functools import partial\n"
        "from contam.sweep import run_locally, space, sweep\n"
        "from support.toy_experiment import TOY, Config\n"
        "grid = space('toy', Config(), {'width': [1, 2]})\n"
        "list(sweep(TOY, grid, engine=partial(run_locally, jobs=2)))\n"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 1
    assert "call sweep in a script under if __name__ == '__main__'" in done.stderr
