"""Signed distances against a second derivation that knows nothing but which points are inside."""

import math

import pytest
import torch
from scipy.ndimage import distance_transform_edt

from contam.data.outlines import OUTLINES, circle, crescent, heart, polygon, ring

STEP = 0.01
SPAN = torch.arange(-2, 2, STEP, dtype=torch.float64) + STEP / 2
X, Y = (axis.contiguous() for axis in torch.meshgrid(SPAN, SPAN, indexing="xy"))


@pytest.mark.parametrize("name", OUTLINES)
def test_distances_are_those_to_the_nearest_point_of_the_outline(name):
    distance = OUTLINES[name](X, Y)
    inside = (distance < 0).numpy()
    out, into = (torch.as_tensor(distance_transform_edt(side)) for side in (~inside, inside))
    assert (distance - STEP * (out - into)).abs().max() < 3 * STEP


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("disk", math.pi * 0.85**2),
        ("ring", math.pi * (1.02**2 - 0.42**2)),
        ("square", 1.5**2),
        ("triangle", 0.95 * 1.8),
        ("plus", 2 * 2.0 * 0.64 - 0.64**2),
        ("star", 5 * 1.15 * 0.52 * math.sin(math.pi / 5)),
        ("L", 0.6 * 2.0 + 0.95 * 0.6),
        ("bar", 2.2 * 0.72),
        ("heart", 1.15**2 + math.pi * (1.15 / 2) ** 2),
    ],
)
def test_areas_by_hand(name, area):
    assert float((OUTLINES[name](X, Y) < 0).sum()) * STEP**2 == pytest.approx(area, rel=0.01)


def test_a_crescent_is_the_difference_of_two_disks():
    expected = (circle(X, Y, 1.0) < 0) & (circle(X - 0.5, Y, 0.8) > 0)
    assert torch.equal(crescent(X, Y) < 0, expected)


def test_distances_of_points_by_hand():
    def at(outline, x, y):
        return float(outline(torch.tensor([x]), torch.tensor([y])))

    assert at(circle, 3.0, 4.0) == pytest.approx(5 - 0.85)
    assert at(ring, 0.0, 0.0) == pytest.approx(0.42)
    unit = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    assert at(lambda x, y: polygon(x, y, unit), 0.5, 0.6) == pytest.approx(-0.4)
    assert at(lambda x, y: polygon(x, y, unit), 4.0, 5.0) == pytest.approx(5.0)
    tip = 1.15 / math.sqrt(2) * 1.05
    assert at(heart, 0.0, tip + 0.25) == pytest.approx(0.25)
    assert at(heart, 0.0, tip - math.sqrt(2) * 1.15) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["disk", "ring", "square", "triangle", "plus", "star", "heart"])
def test_outlines_have_their_symmetries(name):
    torch.testing.assert_close(OUTLINES[name](X, Y), OUTLINES[name](-X, Y))
