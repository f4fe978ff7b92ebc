"""The conjecture over the dose of diversity: series, claims and the mediation."""

import pandas
import pytest
import torch
from pydantic import ValidationError

from contam.experiment import NotJudged
from contam.experiments.conjecture_pretraining import (
    CAPTIONS,
    EXPERIMENT,
    FULL,
    LABELS,
    LAPTOP,
    MEASURES,
    MEDIATORS,
    STATEMENTS,
    TUNED,
    Config,
    DoseResults,
    mediated,
)
from contam.experiments.support.networks import CALIBRATED, ERM, UNTRAINED
from contam.run import Run


def made_up(config: Config = LAPTOP, **changes: float | None) -> DoseResults:
    """Diversity lowers the interaction, and only the interaction changes OOD accuracy.

    Args:
        config: the series and seeds.
        changes: values that replace a column of all networks; None is noise, for OOD accuracy.
    """
    draws = torch.Generator().manual_seed(0)
    rows = []
    for seed in range(config.seeds):
        for spec in config.specs:
            noise = dict(zip(MEDIATORS, torch.randn(5, generator=draws).tolist(), strict=True))
            dependent = 0.5 / (1 + (spec.families or 0)) + 0.02 * noise["dependent"]
            row = {"network": spec.name, "seed": seed, "part": spec.part}
            row |= {"id": 0.9, "ood": 0.8 - dependent, "dependent": dependent}
            row |= {"background": 0.5, "linear": 0.5, "decodability": 0.6, "counterfactual": 0.1}
            row |= {key: row[key] + 0.01 * noise[key] for key in MEDIATORS if key != "dependent"}
            row |= {"class": 0.2, "interaction": 0.1, "rest": 0.2} | changes
            row["ood"] = 0.4 + 0.01 * noise["id"] if row["ood"] is None else row["ood"]
            rows.append(row | ({"id": 0.2, "ood": 0.1} if spec in (UNTRAINED, CALIBRATED) else {}))
    table = pandas.DataFrame(rows)
    points = [
        table[table.network == spec.name].assign(series=series, families=k)
        for series, specs in config.series.items()
        for k, spec in specs.items()
    ]
    return DoseResults(config, table, pandas.concat(points, ignore_index=True))


def verdicts(results: DoseResults) -> dict[str, bool | None]:
    claims = [
        statement.judge(results, fewest="1 family", most="9 families") for statement in STATEMENTS
    ]
    return {claim.quantity: claim.holds for claim in claims}


def over_dose(column: str, series: str) -> str:
    """The quantity of a claim on the most families minus the fewest."""
    return f"{MEASURES[column]}, 9 families minus 1 family ({series})"


def test_every_series_starts_without_pretraining_and_shares_the_single_family():
    series = LAPTOP.series
    assert [*series] == [LABELS, CAPTIONS, TUNED]
    assert all([*networks] == [0, 1, 3, 5, 9] for networks in series.values())
    assert series[LABELS][0] == UNTRAINED and series[TUNED][0] == ERM
    assert series[LABELS][1] == series[CAPTIONS][1]
    assert len(LAPTOP.specs) == 3 + 4 + 3 + 4
    for k in LAPTOP.families:
        before = series[TUNED][k].before
        assert before is not None and before.part == series[LABELS][k].part


def test_equal_doses_have_equal_numbers_of_images_and_steps():
    recipe = LAPTOP.networks.teacher_recipe
    assert recipe is not None
    examples = LAPTOP.networks.teacher_examples
    assert all(examples % (10 * k) == 0 for k in LAPTOP.families)
    rounded = [FULL.networks.teacher_examples // (10 * k) * 10 * k for k in FULL.families]
    assert min(rounded) > 0.98 * max(rounded)


@pytest.mark.parametrize("families", [(1,), (0, 1), (1, 12)])
def test_impossible_doses_are_rejected(families):
    with pytest.raises(ValidationError):
        Config(families=families)


def test_an_effect_through_the_interaction_is_attributed_to_it():
    results = made_up()
    mediation = mediated(results, "dependent")
    assert mediation.share.value == pytest.approx(1) and mediation.direct.value == pytest.approx(0)
    assert mediation.total.value > 0 and mediation.indirect.low > 0
    assert abs(mediated(results, "decodability").share.value) < 0.3


def test_the_conjecture_holds_on_data_made_for_it_and_fails_on_others():
    held = verdicts(made_up())
    mediation = [quantity for quantity in held if "mediate" in quantity or "indirect" in quantity]
    assert len(mediation) == 4 and all(held[q] for q in mediation if "given" not in q)
    for series in (LABELS, CAPTIONS, TUNED):
        assert held[over_dose("ood", series)] and held[over_dose("dependent", series)]
        assert held[over_dose("linear", series)] is False
    flat = verdicts(made_up(ood=None))
    assert not any(flat[over_dose("ood", series)] for series in (LABELS, CAPTIONS, TUNED))
    assert not any(flat[quantity] for quantity in mediation)


def test_networks_that_did_not_learn_leave_every_claim_unjudged():
    results = made_up(id=0.25)
    assert set(verdicts(results).values()) == {None}
    with pytest.raises(NotJudged, match="did not learn"):
        mediated(results, "dependent")


def test_one_seed_has_no_interval():
    with pytest.raises(NotJudged, match="one seed"):
        mediated(made_up(LAPTOP.model_copy(update={"seeds": 1})), "dependent")


def test_figures_show_every_mediator_with_its_interval(tmp_path):
    """From a run that holds made-up rows, as claims and figures only read a run."""
    results = made_up()
    rows = results.table.to_dict("records")
    with Run.start(tmp_path, EXPERIMENT.name, LAPTOP) as run:
        for row in rows:
            part = row.pop("part")
            run.write(f"net/{part}/seed{row['seed']}", [row])
        run.finish()
    over_families, explained, variance = EXPERIMENT.draw(Run.load(run.folder))
    assert len(over_families.panels) == len(MEASURES) and len(explained.panels) == 2
    for name in MEDIATORS.values():
        effects = {row["effect"]: row for row in explained.rows if row["measure"] == name}
        total, direct, indirect = (effects[k]["value"] for k in ("total", "direct", "indirect"))
        assert total == pytest.approx(direct + indirect)
        assert name in explained.panels[1].description
    assert len(variance.rows) == 4 * len(LAPTOP.specs)
    assert "Through the interaction, OOD accuracy changes by +0.0" in EXPERIMENT.summary(
        Run.load(run.folder)
    )
