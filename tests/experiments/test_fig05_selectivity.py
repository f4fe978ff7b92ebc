"""Figure 5: the same classes and as many images on both sides of a comparison, and its claims."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.experiment_runs import run_experiment

from contam.batch import Batch, Domain
from contam.data.imagenet import max_over
from contam.experiments import fig05_selectivity as fig05
from contam.experiments.fig05_selectivity import EXPERIMENT, SMOKE, Config, alike, meanings
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import UNTRAINED
from contam.measures.selectivity import selectivity
from contam.models.blocks import blocks_of
from contam.models.small import resnet8
from contam.models.torchvision_import import import_torchvision
from contam.run import Run
from contam.training.probe import extract

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=40)


def test_meanings_follow_the_scoring_of_a_test():
    assert meanings(torch.eye(3)).tolist() == [0, 1, 2]
    several = max_over(torch.eye(6), ((4,), (1, 3)))
    assert meanings(several).tolist() == [-1, 1, -1, 1, 0, -1]


@given(LABELS, LABELS, st.permutations([-1, 0, 1, 2, 3, 4]), st.integers(0, 3))
def test_balanced_sets_have_equal_class_counts(own, other, meant, seed):
    own, other, meant = (torch.tensor(mask) for mask in (own, other, meant))
    mine, theirs = alike(own, other, meant, seed=seed)
    shared = sorted({*meant[own].tolist()} & {*other.tolist()})
    for place, k in enumerate(shared):
        counts = [int((meant[own] == k).sum()), int((other == k).sum())]
        assert [int((mask == place).sum()) for mask in (mine, theirs)] == [min(counts)] * 2
        assert set(meant[own][mine == place].tolist()) == {k}
        assert set(other[theirs == place].tolist()) == {k}
    assert mine.max() == theirs.max() == len(shared) - 1
    again = alike(own, other, meant, seed=seed)
    assert torch.equal(again[0], mine) and torch.equal(again[1], theirs)


def test_selectivity_is_compared_on_equally_many_images():
    """Why both sides are counted alike: pure noise has no class that it prefers."""
    noise = torch.rand(4000, 50, generator=torch.Generator().manual_seed(0))
    y = torch.arange(4000) % 10

    def of(counting: torch.Tensor) -> float:
        means = torch.stack([noise[counting == k].mean(dim=0) for k in range(10)])
        return float(selectivity(means).mean())

    few = torch.where(torch.arange(4000) < 200, y, -1)
    mine, theirs = alike(y, y[:200], torch.arange(10), seed=0)
    whole, matched = of(y), of(mine)
    assert of(few) > 2 * whole
    assert matched == pytest.approx(of(few), rel=0.15)
    assert torch.equal(theirs, y[:200])


def test_rows_contain_the_selectivity_of_the_features(tmp_path):
    zoo = ModelZoo(SMOKE.networks, 0, tmp_path)
    list(zoo.train([UNTRAINED]))
    rows, arrays = fig05.measure(zoo, UNTRAINED)
    shift = zoo.benchmark(UNTRAINED).shift
    tests = [test.name for test in shift.ood_tests]
    assert [(r["role"], r["test"]) for r in rows] == [("whole", "ID")] + [
        (role, test) for test in tests for role in ("id", "ood")
    ]
    by_test = {(row["role"], row["test"]): row for row in rows}
    for role, test in [("whole", shift.id_test), *(("ood", test) for test in shift.ood_tests)]:
        features = extract(zoo.network(UNTRAINED).encoder, test).double()
        means = torch.stack([features[test.y == k].mean(dim=0) for k in range(10)])
        name = "ID" if role == "whole" else test.name
        torch.testing.assert_close(arrays[f"{role}/{name}"], selectivity(means).float())
        row = by_test[role, name]
        assert row["selectivity"] == pytest.approx(float(selectivity(means).mean()))
        others = selectivity(means, against="others").mean()
        assert row["against_others"] == pytest.approx(float(others))
        assert row["images"] == len(test)
    for test in tests:
        assert by_test["id", test]["images"] == by_test["ood", test]["images"]


def test_a_transformer_is_measured_at_every_activation_of_its_last_block():
    import_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    y = torch.arange(4)
    images = Domain("some", Batch(torch.rand(4, 3, 32, 32), y, torch.zeros_like(y)))
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=10
    )
    last = blocks_of(model, images.data.x)[-1]
    assert fig05.feature_layers(model, images) == list(last.activations) == ["blocks.1.mlp.act"]
    assert fig05.feature_layers(resnet8(10, width=4), images) == ["encoder"]


def made_up(root: Path, measured: dict[str, tuple[float, float]], *, signed: bool = False) -> Run:
    """A run in which networks have an ID and an OOD selectivity, a little apart in each seed."""
    config = Config(networks=SMOKE.networks, seeds=2)
    with Run.start(root, EXPERIMENT.name, config) as run:
        for name, (own, ood) in measured.items():
            for seed in range(2):
                places = [("whole", "ID", own), ("id", "fog", own), ("ood", "fog", ood)]
                rows = [
                    {"network": name, "seed": seed, "role": role, "test": test, "classes": 2}
                    | {"images": 8, "selectivity": value - 0.001 * seed, "median": value}
                    | {"against_others": value, "median_others": value}
                    | {"signed": signed, "outside": 0.0}
                    for role, test, value in places
                ]
                arrays = {f"{role}/{test}": torch.full((4,), v) for role, test, v in places}
                run.write(f"net/{name}/seed{seed}", rows, arrays)
        run.finish()
    return run


AS_PRINTED = {"teacher": (0.5, 0.45), "student": (0.5, 0.3), "ERM": (0.5, 0.3),
              "untrained": (0.1, 0.1)}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "fails"),
    [
        ({}, set()),
        ({"student": (0.15, 0.1)}, {0, 4}),
        ({"ERM": (0.15, 0.1)}, {1}),
        ({"ERM": (0.5, 0.51)}, {2, 3, 5}),
        ({"teacher": (0.5, 0.25)}, {3}),
        ({"untrained": (0.3, 0.1)}, {4}),
        ({"teacher": (0.15, 0.145)}, {6}),
    ],
)
def test_claims_follow_from_the_numbers(tmp_path, changed, fails):
    run = made_up(tmp_path, AS_PRINTED | changed)
    holds = [claim.holds for claim in EXPERIMENT.claims(run)]
    assert {place for place, held in enumerate(holds) if held is False} == fails


def test_how_selectivity_falls_is_claimed_of_selective_networks_only(tmp_path):
    judged = EXPERIMENT.claims(made_up(tmp_path, AS_PRINTED | {"ERM": (0.15, 0.1)}))
    reasons = {place: claim.not_judged for place, claim in enumerate(judged) if claim.not_judged}
    assert set(reasons) == {2, 3, 5}
    assert all("rose by 0.05" in reason for reason in reasons.values())


def test_figures_compare_equally_many_id_and_ood_images(tmp_path):
    run = made_up(tmp_path, AS_PRINTED)
    means, neurons, tests = EXPERIMENT.draw(run)
    shown = {(row["network"], row["data"]): row["selectivity"] for row in means.rows}
    assert shown["teacher", "OOD"] == pytest.approx(0.4495)
    assert len(shown) == 8 and len(neurons.panels) == 2
    assert {row["test"] for row in tests.rows} == {"ID", "fog"}
    assert "student 0.30" in EXPERIMENT.summary(run)


@pytest.mark.parametrize("preset", ["paper", "vit"])
def test_published_presets_report_missing_files(preset, tmp_path):
    config = EXPERIMENT.presets[preset]
    assert isinstance(config, Config)
    nowhere = config.networks.model_copy(update={"folder": tmp_path / "none"})
    config = config.model_copy(update={"networks": nowhere})
    with pytest.raises(ValueError, match=r"is not a complete imagenet: missing .*none"):
        run_experiment(EXPERIMENT, config, tmp_path)


def test_claims_use_the_median_of_signed_features(tmp_path):
    """The made-up medians do not differ between seeds, and the made-up means do."""
    signed, plain = (
        EXPERIMENT.claims(made_up(tmp_path / str(s), AS_PRINTED, signed=s)) for s in (True, False)
    )
    assert [claim.holds for claim in signed] == [claim.holds for claim in plain]
    assert signed[2].spread == pytest.approx(0, abs=1e-12)
    assert plain[2].spread is not None and plain[2].spread > 1e-4


@pytest.mark.parametrize("sign", [0.0, 1.0])
def test_signed_features_leave_the_range(sign):
    """Where class means are signed, a few neurons decide the mean, and the median is stable."""
    draws = torch.Generator().manual_seed(0)
    means = torch.randn(10, 2000, generator=draws).abs() + 0.01
    means = torch.where(torch.rand(means.shape, generator=draws) < 0.5 * sign, -means, means)
    values = selectivity(means)
    outside = ((values < 0) | (values > 1)).float().mean()
    assert (outside > 0.01) == bool(sign)
    assert 0 < values.median() < 1.2
