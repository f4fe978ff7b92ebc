"""Figure 6: what is read where, on the embedded benchmark and on folders; and what needs masks."""

from pathlib import Path

import pandas
import pytest
import torch
from support import trees
from support.experiment_runs import run_experiment
from support.sources import residual_source, write_weights
from torch import nn

from contam.batch import Batch, Domain
from contam.data.backgrounds import OOD
from contam.data.domainnet import CLASSES
from contam.data.shapes import blended
from contam.experiment import NotJudged, judge_all
from contam.experiments.fig06_heatmaps import EXPERIMENT, PAPER, SMOKE
from contam.experiments.fig06_heatmaps.claims import NO_MASKS, statements, under_natural_shift
from contam.experiments.fig06_heatmaps.config import STRENGTHS
from contam.experiments.fig06_heatmaps.heat import (
    PLAIN,
    PLUS,
    ScoredNetwork,
    heat_layers,
    observe_heat,
    unchanged,
)
from contam.experiments.fig06_heatmaps.images import SHOWN, eight_bits, embedded_tests, pictured
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import Networks
from contam.measures.gradcam import grad_cam, grad_cam_plus_plus, heat_maps, heat_on_object
from contam.models.classifier import Classifier
from contam.models.small import resnet8
from contam.run import Run
from contam.training.distill import Distillation
from contam.training.probe import FullBatch


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Run:
    one = SMOKE.model_copy(update={"seeds": 1})
    return run_experiment(EXPERIMENT, one, tmp_path_factory.mktemp("smoke"))


def rows_of(run: Run) -> list[dict]:
    return [row for part in run.parts("net/") for row in run.read(part)]


def test_natural_tests_show_the_same_objects_on_other_backgrounds():
    zoo = ModelZoo(SMOKE.networks, 0, Path("nowhere"))
    own, *ood = embedded_tests(SMOKE, zoo)
    assert [test.images.name for test in ood] == list(OOD)
    masks = [test.mask for test in ood if test.mask is not None]
    assert own.mask is not None and torch.equal(own.mask, torch.cat(masks))
    assert torch.equal(own.images.y, torch.cat([test.images.y for test in ood]))


@pytest.mark.parametrize("ood", [1, 2, 5])
def test_shown_id_and_ood_images_have_the_same_objects(ood):
    own = pictured(0, ood, 40)
    others = [40 * (t - 1) + pictured(t, ood, 40) for t in range(1, ood + 1)]
    assert sorted(own.tolist()) == sorted(torch.cat(others).tolist())
    assert len(own) == SHOWN


def test_heat_layers_are_the_last_block_and_the_last_finer_block():
    model = ScoredNetwork(resnet8(10, width=4), unchanged)
    shown = blended(0, 0.0, n=200)
    images = Domain("some", shown.batch)
    layers = heat_layers(model, images)
    assert layers == {"last": "network.encoder.stage3", "fine": "network.encoder.stage2"}
    observed = observe_heat(model, images, layers)
    for formula, by in ((PLUS, grad_cam_plus_plus), (PLAIN, grad_cam)):
        for where, layer in layers.items():
            alone = heat_maps(model, shown.x, layer, shown.y, formula=by)
            torch.testing.assert_close(observed.heat[where, formula], alone)
    mask = shown.mask[:, 0] > 0.5
    row = next(
        row for row in observed.heated(mask) if (row["map"], row["formula"]) == ("last", PLUS)
    )
    alone = heat_on_object(heat_maps(model, shown.x, layers["last"], shown.y), mask)
    assert row["side"] == 4
    assert row["object"] == pytest.approx(float(alone.mean()), rel=1e-5)
    assert row["area"] == pytest.approx(float(mask.double().mean()), rel=1e-6)


def test_heat_layers_of_a_network_with_one_map_size_are_equal():
    model = resnet8(10, width=4)
    for name in ("stage2", "stage3"):
        stage = model.encoder.get_submodule(name)
        for place in ("conv1", "shortcut.conv"):
            convolution = stage.get_submodule(place)
            assert isinstance(convolution, nn.Conv2d)
            convolution.stride = (1, 1)
    images = Domain("some", blended(0, 0.0, n=200).batch)
    layers = heat_layers(ScoredNetwork(model, unchanged), images)
    assert layers == dict.fromkeys(("last", "fine"), "network.encoder.stage3")


