"""Pictures in [0, 1] and the network's inputs are converted into each other."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from contam.inputs.pixel_range import PixelRange, measured_pixel_range, pixel_range_of
from contam.models.preparation import Preparation

SIDE = 8


@given(
    low=st.floats(-5, 0),
    width=st.floats(0.1, 5),
    values=st.lists(st.floats(0, 1), min_size=3, max_size=3),
)
def test_pictures_and_inputs_are_inverse(low, width, values):
    pixel_range = PixelRange(torch.full((3,), low), torch.full((3,), low + width))
    x = torch.tensor(values)[:, None, None].expand(3, 2, 2)
    torch.testing.assert_close(pixel_range.pictures(pixel_range.inputs(x)), x, rtol=0, atol=1e-4)


def test_the_range_of_a_transform_is_black_and_white():
    normal = Preparation(SIDE, SIDE, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    values = pixel_range_of(normal)
    assert values is not None
    torch.testing.assert_close(values.low, torch.tensor([-5.0, -2.0, -1.0]))
    torch.testing.assert_close(values.high, torch.tensor([5.0, 3.0, 7 / 3]))
    assert pixel_range_of(lambda image: torch.zeros(3, 4, 4)) is None
    assert pixel_range_of(lambda image: torch.rand(3, 4, 4)) is None


def test_measured_values_within_the_unit_range_are_pictures():
    low, high = torch.tensor([0.1, 0.2]), torch.tensor([0.5, 1.0])
    unit = measured_pixel_range(low, high)
    assert unit is not None and unit.is_unit
    wide = measured_pixel_range(low - 1, high)
    assert wide is not None and torch.equal(wide.low, low - 1) and not wide.is_unit
    assert measured_pixel_range(low - 1, low - 1) is None
