"""Pictures of data, side by side."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from contam.plots.alt_text import described
from contam.plots.figure import Panel


def contact_sheet(pictures: Sequence[Sequence[np.ndarray]], *, title: str, scale: int = 3) -> Panel:
    """Rows of pictures, each (height, width, 3) with values in [0, 1], as one WebP image.

    Raises:
        ValueError: there are none, or they differ in size.
    """
    sizes = {np.shape(picture) for row in pictures for picture in row}
    if len(sizes) != 1:
        raise ValueError(
            f"a contact sheet needs pictures of one size, not {sorted(sizes) or 'none at all'}"
        )
    height, width = (scale * side for side in next(iter(sizes))[:2])
    gap = 4
    across = max(len(row) for row in pictures)
    shape = (len(pictures) * (height + gap) - gap, across * (width + gap) - gap, 4)
    sheet = np.zeros(shape, np.uint8)
    for i, row in enumerate(pictures):
        for j, picture in enumerate(row):
            tile = np.asarray(picture).clip(0, 1).repeat(scale, 0).repeat(scale, 1)
            top, left = i * (height + gap), j * (width + gap)
            sheet[top : top + height, left : left + width, :3] = np.rint(255 * tile)
            sheet[top : top + height, left : left + width, 3] = 255
    file = BytesIO()
    Image.fromarray(sheet, "RGBA").save(file, "WEBP", lossless=True)
    facts = [f"{len(pictures)} row{'s' * (len(pictures) != 1)} of {across} pictures"]
    said = described("Pictures", title, facts)
    return Panel(title, said, picture=file.getvalue(), wide=True)
