"""Style transfer: statistics are those of the style, and the image is otherwise unchanged."""

import pytest
import torch
from support.noise import noise

from contam.data.shapes import stylized
from contam.data.style_transfer import restyled


def images(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and styles whose values stay away from 0 and 1, where the result is clipped."""
    both = 0.5 + 0.04 * noise(2, n, 3, 16, 16)
    return both[0], 0.4 + 0.5 * (both[1] - 0.5)


def test_mean_and_contrast_become_those_of_the_style():
    x, style = images()
    moved = restyled(x, style, 1.0, levels=0)
    for statistic in (torch.mean, torch.std):
        torch.testing.assert_close(statistic(moved, dim=(2, 3)), statistic(style, dim=(2, 3)))


def test_an_image_in_its_own_style_is_unchanged():
    x, _ = images()
    torch.testing.assert_close(restyled(x, x, 1.0), x, rtol=0, atol=1e-5)


def test_strength_interpolates():
    x, style = images()
    none, half, full = (restyled(x, style, strength) for strength in (0.0, 0.5, 1.0))
    assert torch.equal(none, x)
    torch.testing.assert_close(half, (x + full) / 2)


def test_levels_transfer_the_strength_of_fine_details():
    """A smooth style removes pixel noise with levels, and keeps its share of contrast without."""
    x, _ = images()
    ramp = torch.linspace(0.2, 0.8, 16).expand_as(x)
    details = [
        restyled(x, ramp, 1.0, levels=levels).diff(dim=2).square().mean() for levels in (0, 3)
    ]
    assert details[1] < details[0] / 10


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_a_strength_outside_0_and_1_is_rejected(strength):
    x, style = images()
    with pytest.raises(ValueError, match="strength must be in"):
        restyled(x, style, strength)


def test_the_stylized_shift_keeps_objects_and_starts_at_id_images():
    none, full = (stylized(0, strength, n=200) for strength in (0.0, 1.0))
    assert torch.equal(none.y, full.y) and torch.equal(none.mask, full.mask)
    assert torch.equal(none.domain, full.domain)
    changed = (none.x - full.x).abs().mean(dim=(1, 2, 3))
    assert changed.median() > 0.05
