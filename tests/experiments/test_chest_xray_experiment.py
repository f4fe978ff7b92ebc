"""The experiment on chest X-rays: its network, its depth rule, its control, and files."""

import numpy as np
import pytest
import torch
from PIL import Image
from support import trees
from support.experiment_runs import run_experiment
from torch import nn

from contam.data.drains import drain_pixels, drawn_xrays
from contam.experiments.chest_xray import EXPERIMENT, PAPER, SMOKE
from contam.experiments.chest_xray.data import decorrelated
from contam.experiments.chest_xray.experiment import chest_depth, drain_heat
from contam.experiments.chest_xray.network import DenseBlock
from contam.experiments.support.prediction_depth import over_nearest
from contam.measures.depth import UNCERTAIN, Depths, Rule, Support, prediction_depth
from contam.models.torchvision_import import import_torchvision


def test_drains_agree_with_the_label_in_the_stated_share():
    shift = drawn_xrays(agreement=0.9, train=200, test=100, seed=1)
    for domain, share in ((shift.train[0], 0.9), (shift.id_test, 0.9), (shift.ood_tests[0], 0.5)):
        assert float((domain.y == domain.data.domain).double().mean()) == pytest.approx(share)
    again = drawn_xrays(agreement=0.9, train=200, test=100, seed=1)
    assert torch.equal(shift.train[0].data.x, again.train[0].data.x)


def test_drain_pixels_are_those_of_the_test_images():
    test = drawn_xrays(agreement=0.9, train=20, test=60, seed=2).id_test.data
    drains = drain_pixels(agreement=0.9, test=60, seed=2)
    assert torch.equal(drains.flatten(1).any(dim=1), test.domain == 1)
    # A drain is added to the texture and the digit, which are hardly negative anywhere.
    assert (test.x[:, 0][drains] > 0.4).all()
    assert 0.02 < float(drains[test.domain == 1].double().mean()) < 0.3


def test_heat_of_a_network_that_reads_the_drain_alone_lies_on_it():
    config = SMOKE.model_copy(update={"heated": 20})
    shift = drawn_xrays(agreement=config.agreement, train=config.train, test=config.test, seed=0)
    brightness = nn.Conv2d(3, 1, 1, bias=False)
    nn.init.constant_(brightness.weight, 1 / 3)
    shares = []
    for threshold in (0.9, -5.0):
        # Beside the drain and the digit, the picture stays below 0.3.
        network = nn.Sequential(
            brightness, nn.Threshold(threshold, 0.0), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(1, 2),
        )  # fmt: skip
        row, arrays = drain_heat(config, network, shift, 0, {"probes": ["1"], "shares": [1.0]})
        assert row["heat_low"] <= row["heat"] <= row["heat_high"] and row["heat_layer"] == "1"
        assert arrays["heat"].shape == (8, 32, 32)
        shares.append(row["heat"])
    assert shares[0] > max(2 * row["even"], shares[1])


def test_the_control_keeps_images_whose_group_is_independent_of_the_label():
    kept = decorrelated(drawn_xrays(agreement=0.9, train=400, test=10, seed=0).train[0], 0)
    drain = kept.data.domain == 1
    shares = [float(drain[kept.y == label].double().mean()) for label in (0, 1)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02) and 0 < shares[0] < 1


def test_a_depth_is_undefined_where_the_last_probe_but_one_is_uncertain():
    decided = torch.tensor([[1, 1, 0, 1], [1, UNCERTAIN, 1, 0], [1, 1, 1, 1]])[None]
    depth = prediction_depth(decided, decided[:, -1])
    none = torch.zeros(1, 1, dtype=torch.int64)
    depths_of_queries = chest_depth(
        Depths(
            ("a", "b", "c"), depth, decided, torch.zeros(3), Rule(), Support(none, none, 1, 2, 0)
        )
    )
    assert depths_of_queries.nan_to_num(-1).tolist() == [[0, -1, 1, 2]]


def test_maps_are_resized_by_nearest_neighbors():
    maps = torch.arange(4.0).view(1, 1, 2, 2)
    assert over_nearest(maps).view(8, 8)[::4, ::4].tolist() == [[0, 1], [2, 3]]
    large = torch.arange(256.0).view(1, 1, 16, 16)
    assert torch.equal(over_nearest(large).view(8, 8), large[0, 0, ::2, ::2])


def test_a_dense_block_gives_the_same_features_and_all_of_them_at_its_probes():
    import_torchvision()
    from torchvision.models import DenseNet

    block = DenseNet(4, (3, 1, 1, 1), 8, num_classes=2).features.get_submodule("denseblock1").eval()
    ours = DenseBlock(nn.ModuleDict(dict(block.named_children()))).eval()
    outputs = {}
    for name in ("probe1", "probe3"):
        ours.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.__setitem__(name, output)
        )
    x = torch.rand(2, 8, 5, 5)
    with torch.no_grad():
        assert torch.equal(ours(x), block(x))
    assert torch.equal(outputs["probe3"], ours(x)) and outputs["probe1"].shape[1] == 12


def test_missing_files_and_groups_are_reported_before_training(tmp_path):
    config = PAPER.model_copy(update={"folder": tmp_path, "annotations": tmp_path / "drains.csv"})
    missing = (
        r"is not a complete nih-cxr: missing Data_Entry_2017\.csv, train_val_list\.txt, "
        r"test_list\.txt, \S+/drains\.csv, images/\. .*--folder .*--annotations$"
    )
    with pytest.raises(ValueError, match=missing):
        run_experiment(EXPERIMENT, config, tmp_path / "runs")
    config = config.model_copy(update={"annotations": None})
    trees.chest_xrays(tmp_path, "nih-cxr")
    with pytest.raises(ValueError, match="is in the group 'drain', only in none"):
        run_experiment(EXPERIMENT, config, tmp_path / "runs")


@pytest.mark.slow
def test_densenet_121_runs_on_files_of_the_true_layout(tmp_path):
    trees.chest_xrays(tmp_path, "nih-cxr", patients=64)
    # Images of one color would have no variance for batch norms to divide by.
    draw = np.random.default_rng(0)
    for path in sorted(tmp_path.rglob("*.png")):
        Image.fromarray(draw.integers(0, 256, (40, 40), dtype=np.uint8)).save(path)
    rows = [[f"{p:08d}_000.png", "drain"] for p in range(64) if p % 8 in (1, 2, 3)]
    path = trees.table(tmp_path / "drains.csv", ["image", "group"], rows)
    config = PAPER.model_copy(
        update={
            "folder": tmp_path, "annotations": path, "side": 32, "epochs": 1, "batch_size": 8,
            "per_class": 5, "queries": 8, "rule": SMOKE.rule, "seeds": 1,
        }
    )  # fmt: skip
    run = run_experiment(EXPERIMENT, config, tmp_path / "runs")
    (row,) = run.read("net/correlated-trained/seed0")
    assert len(row["probes"]) == 29 and "gap, as is" in row
    open_claims = [c for c in EXPERIMENT.claims(run) if "independent" in c.quantity]
    assert {c.not_judged for c in open_claims} == {
        "files hold no test set in which drains are independent of the disease"
    }
    assert EXPERIMENT.draw(run) and EXPERIMENT.summary(run)
