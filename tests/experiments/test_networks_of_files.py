"""The pipeline of the published presets on small files: a residual network and a transformer."""

from pathlib import Path

import pytest
from support import trees
from support.sources import residual_source, transformer_source, write_weights

from contam.experiments.fig04_activation_rates import EXPERIMENT as RATES
from contam.experiments.fig05_selectivity import EXPERIMENT as SELECTIVITY
from contam.experiments.fig15_density import EXPERIMENT as DENSITY
from contam.experiments.support.networks import Networks
from contam.run import Run
from contam.training.distill import Distillation
from contam.training.probe import FullBatch


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """DomainNet's true layout, with two images of each class in each list; and weights."""
    root = tmp_path_factory.mktemp("files")
    trees.whole_domainnet(root / "data", side=16)
    for make in (residual_source, transformer_source):
        write_weights(root / "weights", make)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["residual", "transformer"])
def test_experiment_runs_on_image_folders(kind, files):
    networks = Networks(
        data="domainnet",
        folder=files / "data",
        weights=files / "weights",
        teacher=f"support.sources:{kind}_source",
        standard=None,
        student_recipe=Distillation(1e-2, 0.0, 16, epochs=1),
        probe=FullBatch(iterations=5),
    )
    rows = {}
    for experiment in (RATES, SELECTIVITY, DENSITY):
        config = experiment.presets["paper"].model_copy(update={"networks": networks})
        with Run.start(files / "runs", experiment.name, config) as run:
            stages = [stage.done for stage in experiment.compute(config, run)]
            run.finish()
        assert stages == sorted(stages) and stages[-1] <= 1
        run = Run.load(run.folder)
        claims = experiment.claims(run)
        reasons = [c.not_judged for c in claims if c.holds is None]
        # One epoch on noise teaches nothing, so some claims ask for networks that learned.
        assert all(r == "there is no ERM in this run" or "did not learn" in str(r) for r in reasons)
        assert not any(panel.empty for figure in experiment.draw(run) for panel in figure.panels)
        assert experiment.summary(run)
        rows[experiment.name] = run.read("net/student/seed0")

    layers = {row["layer"] for row in rows[RATES.name]}
    own, ood = (
        next(row for row in rows[SELECTIVITY.name] if row["role"] == role) for role in ("id", "ood")
    )
    # The ID test lacks some of the forty classes, so the others are compared.
    assert 1 < own["classes"] == ood["classes"] < 40 and own["images"] == ood["images"]
    if kind == "residual":
        assert layers == {f"encoder.stage{k}.relu2" for k in (1, 2, 3)}
        assert own["layers"] == ["encoder"] and own["neurons"] == 16
    else:
        assert layers == {f"encoder.blocks.{k}.mlp.act" for k in (0, 1)}
        assert own["layers"] == ["encoder.blocks.1.mlp.act"] and own["neurons"] == 48
    (row,) = rows[DENSITY.name]
    assert row["layer"] in layers
    assert row["units"] == (4 * 8 * 8 if kind == "residual" else 5 * 48)
