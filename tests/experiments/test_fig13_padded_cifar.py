"""Visualized features: the published settings, CIFAR-10 from files, and runs without learning."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from contam.data.cifar import PARTS
from contam.data.digits import frame_color
from contam.experiments.fig13_padded_cifar import (
    EXPERIMENT,
    PAPER,
    SCRIPT,
    SMOKE,
    Config,
    benchmark,
    claims,
    compute,
    cropped_and_flipped,
    draw,
    network,
)
from contam.measures.feature_visualization import hue_share, redness
from contam.rng import seeded
from contam.run import Run

IMAGES = 12
"""Images in each file of the small CIFAR-10."""
SMALL = {
    "frames": ("red", "none"), "depth": 8, "width": 1, "batch_size": 20, "epochs": 1, "channels": 2,
    "restarts": 1, "visualization_steps": 2, "attack_steps": 1, "seeds": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Files of the binary version of CIFAR-10, with few images."""
    folder = tmp_path_factory.mktemp("cifar10")
    random = np.random.default_rng(0)
    for name in (*PARTS["train"], *PARTS["test"]):
        rows = random.integers(0, 256, (IMAGES, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    return folder


def finished(config: Config, root: Path) -> Run:
    with Run.start(root, EXPERIMENT.name, config) as run:
        assert all(0 <= stage.done <= 1 for stage in compute(config, run))
        run.finish()
    return Run.load(run.folder)


def test_the_paper_preset_has_the_published_settings():
    """App. F.4 and the published command; 255/256 is its `--epsilon 255`."""
    published = {
        "images": "cifar10", "depth": 32, "width": 16, "stem_stride": 1, "epsilon": 255 / 256,
        "attack_steps": 4, "noise": 0.25, "noise_vectors": 2, "batch_size": 128, "step_size": 0.1,
        "momentum": 0.9, "weight_decay": 1e-4, "epochs": 250, "drop_every": 50,
        "epsilon_warmup": 10, "channels": 64, "restarts": 10, "visualization_steps": 200,
        "visualization_step_size": 0.05, "blur": 5, "penalty": 1e-2,
    }  # fmt: skip
    assert published.items() <= PAPER.model_dump().items()
    assert PAPER.layer == "encoder.layer3.4.conv2"
    network(PAPER, 0).get_submodule(PAPER.layer)
    assert (PAPER.padding, SCRIPT.padding) == ("resize", "crop")
    assert (PAPER.penalty_norm, SCRIPT.penalty_norm) == ("squared", "plain")


@pytest.mark.parametrize("padding", ["resize", "crop"])
def test_experiment_runs_on_cifar_10_from_files(folder, tmp_path, padding):
    config = Config.model_validate(SMALL | {"folder": folder, "padding": padding})
    run = finished(config, tmp_path)
    assert len(claims(run)) == 4
    pictures = run.arrays("net/red/seed0")
    assert pictures["trained"].shape == (2, 3, 32, 32)
    assert pictures["example"].shape == (3, 32, 32)
    figures = draw(run)
    assert all(not panel.empty for figure in figures for panel in figure.panels)


def test_frames_of_an_image_differ_only_in_color(folder):
    red, gray = (benchmark(Config(folder=folder), frame, 0).shift for frame in ("red", "gray"))
    x, other = (shift.train[0].data.x for shift in (red, gray))
    assert len(x) == 5 * IMAGES and len(red.id_test) == IMAGES
    torch.testing.assert_close(x[:, :, 0, 0], frame_color("red").expand(len(x), 3))
    torch.testing.assert_close(x[:, :, 12:20, 12:20], other[:, :, 12:20, 12:20])


def test_only_the_center_crop_contains_the_whole_image(folder):
    """Published: a frame of 8 pixels, a crop of 32 pixels in training, plain images in the test."""
    config = Config(folder=folder, padding="crop")
    framed, plain = (benchmark(config, frame, 0).shift for frame in ("red", "none"))
    x = framed.train[0].data.x
    assert x.shape[-2:] == (48, 48)
    torch.testing.assert_close(x[:, :, 8:-8, 8:-8], plain.train[0].data.x)
    assert framed.id_test.data.x.equal(plain.id_test.data.x)


def test_half_of_the_crops_are_flipped_windows_of_their_image():
    x = torch.arange(200 * 40 * 40.0).view(200, 1, 40, 40).expand(200, 3, 40, 40)
    with seeded(0, "test/crop"):
        cropped = cropped_and_flipped(x)
    flipped = 0
    corners = set()
    for image, whole in zip(cropped[:, 0], x[:, 0], strict=True):
        right = bool(image[0, 1] > image[0, 0])
        flipped += not right
        upright = image if right else image.flip(-1)
        top, left = divmod(int(upright[0, 0] - whole[0, 0]), 40)
        corners.add((top, left))
        assert upright.equal(whole[top : top + 32, left : left + 32])
    # 200 fair flips: five standard deviations are 35.
    assert abs(flipped - 100) <= 35
    assert {top for top, _ in corners} == {left for _, left in corners} == set(range(9))


def test_images_of_32_pixels_are_flipped_and_not_cropped():
    x = torch.rand(8, 3, 32, 32)
    with seeded(0, "test/crop"):
        flipped = cropped_and_flipped(x)
    assert all(
        one.equal(other) or one.equal(other.flip(-1)) for one, other in zip(flipped, x, strict=True)
    )


def test_missing_files_are_reported_before_anything_is_trained(tmp_path):
    config = Config(folder=tmp_path / "nowhere")
    with (
        Run.start(tmp_path, EXPERIMENT.name, config) as run,
        pytest.raises(ValueError, match=r"is not a complete cifar10: .* --folder$") as error,
    ):
        list(compute(config, run))
    assert "\n" not in str(error.value)
    assert all(f"data_batch_{k}" in str(error.value) for k in range(1, 6))
    assert "test_batch" in str(error.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"frames": ("gray", "none")}, "frames: need 'red'"),
        ({"frames": ("red",)}, "at least one control"),
        ({"batch_size": 127}, "batch_size: must be a multiple of noise_vectors"),
        ({"channels": 65}, "channels: the last convolution has 64"),
        ({"padding": "reflect"}, "padding"),
    ],
)
def test_a_wrong_config_is_rejected(change, line):
    with pytest.raises(ValidationError, match=line):
        Config.model_validate(change)


@pytest.mark.slow
def test_the_table_matches_the_figures(tmp_path):
    run = finished(SMOKE.model_copy(update={"seeds": 1}), tmp_path)
    rows = run.read("net/gray/seed0")
    for state, pictures in run.arrays("net/gray/seed0").items():
        if state == "example":
            continue
        values = torch.tensor([row["redness"] for row in rows if row.get("state") == state])
        # Pictures are kept in 8 bits.
        torch.testing.assert_close(values, redness(pictures / 255), rtol=0, atol=1 / 255)
        shares = torch.tensor([row["share"] for row in rows if row.get("state") == state])
        torch.testing.assert_close(shares, hue_share(pictures / 255), rtol=0, atol=0.01)


@pytest.mark.slow
def test_without_learning_no_claim_holds(tmp_path):
    """The step size of the null run is 1e-9; batch-norm statistics are collected as ever."""
    run = finished(SMOKE.model_copy(update={"step_size": 1e-9}), tmp_path)
    for claim in claims(run):
        assert claim.holds is False, claim
    for claim in claims(run)[1:]:
        assert claim.observed is not None and abs(claim.observed) < 0.01
