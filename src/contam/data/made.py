"""The embedded benchmark as image files.

    train/<class>/<number>-<family>.png        also id_val and id_test
    ood/<family>/<class>/<number>-<family>.png
    masks/...                                  the mask of each image, under the same path

Readers number classes in the order of their folders' names. If this order differs from that of the
labels, the folders have the label as a prefix.
"""

import io
from collections.abc import Iterator
from pathlib import PurePosixPath

from PIL import Image
from torch import Tensor

from contam.data.backgrounds import FAMILIES
from contam.data.objects import CORES, Core
from contam.data.shapes import Scenes

MASKS = "masks"
"""The folder of the masks, outside the folders of the splits."""


def class_folders(core: Core) -> tuple[str, ...]:
    """Return the class folders in the order of the labels, which is also that of their names.

    Args:
        core: the kind of objects.

    >>> class_folders("digits")[:3]
    ('0', '1', '2')
    """
    names = CORES[core]
    if list(names) == sorted(names):
        return names
    return tuple(f"{label}_{name}" for label, name in enumerate(names))


def pictures(
    split: str, shown: Scenes, *, core: Core = "shapes", domains: bool = False
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield path and content of the PNG file of each image and of its mask.

    Args:
        split: the folder of the split, such as `train`.
        shown: the images; their number in a file's name is their index here.
        core: the kind of objects.
        domains: whether to add a folder per family of backgrounds above the class folders.

    Yields:
        Relative path and PNG bytes. A mask is gray, and white on the object.

    Source: ours, the layout that most tools share.

    >>> from contam.data.shapes import scenes
    >>> for path, content in pictures("train", scenes(("stripes",), 10)):
    ...     print(path)
    ...     if path.parts[0] == MASKS:
    ...         break
    train/0_disk/00000-stripes.png
    masks/train/0_disk/00000-stripes.png
    """
    classes, families = class_folders(core), list(FAMILIES)
    colors, masks = _eight_bits(shown.x), _eight_bits(shown.mask)
    for k, (label, index) in enumerate(zip(shown.y.tolist(), shown.domain.tolist(), strict=True)):
        folder = PurePosixPath(split, families[index] if domains else "", classes[label])
        path = folder / f"{k:05}-{families[index]}.png"
        yield path, _png(Image.fromarray(colors[k].permute(1, 2, 0).numpy()))
        yield MASKS / path, _png(Image.fromarray(masks[k, 0].numpy()))


def _eight_bits(shares: Tensor) -> Tensor:
    return (255 * shares).round().byte()


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
