"""Counterfactual backgrounds: only pixels outside the object change."""

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
    """Change the backgrounds of images and keep every pixel that the object covers.

    Args:
        x: images in [0, 1].
        mask: share of each pixel that the object covers, in [0, 1].
        change: `negative` inverts every channel, `recolored` rotates the channels, `contrast`
            doubles the distance from the background's mean, `shuffled` permutes the pixels.
        generator: random numbers of `shuffled`.

    Returns:
        Images in [0, 1].

    Raises:
        ValueError: the change is unknown.

    Source: ours, new backgrounds made from existing ones.

    >>> x, mask = torch.zeros(1, 3, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    >>> counterfactual(x, mask, "negative", generator=Generator())[0, 0].tolist()
    [[0.0, 1.0], [1.0, 1.0]]
    """
    if change not in CHANGES:
        raise ValueError(f"unknown change {change!r}; choose from {list(CHANGES)}")
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
    # Both orders start with the background's pixels, in place and in random order.
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
"""The changes that `counterfactual` supports."""
