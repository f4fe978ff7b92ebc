"""Figure 15: every position of the first block is a unit, and claims follow from the numbers."""

from pathlib import Path

import pytest
import torch
from support.experiment_runs import run_experiment

from contam.experiments import fig15_density as fig15
from contam.experiments.fig15_density import EXPERIMENT, PAPER, SMOKE, Config
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import UNTRAINED
from contam.measures.accuracy import Hits
from contam.models.observe import observe
from contam.models.readings import flat
from contam.run import Run


def test_units_are_the_positions_after_the_first_block(tmp_path):
    """Against a pass that keeps every activation."""
    zoo = ModelZoo(SMOKE.networks, 0, tmp_path)
    list(zoo.train([UNTRAINED]))
    (row,), arrays = fig15.measure(zoo, UNTRAINED)
    images = zoo.benchmark(UNTRAINED).shift.id_test
    layer = "encoder.stage1.relu2"
    batches = list(observe(zoo.network(UNTRAINED), images.batches(50), [layer], flat))
    units = torch.cat([observation.layers[layer] for observation in batches]).double()
    assert row["layer"] == layer and row["units"] == units.shape[1] == 4 * 16 * 16
    torch.testing.assert_close(arrays["mean"], units.mean(dim=0).float())
    torch.testing.assert_close(arrays["active"], (units > 0).double().mean(dim=0).float())
    assert row["mean"] == pytest.approx(float(units.mean()))
    assert row["active"] == pytest.approx(float((units > 0).double().mean()))
    hits = Hits().update(torch.cat([observation.logits for observation in batches]), images.y)
    assert row["accuracy"] == hits.compute().share


def made_up(root: Path, measured: dict[str, tuple[float, float]]) -> Run:
    """A run in which networks have a mean activation and an active share."""
    config = Config(networks=SMOKE.networks, seeds=2)
    with Run.start(root, EXPERIMENT.name, config) as run:
        for name, (mean, active) in measured.items():
            for seed in range(2):
                row = {"network": name, "seed": seed, "units": 3, "accuracy": 0.9}
                row |= {"mean": mean, "active": active}
                arrays = {"mean": torch.full((3,), mean), "active": torch.full((3,), active)}
                run.write(f"net/{name}/seed{seed}", [row], arrays)
        run.finish()
    return run


AS_PRINTED = {"teacher": (0.6, 0.7), "student": (0.4, 0.5), "ERM": (0.4, 0.5),
              "untrained": (0.1, 0.6)}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "holds"),
    [
        ({}, [True, True, True, True]),
        ({"student": (0.7, 0.5)}, [False, True, True, True]),
        ({"student": (0.4, 0.69)}, [True, False, True, True]),
        ({"ERM": (0.4, 0.8)}, [True, True, False, True]),
        ({"untrained": (0.1, 0.65)}, [True, True, True, False]),
    ],
)
def test_claims_follow_from_the_numbers(tmp_path, changed, holds):
    run = made_up(tmp_path, AS_PRINTED | changed)
    assert [claim.holds for claim in EXPERIMENT.claims(run)] == holds


def test_claims_on_a_missing_network_are_not_judged(tmp_path):
    measured = {name: printed for name, printed in AS_PRINTED.items() if name != "ERM"}
    run = made_up(tmp_path, measured)
    *_, standard, _ = EXPERIMENT.claims(run)
    assert standard.not_judged == "there is no ERM in this run"
    histograms, means = EXPERIMENT.draw(run)
    assert {row["series"] for row in histograms.rows} == {"teacher", "student"}
    assert {row["network"] for row in means.rows} == set(measured)
    assert "teacher 70%" in EXPERIMENT.summary(run)


def test_the_paper_preset_reports_missing_files(tmp_path):
    nowhere = PAPER.networks.model_copy(update={"folder": tmp_path / "none"})
    config = PAPER.model_copy(update={"networks": nowhere})
    with pytest.raises(ValueError, match=r"is not a complete imagenet: missing .*none"):
        run_experiment(EXPERIMENT, config, tmp_path)
