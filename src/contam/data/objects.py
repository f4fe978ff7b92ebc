"""Objects of the embedded benchmark: drawn shapes or handwritten digits.

Position, rotation, stretch and color are drawn in the same way for both and independently of the
class, so a digit has the position of the shape with the same index.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contam.data.backgrounds import SIDE, STRIPS
from contam.data.colors import rgb
from contam.data.digits import scans
from contam.data.outlines import OUTLINES
from contam.rng import generator_for

Core = Literal["shapes", "digits"]
CLASSES = tuple(OUTLINES)
CORES: dict[Core, tuple[str, ...]] = {"shapes": CLASSES, "digits": tuple("0123456789")}
"""Class names of each kind of objects, in the order of the labels."""

SIZES = (6.4, 9.2)
"""Range of half of an object's extent, in pixels."""
REACH = 4.0
"""Maximum shift of an object's center along each axis, in pixels."""
TILT = 0.35
"""Maximum rotation in either direction, in radians."""
STRETCH = 1.25
"""Maximum ratio of an object's length and width."""
RIM = 0.3
"""Brightness of a shape's rim, one pixel wide, as a share of the shape's brightness."""
NOISE = 0.02
"""Standard deviation of the pixels' noise."""
LARGER = 1.25
"""Size of digits relative to shapes, so that both cover about the same area."""
SCANS = {
    "train": slice(0, 90),
    "validation": slice(90, 100),
    "pretraining": slice(100, 140),
    "test": slice(140, None),
}
"""The scans of each digit, in random order, that each part of the data uses.

A digit has 174 to 183 scans. In total, 1000 are for training and validation, 400 for pre-training
and 397 for the test.
"""


class Objects(NamedTuple):
    """Objects without a background, with the noise of their images."""

    y: Tensor
    """(n,) class index, int64."""
    mask: Tensor
    """(n, 1, side, side) share of each pixel that the object and its rim cover."""
    color: Tensor
    """(n, 3, side, side) colors of the object."""
    noise: Tensor
    """(n, 3, side, side) noise that is added to the image."""

    def pick(self, which: Tensor | slice) -> "Objects":
        """Return the objects that a slice, a mask or an index tensor selects."""
        return Objects(*(part[which] for part in self))


def objects(n: int, *, seed: int = 0, part: str = "test", core: Core = "shapes") -> Objects:
    """Draw the first `n` objects of a part of the data; classes alternate.

    Size, position, rotation, stretch and color are independent of the class. The first objects do
    not depend on `n`. If `n` exceeds the number of scans, each scan of a part is used once before
    any is used again, in another order and with other attributes.

    Args:
        n: number of objects.
        seed: random seed.
        part: part of the data: train, validation, test or pretraining.
        core: `shapes` or `digits`.

    Raises:
        ValueError: `core` or `part` is unknown.

    Source: ours, the features that determine the class.

    >>> objects(20).y[:12].tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    """
    for what, name, known in (("core", core, CORES), ("part", part, STRIPS)):
        if name not in known:
            raise ValueError(f"no {what} {name!r}; choose from {list(known)}")
    y = torch.arange(n) % len(CLASSES)
    looks = torch.rand(n, 5, generator=generator_for(seed, f"shapes/{part} objects"))
    colors = torch.rand(n, 3, generator=generator_for(seed, f"shapes/{part} colors"))
    noise = torch.empty(n, 3, SIDE, SIDE)
    noise.normal_(std=NOISE, generator=generator_for(seed, f"shapes/{part} noise"))
    fill = rgb(colors[:, :1], 0.7 * colors[:, 1:2], 0.6 + 0.4 * colors[:, 2:])[:, :, None, None]
    size = (SIZES[0] + (SIZES[1] - SIZES[0]) * looks[:, 0])[:, None, None]
    stretch = (STRETCH ** (looks[:, 4] - 0.5))[:, None, None]
    if core == "digits":
        which = scan_numbers(n, seed=seed, part=part)
        coordinates = torch.stack(_object_coordinates(looks, LARGER * size, stretch), dim=-1)
        mask = F.grid_sample(scans()[0][which], coordinates, align_corners=False)
        return Objects(y, mask, fill.expand(n, 3, SIDE, SIDE), noise)
    distance = torch.empty(n, SIDE, SIDE)
    for label, outline in enumerate(OUTLINES.values()):
        here = y == label
        # Stretching changes distances by a few percent; the outline itself is exact.
        coordinates = _object_coordinates(looks[here], size[here], stretch[here])
        distance[here] = size[here] * outline(*coordinates)
    mask, inner = ((0.5 - distance - rim).clamp(0, 1)[:, None] for rim in (0, 1))
    return Objects(y, mask, fill * (RIM + (1 - RIM) * inner), noise)


def _object_coordinates(
    looks: Float[Tensor, "n 5"], size: Tensor, stretch: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the pixels' coordinates in the frame of the objects, which extend from -1 to 1."""
    away, tilt = REACH * (2 * looks[:, 1:3] - 1), TILT * (2 * looks[:, 3] - 1)
    pixels = torch.arange(SIDE) - (SIDE - 1) / 2
    x = pixels[None, None, :] - away[:, :1, None]
    y = pixels[None, :, None] - away[:, 1:, None]
    cos, sin = tilt.cos()[:, None, None], tilt.sin()[:, None, None]
    return (x * cos + y * sin) / (size * stretch), (y * cos - x * sin) * stretch / size


def scan_numbers(n: int, *, seed: int, part: str) -> Int[Tensor, " n"]:
    """Return the number of each object's scan; classes alternate.

    Args:
        n: number of objects.
        seed: random seed.
        part: part of the data, which determines the scans; all scans of a class are used before one
            repeats.

    >>> scans()[1][scan_numbers(12, seed=0, part="test")].tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    """
    scan = torch.empty(n, dtype=torch.int64)
    for label in range(len(CLASSES)):
        of_class = (scans()[1] == label).nonzero().flatten()
        order = torch.randperm(
            len(of_class), generator=generator_for(seed, f"shapes/digits {label}")
        )
        own = of_class[order[SCANS[part]]]
        count = len(scan[label :: len(CLASSES)])
        turns, generator = (
            count // len(own) + 1,
            generator_for(seed, f"shapes/{part} digits {label}"),
        )
        # In a fixed order, a digit would always be on the same families of backgrounds.
        shown = [own[torch.randperm(len(own), generator=generator)] for _ in range(turns)]
        scan[label :: len(CLASSES)] = torch.cat(shown)[:count]
    return scan
