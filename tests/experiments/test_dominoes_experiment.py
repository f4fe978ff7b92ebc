"""The dominoes experiment: cases, measurements, claims, and halves from files."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.io import savemat
from support.experiment_runs import run_experiment

from contam.data.dominoes import STRENGTH
from contam.experiments.dominoes import snapshots
from contam.experiments.dominoes.cases import (
    CONTRAST,
    Case,
    Config,
    cases,
    half_of,
    on_background,
    profiled,
    shift_of,
)
from contam.experiments.dominoes.experiment import (
    EXPERIMENT,
    FULL,
    LAPTOP,
    MURALI,
    MURALI_FASHION,
    SMOKE,
)
from contam.experiments.support.prediction_depth import (
    behind_normalization,
    depth_row,
    network,
    probed,
)
from contam.measures.depth import Rule
from contam.run import Run


class CornerReader(torch.nn.Module):
    """Predicts class 1 where the upper left corner is white: only the easy feature matters."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(20.0))
        self.relu = torch.nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        corner = self.relu(x[:, 0, :4, :4].mean(dim=(1, 2))[:, None] - 0.5)
        return self.scale * torch.cat([torch.full_like(corner, 0.25), corner], dim=1)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Run:
    one = SMOKE.model_copy(update={"seeds": 1})
    return run_experiment(EXPERIMENT, one, tmp_path_factory.mktemp("smoke"))


def test_cases_have_every_feature_alone_and_over_the_core():
    listed = cases(LAPTOP)
    assert len({case.part(0) for case in listed}) == len(listed) == 17
    for feature in LAPTOP.spurious:
        assert {Case("alone", feature), Case("over", feature)} <= set(listed)
    assert set(profiled(LAPTOP)) <= set(listed)
    assert [case.feature for case in listed if case.agreement < 1] == ["easy", "hard"]


def test_only_the_half_of_a_feature_alone_shows_the_class():
    config = LAPTOP.model_copy(update={"train": 200, "test": 200})
    easy = shift_of(config, Case("alone", "easy"), 0).id_test.data
    corner = easy.x[:, 0, :4, :4].mean(dim=(1, 2))
    assert torch.equal((corner > 0.9).long(), easy.y)
    assert easy.x[:, :, 16:].max() < 0.5 + 1e-6
    swapped = shift_of(config, Case("as core", "easy"), 0).id_test.data
    assert torch.equal((swapped.x[:, 0, 16:20, :4].mean(dim=(1, 2)) > 0.9).long(), swapped.y)
    assert swapped.x[:, :, :16].max() < 0.5 + 1e-6


def test_lower_halves_do_not_depend_on_upper_halves():
    config = LAPTOP.model_copy(update={"train": 60, "test": 60})
    shown = [Case("alone", "core"), Case("over", "easy"), Case("over", "hard", 0.95)]
    lower = [shift_of(config, case, 3).train[0].data.x[:, :, 16:] for case in shown]
    assert torch.equal(lower[0], lower[1]) and torch.equal(lower[0], lower[2])
    random = shift_of(config, Case("over", "easy"), 3, agreement=0.5).train[0].data
    assert torch.equal(random.x[:, :, 16:], lower[0])
    assert (random.domain == random.y).double().mean() == 0.5


def test_backgrounds_are_independent_of_the_class_and_reversed_exactly():
    plain = shift_of(LAPTOP.model_copy(update={"test": 400}), Case("alone", "core"), 0).id_test
    own = on_background(plain, 0)
    other = on_background(plain, 0, sign=-1, name="backgrounds reversed")
    torch.testing.assert_close(own.data.x + other.data.x, 2 * plain.data.x)
    assert torch.equal(own.data.domain, other.data.domain) and torch.equal(own.y, plain.y)
    agree = (own.data.domain == own.y).double().mean()
    assert abs(float(agree) - 0.5) < 4 * 0.5 / 400**0.5
    added = (own.data.x - plain.data.x)[:, 0]
    low, high = (CONTRAST * end for end in STRENGTH)
    assert low * 0.999 <= added.std(dim=(1, 2)).min() <= added.std(dim=(1, 2)).max() <= high * 1.001
    for which in (0, 1):
        table = added[own.data.domain == which].flatten(1)
        assert torch.linalg.matrix_rank(table, atol=1e-3, rtol=0.0) == 1


