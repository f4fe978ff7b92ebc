"""Energy shares of filters along colors, on filters of known colors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.noise import noise

from contam.data.digits import FRAMES, frame_color
from contam.measures.color import color_energy_share, hue_axis

RED = torch.tensor([150.0, 50.0, 50.0])


def filters_of(color: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Filters with a pattern of their own, in one color."""
    return noise(6, 1, 3, 3, seed=seed) * color[:, None, None]


def test_share_along_an_axis_by_hand():
    filters = torch.tensor([[[[3.0]], [[4.0]], [[0.0]]], [[[0.0]], [[0.0]], [[2.0]]]])
    axis = torch.tensor([0.0, 10.0, 0.0])
    assert color_energy_share(filters, axis).item() == pytest.approx(16 / 29)


def test_filters_of_one_color_lie_along_that_color_only():
    across = torch.linalg.cross(RED, torch.tensor([0.0, 1.0, 0.0]))
    assert color_energy_share(filters_of(RED), RED).item() == pytest.approx(1)
    assert color_energy_share(filters_of(across), RED).item() == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 1000))
def test_shares_along_three_orthogonal_axes_add_up(seed):
    filters = noise(5, 3, 3, 3, seed=seed)
    axes, _ = torch.linalg.qr(noise(3, 3, seed=seed + 1))
    total = sum(color_energy_share(filters, axis).item() for axis in axes.T)
    assert total == pytest.approx(1, rel=1e-5)


@given(st.integers(0, 1000), st.floats(0.1, 10), st.booleans())
def test_only_the_direction_of_the_axis_matters(seed, length, flipped):
    filters = noise(5, 3, 3, 3, seed=seed)
    other = RED * length * (-1 if flipped else 1)
    torch.testing.assert_close(color_energy_share(filters, other), color_energy_share(filters, RED))


def test_filters_without_a_direction_have_the_documented_share():
    filters = noise(20_000, 3, 1, 1)
    assert color_energy_share(filters, RED).item() == pytest.approx(1 / 3, abs=0.01)


def test_hue_is_orthogonal_to_gray_and_opposite_for_the_complement():
    red, cyan = hue_axis(frame_color("red")), hue_axis(frame_color("cyan"))
    assert red.sum().item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(red, -cyan)
    assert (red / red[0]).tolist() == pytest.approx([1, -0.5, -0.5])


@pytest.mark.parametrize("frame", ["gray", "black", "white"])
def test_grays_have_no_hue(frame):
    assert frame in FRAMES
    with pytest.raises(ValueError, match="have no hue"):
        hue_axis(frame_color(frame))


def test_black_is_rejected_as_an_axis():
    with pytest.raises(ValueError, match="black has no direction"):
        color_energy_share(noise(5, 3, 3, 3), torch.zeros(3))


def test_zero_filters_are_rejected():
    with pytest.raises(ValueError, match="all weights are zero"):
        color_energy_share(torch.zeros(5, 3, 3, 3), RED)
