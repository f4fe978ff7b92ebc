"""Contact sheets: images in rows and columns."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from contam.plots.alt_text import describe
from contam.plots.figure import Panel


def channels_last(images: Any) -> list[np.ndarray]:
    """Return images of a network as pictures.

    Args:
        images: (n, channels, height, width), a tensor or an array.

    Returns:
        An array (height, width, channels) for each image.

    >>> channels_last(np.zeros((4, 3, 8, 6)))[0].shape
    (8, 6, 3)
    """
    return [*np.moveaxis(np.asarray(images), 1, -1)]


def contact_sheet(pictures: Sequence[Sequence[np.ndarray]], *, title: str, scale: int = 3) -> Panel:
    """Arrange images in rows as one lossless WebP image.

    Args:
        pictures: Rows of images, each (height, width, 3) with values in [0, 1]; values outside are
            clipped. Rows may have different lengths.
        title: Title of the panel.
        scale: Pixels of the sheet for each pixel of an image.

    Returns:
        A panel with a picture instead of a chart. Gaps between images are transparent.

    Raises:
        ValueError: there is no image, or images differ in size.

    >>> panel = contact_sheet([[np.zeros((2, 2, 3)), np.ones((2, 2, 3))]], title="Samples")
    >>> panel.description
    'Pictures, Samples. 1 row of 2 pictures.'
    """
    sizes = {np.shape(picture) for row in pictures for picture in row}
    if len(sizes) != 1:
        raise ValueError(
            f"a contact sheet needs pictures of one size, not {sorted(sizes) or 'none at all'}"
        )
    height, width = (scale * side for side in next(iter(sizes))[:2])
    gap = 4
    columns = max(len(row) for row in pictures)
    shape = (len(pictures) * (height + gap) - gap, columns * (width + gap) - gap, 4)
    sheet = np.zeros(shape, np.uint8)
    for i, row in enumerate(pictures):
        for j, picture in enumerate(row):
            tile = np.asarray(picture).clip(0, 1).repeat(scale, 0).repeat(scale, 1)
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width, :3] = np.rint(255 * tile)
            sheet[top : top + height, left : left + width, 3] = 255
    file = BytesIO()
    Image.fromarray(sheet, "RGBA").save(file, "WEBP", lossless=True)
    facts = [f"{len(pictures)} row{'s' * (len(pictures) != 1)} of {columns} pictures"]
    description = describe("Pictures", title, facts)
    return Panel(title, description, picture=file.getvalue(), wide=True)
