"""Pairs of networks: what they share, the known answer, and choices on held-out parts."""

import pandas
import pytest
import torch

from contam.experiment import NotJudged
from contam.experiments.contamination_pairs import EXPERIMENT, FULL, Config
from contam.experiments.contamination_pairs.claims import STATEMENTS
from contam.experiments.contamination_pairs.config import TWO_LAYER, two_layer_setting
from contam.experiments.contamination_pairs.results import (
    KNOWN,
    MEASURES,
    PARTS,
    PairResults,
    column,
    correlated,
    predicted,
    reproduced,
    require_pairs,
)
from contam.experiments.support.background_readings import (
    FROM_FEATURES,
    two_layer_readings,
)
from contam.experiments.support.paired_networks import (
    PairData,
    PairedNetworks,
    PairSetting,
    built,
)
from contam.measures.correlation import spearman
from contam.run import Run
from contam.theory.trajectory import simulate

SETTING = PairSetting("shapes", "resnet8-8", 2)
TINY = PairedNetworks(examples=40, id_examples=40, ood_examples=40)


def made_up(gap: str | None, config: Config = FULL) -> PairResults:
    """Pairs whose gap is half of one measure, or random.

    Args:
        gap: the measure.
        config: the pair settings.
    """
    draws = torch.Generator().manual_seed(0)
    pairs = []
    for setting in config.settings:
        row = {"setting": setting.name, "seed": 0, "way": "mean", "id": 0.9} | setting._asdict()
        values = torch.rand(len(MEASURES) + 1, generator=draws).tolist()
        row |= dict(zip(MEASURES, values, strict=False))
        row |= {
            f"{c} {key}": row[key] for c in ("untrained", "calibrated") for key in FROM_FEATURES
        }
        pairs.append(row | {"gap": values[-1] if gap is None else row[gap] / 2})
    table = pandas.DataFrame(pairs)
    return PairResults(config, pandas.DataFrame(), table.assign(variant="plain"), table)


def test_networks_of_a_pair_share_images_families_and_weights():
    plain = built(SETTING, "plain", 0)
    for variant in FULL.ways:
        other = dict(built(SETTING, variant, 0).named_parameters())
        assert all(torch.equal(p, other[name]) for name, p in plain.named_parameters())
    data = PairData(TINY, SETTING, 0)
    again = PairData(TINY, SETTING, 1)
    assert not {*data.id_families} & {*data.ood_families}
    assert again.id_families == data.id_families
    assert not torch.equal(again.train.x, data.train.x)


@pytest.mark.parametrize("part", [*PARTS])
def test_the_measure_behind_the_gap_is_chosen_and_predicts_held_out_parts(part):
    prediction = predicted(made_up("gates"), part)
    assert {*prediction.chosen} == {"gates"}
    assert prediction.correlation.value == pytest.approx(1) and prediction.error < 1e-9
    assert prediction.shuffled < 0.8


def test_random_gaps_are_not_predicted_although_some_measure_fits_them():
    results = made_up(None)
    gap = column(results.pairs, "gap")
    best = max(abs(spearman(column(results.pairs, name), gap)) for name in MEASURES)
    assert best > 0.3
    assert predicted(results, "architecture").correlation.value < best


def test_few_pairs_or_networks_that_did_not_learn_are_not_judged():
    few = made_up("gates", FULL.model_copy(update={"families": (1,)}))
    with pytest.raises(NotJudged, match="needs 10 pair settings, not 5"):
        require_pairs(few)
    small = made_up("gates", FULL.model_copy(update={"families": (1, 2)}))
    require_pairs(small, "setting")
    with pytest.raises(NotJudged, match="6 pair settings outside each of contents, not 4"):
        require_pairs(small, "core")
    results = made_up("gates")
    results.networks["id"] = 0.1
    with pytest.raises(NotJudged, match="did not learn"):
        require_pairs(results)


