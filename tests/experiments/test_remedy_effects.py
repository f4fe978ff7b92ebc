"""Effects of remedies: what is compared with what, and what counts as help and harm."""

import pandas
import pytest

from contam.data.worlds import WORLDS
from contam.experiment import NotJudged
from contam.experiments.remedy_effects import (
    EXPERIMENT,
    FULL,
    HOUR,
    LAPTOP,
    STATEMENTS,
    Config,
    RemedyResults,
    effects,
)
from contam.experiments.support.world_networks import ARMS, BASELINE, FINE_TUNED, PRETRAINED
from contam.remedies import REPAIRS, WeightInterpolation
from contam.training.changes import CHANGES


def table(changes: dict[tuple[str, str], list[float]], *, own: float = 0.9) -> pandas.DataFrame:
    """Rows of remedies with these changes of the OOD accuracy by remedy, world and seed."""
    rows = []
    for world in dict.fromkeys(world for _, world in changes):
        for seed in range(3):
            rows.append({"world": world, "seed": seed, "remedy": BASELINE.name, "kind": "baseline",
                         "labels": 0, "id": own, "ood": 0.5, "id_before": own,
                         "ood_before": 0.5})  # fmt: skip
    for (remedy, world), values in changes.items():
        for seed, change in enumerate(values):
            rows.append({"world": world, "seed": seed, "remedy": remedy, "kind": "change",
                         "labels": 4, "id": own, "ood": 0.5 + change, "id_before": own,
                         "ood_before": 0.5})  # fmt: skip
    return pandas.DataFrame(rows)


def results_of(changes, *, own: float = 0.9) -> RemedyResults:
    rows = table(changes, own=own)
    config = Config(worlds=tuple(dict.fromkeys(rows.world)))
    return RemedyResults(config, rows, effects(rows))


def statement(quantity: str):
    (one,) = (one_statement for one_statement in STATEMENTS if quantity in one_statement.quantity)
    return one


def test_effects_by_hand():
    """The half-width of the interval of 1, 2 and 3 points is 4.303 / sqrt(3) = 2.484."""
    rows = effects(table({("centering", "contaminated"): [0.01, 0.02, 0.03]}))
    (row,) = rows.to_dict("records")
    assert row["ood_change"] == pytest.approx(2.0) and row["ood_before"] == pytest.approx(50.0)
    assert row["ood_low"] == pytest.approx(2.0 - 2.484, abs=1e-3)
    assert row["ood_high"] == pytest.approx(2.0 + 2.484, abs=1e-3)
    assert row["effect"] == "not shown" and row["seeds"] == 3 and row["labels"] == 4
    assert row["id_change"] == 0.0


def test_help_and_harm_are_beyond_chance():
    changes = {("a", "healthy"): [0.1, 0.11, 0.12], ("b", "healthy"): [-0.1, -0.11, -0.12]}
    assert effects(table(changes)).effect.tolist() == ["helps", "harms"]


def test_an_effect_among_many_needs_a_smaller_p_value():
    """Alone, p = .013 is beyond chance; beside 19 effects of 0 it is not."""
    one = {("a", "healthy"): [0.1, 0.14, 0.12]}
    nothing = {(f"b{k}", "healthy"): [0.0, 0.01, -0.01] for k in range(19)}
    assert effects(table(one)).effect.tolist() == ["helps"]
    assert set(effects(table(one | nothing)).effect) == {"not shown"}


def test_every_world_repair_and_change_is_in_the_experiment():
    assert set(FULL.worlds) == set(HOUR.worlds) == set(WORLDS)
    assert LAPTOP.model_copy(update={"worlds": HOUR.worlds}) == HOUR
    names = {arm.name for arm in ARMS}
    assert {name for name in CHANGES if name != "no change"} <= names
    assert FINE_TUNED in ARMS and PRETRAINED not in ARMS


def test_a_remedy_that_helps_in_every_failing_world_refutes_the_claim():
    worlds = ("contaminated", "spurious", "corrupted")
    one = statement("every failing world")
    helps = [0.1, 0.11, 0.12]
    some = results_of({("a", world): helps if world != "spurious" else [0.0, 0.1, -0.1]
                  for world in worlds})  # fmt: skip
    assert one.judge(some).holds is True
    assert one.judge(results_of({("a", world): helps for world in worlds})).holds is False
    with pytest.raises(NotJudged, match="fewer than three"):
        one.measure(results_of({("a", "contaminated"): helps}))


def test_networks_that_did_not_learn_are_no_evidence():
    harm = {("a", "healthy"): [-0.1, -0.11, -0.12]}
    one = statement("lower OOD accuracy")
    assert one.judge(results_of(harm)).holds is True
    assert "did not learn" in (one.judge(results_of(harm, own=0.1)).not_judged or "")


def test_a_healthy_network_that_gains_refutes_the_claim():
    one = statement("healthy world by more")
    assert one.judge(results_of({("a", "healthy"): [0.0, 0.01, -0.01]})).holds is True
    assert one.judge(results_of({("a", "healthy"): [0.1, 0.11, 0.12]})).holds is False


@pytest.mark.slow
def test_the_smoke_run_has_every_repair_that_fits(shared_runs):
    run = shared_runs.smoke(EXPERIMENT)
    rows = run.table("world/")
    repairs = set(rows[rows.kind == "repair"].remedy)
    assert WeightInterpolation.name in repairs and "batch-norm statistics" in repairs
    assert repairs <= {*(repair.title for repair in REPAIRS), WeightInterpolation.name}
    base = rows[rows.remedy == BASELINE.name].set_index(["world", "seed"])
    for row in rows[
        (rows.kind == "repair") & (rows.remedy != WeightInterpolation.name)
    ].itertuples():
        assert base.ood[row.world, row.seed] == pytest.approx(row.ood_before)
