"""Measures beside the failure that they should predict: drops, correlations and claims."""

import numpy as np
import pandas
import pytest
from support import trees
from support.experiment_runs import run_experiment
from support.sources import tiny_source, write_weights

from contam.experiments import coupling_family as family
from contam.experiments.coupling_family import EXPERIMENT, FULL, LAPTOP, MEASURES, SMOKE, Config
from contam.experiments.support.networks import UNTRAINED, Networks
from contam.training.distill import Distillation
from contam.training.probe import FullBatch


def made_up(count: int = 12, **tied: float) -> list[dict]:
    """Networks whose drop grows from one to the next, and measures that go with it or not."""
    draws = np.random.default_rng(0)
    rows = []
    for k in range(count):
        own = 0.95 - 0.001 * float(draws.permutation(count)[0])
        ood = 0.1 + (own - 0.1) * (1 - 0.05 * (k + 1))
        row = {"network": f"net {k}", "seed": 0, "id": own, "ood": ood, "chance": 0.1}
        noise = {key: float(draws.normal()) for key in MEASURES}
        rows.append(row | noise | {key: slope * k for key, slope in tied.items()})
    return rows


def points(config: Config, *rows: dict) -> pandas.DataFrame:
    """The networks that have a drop."""
    return family.correlated(config, pandas.DataFrame(rows)).points


def correlations(rows: list[dict]) -> dict:
    return family.correlated(LAPTOP, pandas.DataFrame(rows)).correlations


def test_the_drop_is_a_share_of_above_chance_accuracy():
    row = {"network": "ERM", "seed": 0, "id": 0.9, "ood": 0.5, "chance": 0.1}
    (drop,) = points(LAPTOP, row)["drop"]
    assert drop == pytest.approx(0.5)
    untrained, weak = row | {"network": "untrained"}, row | {"id": 0.2}
    assert points(LAPTOP, untrained, weak).empty
    guessing = row | {"id": 0.1}
    assert points(SMOKE, guessing).empty


@pytest.mark.slow
def test_correlation_with_the_drop_has_the_right_sign():
    by_measure = correlations(made_up(attenuation=1.0, both=-1.0))
    assert by_measure["attenuation", False, False].value == pytest.approx(1)
    assert by_measure["both", False, False].value == pytest.approx(-1)
    assert by_measure["attenuation", True, False].value > 0.9
    assert abs(by_measure["background", False, False].value) < 0.8
    assert ("error", True, False) not in by_measure


def test_too_few_networks_give_no_correlation():
    assert correlations(made_up(family.ENOUGH - 1)) == {}
    some = made_up(family.ENOUGH)
    for row in some[1:]:
        row["id"] = 0.8  # Not good, so that only one is.
        row["id"] -= row["error"] / 1000
    assert {good for _, _, good in correlations(some)} == {False}


@pytest.mark.slow
@pytest.mark.parametrize("control", [0.3, 0.94])
def test_correlations_are_claimed_only_of_networks_that_learned(control):
    untrained = made_up(1)[0] | {"network": UNTRAINED.name, "id": control, "ood": 0.1}
    results = family.correlated(LAPTOP, pandas.DataFrame([*made_up(), untrained]))
    statements = [s for s in family.STATEMENTS if "and drop" in s.quantity]
    assert len(statements) == 10
    for statement in statements:
        claim = statement.judge(results, good=LAPTOP.good)
        if control < 0.5:
            assert claim.observed is not None and claim.not_judged is None
        else:
            assert "did not learn" in (claim.not_judged or "")


@pytest.mark.slow
def test_claims_that_need_masks_are_not_judged_without_them(tmp_path):
    """The paper preset's pipeline, on DomainNet's layout with a source of one's own."""
    networks = Networks(
        data="domainnet",
        folder=trees.whole_domainnet(tmp_path / "data"),
        weights=tmp_path / "weights",
        teacher=write_weights(tmp_path / "weights", tiny_source),
        standard=None,
        student_recipe=Distillation(1e-2, 0.0, 16, epochs=1),
        probe=FullBatch(iterations=20),
    )
    run = run_experiment(
        EXPERIMENT, FULL.model_copy(update={"networks": networks, "least_id": 0.0}), tmp_path
    )
    judged = {claim.quantity: claim for claim in EXPERIMENT.claims(run)}
    compared = judged["attenuation, ID to OOD: student minus teacher"]
    assert compared.observed is not None or "did not learn" in (compared.not_judged or "")
    missing = {claim.not_judged for claim in judged.values() if claim.observed is None}
    assert {family.NO_MASKS, family.FEW, "there is no ERM in this run"} <= missing
    assert all(not panel.empty for figure in EXPERIMENT.draw(run) for panel in figure.panels)
    assert "class profile" in EXPERIMENT.summary(run)


def test_the_paper_preset_reports_missing_files(tmp_path):
    config = FULL.model_copy(
        update={
            "networks": FULL.networks.model_copy(
                update={"folder": tmp_path / "none", "teacher": "torchvision:resnet18"}
            )
        }
    )
    with pytest.raises(
        ValueError, match=rf"is not a complete domainnet: missing .*{tmp_path}/none"
    ):
        run_experiment(EXPERIMENT, config, tmp_path / "runs")
