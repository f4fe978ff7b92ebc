"""Families of backgrounds: textures in a range of colors, or crops of photos.

OOD families differ from ID families in texture and in palette, and mild families in one of the two.
The two photos come with scikit-learn. Each part of the data (training, validation, test and
pre-training) crops a separate strip of them.
"""

import difflib
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from contam.data.colors import rgb
from contam.rng import generator_for

SIDE = 32
"""Side of the image in pixels."""

Bounds = tuple[float, float]
Texture = Callable[[int, Generator], Tensor]
"""Levels (n, 1, side, side) in [0, 1]: 0 is the family's first color, 1 its second."""


class Palette(NamedTuple):
    """A range of colors, uniform in hue (in turns), saturation and value."""

    hue: Bounds
    saturation: Bounds
    value: Bounds


class Painted(NamedTuple):
    """A texture between two random colors."""

    texture: Texture
    first: Palette
    second: Palette


class Cropped(NamedTuple):
    """A crop of a photo, in its own colors or with permuted channels."""

    recolored: bool


def backgrounds(family: str, n: int, *, seed: int, part: str) -> Float[Tensor, "n 3 side side"]:
    """Draw backgrounds of a family.

    Args:
        family: a name of `FAMILIES`.
        n: number of backgrounds.
        seed: random seed.
        part: part of the data: train, validation, test or pretraining.

    Returns:
        Images in [0, 1].

    Raises:
        ValueError: the family or the part is unknown.

    Source: ours, backgrounds that are independent of the class.

    >>> backgrounds("clouds", 2, seed=0, part="test").shape
    torch.Size([2, 3, 32, 32])
    """
    for what, name, known in (("family", family, FAMILIES), ("part", part, STRIPS)):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or list(known)
            raise ValueError(f"no {what} {name!r}; did you mean one of {near}?")
    kind, generator = FAMILIES[family], generator_for(seed, f"shapes/{part} {family}")
    if isinstance(kind, Cropped):
        return _crops(n, STRIPS[part], generator, recolored=kind.recolored)
    first, second = (_colors(n, palette, generator) for palette in (kind.first, kind.second))
    return torch.lerp(first, second, kind.texture(n, generator))


def _colors(n: int, palette: Palette, generator: Generator) -> Float[Tensor, "n 3 1 1"]:
    drawn = (_between(palette_range, n, generator)[:, :, 0, 0] for palette_range in palette)
    return rgb(*drawn)[:, :, None, None]


def _between(values: Bounds, n: int, generator: Generator) -> Float[Tensor, "n 1 1 1"]:
    return values[0] + (values[1] - values[0]) * torch.rand(n, 1, 1, 1, generator=generator)


