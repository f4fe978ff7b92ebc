"""One size for the images of all sets where the user gives no transform."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageOps
from torch import Tensor

from contam.data.images import centered, open_image, pixels
from contam.inputs.pixel_range import Transform

SIDE = 224
"""Side in pixels of the crops where no size is common."""
READERS = 8
"""Number of threads that read the first bytes of files."""
Size = tuple[int, int]
"""Width and height in pixels."""


def one_size(
    sets: Sequence[tuple[str, Path | None, Sequence[Path]]], wanted: Size | None = None
) -> tuple[Transform, list[list[str]]]:
    """Return a transform that gives all images one size, and sentences about what it changes.

    Images of one size are not resized. Otherwise, images get the wanted size, or the size that most
    of the first set have, or else 224 x 224 pixels. They are resized to cover it, and their center
    is cropped.

    Args:
        sets: name, folder and image files of each set; the files' first bytes are read.
        wanted: width and height that images should have.

    Returns:
        The transform, and sentences for each set.

    Source: ours, so that one odd image does not change all others.

    >>> for name, side in (("a.png", 4), ("b.png", 4), ("c.png", 6)):
    ...     Image.new("RGB", (side, side)).save(name)
    >>> files = [Path("a.png"), Path("b.png"), Path("c.png")]
    >>> transform, ((note,),) = one_size([("ID", Path("."), files)])
    >>> note[:62]
    "1 of 3 images of 'ID' is not 4 x 4 pixels, the first c.png (6 "
    """
    with ThreadPoolExecutor(READERS) as pool:
        sizes = [list(pool.map(_size, files)) for _, _, files in sets]
    known = {size for some in sizes for size in some if size is not None}
    if len(known | {wanted or next(iter(known), None)}) < 2:
        return pixels, [[] for _ in sets]
    first = Counter(size for size in sizes[0] if size is not None)
    common, count = first.most_common(1)[0] if first else ((SIDE, SIDE), 0)
    target = wanted or (common if 2 * count > first.total() else (SIDE, SIDE))
    notes = []
    for (name, root, files), some in zip(sets, sizes, strict=True):
        odd = [i for i, size in enumerate(some) if size not in (None, target)]
        notes.append([])
        if not odd:
            continue
        size, verb = some[odd[0]], "is" if len(odd) == 1 else "are"
        file = files[odd[0]] if root is None else files[odd[0]].relative_to(root)
        assert size is not None
        notes[-1].append(
            f"{len(odd)} of {len(some)} images of {name!r} {verb} not {_text(target)} pixels, the "
            f"first {file} ({_text(size)}): such images were resized, "
            "and their centers cropped. Give transform= to prepare images as the network was "
            "trained."
        )
    return _covering(target), notes


def _size(file: Path) -> Size | None:
    try:
        with open_image(file) as image:
            return image.size
    except Exception:  # Damaged and hostile files are reported when they are decoded.
        return None


def _text(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


def _covering(size: Size) -> Transform:
    if size == (SIDE, SIDE):
        return centered(SIDE)

    def transform(image: Image.Image) -> Tensor:
        if image.size != size:
            image = ImageOps.fit(image, size, Image.Resampling.BICUBIC)
        return pixels(image)

    return transform
