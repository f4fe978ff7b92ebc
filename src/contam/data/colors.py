"""Colors by hue, saturation and value, many at once."""

import torch
from jaxtyping import Float
from torch import Tensor


def rgb(
    hue: Float[Tensor, "*n 1"], saturation: Float[Tensor, "*n 1"], value: Float[Tensor, "*n 1"]
) -> Float[Tensor, "*n 3"]:
    """Red, green and blue in [0, 1], from saturation and value in [0, 1] and hue in turns.

    Source: ours, the conversion of the standard library's colorsys.
    """
    # A channel is at full value within a sixth of a turn of its own hue, and falls from there.
    turns = (hue + torch.tensor([0.0, 2 / 3, 1 / 3])) % 1
    fade = ((turns - 0.5).abs() * 6 - 1).clamp(0, 1)
    return value * (1 - saturation * (1 - fade))
