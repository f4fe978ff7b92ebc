"""The preprocessing of images for pretrained networks, with Pillow and torch only."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preparation:
    """Resize, crop the center and normalize the colors, as for evaluation.

    Source: ours, with the arithmetic of torchvision's transforms, so that pixels are the same.

    >>> Preparation(resize=32, crop=28)(Image.new("RGB", (64, 48))).shape
    torch.Size([3, 28, 28])
    """

    resize: int
    """Pixels of the short side."""
    crop: int
    """Pixels of the square, at most `resize`."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bicubic"
    """A resampling filter of Pillow, such as bicubic or bilinear."""
    squash: bool = False
    """Whether the aspect ratio is ignored, so that both sides get `resize` pixels."""

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise ValueError(
                f"can't crop {self.crop} pixels from {self.resize}; expected 1 <= crop <= resize"
            )
        if self.interpolation.upper() not in Image.Resampling.__members__:
            raise ValueError(f"no interpolation {self.interpolation!r}; choose bicubic or bilinear")

    def for_channels(self, channels: int) -> "Preparation":
        """The same for a network of gray images; networks of other channels need one of their own.

        >>> Preparation(32, 28).for_channels(1)(Image.new("RGB", (64, 48))).shape
        torch.Size([1, 28, 28])
        """
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return replace(self, mean=(mean,) * channels, std=(std,) * channels)

    def __call__(self, image: Image.Image) -> Float[Tensor, "channels side side"]:
        """The network's input for an image.

        Raises:
            ValueError: the network takes neither gray nor color images.
        """
        if len(self.mean) not in (1, 3):
            raise ValueError(
                f"the network takes {len(self.mean)} channels, which image files don't have; give "
                "transform=, or tensors"
            )
        image = image.convert("L" if len(self.mean) == 1 else "RGB")
        image = image.resize(self._size(image), Image.Resampling[self.interpolation.upper()])
        left, top = (round((side - self.crop) / 2) for side in image.size)
        image = image.crop((left, top, left + self.crop, top + self.crop))
        values = np.array(image).reshape(self.crop, self.crop, -1)
        x = torch.from_numpy(values).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std

    def _size(self, image: Image.Image) -> tuple[int, int]:
        if self.squash:
            return self.resize, self.resize
        width, height = image.size
        short = min(width, height)
        return int(self.resize * width / short), int(self.resize * height / short)
