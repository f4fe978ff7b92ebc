"""Conversion of colors from hue, saturation and value to RGB."""

import torch
from jaxtyping import Float
from torch import Tensor


def rgb(
    hue: Float[Tensor, "*n 1"], saturation: Float[Tensor, "*n 1"], value: Float[Tensor, "*n 1"]
) -> Float[Tensor, "*n 3"]:
    """Convert HSV colors to RGB.

    Args:
        hue: hue in turns; any real number.
        saturation: saturation in [0, 1].
        value: value in [0, 1].

    Returns:
        Red, green and blue in [0, 1].

    Source: ours, the conversion of the standard library's colorsys.

    >>> rgb(torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([1.0])).round().tolist()
    [1.0, 0.0, 0.0]
    """
    # A channel has its full value within a sixth of a turn of its own hue and decreases from there.
    turns = (hue + torch.tensor([0.0, 2 / 3, 1 / 3])) % 1
    fade = ((turns - 0.5).abs() * 6 - 1).clamp(0, 1)
    return value * (1 - saturation * (1 - fade))
