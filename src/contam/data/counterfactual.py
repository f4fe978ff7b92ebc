"""What a picture would be with another background: only pixels outside the object change."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

Change = Callable[[Tensor, Tensor, Generator], Tensor]


def counterfactual(
    x: Float[Tensor, "n 3 height width"],
    mask: Float[Tensor, "n 1 height width"],
    change: str,
    *,
    generator: Generator,
) -> Float[Tensor, "n 3 height width"]:
    """The pictures with their backgrounds changed, and every pixel that the object touches kept.

    `negative` turns every channel around; `recolored` gives each channel's values to the next;
    `contrast` doubles each channel's distance from its mean over the background; `shuffled` moves
    the background's pixels about at random, which alone draws from the generator. Pictures and
    masks lie in [0, 1], and so does the result.

    Source: ours, new backgrounds made from those that are at hand.

    Raises:
        ValueError: there is no such change.
    """
    if change not in CHANGES:
        raise ValueError(f"no change {change!r} of the background; choose from {list(CHANGES)}")
    outside = mask == 0
    return torch.where(outside, CHANGES[change](x, outside, generator), x)


def _negative(x: Tensor, _outside: Tensor, _generator: Generator) -> Tensor:
    return 1 - x


def _recolored(x: Tensor, _outside: Tensor, _generator: Generator) -> Tensor:
    return x.roll(1, dims=1)


def _contrast(x: Tensor, outside: Tensor, _generator: Generator) -> Tensor:
    count = outside.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (x * outside).sum((2, 3), keepdim=True) / count
    return (2 * x - mean).clamp(0, 1)


def _shuffled(
    x: Float[Tensor, "n 3 height width"],
    outside: Bool[Tensor, "n 1 height width"],
    generator: Generator,
) -> Float[Tensor, "n 3 height width"]:
    inside = (~outside).flatten(1)
    chance = torch.rand(inside.shape, generator=generator)
    # Both orders begin with the background's pixels, one as they lie and one at random.
    lying = inside.int().argsort(dim=1, stable=True)
    drawn = (chance + inside).argsort(dim=1)
    source = torch.empty_like(lying).scatter_(1, lying, drawn)
    return x.flatten(2).gather(2, source[:, None].expand(-1, 3, -1)).view_as(x)


CHANGES: dict[str, Change] = {
    "negative": _negative,
    "recolored": _recolored,
    "contrast": _contrast,
    "shuffled": _shuffled,
}
"""The changes that `counterfactual` knows."""
