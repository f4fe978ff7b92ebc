"""Colors to which the filters of a first layer respond.

A network that is trained on images inside a frame of one color turns its filters away from that
color: they separate it from its complement. So the frame shows along its hue, while the share of
energy along the color itself, which is mostly brightness, is smaller than without a frame.
"""

from jaxtyping import Float
from torch import Tensor


def hue_axis(color: Float[Tensor, " 3"]) -> Float[Tensor, " 3"]:
    """Return the difference between a color and the gray of its brightness.

    This is the axis from the complement to the color.

    Args:
        color: Red, green and blue.

    Raises:
        ValueError: If the color is a gray.

    Source: ours, since brightness alone says little about a frame.

    >>> import torch
    >>> hue_axis(torch.tensor([3.0, 0.0, 0.0])).tolist()
    [2.0, -1.0, -1.0]
    """
    if color.amax() == color.amin():
        raise ValueError("black, gray and white have no hue; choose a color")
    return color - color.mean()


def color_energy_share(
    filters: Float[Tensor, "filters 3 height width"], axis: Float[Tensor, " 3"]
) -> Float[Tensor, ""]:
    """Return the share of the filters' squared weights that lies along a color, in [0, 1].

    It is 1 if every weight triple is a multiple of the color, 0 if all are orthogonal to it, and
    1/3 on average for triples without a preferred direction. Filters need no centering: black has
    no effect on a filter.

    Args:
        filters: Weights of a first convolution.
        axis: Direction in color space, of any length.

    Raises:
        ValueError: If the axis or all weights are zero.

    Source: ours, the role of the first layer in framed images.

    >>> import torch
    >>> red = torch.tensor([1.0, 0.0, 0.0])
    >>> color_energy_share(torch.ones(4, 3, 3, 3), axis=red)
    tensor(0.3333)
    """
    if not axis.any():
        raise ValueError("black has no direction in color space; choose another axis")
    along = (filters * (axis / axis.norm())[:, None, None]).sum(dim=1)
    energy = filters.square().sum()
    if energy == 0:
        raise ValueError("all weights are zero, so there is no energy to share")
    return along.square().sum() / energy