def test_rows_of_a_network_that_reads_only_the_easy_feature():
    shift = shift_of(LAPTOP.model_copy(update={"test": 200}), Case("over", "easy", 0.95), 0)
    row = snapshots.accuracy_row(CornerReader(), shift, interval=True)
    assert row["as in training"] == 0.95 and row["top randomized"] == 0.5
    assert row["top flipped"] == 0.0 and row["follows"] == 1.0
    assert row["accuracy_drop"] == pytest.approx(0.45)
    assert row["drop_low"] < 0.45 < row["drop_high"]
    depth = depth_row(CornerReader(), shift, per_class=100, rule=Rule(), seed=0)
    assert sum(depth["shares"]) == pytest.approx(1)
    assert depth["early"] == pytest.approx(sum(depth["shares"][:2]))
    assert depth["depth_low"] <= depth["depth"] <= depth["depth_high"]
    counterexamples = snapshots.counterexample_row(CornerReader(), shift.train[0], k=30)
    assert counterexamples["loss"] == 1.0 and counterexamples["neighbors"] > 0.99


def test_a_layer_that_passes_the_feature_on_has_one_bit_about_it():
    config = LAPTOP.model_copy(update={"train": 400, "test": 200})
    case = Case("over", "easy")
    random = shift_of(config, case, 0, agreement=0.5).train[0]
    rows = snapshots.information_rows(
        CornerReader(), random, shift_of(config, case, 0).ood_tests[0], k=30
    )
    assert [row["layer"] for row in rows] == ["input", "relu", "softmax"]
    assert rows[1]["domain"] > 0.9 and abs(rows[1]["label"]) < 0.1


def test_probes_are_the_activations_of_the_network():
    shift = shift_of(SMOKE, Case("over", "easy"), 0)
    assert probed(CornerReader(), shift.id_test) == ["relu"]
    assert len(probed(network("resnet8", 4, 0), shift.id_test)) == 7


def edited(run: Run, folder: Path, depth: dict[str, float], random: dict[str, float]) -> dict:
    """Verdicts for a run of networks with these depths alone, and accuracies when random."""
    config = Config.model_validate(run.config)
    with Run.start(folder, EXPERIMENT.name, config) as copy:
        for part in run.parts("net/"):
            rows = run.read(part)
            for row in rows:
                kind, _, feature = row["case"].partition("-")
                if row["what"] != "snapshot":
                    continue
                row["as in training"] = 0.97
                if kind == "alone":
                    here = depth[feature]
                    row |= {"depth": here, "depth_low": here - 0.1, "depth_high": here + 0.1}
                if kind == "over" and feature in random:
                    drop = 0.97 - random[feature]
                    row |= {"top randomized": random[feature], "accuracy_drop": drop}
                    row |= {"drop_low": drop - 0.02, "drop_high": drop + 0.02}
            copy.write(part, rows)
    return {claim.says: claim.holds for claim in EXPERIMENT.claims(copy)}


AGREES = "A feature is harmful if and only if it is easier than the core feature"
EASIER = "Prediction depth ranks the easy feature before the core feature"
HARDER = "Prediction depth ranks the hard feature behind the core feature"
BENIGN = "A hard spurious feature is benign: accuracy stays high when it is random"