def test_predictions_and_heat_follow_the_scores_of_a_test():
    """A test that knows two of the classes alone, in a numbering of its own."""
    network = resnet8(10, width=4)
    batch = blended(0, 1.0, n=200).batch
    images = Domain("two", Batch(batch.x, batch.y % 2, batch.domain))
    judged = ScoredNetwork(network, lambda logits: logits[:, [7, 3]])
    observed = observe_heat(judged, images, {"last": "network.encoder.stage3"})
    columns = torch.tensor([7, 3])[images.y]
    alone = heat_maps(network, batch.x, "encoder.stage3", columns)
    torch.testing.assert_close(observed.heat["last", PLUS], alone)
    with torch.no_grad():
        logits = network.eval()(batch.x)
    assert torch.equal(observed.predicted, (logits[:, 3] > logits[:, 7]).long())


def test_eight_bit_images_stretch_values_outside_the_unit_range():
    own = torch.tensor([0.0, 0.5, 0.8]).reshape(3, 1, 1)
    assert eight_bits(own).flatten().tolist() == [0, 128, 204]
    moved = torch.tensor([-1.0, 0.0, 3.0]).reshape(3, 1, 1)
    assert eight_bits(moved).flatten().tolist() == [0, 64, 255]


@pytest.mark.slow
def test_the_controlled_shift_has_the_same_objects_for_all_networks(smoke):
    rows = [row for row in rows_of(smoke) if row["set"] == "shift" and row["what"] == "heat"]
    assert len({row["area"] for row in rows if row["seed"] == 0}) == 1
    assert {row["strength"] for row in rows} == set(STRENGTHS)
    assert {(row["map"], row["side"]) for row in rows} == {("last", 4), ("fine", 8)}
    for row in rows:
        assert 0 <= row["share"] <= 1 and row["object"] >= 0


def made_up(run: Run, left: dict[str, float]) -> list[dict]:
    """The rows of a run, with everything under the whole shift a given share of what was before."""
    rows = rows_of(run)
    keys = ("accuracy", "selectivity", "object", "share")

    def place(row: dict) -> tuple:
        return tuple(row.get(key) for key in ("network", "seed", "what", "map", "formula"))

    before = {place(row): row for row in rows if row.get("strength") == 0.0}
    for row in rows:
        if row.get("strength") == 1.0:
            begun = before[place(row)]
            row |= {key: left[row["network"]] * begun[key] for key in keys if key in row}
        if row["set"] == "natural" and row["what"] == "answers":
            row["accuracy"] = (
                0.2 if row["network"] in ("untrained", "calibrated") else 0.9
            )  # They learned.
    return rows


@pytest.mark.parametrize(
    ("left", "all_fall", "least"),
    [
        ({"teacher": 0.9, "student": 0.6, "ERM": 0.5}, True, True),
        ({"teacher": 0.7, "student": 0.8, "ERM": 0.5}, True, False),
        ({"teacher": 1.1, "student": 0.6, "ERM": 0.5}, False, True),
    ],
)
@pytest.mark.slow
def test_claims_about_the_shift_follow_from_the_numbers(smoke, left, all_fall, least):
    rows = made_up(smoke, left | {"untrained": 1.1, "calibrated": 1.0})
    claims = judge_all(statements(SMOKE), pandas.DataFrame(rows))
    falls = [c for c in claims if c.says.startswith("The controlled shift lowers")]
    fewest = [c for c in claims if c.says.startswith("The teacher loses the least")]
    assert len(falls) == len(fewest) == 4
    assert {c.holds for c in falls} == {all_fall}
    assert {c.holds for c in fewest} == {least}
    shares = [c for c in claims if "maps, the share" in c.says]
    assert [c.holds for c in shares] == 2 * [left["student"] <= 0.9]
    (control,) = (c for c in claims if c.says.startswith("The fall is learned"))
    assert control.holds and control.observed == pytest.approx(1.0)
    assert falls[0].observed == pytest.approx(max(left.values()))
    assert fewest[0].observed == pytest.approx(left["teacher"] - max(left["student"], left["ERM"]))


