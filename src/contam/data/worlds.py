"""Worlds: the embedded benchmark with one known reason why a network fails, or with none.

A world has training images, an ID test and an OOD test of objects that no other part has. The
objects of both tests are the same, with their noise, unless the world needs others.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from contam.data.backgrounds import ID, OOD, SIDE, backgrounds
from contam.data.colors import rgb
from contam.data.objects import CLASSES, objects
from contam.data.shapes import Scenes, placed, scenes
from contam.rng import generator_for

ALL = (*ID, *OOD)
FOLLOWS = 0.95
"""Share of training images of `spurious` whose background has the color of the class."""
DARKER, GRAIN = 0.4, 0.08
"""Contrast of corrupted images, and standard deviation of their noise."""
FEWER = 3
"""How many times fewer training images `undertrained` has."""


class World(NamedTuple):
    """Images of a world."""

    train: Scenes
    id_test: Scenes
    ood_test: Scenes
    shifted: Scenes
    """As many training images as `train`, half of them from the distribution of the OOD test."""
    more: Scenes | None = None
    """Three times as many training images of the same distribution, where there are few."""
    paired: bool = True
    """Whether images of both tests with the same index show the same object."""


def world(name: str, seed: int = 0, *, train: int = 1800, test: int = 800) -> World:
    """Draw the images of a world.

    Args:
        name: a name of `WORLDS`.
        seed: random seed.
        train: number of training images, about.
        test: number of images of each test, about.

    Raises:
        ValueError: there is no such world.

    Source: ours, failures of known cause.

    >>> drawn = world("healthy", train=90, test=90)
    >>> len(drawn.train.y), len(drawn.ood_test.y)
    (90, 100)
    """
    if name not in WORLDS:
        raise ValueError(f"no world {name!r}; choose from {', '.join(WORLDS)}")
    return WORLDS[name].draw(seed, train, test)


def _contaminated(seed: int, train: int, test: int) -> World:
    learned, other = _on(ID, train, seed, "train"), _on(OOD, train, seed, "train")
    return World(learned, _on(ID, test, seed), _on(OOD, test, seed), _halves(learned, other))


def _spurious(seed: int, train: int, test: int) -> World:
    learned, other = (
        _colored(_on(ALL, train, seed, "train"), seed, share, "train") for share in (FOLLOWS, 0.0)
    )
    own, shifted = (_colored(_on(ALL, test, seed), seed, share, "test") for share in (FOLLOWS, 0.0))
    return World(learned, own, shifted, _halves(learned, other))


def _corrupted(seed: int, train: int, test: int) -> World:
    learned, own = _on(ALL, train, seed, "train"), _on(ALL, test, seed)
    other, shifted = (
        replace(clean, x=corrupted(clean.x, generator_for(seed, f"worlds/corrupted {part}")))
        for clean, part in ((learned, "train"), (own, "test"))
    )
    return World(learned, own, shifted, _halves(learned, other))


def _healthy(seed: int, train: int, test: int) -> World:
    learned = _on(ALL, train, seed, "train")
    # Other objects, so that the OOD test is more than a part of the ID test.
    own = _on(ALL, test, seed)
    shifted = _on(OOD, test, seed, first=len(own.y))
    mixed = _halves(learned, _on(OOD, train, seed, "train"))
    return World(learned, own, shifted, mixed, paired=False)


def _undertrained(seed: int, train: int, test: int) -> World:
    whole = _healthy(seed, train, test)
    few = _on(ALL, train // FEWER, seed, "train")
    return whole._replace(
        train=few, shifted=_halves(few, _on(OOD, len(few.y), seed, "train")), more=whole.train
    )


class WorldSpec(NamedTuple):
    """A world's description, its reason for failure, and what draws it."""

    what: str
    cause: str
    """Name of the cause that an audit would give; empty if there is none."""
    draw: Callable[[int, int, int], World]


WORLDS: dict[str, WorldSpec] = {
    "contaminated": WorldSpec(
        "The backgrounds of the OOD test are of other families than those of the training.",
        "new backgrounds", _contaminated,
    ),
    "spurious": WorldSpec(
        "The color of the background follows the class in 95 % of the training images, and is "
        "independent of it in the OOD test.", "background shortcut", _spurious,
    ),
    "corrupted": WorldSpec(
        "The images of the OOD test have 40 % of the contrast, and noise.", "corruption",
        _corrupted,
    ),
    "undertrained": WorldSpec(
        "Three times fewer training images; the tests are those of the healthy world.",
        "undertrained", _undertrained,
    ),
    "healthy": WorldSpec(
        "The training images have the families of backgrounds of both tests.", "", _healthy
    ),
}  # fmt: skip
"""Every world by its name."""


def corrupted(
    x: Float[Tensor, "n 3 height width"], generator: torch.Generator
) -> Float[Tensor, "n 3 height width"]:
    """Lower the contrast of images and add noise, as a camera in dim light does.

    Args:
        x: images in [0, 1].
        generator: source of the noise.

    Source: ours, a corruption of the made worlds, so that the cause is known.

    >>> corrupted(torch.ones(1, 3, 8, 8), torch.Generator().manual_seed(0)).mean().item() < 0.8
    True
    """
    noise = torch.empty_like(x).normal_(std=GRAIN, generator=generator)
    return (0.5 + DARKER * (x - 0.5) + noise).clamp(0, 1)


def _on(
    families: tuple[str, ...], n: int, seed: int, part: str = "test", *, first: int = 0
) -> Scenes:
    """About `n` images, balanced over classes and families."""
    block = len(CLASSES) * len(families)
    return scenes(families, max(round(n / block), 1) * block, seed=seed, part=part, first=first)


def _colored(shown: Scenes, seed: int, share: float, part: str) -> Scenes:
    """The same objects on gray textures in one color, which follows the class in a share.

    The domain index is that of the color.
    """
    n, draws = len(shown.y), generator_for(seed, f"worlds/color {part} {share}")
    follows = torch.rand(n, generator=draws) < share
    drawn = torch.randint(len(CLASSES), (n,), generator=draws)
    color = torch.where(follows, shown.y, drawn)
    behind = torch.empty(n, 3, SIDE, SIDE)
    turn = torch.arange(n) // len(CLASSES) % len(ALL)
    for k, family in enumerate(ALL):
        here = turn == k
        behind[here] = backgrounds(family, int(here.sum()), seed=seed, part=part)
    one = torch.ones(n, 1)
    hue = rgb(color[:, None] / len(CLASSES), 0.8 * one, one)[:, :, None, None]
    behind = ((0.25 + behind.mean(dim=1, keepdim=True)) * hue).clamp(0, 1)
    return placed(objects(n, seed=seed, part=part), behind, color)


def _halves(one: Scenes, other: Scenes) -> Scenes:
    """Half of the images of each, in blocks of ten that have every class once."""
    blocks = min(len(one.y), len(other.y)) // len(CLASSES)
    n, order = blocks * len(CLASSES), torch.randperm(blocks, generator=generator_for(0, "worlds"))
    flat = (order < blocks // 2).repeat_interleave(len(CLASSES))
    chosen = flat[:, None, None, None]
    return Scenes(
        torch.where(chosen, one.x[:n], other.x[:n]), torch.where(flat, one.y[:n], other.y[:n]),
        torch.where(flat, one.domain[:n], other.domain[:n]),
        torch.where(chosen, one.mask[:n], other.mask[:n]),
    )  # fmt: skip
