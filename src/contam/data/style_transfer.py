"""Style transfer by the statistics of filter responses, without any trained network."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LEVELS = 3
"""Levels of the Laplacian pyramid: details of about 1, 2 and 4 pixels, and the blurred rest."""
LEAST_STD = 1e-3
"""Standard deviations below this count as this one, so that flat images stay flat."""


def restyled(
    x: Float[Tensor, "n channels side side"],
    style: Float[Tensor, "n channels side side"],
    strength: float,
    *,
    levels: int = LEVELS,
) -> Float[Tensor, "n channels side side"]:
    """Move the statistics of images toward those of style images.

    Each image is split into a Laplacian pyramid. The mean and the standard deviation of every
    channel of every level become those of the style image. This is adaptive instance normalization
    with a fixed bank of filters in place of a trained encoder and decoder: it transfers colors,
    contrast and the strength of details, and no shapes of the style.

    Args:
        x: images in [0, 1].
        style: a style image for each image.
        strength: share of the transfer, in [0, 1]; 0 returns `x`.
        levels: number of detail levels of the pyramid; 0 transfers colors and contrast only.

    Returns:
        Images in [0, 1].

    Raises:
        ValueError: the strength is outside [0, 1], or the shapes differ.

    Source: Fig. 6; Huang and Belongie (2017) for the statistics.

    >>> x, style = torch.rand(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.5)
    >>> torch.equal(restyled(x, style, 0.0), x)
    True
    >>> restyled(x, style, 1.0, levels=0).mean((0, 2, 3))
    tensor([0.5000, 0.5000, 0.5000])
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be in [0, 1], got {strength}")
    if x.shape != style.shape:
        raise ValueError(
            f"want a style image of the same shape for each image, got {tuple(style.shape)} for "
            f"{tuple(x.shape)}"
        )
    if strength == 0:
        return x
    pairs = zip(_pyramid(x, levels), _pyramid(style, levels), strict=True)
    whole = torch.stack([_matched(own, other) for own, other in pairs]).sum(dim=0)
    return torch.lerp(x, whole.clamp(0, 1), strength)


def _pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """Split images into details of growing size and the blurred rest, which sum to the images."""
    parts = []
    for level in range(levels):
        blurred = _blurred(x, 2**level)
        parts.append(x - blurred)
        x = blurred
    return [*parts, x]


def _blurred(x: Tensor, step: int) -> Tensor:
    """Average neighbors at a distance of `step` pixels with weights 1, 2, 1 in both axes."""
    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = (line[:, None] * line).expand(x.shape[1], 1, 3, 3)
    padded = F.pad(x, (step,) * 4, mode="replicate")
    return F.conv2d(padded, kernel, dilation=step, groups=x.shape[1])


def _matched(x: Tensor, style: Tensor) -> Tensor:
    """Give each channel the style's mean and standard deviation over space."""
    own, other = (
        torch.std_mean(part, dim=(2, 3), keepdim=True, correction=0) for part in (x, style)
    )
    return (x - own[1]) / own[0].clamp(min=LEAST_STD) * other[0] + other[1]