@pytest.mark.parametrize(
    ("depth", "random", "agrees"),
    [
        ((0.0, 1.0, 2.0), (0.5, 0.96), True),
        ((0.0, 1.0, 2.0), (0.96, 0.5), False),
        ((0.0, 1.0, 0.5), (0.5, 0.96), False),  # An easier feature is benign.
        ((0.9, 1.0, 1.1), (0.5, 0.96), None),  # Intervals of depth overlap.
        ((0.0, 1.0, 2.0), (0.88, 0.86), None),  # Intervals of the drop include 0.1.
    ],
)
@pytest.mark.slow
def test_easy_and_harmful_are_judged_by_intervals(smoke, tmp_path, depth, random, agrees):
    holds = edited(
        smoke,
        tmp_path,
        dict(zip(("easy", "core", "hard"), depth, strict=True)),
        dict(zip(("easy", "hard"), random, strict=True)),
    )
    assert holds[AGREES] is agrees
    assert holds[EASIER] is (True if depth[0] < depth[1] - 0.2 else None)
    assert holds[HARDER] is (True if depth[2] > depth[1] + 0.2 else None)
    assert holds[BENIGN] is (random[1] >= 0.92 if holds[HARDER] else None)


@pytest.mark.slow
def test_rank_correlation_needs_four_features(smoke):
    (claim,) = [c for c in EXPERIMENT.claims(smoke) if c.quantity.startswith("rank correlation of")
                and "features" in c.quantity]  # fmt: skip
    assert claim.not_judged == "a rank correlation needs 4 features, got 2"


def test_labels_of_a_data_set_follow_a_colon(tmp_path):
    written_as_idx(tmp_path / "mnist")
    case = Case("over", "mnist:24")
    assert case.name == "over-mnist-24"
    half = half_of("mnist:10", tmp_path)
    images = half(torch.tensor([0, 1]), "test", seed=0, purpose="test")
    assert images[0].mean() > images[1].mean()  # The pictures of label 1 are brighter.
    with pytest.raises(ValueError, match="expected two digits after the colon"):
        half_of("mnist:1", tmp_path)


@pytest.mark.slow
def test_figures_need_only_the_run(smoke, monkeypatch):
    monkeypatch.setattr("contam.experiments.dominoes.cases.dominoes", None)
    assert len(EXPERIMENT.draw(smoke)) == 6


def test_missing_files_and_unknown_halves_are_reported(tmp_path):
    nowhere = FULL.model_copy(update={"folder": tmp_path})
    with pytest.raises(ValueError, match=r"kmnist is not a complete kmnist: missing"):
        run_experiment(EXPERIMENT, nowhere, tmp_path / "runs")
    with pytest.raises(ValueError, match="no half 'core' from files; choose from square, mnist"):
        half_of("core", tmp_path)
    with pytest.raises(ValueError, match="no half 'mnist' without files; choose from core, easy"):
        half_of("mnist", None)


def written_as_idx(folder: Path) -> None:
    """Random pictures in the format of MNIST; those of class 1 are brighter."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, n in (("train", 600), ("t10k", 400)):
        labels = np.arange(n, dtype=np.uint8) % 10
        images = random.integers(0, 128, (n, 28, 28), dtype=np.uint8)
        images[labels == 1] += 100
        for name, array in ((f"{part}-images-idx3", images), (f"{part}-labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            packed = gzip.compress(header + array.tobytes())
            (folder / f"{name}-ubyte.gz").write_bytes(packed)


@pytest.mark.slow
def test_experiment_runs_on_halves_from_files(tmp_path):
    for kind in ("kmnist", "mnist"):
        written_as_idx(tmp_path / "data" / kind)
    config = FULL.model_copy(
        update={
            "folder": tmp_path / "data",
            "spurious": ("square", "mnist"),
            "network": "resnet8",
            "width": 4,
            "epochs": 2,
            "batch_size": 20,
            "train": 80,
            "test": 40,
            "per_class": 20,
            "rule": Rule(k=9),
            "seeds": 1,
        }
    )
    run = run_experiment(EXPERIMENT, config, tmp_path / "runs")
    assert run.arrays(Case("over", "mnist").part(0))["pictures"].shape == (10, 3, 64, 32)
    assert all(claim.observed is not None or claim.not_judged for claim in EXPERIMENT.claims(run))
    assert len(EXPERIMENT.draw(run)) == 6 and "square" in EXPERIMENT.summary(run)


@pytest.mark.slow
def test_the_published_network_has_reproducible_weights_and_two_classes():
    torch.manual_seed(0)
    model = network("torchvision:resnet18", 12, 0).cpu()
    again = network("torchvision:resnet18", 12, 0).cpu()
    x = torch.rand(4, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), again.eval()(x))
    assert model(x).shape == (4, 2)


def written_as_svhn(folder: Path) -> None:
    """Random pictures in the format of SVHN."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, n in (("train", 600), ("test", 400)):
        images = random.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        labels = (np.arange(n)[:, None] % 10 + 1).astype(float)
        savemat(folder / f"{part}_32x32.mat", {"X": images, "y": labels})