def test_a_correlation_is_judged_only_where_its_interval_leaves_no_doubt():
    results = made_up("gates")
    quantity = f"rank correlation with the mean gap: {MEASURES['loss']}"
    (statement,) = (s for s in STATEMENTS if s.quantity == quantity)
    assert correlated(results, "loss").high < 0.5
    assert statement.judge(results).holds is False
    noise = torch.rand(len(results.pairs), generator=torch.Generator().manual_seed(0)).numpy()
    results.pairs["loss"] = results.pairs["gap"] + noise / 2
    value = correlated(results, "loss")
    assert value.low < 0.5 < value.high
    claim = statement.judge(results)
    assert claim.holds is None and "interval that contains 0.5" in (claim.not_judged or "")
    results.pairs["loss"] = results.pairs["gap"]
    assert statement.judge(results).holds is True


@pytest.mark.slow
def test_the_theory_separates_contamination_from_new_directions():
    rows = []
    for name in TWO_LAYER:
        (state,) = simulate(two_layer_setting(FULL, name), 0)
        rows.append({"network": name, "seed": 0} | two_layer_readings(state))
    table = pandas.DataFrame(rows).set_index("network")
    relu = table.loc["ReLU"]
    assert relu.flipped > 0.8 and abs(relu.added - relu.id) < 0.01
    for clean in ("linear", "ReLU, centered inputs"):
        assert abs(table.loc[clean].flipped - table.loc[clean].id) < 0.01
    results = PairResults(FULL, table.reset_index(), table, table)
    scores = {key: reproduced(results, key) for key in KNOWN}
    assert scores["attenuation"][0] > 0.8 and abs(scores["attenuation"][1]) < 0.01
    assert scores["relative"][1] > 0.7


@pytest.mark.slow
def test_figures_and_claims_of_a_made_up_run(tmp_path):
    """The gap is half the attenuation, whatever blocks contamination."""
    draws = torch.Generator().manual_seed(0)
    with Run.start(tmp_path, EXPERIMENT.name, FULL) as run:
        for network in TWO_LAYER:
            cost = 1 / (1 + TWO_LAYER.index(network))
            row = {"network": network, "seed": 0, "id": 0.0, "added": 0.0, "added 4": 0.0}
            row |= {"flipped": cost, "replaced": cost, **dict.fromkeys(KNOWN, cost)}
            run.write(f"theory/{len(network)}{TWO_LAYER.index(network)}/seed0", [row])
        for setting in FULL.settings:
            key = {"setting": setting.name, "seed": 0} | setting._asdict()
            plain = {name: float(torch.rand((), generator=draws)) for name in MEASURES}
            rows = [{"variant": "plain", "id": 0.9, "ood": 0.4} | plain]
            blank = {name: float(torch.rand((), generator=draws)) for name in FROM_FEATURES}
            for control in ("untrained", "calibrated"):
                rows.append({"variant": control, "id": 0.1, "ood": 0.1} | blank)
            ood = 0.4 + plain["attenuation"] / 2
            rows += [{"variant": way, "id": 0.9, "ood": ood} for way in FULL.ways]
            for row in rows:
                run.write(f"pair/{setting.name}/{row['variant']}/seed0", [key | row])
        run.finish()
    claims = {claim.quantity: claim for claim in EXPERIMENT.claims(Run.load(run.folder))}
    for part in PARTS.values():
        quantity = f"rank correlation of predicted and measured mean gap, {part} held out"
        assert claims[quantity].holds
    assert claims["rank correlation of the gaps: centered maps and instance norm"].holds
    known, gaps, against, correlations, held_out = EXPERIMENT.draw(Run.load(run.folder))
    assert len(against.panels) == len(MEASURES) and len(gaps.panels) == 2
    assert len(held_out.rows) == 3 * (1 + len(FULL.ways))
    assert {row["chosen"] for row in held_out.rows} == {MEASURES["attenuation"]}
    assert "1.00 with contents held out" in EXPERIMENT.summary(Run.load(run.folder))
    assert known.rows and correlations.rows