def test_natural_shift_ratio_is_mean_ood_over_id_for_each_seed():
    heats = [(0, "id", 4.0), (0, "ood", 1.0), (0, "ood", 3.0)]
    heats += [(1, "id", 2.0), (1, "ood", 2.0), (1, "ood", 4.0)]
    about = {"set": "natural", "network": "student"}
    rows = [about | {"seed": seed, "role": role, "object": heat} for seed, role, heat in heats]
    table = pandas.DataFrame(rows)
    assert under_natural_shift(table, "object").student.to_dict() == {0: 0.5, 1: 1.5}
    with pytest.raises(NotJudged, match="masks"):
        under_natural_shift(table, "share")
    nothing = table.assign(object=table.object.where(table.role == "ood", 0.0))
    assert under_natural_shift(nothing, "object").isna().all(axis=None)


def test_the_paper_preset_reports_missing_files(tmp_path):
    nowhere = PAPER.networks.model_copy(update={"folder": tmp_path / "none"})
    with pytest.raises(ValueError, match=r"is not a complete domainnet: missing .*none"):
        run_experiment(EXPERIMENT, PAPER.model_copy(update={"networks": nowhere}), tmp_path)


@pytest.mark.slow
def test_experiment_runs_on_folders_without_masks(tmp_path):
    networks = Networks(
        data="domainnet",
        folder=trees.whole_domainnet(tmp_path / "data", side=16),
        weights=tmp_path / "weights",
        teacher=write_weights(tmp_path / "weights", residual_source),
        standard=None,
        student_recipe=Distillation(1e-2, 0.0, 16, epochs=1),
        probe=FullBatch(iterations=20),
    )
    config = PAPER.model_copy(update={"networks": networks, "images": 30})
    run = run_experiment(EXPERIMENT, config, tmp_path / "runs")

    rows = [row for row in rows_of(run) if row["network"] == "student"]
    assert {row["set"] for row in rows} == {"natural", "style"}
    answers = [row for row in rows if row["what"] == "answers"]
    assert [(row.get("role"), row["count"]) for row in answers[:2]] == [("id", 30), ("ood", 30)]
    # The style transfer begins with the ID images themselves.
    assert [row["strength"] for row in answers[2:]] == list(STRENGTHS)
    assert answers[2]["correct"] == answers[0]["correct"]
    styled = run.arrays("net/teacher/seed0")["style_pictures"].double()
    moved = (styled - styled[0]).abs().mean(dim=(1, 2, 3, 4))
    assert moved[0] == 0 and (moved.diff() > 0).all()
    shown = [row["class"] for row in rows if row["what"] == "shown"]
    assert len(shown) == 2 * SHOWN and set(shown) <= set(CLASSES)
    assert run.arrays("net/teacher/seed0")["pictures"].shape == (8, 3, 16, 16)

    judged = {claim.quantity: claim for claim in EXPERIMENT.claims(run)}
    masked = [q for q, claim in judged.items() if claim.not_judged != NO_MASKS]
    assert len(masked) == 4
    assert all("accuracy" in quantity or "picture" in quantity for quantity in masked)
    sheet, one, curves, apart = EXPERIMENT.draw(run)
    assert not sheet.panels[0].empty and not one.panels[0].empty
    assert len(curves.panels) == 4 and len(apart.panels) == 3
    assert "of the picture" in EXPERIMENT.summary(run)


def test_a_network_without_residual_blocks_is_rejected(tmp_path):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU())
    images = Domain("flat", Batch(torch.rand(4, 3, 2, 2), *2 * [torch.arange(4)]))
    with pytest.raises(ValueError, match="no residual blocks"):
        heat_layers(ScoredNetwork(Classifier(encoder, 4, 8), unchanged), images)
