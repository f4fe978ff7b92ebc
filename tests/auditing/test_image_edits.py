"""Edits of whole images against formulas, other libraries and their own inverses."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from contam.auditing.image_edits import (
    HALVES,
    IMAGENET,
    affine,
    blurred,
    channel_statistics,
    denormalized,
    median_filtered,
    noise_level,
    normalized,
    sharpened,
    sharpness,
    turned,
    with_statistics,
    zoomed,
)
from contam.auditing.interchange import donors, proposed_masks
from contam.data.object_removal import pasted
from contam.data.shapes import scenes


def images(n: int = 4, channels: int = 3, side: int = 24, seed: int = 0) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("mean", "std"), [IMAGENET, HALVES])
def test_normalization_is_undone(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    x = images()
    torch.testing.assert_close(denormalized(normalized(x, mean, std), mean, std), x)
    expected = (x[:, 0] - mean[0]) / std[0]
    torch.testing.assert_close(normalized(x, mean, std)[:, 0], expected)


def test_statistics_are_given() -> None:
    x, like = images(seed=0), 0.3 * images(seed=1) + 0.5
    mean, std = channel_statistics(with_statistics(x, *channel_statistics(like)))
    torch.testing.assert_close((mean, std), channel_statistics(like))
    flat = torch.ones(1, 3, 8, 8)
    assert with_statistics(flat, torch.zeros(3), torch.ones(3)).isfinite().all()


def test_an_affine_map_is_per_channel() -> None:
    x = images(2)
    mapped = affine(x, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 2.0]))
    torch.testing.assert_close(mapped[:, 2], 3 * x[:, 2] + 2)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_right_angles_are_exact(degrees: int) -> None:
    x = images()
    assert turned(x, degrees).equal(torch.rot90(x, degrees // 90, (2, 3)))
    assert turned(turned(x, degrees), 360 - degrees).equal(x)


@pytest.mark.parametrize("degrees", [30.0, 45.0, 135.0])
def test_other_angles_agree_with_scipy_inside(degrees: float) -> None:
    x = blurred(images(1, 1, 33), 2.0)
    expected = scipy.ndimage.rotate(
        x[0, 0].numpy(), degrees, reshape=False, order=1, mode="nearest"
    )
    rotated = turned(x, degrees)[0, 0].numpy()
    np.testing.assert_allclose(rotated[10:23, 10:23], expected[10:23, 10:23], atol=5e-3)


def test_zoom_keeps_the_center_and_is_undone() -> None:
    x = blurred(images(1, 1, 65), 5.0)
    for factor in (0.8, 1.25):
        again = zoomed(zoomed(x, factor), 1 / factor)
        torch.testing.assert_close(
            again[..., 20:45, 20:45], x[..., 20:45, 20:45], atol=5e-3, rtol=0
        )
        assert abs(float(zoomed(x, factor)[0, 0, 32, 32] - x[0, 0, 32, 32])) < 1e-3


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.5])
def test_blur_agrees_with_scipy(sigma: float) -> None:
    x = images(1, 1, 31)
    reach = int(np.ceil(3 * sigma))
    expected = scipy.ndimage.gaussian_filter(x[0, 0].numpy(), sigma, mode="mirror", radius=reach)
    np.testing.assert_allclose(blurred(x, sigma)[0, 0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("side", [3, 5])
def test_the_median_filter_agrees_with_scipy(side: int) -> None:
    x = images(2, 3, 12)
    expected = scipy.ndimage.median_filter(x.numpy(), (1, 1, side, side), mode="mirror")
    np.testing.assert_allclose(median_filtered(x, side).numpy(), expected, atol=1e-6)


def test_sharpening_adds_what_blur_takes() -> None:
    x = images()
    torch.testing.assert_close(sharpened(x, 1.0, 2.0), 3 * x - 2 * blurred(x, 1.0))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 2.0), st.floats(0.1, 3.0))
def test_the_noise_level_scales_with_the_noise(sigma: float, scale: float) -> None:
    drawn = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    smooth = blurred(images(2, 3, 64), 4.0)
    level = noise_level(scale * (smooth + sigma * drawn))
    assert torch.allclose(level, torch.full((2,), scale * sigma), rtol=0.1)


def test_blur_lowers_sharpness_and_contrast_does_not_change_it() -> None:
    x = images(2, 3, 32)
    soft = [float(sharpness(blurred(x, s)).mean()) for s in (0.0, 0.7, 1.5, 3.0)]
    assert soft == sorted(soft, reverse=True)
    torch.testing.assert_close(sharpness(0.2 * x + 0.4), sharpness(x), rtol=1e-3, atol=0)


@pytest.mark.parametrize("families", [("clouds", "plaid"), ("any grain",)])
def test_proposed_masks_cover_the_objects(families: tuple[str, ...]) -> None:
    shown = scenes(families, 60)
    masks, plausible = proposed_masks(shown.x)
    true = shown.mask > 0.5
    covered = ((masks > 0.5) & true).sum() / true.sum()
    assert plausible.double().mean() > 0.9
    assert covered > 0.8
    assert masks.mean() < 0.45


def test_textures_have_no_object() -> None:
    texture = blurred(images(20, 3, 64), 1.0)
    masks, plausible = proposed_masks(texture)
    assert masks.mean() < 0.15 or plausible.double().mean() < 0.5


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.booleans(), st.integers(0, 10**6))
def test_donors_have_the_wanted_class(n: int, m: int, same: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    y, candidates = (torch.randint(3, (k,), generator=generator) for k in (n, m))
    positions, exist = donors(y, candidates, same=same, seed=seed, purpose="test")
    exists = ((y[:, None] == candidates[None]) == same).any(1)
    assert exist.equal(exists)
    assert ((candidates[positions] == y) == same)[exists].all()


def test_pasting_keeps_objects_and_backgrounds() -> None:
    x, behind = images(seed=0), images(seed=1)
    mask = (images(4, 1, seed=2) > 0.5).float()
    combined = pasted(x, mask, behind)
    inside = mask.expand_as(x) > 0
    assert combined[inside].equal(x[inside])
    assert combined[~inside].equal(behind[~inside])
