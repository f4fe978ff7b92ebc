"""Pictures in [0, 1] beside what a network wants to be shown."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from contam.data.images import read

Transform = Callable[[Image.Image], Tensor]
"""From an image to what the network sees."""
SIDE = 64
"""Pixels of the plain images that a transform is tried on; it resizes them as it wants."""


@dataclass(frozen=True, eq=False)
class PixelRange:
    """What black and white are to a network, in each channel."""

    low: Float[Tensor, " channels"]
    high: Float[Tensor, " channels"]

    def pictures(self, x: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """Inputs of the network as pictures: black is 0, white is 1."""
        low, high = self._beside(x)
        return (x - low) / (high - low)

    def inputs(self, pictures: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """Pictures as the network wants them."""
        low, high = self._beside(pictures)
        return low + pictures * (high - low)

    def _beside(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.low.to(x)[:, None, None], self.high.to(x)[:, None, None]

    @property
    def plain(self) -> bool:
        """Whether pictures are inputs as they are."""
        return bool((self.low == 0).all() and (self.high == 1).all())


def span_of(transform: Transform) -> PixelRange | None:
    """What a transform makes of black and white, if it treats every pixel alike."""
    try:
        black, white = (
            transform(Image.new("RGB", (SIDE, SIDE), color)) for color in ("black", "white")
        )
    except Exception:  # it is anybody's code, and images of the data set may suit it better
        return None
    if not _even(black) or not _even(white) or black.shape != white.shape:
        return None
    low, high = black.mean((1, 2)), white.mean((1, 2))
    return PixelRange(low, high) if (high > low).all() else None


def _even(image: Tensor) -> bool:
    if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
        return False
    return bool((image.amax((1, 2)) - image.amin((1, 2)) < 1e-4).all())


def mask_from(file: Path, transform: Transform) -> Float[Tensor, "1 height width"]:
    """A gray picture of where the object is, moved and resized as the transform does with images.

    Values are shares in [0, 1].

    Raises:
        ValueError: the file can't be read, or the transform is not one of pixels.
    """
    mask = read(file)
    black, white, seen = (
        transform(each)
        for each in (Image.new("RGB", mask.size, "black"), Image.new("RGB", mask.size, "white"),
                     mask)
    )  # fmt: skip
    if not (white > black).all():
        raise ValueError(
            f"can't show the mask {file} through this transform; give masks as a tensor "
            "(n, 1, height, width) at the size of the network's input"
        )
    return ((seen - black) / (white - black))[:1].clamp(0, 1)


def measured_span(
    low: Float[Tensor, " channels"], high: Float[Tensor, " channels"]
) -> PixelRange | None:
    """The span of data of which only the smallest and the largest values are known.

    Pictures that lie in [0, 1] stay as they are; None where a channel has a single value.
    """
    if (low >= 0).all() and (high <= 1).all():
        return PixelRange(torch.zeros_like(low), torch.ones_like(high))
    return PixelRange(low, high) if (high > low).all() else None
