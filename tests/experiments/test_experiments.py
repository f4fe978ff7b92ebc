"""Contracts over the table of experiments: a new one gets these tests by being listed."""

import json
import re
from pathlib import Path

import pytest

from contam import paper
from contam.experiments import EXPERIMENTS, find, named
from contam.run import Run

ANOTHER_WORK = re.compile(r"[A-Z].* \(\d{4}\)")
"""How what is not this paper's is cited, here as in a docstring's source."""

HEAVY = {
    "background_projection", "chest_xray", "conjecture_pretraining", "contamination_pairs",
    "coupling_family", "depth_optimizers", "difficulty_axis", "dominoes", "fig01_distillation",
    "fig03_two_layer", "fig04_activation_rates", "fig05_selectivity", "fig06_heatmaps",
    "fig13_padded_cifar", "fig13_padded_digits", "fig14_separability", "fig15_density", "joint_law",
    "phase_diagrams", "remedy_effects", "tab04_baselines", "theory_remedies", "thm4_scaling",
}  # fmt: skip
"""Experiments whose smoke preset alone takes more than a few seconds."""
EACH = pytest.mark.parametrize(
    "experiment",
    [pytest.param(x, marks=pytest.mark.slow if x.name in HEAVY else ()) for x in EXPERIMENTS],
    ids=lambda experiment: experiment.name,
)


@EACH
def test_claims_need_only_the_run(experiment, shared_runs):
    records = [c.record(experiment.name) for c in experiment.claims(shared_runs.smoke(experiment))]
    assert records
    for record in json.loads(json.dumps(records)):
        assert record["holds"] in (True, False, None)
        assert record["observed"] is not None or record["not_judged"]
        assert record["n"] >= 1 or record["observed"] is None
        assert record["says"] and record["quantity"] and record["expected_range"]
        if record["source"] != "ours":
            for item in record["source"].split(", "):
                if not item.startswith("Sec.") and not ANOTHER_WORK.fullmatch(item):
                    assert paper.spelled(item) in paper.ITEMS
    assert len({record["quantity"] for record in records}) == len(records)


@EACH
def test_figures_need_only_the_run_folder(experiment, shared_runs):
    figures = experiment.draw(shared_runs.smoke(experiment))
    assert figures
    for figure in figures:
        assert figure.title and figure.caption and figure.panels
        for panel in figure.panels:
            assert panel.title and panel.description
            assert not panel.empty
    assert experiment.summary(shared_runs.smoke(experiment))


@EACH
def test_presets_start_with_the_largest_and_round_trip_through_yaml(experiment):
    """A preset called `paper` is as published; the full size of a setting of ours is `full`."""
    first, *_, last = presets = list(experiment.presets)
    assert first in ("paper", "full") and last == "smoke" and "laptop" in presets
    config = type(experiment.presets[first])
    assert config() == experiment.presets[first]
    for preset in experiment.presets.values():
        assert config.model_validate(preset.model_dump(mode="json")) == preset


@EACH
def test_a_resumed_run_writes_the_same_bytes(experiment, shared_runs, tmp_path, monkeypatch):
    """Stop after every few stages, with a checkpoint at each report, and start again.

    The networks are those of the first run, except in one experiment that trains them again.
    """
    whole = shared_runs.smoke(experiment)
    config = experiment.presets["smoke"]
    monkeypatch.setattr("contam.training.checkpointed.CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr("contam.training.checkpointed.CHECKPOINT_SHARE", 1e9)
    for trained_by in ("model_zoo", "world_networks"):
        monkeypatch.setattr(f"contam.experiments.support.{trained_by}.REPORT_EVERY", 1)
    shared = hasattr(config, "networks") and experiment.name != "fig01_distillation"
    if shared:
        shared_runs.copy_networks(tmp_path)
    resumed = 0
    for patience in (4, 12, 10_000):
        with Run.start(tmp_path, experiment.name, config) as run:
            resumed += bool(list(tmp_path.rglob("checkpoints/**/*.safetensors")))
            for taken, _ in enumerate(experiment.compute(config, run), start=1):
                if taken == patience:
                    break
    assert written(run.folder) == written(whole.folder)
    assert not list(tmp_path.rglob("checkpoints/**/*.safetensors"))
    short_parts = ("joint_law", "phase_diagrams", "theory_remedies", "thm4_scaling")
    if not shared and experiment.name not in short_parts:
        assert resumed


def written(folder: Path) -> dict[str, bytes]:
    """Tables and arrays of a run, byte for byte."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for kind in ("tables", "arrays")
        for path in sorted((folder / kind).rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("Fig. 8", "fig03_two_layer"),
        ("figure 9", "fig03_two_layer"),
        ("fig 7", "fig03_two_layer"),
        ("Theorem 4.3", "thm4_scaling"),
        ("Fig. 10", "fig10_activations"),
        ("fig13_padded_digits", "fig13_padded_digits"),
    ],
)
def test_experiments_are_found_by_name_and_by_item(asked, name):
    assert find(asked).name == name


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("fig3_two_layers", "did you mean 'fig03_two_layer'"),
        ("zzz", "choose from"),
        ("Fig. 88", "no item 'Fig. 88'"),
        ("Eq. 61", "no experiment reproduces Eq. 61"),
    ],
)
def test_an_unknown_name_raises_with_the_nearest_name(asked, line):
    with pytest.raises(ValueError, match=line):
        find(asked)
    with pytest.raises(ValueError, match="no experiment"):
        named("nothing of the kind")


def test_every_reproduced_item_is_an_item_of_the_paper():
    claimed = [item for experiment in EXPERIMENTS for item in experiment.reproduces]
    assert set(claimed) <= set(paper.ITEMS)
    assert len(claimed) == len(set(claimed))