@pytest.mark.slow
def test_the_published_preset_runs_on_small_files_of_the_published_formats(tmp_path):
    written_as_idx(tmp_path / "data" / "kmnist")
    written_as_svhn(tmp_path / "data" / "svhn")
    config = MURALI.model_copy(
        update={
            "folder": tmp_path / "data",
            "spurious": ("kmnist-patch", "svhn"),
            "width": 2,
            "epochs": 1,
            "batch_size": 20,
            "train": 40,
            "test": 10,
            "support": 20,
            "queries": 4,
            "rule": Rule(k=9, metric="l1", reference="last probe"),
        }
    )
    run = run_experiment(EXPERIMENT, config, tmp_path / "runs")
    rows = run.table("net/")
    snapshots_only = rows[rows.what == "snapshot"]
    assert set(snapshots_only["shares"].map(len)) == {17}
    assert (snapshots_only["undefined"] == 0).all()  # The last probe agrees with itself.
    assert all(claim.observed is not None or claim.not_judged for claim in EXPERIMENT.claims(run))
    assert len(EXPERIMENT.draw(run)) == 6


@pytest.mark.parametrize("preset", [MURALI, MURALI_FASHION])
def test_published_presets_report_every_missing_file_at_once(preset, tmp_path):
    missing = preset.model_copy(update={"folder": tmp_path})
    with pytest.raises(ValueError) as error:
        run_experiment(EXPERIMENT, missing, tmp_path / "runs")
    names = {name.removesuffix("-patch") for name in (preset.core, *preset.spurious)}
    for name in names:
        assert str(tmp_path / name) in str(error.value)
    assert str(error.value).count(str(tmp_path / preset.core)) == 1
    for name in ("train-images", "train-labels", "t10k-images", "t10k-labels", "test_32x32"):
        assert name in str(error.value)
    assert str(error.value).endswith("give another folder with --folder")


def test_published_probes_are_a_normalization_and_sixteen_convolutions():
    names = behind_normalization(network("resnet18_cifar", 2, 0, 10))
    assert len(names) == 17 and names[0] == "encoder.bn1"
    assert all(name.rpartition(".")[2] in ("conv1", "conv2") for name in names[1:])


def test_a_patched_picture_has_a_white_corner_for_class_one_only(tmp_path):
    written_as_idx(tmp_path / "kmnist")
    shows = torch.tensor([0, 1])
    plain, patched = (
        half_of(name, tmp_path, True)(shows, "test", seed=0, purpose="test")
        for name in ("kmnist", "kmnist-patch")
    )
    assert torch.equal(patched[0], plain[0])
    assert (patched[1, :, :5, :5] == 1).all()
    assert torch.equal(patched[1, :, 5:], plain[1, :, 5:])


def test_resized_pictures_have_no_black_frame(tmp_path):
    written_as_idx(tmp_path / "mnist")
    padded, resized = (
        half_of("mnist", tmp_path, resize)(torch.ones(9).long(), "test", seed=0, purpose="test")
        for resize in (False, True)
    )
    assert padded[:, :, :2].max() == 0 and resized[:, :, :2].min() > 0
    whole = F.interpolate(padded[:, :, 2:-2, 2:-2], (32, 32), mode="bilinear")
    torch.testing.assert_close(resized, whole, atol=0.5 / 255 + 1e-6, rtol=0)
