"""Conversion of images in any form to one form, before the user's transform.

Every way in uses these functions: files, and datasets, loaders and arrays of images. Images become
8-bit RGB. Arrays with their channels last get them first, as networks take them. What is changed is
returned in words, so that a set can note it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image

from contam.data.image_modes import FILES_OF_WORDS, to_opaque_rgb
from contam.data.image_tree import DICOM
from contam.data.images import opened

CHANNELS = (1, 3, 4)
"""Numbers of channels of images in arrays."""
SMALLEST_SIDE = 5
"""Arrays with fewer rows or columns are not taken for images."""
FRAMES = ("GIF", "PNG", "TIFF", "WEBP")
"""Formats of files with several images in time or pages."""
FIRST_FRAME = "only the first image of files with several was used"
WINDOWED = "DICOM images were windowed to 8 bits, with bright bones"
NOT_TURNED = "the camera's orientation (EXIF) was not applied, as in torchvision"
LAST = "channels of arrays were moved from last to first"


class Picture(NamedTuple):
    """An image as 8-bit RGB, and what was changed."""

    image: Image.Image
    change: str


def read(path: Path) -> Picture:
    """Read an image file as 8-bit RGB; transparent pixels show a white background.

    Args:
        path: the file.

    Raises:
        ValueError: the file is not an image, or is damaged.

    >>> Image.new("LA", (4, 2), (0, 0)).save("gray.png")
    >>> read(Path("gray.png")).change
    'images with transparency were composited over white'
    """
    if path.suffix.lower() in DICOM:
        from contam.data.chest_xray import read as read_xray

        return Picture(read_xray(path), WINDOWED)
    try:
        image = opened(path)
        rgb, change = to_opaque_rgb(image)
        return Picture(rgb, change or _unused(image))
    # Pillow can raise almost any error for a damaged file.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot read the image {path}: {reason}") from error


def _unused(image: Image.Image) -> str:
    """Return what a file holds that is not used."""
    if image.format in FRAMES and getattr(image, "n_frames", 1) > 1:
        return FIRST_FRAME
    # Pillow turns TIFF images itself.
    turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return NOT_TURNED if turned else ""


def change_notes(name: str, changes: Iterable[str], total: int) -> list[str]:
    """Return a sentence for each kind of change, with the number of examples.

    Args:
        name: name of the set.
        changes: changes of single examples in words; empty ones are not counted.
        total: number of examples.

    >>> change_notes("ID", ["images were inverted", ""], 2)
    ["1 of 2 examples of 'ID': images were inverted."]
    """
    counts = Counter(change for change in changes if change)
    return [f"{count} of {total} examples of {name!r}: {c}." for c, count in counts.items()]


def picture_of(x: Any) -> Picture | None:
    """Return the image that an example is, or None for an example that is no image.

    Args:
        x: an image, or an array of 8 or 16 unsigned bits (height, width) or (height, width,
            channels).

    >>> picture_of(np.full((6, 6), 65535, dtype=np.uint16)).image.getpixel((0, 0))
    (255, 255, 255)
    """
    if isinstance(x, Image.Image):
        return Picture(*to_opaque_rgb(x))
    if not isinstance(x, np.ndarray) or x.dtype not in (np.uint8, np.uint16):
        return None
    if x.ndim != 2 and not (x.ndim == 3 and x.shape[-1] in CHANNELS):
        return None
    change = ""
    if x.dtype == np.uint16:
        x, change = (x // 257).astype(np.uint8), FILES_OF_WORDS
    image, more = to_opaque_rgb(Image.fromarray(x[..., 0] if x.shape[2:] == (1,) else x))
    return Picture(image, change or more)


def has_channels_last(shape: Sequence[int], axes: int) -> bool:
    """Whether an array has the shape of images with their channels last.

    Args:
        shape: shape of the array.
        axes: number of axes of one image: 3 for a single image, 4 for several.

    >>> has_channels_last((2, 8, 8, 3), 4), has_channels_last((2, 3, 8, 8), 4)
    (True, False)
    """
    if len(shape) != axes:
        return False
    rows, columns, channels = shape[-3:]
    return channels in CHANNELS and min(rows, columns) >= SMALLEST_SIDE


def channels_first(x: np.ndarray, axes: int) -> tuple[np.ndarray, str]:
    """Move the channels of images in an array from the last axis to the first.

    Args:
        x: array of images, or of anything else, which is returned unchanged.
        axes: number of axes of one image: 3 for a single image, 4 for several.

    Returns:
        The array and what was changed.

    >>> channels_first(np.zeros((2, 8, 8, 3)), 4)[0].shape
    (2, 3, 8, 8)
    """
    if x.dtype.kind not in "fu" or not has_channels_last(x.shape, axes):
        return x, ""
    x = np.moveaxis(x, -1, -3)
    if x.shape[-3] == CHANNELS[-1] and x.dtype.kind == "u":
        high = np.iinfo(x.dtype).max
        color, alpha = x[..., :3, :, :].astype(np.float64), x[..., 3:, :, :] / high
        x = np.rint(alpha * color + (1 - alpha) * high).astype(x.dtype)
    return x, LAST


def unit_bytes(x: torch.Tensor) -> torch.Tensor:
    """Divide unsigned 8- and 16-bit values by their maximum; others become single precision.

    Args:
        x: tensor of real numbers; whole numbers of other types are returned unchanged.

    >>> unit_bytes(torch.tensor([255], dtype=torch.uint8))
    tensor([1.])
    """
    if x.dtype in (torch.uint8, torch.uint16):
        return x.float() / torch.iinfo(x.dtype).max
    return x.float() if x.is_floating_point() else x
