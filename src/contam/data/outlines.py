"""Ten outlines as exact signed distances: negative inside, positive outside.

Each is about as large as the unit disk and points up (y increases downwards, like the rows of an
image).
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Outline = Callable[[Tensor, Tensor], Tensor]
"""A function from coordinates x and y to distances of the same shape."""


def circle(
    x: Float[Tensor, "*n"], y: Float[Tensor, "*n"], radius: float = 0.85
) -> Float[Tensor, "*n"]:
    """Return the distance to a circle around the origin.

    Args:
        x: horizontal coordinates.
        y: vertical coordinates.
        radius: radius of the circle.

    Source: ours, elementary geometry.

    >>> circle(torch.tensor([2.0]), torch.tensor([0.0]), radius=0.5).tolist()
    [1.5]
    """
    return torch.hypot(x, y) - radius


def ring(
    x: Float[Tensor, "*n"], y: Float[Tensor, "*n"], radius: float = 0.72, half: float = 0.3
) -> Float[Tensor, "*n"]:
    """Return the distance to a band along a circle.

    Args:
        x: horizontal coordinates.
        y: vertical coordinates.
        radius: radius of the circle.
        half: half of the width of the band.

    Source: ours, elementary geometry.

    >>> ring(torch.tensor([0.0, 1.0]), torch.zeros(2), radius=1.0, half=0.25).tolist()
    [0.75, -0.25]
    """
    return (torch.hypot(x, y) - radius).abs() - half


def polygon(
    x: Float[Tensor, "*n"], y: Float[Tensor, "*n"], corners: Sequence[tuple[float, float]]
) -> Float[Tensor, "*n"]:
    """Return the distance to a polygon without crossing edges.

    Args:
        x: horizontal coordinates.
        y: vertical coordinates.
        corners: corners (x, y) in order.

    Source: ours, the nearest edge, with the sign by counting crossings of a ray.

    >>> square = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    >>> polygon(torch.tensor([0.0, 3.0]), torch.zeros(2), square).tolist()
    [-1.0, 2.0]
    """
    nearest = torch.full_like(x, math.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        along_x, along_y = x1 - x0, y1 - y0
        from_x, from_y = x - x0, y - y0
        share = (from_x * along_x + from_y * along_y) / (along_x**2 + along_y**2)
        share = share.clamp_(0, 1)
        gap = (from_x - share * along_x).square_() + (from_y - share * along_y).square_()
        nearest = torch.minimum(nearest, gap)
        if along_y:  # a horizontal edge crosses no horizontal ray
            crosses = (y < y0) != (y < y1)
            inside ^= crosses & (from_x < from_y * (along_x / along_y))
    distance = nearest.sqrt_()
    return torch.where(inside, -distance, distance)


def crescent(
    x: Float[Tensor, "*n"], y: Float[Tensor, "*n"], bite: float = 0.8, shift: float = 0.5
) -> Float[Tensor, "*n"]:
    """Return the distance to the unit disk minus another disk.

    Args:
        x: horizontal coordinates.
        y: vertical coordinates.
        bite: radius of the other disk.
        shift: distance of its center to the right of the origin.

    Source: ours, elementary geometry.

    >>> crescent(torch.tensor([-2.0, 0.5]), torch.zeros(2), bite=0.75).tolist()
    [1.0, 0.75]
    """
    y = y.abs()
    # The two circles meet in a horn. It is the nearest point of all points beyond it, within the
    # angle between the outline's two normals.
    horn_x = (1 - bite**2 + shift**2) / (2 * shift)
    horn_y = math.sqrt(1 - horn_x**2)
    beyond = (x * horn_y - y * horn_x) > shift * (horn_y - y).clamp(min=0)
    horn = torch.hypot(x - horn_x, y - horn_y)
    arcs = torch.maximum(torch.hypot(x, y) - 1, bite - torch.hypot(x - shift, y))
    return torch.where(beyond, horn, arcs)


def heart(
    x: Float[Tensor, "*n"], y: Float[Tensor, "*n"], side: float = 1.15
) -> Float[Tensor, "*n"]:
    """Return the distance to a square on its corner with half a disk on each upper edge.

    Args:
        x: horizontal coordinates.
        y: vertical coordinates.
        side: side of the square.

    Source: ours, elementary geometry.

    >>> heart(torch.tensor([0.0, 3.0]), torch.zeros(2)) < 0
    tensor([ True, False])
    """
    # In the right half the outline is a straight edge from the tip, then half a circle that ends
    # at the notch. Here `u` runs along that edge and `v` across it, towards the left; the half
    # disk's center is the middle of the edge u = side.
    right, up = x.abs(), side / math.sqrt(2) * 1.05 - y
    u, v = (right + up) / math.sqrt(2), (up - right) / math.sqrt(2)
    arc = torch.hypot(u - side, v - side / 2)
    edge = torch.hypot(u - u.clamp(0, side), v)
    notch = torch.hypot(u - side, v - side)
    above = u > side
    inside = (above & (arc < side / 2)) | (~above & (v > 0))
    round_part = torch.where(above, (arc - side / 2).abs(), math.inf)
    distance = torch.minimum(torch.minimum(edge, notch), round_part)
    return torch.where(inside, -distance, distance)


def _box(width: float, height: float) -> list[tuple[float, float]]:
    return [(-width, -height), (width, -height), (width, height), (-width, height)]


def _spikes(count: int, outer: float, inner: float) -> list[tuple[float, float]]:
    """Return a star's corners, with one spike upwards."""
    turns = [math.pi * k / count for k in range(2 * count)]
    radii = [outer, inner] * count
    return [(r * math.sin(t), -r * math.cos(t)) for r, t in zip(radii, turns, strict=True)]


def _plus(reach: float, half: float) -> list[tuple[float, float]]:
    quarter = [(half, -reach), (half, -half), (reach, -half)]
    corners = []
    for _ in range(4):
        corners += quarter
        quarter = [(-y, x) for x, y in quarter]
    return corners


_SQUARE = _box(0.75, 0.75)
_TRIANGLE = [(0.0, -1.05), (0.95, 0.75), (-0.95, 0.75)]
_PLUS = _plus(1.0, 0.32)
_STAR = _spikes(5, 1.15, 0.52)
_ANGLE = [(-0.75, -1.0), (-0.15, -1.0), (-0.15, 0.4), (0.8, 0.4), (0.8, 1.0), (-0.75, 1.0)]
_BAR = _box(1.1, 0.36)

OUTLINES: dict[str, Outline] = {
    "disk": circle,
    "ring": ring,
    "square": lambda x, y: polygon(x, y, _SQUARE),
    "triangle": lambda x, y: polygon(x, y, _TRIANGLE),
    "plus": lambda x, y: polygon(x, y, _PLUS),
    "star": lambda x, y: polygon(x, y, _STAR),
    "crescent": crescent,
    "L": lambda x, y: polygon(x, y, _ANGLE),
    "bar": lambda x, y: polygon(x, y, _BAR),
    "heart": heart,
}
"""The classes of the embedded benchmark, in the order of their labels."""