def _along(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return pixel coordinates along a random direction and across it, from the center."""
    angle = _between((0, 2 * math.pi), n, generator)
    pixels = torch.arange(SIDE) - (SIDE - 1) / 2
    x, y = pixels[None, :], pixels[:, None]
    return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()


def ramp(n: int, generator: Generator) -> Float[Tensor, "n 1 side side"]:
    """Return linear ramps in random directions.

    Args:
        n: number of textures.
        generator: source of the random numbers.

    Returns:
        Levels in [0, 1] between the two colors of a family.

    >>> ramp(2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1, 32, 32])
    """
    return (0.5 + _along(n, generator)[0] / SIDE).clamp(0, 1)


def stripes(n: int, generator: Generator, periods: Bounds) -> Float[Tensor, "n 1 side side"]:
    """Return straight stripes with soft edges.

    Args:
        n: number of textures.
        generator: source of the random numbers.
        periods: range of the period in pixels.

    Returns:
        Levels in [0, 1] between the two colors of a family.

    >>> stripes(2, torch.Generator().manual_seed(0), periods=(6, 12)).shape
    torch.Size([2, 1, 32, 32])
    """
    along, _ = _along(n, generator)
    phase = along / _between(periods, n, generator) + _between((0, 1), n, generator)
    return (0.5 + (2 * math.pi * phase).sin()).clamp(0, 1)


def fractal(
    n: int, generator: Generator, octaves: Sequence[int] = (2, 4, 8, 16), rough: float = 0.6
) -> Float[Tensor, "n 1 side side"]:
    """Return a weighted sum of smooth noise on grids of several sizes.

    Args:
        n: number of textures.
        generator: source of the random numbers.
        octaves: number of cells per side of each grid.
        rough: weight of a grid relative to the previous one.

    Returns:
        Levels in [0, 1] between the two colors of a family.

    >>> fractal(2, torch.Generator().manual_seed(0)).amax((1, 2, 3))
    tensor([1., 1.])
    """
    level = torch.zeros(n, 1, SIDE, SIDE)
    for step, cells in enumerate(octaves):
        noise = torch.rand(n, 1, cells, cells, generator=generator)
        level += rough**step * F.interpolate(noise, (SIDE, SIDE), mode="bilinear")
    lowest, highest = level.amin((2, 3), keepdim=True), level.amax((2, 3), keepdim=True)
    return (level - lowest) / (highest - lowest)


def checker(n: int, generator: Generator) -> Float[Tensor, "n 1 side side"]:
    """Return chessboards with cells of 2 to 5 pixels.

    Args:
        n: number of textures.
        generator: source of the random numbers.

    Returns:
        Levels in [0, 1] between the two colors of a family.

    >>> checker(2, torch.Generator().manual_seed(0)).unique().tolist()
    [0.0, 1.0]
    """
    cells = _between((2, 5), n, generator)
    rows, columns = (
        ((torch.arange(SIDE) / cells) + _between((0, 2), n, generator)).floor() for _ in range(2)
    )
    return (rows.mT + columns) % 2


def speckle(n: int, generator: Generator) -> Float[Tensor, "n 1 side side"]:
    """Return independent pixels of either color.

    Args:
        n: number of textures.
        generator: source of the random numbers.

    Returns:
        Levels in [0, 1] between the two colors of a family.

    >>> speckle(2, torch.Generator().manual_seed(0)).unique().tolist()
    [0.0, 1.0]
    """
    share = _between((0.3, 0.7), n, generator)
    return (torch.rand(n, 1, SIDE, SIDE, generator=generator) < share).float()


def plaid(n: int, generator: Generator) -> Float[Tensor, "n 1 side side"]:
    """Return two perpendicular waves with periods of 3 to 6 pixels.

    Args:
        n: number of textures.
        generator: source of the random numbers.

    Returns:
        Levels in [0, 1] between the two colors of a family.

    >>> plaid(2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1, 32, 32])
    """
    level = torch.full((n, 1, SIDE, SIDE), 0.5)
    for axis in _along(n, generator):
        phase = axis / _between((3, 6), n, generator) + _between((0, 1), n, generator)
        level += 0.25 * (2 * math.pi * phase).sin()
    return level


def strokes(n: int, generator: Generator) -> Float[Tensor, "n 1 side side"]:
    """Return ten pen strokes from edge to edge with random directions, widths and levels.

    Args:
        n: number of textures.
        generator: source of the random numbers.

    Returns:
        Levels in [0, 1] between the two colors of a family.

    >>> strokes(2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1, 32, 32])
    """
    level = torch.zeros(n, 1, SIDE, SIDE)
    for _ in range(10):
        _, across = _along(n, generator)
        away = (across - _between((-16, 16), n, generator)).abs()
        ink = (0.5 + _between((0.5, 1.8), n, generator) - away).clamp(0, 1)
        level = torch.lerp(level, _between((0, 1), n, generator), ink)
    return level


def blobs(n: int, generator: Generator) -> Float[Tensor, "n 1 side side"]:
    """Return spots with sharp edges and varying sizes.

    Args:
        n: number of textures.
        generator: source of the random numbers.

    Returns:
        Levels in [0, 1] between the two colors of a family.

    >>> blobs(2, torch.Generator().manual_seed(0)).unique().tolist()
    [0.0, 1.0]
    """
    return (fractal(n, generator, (4, 8, 16), 0.8) > 0.5).float()


def paper(n: int, generator: Generator) -> Float[Tensor, "n 1 side side"]:
    """Return faint grain on smooth gradients.

    Args:
        n: number of textures.
        generator: source of the random numbers.

    Returns:
        Levels in [0, 1] between the two colors of a family.

    >>> paper(2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1, 32, 32])
    """
    return 0.5 * fractal(n, generator) + 0.5 * fractal(n, generator, (32,))


STRIPS = {
    "train": (0, 92),
    "validation": (92, 136),
    "test": (136, 180),
    "pretraining": (180, 224),
}
"""The columns of the reduced photos that each part of the data uses."""


@cache
def photographs() -> Float[Tensor, "2 3 149 224"]:
    """Return scikit-learn's two photos, a temple and a flower, at 0.35 of their size.

    Returns:
        (2, 3, 149, 224) pixels in [0, 1].

    >>> photographs().shape
    torch.Size([2, 3, 149, 224])
    """
    from sklearn.datasets import load_sample_images

    images = torch.stack([torch.tensor(image) for image in load_sample_images().images])
    small = F.interpolate(
        images.permute(0, 3, 1, 2).float() / 255, (149, 224), mode="bilinear", antialias=True
    )
    return small.clamp(0, 1)


def _crops(n: int, strip: tuple[int, int], generator: Generator, *, recolored: bool) -> Tensor:
    """Return (n, 3, side, side) crops within the strip, half of them mirrored."""
    photos = photographs()
    photo, top, left, mirror, order = torch.rand(5, n, generator=generator)
    photo = (photo * len(photos)).long()
    top = (top * (photos.shape[2] - SIDE + 1)).long()
    left = strip[0] + (left * (strip[1] - strip[0] - SIDE + 1)).long()
    pixels = torch.arange(SIDE)
    columns = torch.where((mirror < 0.5)[:, None], pixels, pixels.flip(0)) + left[:, None]
    rows = pixels + top[:, None]
    crops = photos[photo[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    crops = crops.permute(0, 3, 1, 2)
    if not recolored:
        return crops.contiguous()
    # All channel orders except the photo's own.
    orders = torch.tensor([(1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2), (2, 1, 0)])
    chosen = orders[(order * len(orders)).long()]
    return crops.gather(1, chosen[:, :, None, None].expand_as(crops))


WARM = Palette((-0.08, 0.15), (0.4, 0.85), (0.25, 0.65))
GREEN = Palette((0.25, 0.42), (0.4, 0.85), (0.2, 0.65))
DEEP = Palette((0.48, 0.75), (0.4, 0.85), (0.1, 0.5))
COOL = Palette((0.48, 0.75), (0.2, 0.75), (0.55, 1.0))
LIGHT = Palette((0, 1), (0, 0.12), (0.75, 0.95))
ANY = Palette((0, 1), (0.2, 0.85), (0.15, 0.95))

FAMILIES: dict[str, Painted | Cropped] = {
    "gradient": Painted(ramp, WARM, WARM),
    "clouds": Painted(fractal, GREEN, GREEN),
    "stripes": Painted(partial(stripes, periods=(6, 12)), WARM, GREEN),
    "photo": Cropped(recolored=False),
    "paper": Painted(paper, LIGHT, LIGHT),
    "cool": Painted(fractal, DEEP, DEEP),
    "checker": Painted(checker, DEEP, COOL),
    "speckle": Painted(speckle, DEEP, COOL),
    "plaid": Painted(plaid, DEEP, COOL),
    "strokes": Painted(strokes, DEEP, COOL),
    "blobs": Painted(blobs, DEEP, COOL),
    "any gradient": Painted(ramp, ANY, ANY),
    "any clouds": Painted(fractal, ANY, ANY),
    "any stripes": Painted(partial(stripes, periods=(3, 14)), ANY, ANY),
    "any grain": Painted(partial(fractal, octaves=(8, 16, 32), rough=1.0), ANY, ANY),
    "any photo": Cropped(recolored=True),
}
"""Every family; its position is its domain index."""

ID = ("gradient", "clouds", "stripes", "photo")
"""Families of the training data."""
MILD = ("paper", "cool")
"""New families that are easy for most models."""
OOD = ("checker", "speckle", "plaid", "strokes", "blobs")
"""Families that are new in texture and color."""
DIVERSE = ("any gradient", "any clouds", "any stripes", "any grain", "any photo")
"""Families for pre-training: textures of `ID` in all colors, and none of `OOD`."""
