"""Pictures in [0, 1], and the values that a network takes for black and white."""

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
"""Pixels of the plain images that a transform is probed with; it may resize them."""


@dataclass(frozen=True, eq=False)
class PixelRange:
    """The values of black and white in each channel of a network's input.

    >>> pixel_range = PixelRange(torch.tensor([-1.0]), torch.tensor([1.0]))
    >>> pixel_range.pictures(torch.zeros(1, 2, 2)).tolist()
    [[[0.5, 0.5], [0.5, 0.5]]]
    """

    low: Float[Tensor, " channels"]
    high: Float[Tensor, " channels"]

    def pictures(self, x: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """Convert inputs of the network to pictures: black is 0, white is 1."""
        low, high = self._broadcast(x)
        return (x - low) / (high - low)

    def inputs(self, pictures: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """Convert pictures in [0, 1] to inputs of the network."""
        low, high = self._broadcast(pictures)
        return low + pictures * (high - low)

    def _broadcast(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.low.to(x)[:, None, None], self.high.to(x)[:, None, None]

    @property
    def is_unit(self) -> bool:
        """Whether the network takes pictures in [0, 1] as they are."""
        return bool((self.low == 0).all() and (self.high == 1).all())


def pixel_range_of(transform: Transform) -> PixelRange | None:
    """What a transform makes of black and white, or None if it does not treat every pixel alike.

    >>> from contam.data.images import pixels
    >>> pixel_range_of(pixels).is_unit
    True
    """
    try:
        black, white = (
            transform(Image.new("RGB", (SIDE, SIDE), color)) for color in ("black", "white")
        )
    except Exception:  # the transform is the user's, and may need images of another kind
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
    """The pixel range of data of which only the smallest and largest values are known.

    Values within [0, 1] are taken for pictures as they are. None where a channel is constant.

    >>> measured_pixel_range(torch.tensor([0.1]), torch.tensor([0.9])).is_unit
    True
    """
    if (low >= 0).all() and (high <= 1).all():
        return PixelRange(torch.zeros_like(low), torch.ones_like(high))
    return PixelRange(low, high) if (high > low).all() else None


def mask_from(file: Path, transform: Transform) -> Float[Tensor, "1 height width"]:
    """Read a gray picture of where the object is, resized and cropped as images are.

    Returns:
        The share of each pixel that the object covers, in [0, 1].

    Raises:
        ValueError: the file can't be read, or the transform does not work pixel by pixel.
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
