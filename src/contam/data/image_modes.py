"""Conversion of images of any Pillow mode to 8-bit RGB."""

import numpy as np
from PIL import Image

BYTE, WORD = 255, 65535
WHITE_IS_ZERO = 262
"""TIFF tag of the photometric interpretation; 0 means that low values are bright."""
FILES_OF_WORDS = "16-bit images were scaled to 8 bits"
TRANSPARENT = "images with transparency were composited over white"
INVERTED = "16-bit images in which low values are bright were inverted"


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to 8-bit RGB as the published data sets' tools do.

    Transparency is dropped, so a pixel has the color stored under it. 16 bits are scaled to 8.

    Args:
        image: an image of any mode.

    Raises:
        ValueError: pixels are floating-point numbers, or Pillow has no conversion.

    >>> to_rgb(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
    (255, 255, 255)
    """
    if image.mode.startswith("I"):
        return _from_words(image)[0]
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range; save it as PNG")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def to_opaque_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Convert an image to 8-bit RGB; transparent pixels show a white background.

    Args:
        image: an image of any mode.

    Returns:
        The image, and what was changed beyond the copying of gray to three channels; empty if
        nothing was.

    Raises:
        ValueError: pixels are floating-point numbers, or Pillow has no conversion.

    >>> to_opaque_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0)))[0].getpixel((0, 0))
    (255, 255, 255)
    """
    if image.mode.startswith("I"):
        return _from_words(image)
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        if np.asarray(layered)[..., 3].min() < BYTE:
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, layered).convert("RGB"), TRANSPARENT
    return to_rgb(image), ""


def _from_words(image: Image.Image) -> tuple[Image.Image, str]:
    """Scale an image of whole numbers with more than 8 bits; Pillow would clip them at 255."""
    values = np.asarray(image).astype(np.int64)
    if image.mode == "I" and values.min() >= 0 and values.max() <= BYTE:
        return Image.fromarray(values.astype(np.uint8)).convert("RGB"), ""
    shown, change = values.clip(0, WORD) // (WORD // BYTE), FILES_OF_WORDS
    # Pillow inverts such TIFF files with 8 bits, but not with 16.
    if getattr(image, "tag_v2", {}).get(WHITE_IS_ZERO) == 0:
        shown, change = BYTE - shown, INVERTED
    return Image.fromarray(shown.astype(np.uint8)).convert("RGB"), change
