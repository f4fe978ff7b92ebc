"""The embedded benchmark as files: what its folders and pictures are called and hold.

    train/<class>/<number>-<family>.png        also id_val and id_test
    ood/<family>/<class>/<number>-<family>.png
    masks/...                                  each picture's mask, under the same path

Folders are read in the order of their names. Classes whose names are in another order than their
labels have the label in front, so that every reader numbers them as they are numbered here.
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
"""The folder of the masks; no split lies in it, so no reader of a split meets them."""


def class_folders(core: Core) -> tuple[str, ...]:
    """The folders of the classes, in the order of their labels and of their names."""
    names = CORES[core]
    if list(names) == sorted(names):
        return names
    return tuple(f"{label}_{name}" for label, name in enumerate(names))


def pictures(
    split: str, shown: Scenes, *, core: Core = "shapes", domains: bool = False
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Path and content of the PNG file of every picture of a split, each followed by its mask.

    Numbers are places in the split. A mask is gray, and white where the object is. `domains` puts
    a folder for each family of backgrounds above those of the classes.

    Source: ours, the layout that most tools share.
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
