"""What the embedded benchmark asks to recognize: drawn shapes, or real handwritten digits.

Both are moved, turned, stretched and colored alike, and independently of their class, so that a
digit stands where the shape with its number stands.
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
"""What can be recognized, with the names of its ten classes in the order of their labels."""

SIZES = (6.4, 9.2)
"""Half of an object's extent, in pixels."""
REACH = 4.0
"""How far an object's middle is moved along each axis, at most, in pixels."""
TILT = 0.35
"""How far an object is turned either way, at most, in radians."""
STRETCH = 1.25
"""How much longer than wide an object is made, at most, or wider than long."""
RIM = 0.3
"""The brightness of a shape's rim as a share of the shape's; it is one pixel wide."""
NOISE = 0.02
"""Standard deviation of the pixels' noise."""
LARGER = 1.25
"""How much larger than shapes digits are written; their ink then covers about as much."""
SCANS = {
    "train": slice(0, 90),
    "validation": slice(90, 100),
    "pretraining": slice(100, 140),
    "test": slice(140, None),
}
"""Which of a digit's scans, in an order that the seed draws, each part of the data may show.

There are 174 to 183 of each, so 1000 are for learning, with those that select, 400 are for
pre-training and 397 for the test.
"""


class Objects(NamedTuple):
    """Objects that stand on no background yet, each with the noise of its picture."""

    y: Tensor
    """(n,) class index, int64."""
    mask: Tensor
    """(n, 1, side, side) share of each pixel that the object covers, with its rim."""
    color: Tensor
    """(n, 3, side, side) the object's colors where it is."""
    noise: Tensor
    """(n, 3, side, side) what is added to the picture."""

    def pick(self, which: Tensor | slice) -> "Objects":
        """The objects that a slice, a mask or an index tensor picks."""
        return Objects(*(part[which] for part in self))


def objects(n: int, *, seed: int = 0, part: str = "test", core: Core = "shapes") -> Objects:
    """The first `n` objects of a part of the data; their classes take turns.

    Size, place, tilt, stretch and color are drawn independently of the class. The first objects
    are the same however many are drawn. Where more digits are asked for than were scanned, all of
    a part are shown before one comes again, each time in another order and with another look.

    Source: ours, the features that say what the class is.

    Raises:
        ValueError: there is no such core or part.
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
        seen = torch.stack(_seen_from(looks, LARGER * size, stretch), dim=-1)
        mask = F.grid_sample(scans()[0][which], seen, align_corners=False)
        return Objects(y, mask, fill.expand(n, 3, SIDE, SIDE), noise)
    distance = torch.empty(n, SIDE, SIDE)
    for label, outline in enumerate(OUTLINES.values()):
        here = y == label
        # Stretching changes distances by a few per cent; the outline itself stays exact.
        seen = _seen_from(looks[here], size[here], stretch[here])
        distance[here] = size[here] * outline(*seen)
    mask, inner = ((0.5 - distance - rim).clamp(0, 1)[:, None] for rim in (0, 1))
    return Objects(y, mask, fill * (RIM + (1 - RIM) * inner), noise)


def _seen_from(looks: Float[Tensor, "n 5"], size: Tensor, stretch: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels' places, right and down, as objects see them; each reaches from -1 to 1."""
    away, tilt = REACH * (2 * looks[:, 1:3] - 1), TILT * (2 * looks[:, 3] - 1)
    pixels = torch.arange(SIDE) - (SIDE - 1) / 2
    x = pixels[None, None, :] - away[:, :1, None]
    y = pixels[None, :, None] - away[:, 1:, None]
    cos, sin = tilt.cos()[:, None, None], tilt.sin()[:, None, None]
    return (x * cos + y * sin) / (size * stretch), (y * cos - x * sin) * stretch / size


def scan_numbers(n: int, *, seed: int, part: str) -> Int[Tensor, " n"]:
    """The scan of each object; classes take turns, and so do a part's scans of a class."""
    found = torch.empty(n, dtype=torch.int64)
    for label in range(len(CLASSES)):
        of_class = (scans()[1] == label).nonzero().flatten()
        order = torch.randperm(
            len(of_class), generator=generator_for(seed, f"shapes/digits {label}")
        )
        own = of_class[order[SCANS[part]]]
        wanted = len(found[label :: len(CLASSES)])
        turns, generator = (
            wanted // len(own) + 1,
            generator_for(seed, f"shapes/{part} digits {label}"),
        )
        # In one order again and again, a digit would always meet the same families.
        shown = [own[torch.randperm(len(own), generator=generator)] for _ in range(turns)]
        found[label :: len(CLASSES)] = torch.cat(shown)[:wanted]
    return found
