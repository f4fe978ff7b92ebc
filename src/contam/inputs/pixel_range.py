"""Conversion between images in [0, 1] and the pixel range of a network's input."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from contam.data.images import read

Transform = Callable[[Image.Image], Tensor]
"""A function from an image to the network's input."""
SIDE = 64
"""Width in pixels of the plain images that probe a transform, which can resize them."""


@dataclass(frozen=True, eq=False)
class PixelRange:
    """The values of black and white in each channel of a network's input.

    >>> pixel_range = PixelRange(torch.tensor([-1.0]), torch.tensor([1.0]))
    >>> pixel_range.pictures(torch.zeros(1, 2, 2)).tolist()
    [[[0.5, 0.5], [0.5, 0.5]]]
    """

    low: Float[Tensor, " channels"]
    """The value of black in each channel."""
    high: Float[Tensor, " channels"]
    """The value of white in each channel."""

    def pictures(self, x: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """Convert inputs of the network to images in which black is 0 and white is 1."""
        low, high = self._broadcast(x)
        return (x - low) / (high - low)

    def inputs(self, pictures: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """Convert images in [0, 1] to inputs of the network."""
        low, high = self._broadcast(pictures)
        return low + pictures * (high - low)

    def _broadcast(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.low.to(x)[:, None, None], self.high.to(x)[:, None, None]

    @property
    def is_unit(self) -> bool:
        """Whether the network takes images in [0, 1] unchanged."""
        return bool((self.low == 0).all() and (self.high == 1).all())


def pixel_range_of(transform: Transform) -> PixelRange | None:
    """Return the values to which a transform maps black and white.

    Args:
        transform: function from an image to the network's input.

    Returns:
        The pixel range; None if the transform does not treat all pixels equally.

    >>> from contam.data.images import pixels
    >>> pixel_range_of(pixels).is_unit
    True
    """
    try:
        black, white = (
            transform(Image.new("RGB", (SIDE, SIDE), color)) for color in ("black", "white")
        )
    except Exception:  # The user's transform may need images of another kind.
        return None
    if not _uniform(black) or not _uniform(white) or black.shape != white.shape:
        return None
    low, high = black.mean((1, 2)), white.mean((1, 2))
    return PixelRange(low, high) if (high > low).all() else None


def _uniform(image: Tensor) -> bool:
    if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
        return False
    return bool((image.amax((1, 2)) - image.amin((1, 2)) < 1e-4).all())


def measured_pixel_range(
    low: Float[Tensor, " channels"], high: Float[Tensor, " channels"]
) -> PixelRange | None:
    """Return the pixel range of data with known smallest and largest values.

    Args:
        low: (channels,) smallest values.
        high: (channels,) largest values.

    Returns:
        The unit range if all values lie in [0, 1], else the given range; None if a channel is
        constant.

    >>> measured_pixel_range(torch.tensor([0.1]), torch.tensor([0.9])).is_unit
    True
    """
    if (low >= 0).all() and (high <= 1).all():
        return PixelRange(torch.zeros_like(low), torch.ones_like(high))
    return PixelRange(low, high) if (high > low).all() else None


def mask_from(file: Path, transform: Transform) -> Float[Tensor, "1 height width"]:
    """Read a gray image of the object's mask, resized and cropped as the images are.

    Args:
        file: the image file; white marks the object.
        transform: function from an image to the network's input.

    Returns:
        (1, height, width) share of each pixel that the object covers, in [0, 1].

    Raises:
        ValueError: the file can't be read, or the transform does not work pixel by pixel.

    >>> from contam.data.images import pixels
    >>> Image.new("L", (4, 4), 255).save("mask.png")
    >>> mask_from(Path("mask.png"), pixels).mean()
    tensor(1.)
    """
    mask = read(file)
    black, white, transformed = (
        transform(image)
        for image in (Image.new("RGB", mask.size, "black"), Image.new("RGB", mask.size, "white"),
                      mask)
    )  # fmt: skip
    if not (white > black).all():
        raise ValueError(
            f"can't read the mask {file} through this transform; give masks as a tensor "
            "(n, 1, height, width) at the size of the network's input"
        )
    return ((transformed - black) / (white - black))[:1].clamp(0, 1)
