"""Objects of some images on the backgrounds of others.

With masks, the object is cut out along its mask. Without masks, what differs from the border of the
image stands for the object, which the tests that use it have to confirm on ID images first.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contam.auditing.image_edits import blurred
from contam.rng import generator_for

WORKING_SIDE = 64
"""Pixels to which the shorter side of larger images is reduced before objects are proposed."""
FAR = 0.97
"""Share of the border's pixels that differ less from the border than an object does."""
REACH = 0.85
"""Radius of the circle in which objects are proposed, where the image's sides are at 1."""
SMALLEST, LARGEST = 0.02, 0.7
"""Shares of the image that a proposed object may cover."""

Images = Float[Tensor, "n channels height width"]
Masks = Float[Tensor, "n 1 height width"]


def proposed_masks(x: Images) -> tuple[Masks, Bool[Tensor, " n"]]:
    """Return what differs from the border of each image, as masks of its object.

    Each pixel's color, with the mean and the spread around it, is compared with those of the
    border's pixels by the Mahalanobis distance.

    Args:
        x: images.

    Returns:
        Masks that are 0 or 1, and whether each covers a plausible share of its image; an image
        without an object of its own, such as a texture, has no plausible mask.

    Source: ours; the distance is that of Mahalanobis (1936).

    >>> x = 0.1 * torch.rand(1, 3, 32, 32)
    >>> x[:, :, 12:20, 12:20] += 0.8
    >>> masks, plausible = proposed_masks(x)
    >>> bool(plausible), float(masks[0, 0, 16, 16]), float(masks[0, 0, 2, 2])
    (True, 1.0, 0.0)
    """
    size = (x.shape[2], x.shape[3])
    scale = min(1.0, WORKING_SIDE / min(size))
    small = x.float()
    if scale < 1:
        few = [max(8, round(scale * side)) for side in size]
        small = F.interpolate(small, few, mode="area")
    height, width = small.shape[2:]
    unit = min(height, width) / 32
    mean = blurred(small, 1.2 * unit)
    spread = (blurred(small**2, 1.2 * unit) - mean**2).clamp(min=0).sqrt()
    pixels = torch.cat([small, mean, spread], dim=1).flatten(2).transpose(1, 2).double()
    border = torch.ones(height, width, dtype=torch.bool)
    edge = max(2, round(0.1 * min(height, width)))
    border[edge:-edge, edge:-edge] = False
    outside = pixels[:, border.flatten()]
    center = outside.mean(1, keepdim=True)
    known = outside - center
    covariance = known.transpose(1, 2) @ known / known.shape[1]
    level = 0.02 * covariance.diagonal(dim1=1, dim2=2).mean(1) + 1e-8
    covariance = covariance + level[:, None, None] * torch.eye(pixels.shape[2]).double()
    offset = (pixels - center).transpose(1, 2)
    distance = (offset * torch.linalg.solve(covariance, offset)).sum(1).sqrt()
    distance = blurred(distance.view(-1, 1, height, width).float(), 0.7 * unit)
    limit = distance.flatten(2)[:, :, border.flatten()].quantile(FAR, dim=2)[..., None, None]
    rows, columns = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None]
    masks = (distance > limit).float() * ((rows**2 + columns**2).sqrt() < REACH)
    for sigma in (1.0, 1.5):
        masks = (blurred(masks, sigma * unit) > 0.5).float()
    share = masks.mean((1, 2, 3))
    if scale < 1:
        masks = (F.interpolate(masks, size, mode="bilinear", align_corners=False) > 0.5).float()
    return masks, (share >= SMALLEST) & (share <= LARGEST)


def donors(
    y: Int[Tensor, " n"], candidates: Int[Tensor, " m"], *, same: bool, seed: int, purpose: str
) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """Draw for each example a candidate of the same class, or one of another class.

    Args:
        y: class index of each example.
        candidates: class index of each candidate.
        same: whether the candidate has the same class.
        seed: seed of the draw.
        purpose: name of the draw.

    Returns:
        The candidate's position for each example, and whether there was one of this kind; where
        there was none, the position is that of any candidate.

    >>> positions, exist = donors(
    ...     torch.tensor([0, 1]), torch.tensor([1, 0]), same=True, seed=0, purpose="example")
    >>> positions.tolist(), exist.tolist()
    ([1, 0], [True, True])
    """
    generator = generator_for(seed, purpose)
    fits = (y[:, None] == candidates[None]) == same
    weights = fits.double() + 1e-12
    positions = torch.multinomial(weights, 1, generator=generator)[:, 0]
    return positions, fits.any(1)
