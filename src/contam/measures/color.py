"""Which colors the first layer answers to.

A network that learned inside a frame of one color turns its filters away from that color: they
take sides between it and its complement. So the frame shows along its hue, while the share along
the color itself, which is mostly brightness, is smaller than in a network without such a frame.
"""

from jaxtyping import Float
from torch import Tensor


def hue_axis(color: Float[Tensor, " 3"]) -> Float[Tensor, " 3"]:
    """What sets a color apart from the gray of its brightness: the axis to its complement.

    Source: ours, since brightness alone says little about a frame.

    Raises:
        ValueError: the color is a gray.
    """
    if color.amax() == color.amin():
        raise ValueError("black, gray and white have no hue; choose a color")
    return color - color.mean()


def color_energy_share(
    filters: Float[Tensor, "filters 3 height width"], axis: Float[Tensor, " 3"]
) -> Float[Tensor, ""]:
    """The share of the filters' squared weights that lies along a color, in [0, 1].

    1 if every weight triple is a multiple of the color, 0 if all are orthogonal to it, 1/3 on
    average for triples without direction. Needs no centering: black has no effect on a filter.

    Source: ours, the first layer's part in the framed images.

    Raises:
        ValueError: the axis is black, or all weights are zero.
    """
    along = (filters * _direction(axis)[:, None, None]).sum(dim=1)
    energy = filters.square().sum()
    if energy == 0:
        raise ValueError("all weights are zero, so they lie along no color")
    return along.square().sum() / energy


def color_cosine(
    filters: Float[Tensor, "filters 3 height width"], axis: Float[Tensor, " 3"]
) -> Float[Tensor, " filters"]:
    """|cos| between a color and what each filter adds up to, in [0, 1].

    The sum over the filter's positions is what an area of one color, such as a frame, meets. It
    is 1/2 on average for sums without direction, and nan for a filter that adds up to nothing.

    Source: ours, the first layer's part in the framed images.

    Raises:
        ValueError: the axis is black.
    """
    sums = filters.sum(dim=(2, 3))
    return (sums @ _direction(axis)).abs() / sums.norm(dim=1)


def _direction(axis: Tensor) -> Tensor:
    if not axis.any():
        raise ValueError("black is no direction in color space; choose another axis")
    return axis / axis.norm()
