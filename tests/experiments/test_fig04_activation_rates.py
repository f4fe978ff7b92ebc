"""Figure 4: rates that are those of the images, and claims that follow from them."""

from pathlib import Path

import pytest
import torch
from support.experiment_runs import run_experiment

from contam.experiments import fig04_activation_rates as fig04
from contam.experiments.fig04_activation_rates import EXPERIMENT, SMOKE, Config
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import UNTRAINED, Networks
from contam.models.observe import observe
from contam.run import Run

SAYS = (
    "Training makes the activation rates of every block",
    "After training, the last block's rates are asymmetric",
    "After training, the first block's rates are asymmetric",
    "The last block's rates are asymmetric before",
    "After training, the last block's rates are near zero",
    "After training, most single channels",
)


def test_rates_are_the_shares_of_positive_positions(tmp_path):
    """Against a pass that keeps every map."""
    zoo = ModelZoo(SMOKE.networks, 0, tmp_path)
    list(zoo.train([UNTRAINED]))
    rows, arrays = fig04.measure(zoo, UNTRAINED)
    assert [row["block"] for row in rows] == ["stage1", "stage2", "stage3"]
    images = zoo.benchmark(UNTRAINED).shift.id_test
    for row in rows:
        fires = torch.cat(
            [
                observation.layers[row["layer"]]
                for observation in observe(
                    zoo.network(UNTRAINED),
                    images.batches(50),
                    [row["layer"]],
                    lambda maps: (maps > 0).double().mean(dim=(2, 3)),
                )
            ]
        )
        rates = torch.stack([fires[images.y == k].mean(dim=0) for k in range(10)])
        torch.testing.assert_close(arrays[f"rates/{row['number']}"], rates.mean(1).float())
        asymmetry = rates.amax(0) - rates.mean(0)
        torch.testing.assert_close(arrays[f"asymmetry/{row['number']}"], asymmetry.float())
        assert row["asymmetry"] == pytest.approx(float(asymmetry.mean()))
        assert row["lowest"] == pytest.approx(float(rates.mean(1).min()))
        assert row["entries_near_zero"] == pytest.approx(float((rates < 0.1).double().mean()))


def made_up(root: Path, measured: dict[str, tuple[list[float], float]], blocks: str = "a b") -> Run:
    """A finished run: each network's asymmetry by block, and the share of rates near zero."""
    config = Config(networks=SMOKE.networks, seeds=2)
    with Run.start(root, EXPERIMENT.name, config) as run:
        for name, (asymmetries, near_zero) in measured.items():
            names = [f"{name}{k}" for k in range(len(asymmetries))]
            if len(asymmetries) == len(blocks.split()):
                names = blocks.split()
            for seed in range(2):
                rows, arrays = [], {}
                for number, (block, value) in enumerate(
                    zip(names, asymmetries, strict=True), start=1
                ):
                    rows.append(
                        {"network": name, "seed": seed, "number": number, "block": block}
                        | {"layer": f"encoder.{block}", "asymmetry": value, "rate": 0.5}
                        | {"lowest": 0.25, "highest": 0.7}
                        | {"classes_near_zero": near_zero, "entries_near_zero": near_zero}
                    )
                    arrays[f"rates/{number}"] = torch.tensor([0.25, 0.7])
                    arrays[f"asymmetry/{number}"] = torch.full((3,), value)
                run.write(f"net/{name}/seed{seed}", rows, arrays)
        run.finish()
    return run


def verdicts(run: Run) -> dict[str, bool | None]:
    judged = EXPERIMENT.claims(run)
    assert len(judged) == len(SAYS)
    return {begin: c.holds for c in judged for begin in SAYS if c.says.startswith(begin)}


def test_claims_hold_for_rates_as_in_the_paper(tmp_path):
    trained = ([0.2, 0.5], 0.9)
    run = made_up(
        tmp_path,
        {"teacher": trained, "student": trained, "ERM": trained, "untrained": ([0.1, 0.2], 0.1)},
    )
    assert verdicts(run) == dict.fromkeys(SAYS, True)
    assert "untrained 0.20" in EXPERIMENT.summary(run)
    assert "below 0.25" in EXPERIMENT.summary(run)


@pytest.mark.parametrize(
    ("network", "changed", "fails"),
    [
        ("ERM", ([0.05, 0.5], 0.9), {0, 2}),
        ("student", ([0.2, 0.01], 0.9), {0, 1}),
        ("untrained", ([0.01, 0.02], 0.1), {3}),
    ],
)
def test_each_claim_can_fail_alone(tmp_path, network, changed, fails):
    trained = ([0.2, 0.5], 0.9)
    measured = {"teacher": trained, "student": trained, "ERM": trained}
    run = made_up(tmp_path, measured | {"untrained": ([0.1, 0.2], 0.1)} | {network: changed})
    holds = list(verdicts(run).values())
    assert {place for place, held in enumerate(holds) if not held} == fails


def test_claims_on_rates_near_zero_can_fail(tmp_path):
    run = made_up(tmp_path, {"teacher": ([0.2, 0.5], 0.4), "untrained": ([0.1, 0.2], 0.9)})
    assert list(verdicts(run).values())[4:] == [False, False]


def test_networks_with_different_blocks_have_separate_figures(tmp_path):
    trained = ([0.2, 0.5], 0.9)
    measured = {"teacher": trained, "student": trained, "ERM": ([0.1, 0.2, 0.3, 0.3, 0.3], 0.5)}
    run = made_up(tmp_path, measured | {"untrained": ([0.1, 0.2], 0.1)})
    figures = EXPERIMENT.draw(run)
    assert [len(figure.panels) for figure in figures] == [2, 2, 5, 5, 1]
    assert [panel.small for panel in figures[2].panels] == [True] * 5
    assert not any(panel.small for panel in figures[0].panels)
    # The growth of a block needs the same block in the untrained network.
    assert EXPERIMENT.claims(run)[0].observed == pytest.approx(0.1)


@pytest.mark.parametrize("preset", ["paper", "vit"])
def test_published_presets_report_missing_files(preset, tmp_path):
    config = EXPERIMENT.presets[preset]
    assert isinstance(config, Config) and isinstance(config.networks, Networks)
    nowhere = config.networks.model_copy(update={"folder": tmp_path / "none"})
    config = config.model_copy(update={"networks": nowhere})
    with pytest.raises(ValueError, match=r"is not a complete imagenet: missing .*none"):
        run_experiment(EXPERIMENT, config, tmp_path)
