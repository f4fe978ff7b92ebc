"""Pairs of networks: what they share, the known answer, and choices on held-out parts."""

import pandas
import pytest
import torch

from contam.experiment import NotJudged
from contam.experiments.contamination_pairs import (
    FULL,
    KNOWN,
    MEASURES,
    TWO_LAYER,
    Config,
    PairResults,
    column,
    predicted,
    reproduced,
    require_pairs,
    two_layer_setting,
)
from contam.experiments.support.background_readings import (
    FROM_FEATURES,
    two_layer_readings,
)
from contam.experiments.support.paired_networks import (
    PairedNetworks,
    PairSetting,
    built,
    pair_data,
)
from contam.measures.correlation import spearman
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
        row |= {f"untrained {key}": row[key] for key in FROM_FEATURES}
        pairs.append(row | {"gap": values[-1] if gap is None else row[gap] / 2})
    empty = pandas.DataFrame()
    return PairResults(config, empty, empty, pandas.DataFrame(pairs))


def test_networks_of_a_pair_share_images_families_and_weights():
    plain = built(SETTING, "plain", 0)
    for variant in FULL.ways:
        other = dict(built(SETTING, variant, 0).named_parameters())
        assert all(torch.equal(p, other[name]) for name, p in plain.named_parameters())
    data = pair_data(TINY, SETTING, 0)
    again = pair_data(TINY, SETTING, 1)
    assert not {*data.id_families} & {*data.ood_families}
    assert again.id_families == data.id_families
    assert not torch.equal(again.train.x, data.train.x)


@pytest.mark.parametrize("part", ["core", "architecture"])
def test_the_measure_behind_the_gap_is_chosen_and_predicts_held_out_parts(part):
    found = predicted(made_up("gates"), part)
    assert {*found.chosen} == {"gates"}
    assert found.correlation.value == pytest.approx(1) and found.error < 1e-9
    assert found.shuffled < 0.8


def test_random_gaps_are_not_predicted_although_some_measure_fits_them():
    results = made_up(None)
    gap = column(results.pairs, "gap")
    best = max(abs(spearman(column(results.pairs, name), gap)) for name in MEASURES)
    assert best > 0.3
    assert predicted(results, "architecture").correlation.value < best


def test_few_pairs_or_networks_that_did_not_learn_are_not_judged():
    few = made_up("gates", FULL.model_copy(update={"families": (1,)}))
    with pytest.raises(NotJudged, match="needs 8 pair settings, not 6"):
        require_pairs(few)
    results = made_up("gates")
    results.pairs["id"] = 0.1
    with pytest.raises(NotJudged, match="did not learn"):
        require_pairs(results)


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
    found = PairResults(FULL, table.reset_index(), table, table)
    scores = {key: reproduced(found, key) for key in KNOWN}
    assert scores["attenuation"][0] > 0.8 and abs(scores["attenuation"][1]) < 0.01
    assert scores["relative"][1] > 0.7
