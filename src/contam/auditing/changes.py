"""What an audit shows a network instead of its ID pictures: other backgrounds, or another style."""

import torch
from jaxtyping import Float
from torch import Tensor

from contam.data.counterfactual import CHANGES, counterfactual
from contam.rng import generator_for

STRENGTHS = (0.25, 0.5, 1.0)
"""How far a picture is moved from itself to what the change makes of it."""
STYLES = ("recolored", "contrast", "gray", "darkened")
"""Changes of whole pictures that leave the object's shape alone."""
COLORFUL = ("recolored", "gray")
"""Those that need colors."""
DARKNESS = 0.6
"""The share of the light that `darkened` takes."""


def is_picture(x: Tensor) -> bool:
    """Whether a batch is one of gray or color pictures."""
    return x.ndim == 4 and x.shape[1] in (1, 3) and x.is_floating_point() and x.shape[2] > 1


def changes_of(x: Float[Tensor, "n channels height width"], *, masked: bool) -> tuple[str, ...]:
    """The changes that there are for such pictures: of backgrounds behind masks, else of style."""
    known = tuple(CHANGES) if masked else STYLES
    return tuple(name for name in known if x.shape[1] == 3 or name not in COLORFUL)


def altered(
    x: Float[Tensor, "n channels height width"],
    masks: Float[Tensor, "n 1 height width"] | None,
    change: str,
    strength: float,
    *,
    seed: int = 0,
) -> Float[Tensor, "n channels height width"]:
    """Pictures in [0, 1] with their backgrounds changed, or the whole of them without masks.

    `strength` in [0, 1] is how far they are moved, linearly in every pixel.

    Source: ours, shifts that need no OOD data.

    Raises:
        ValueError: there is no such change.
    """
    if masks is None and change == "gray":
        new = x.mean(dim=1, keepdim=True).expand_as(x)
    elif masks is None and change == "darkened":
        new = (1 - DARKNESS) * x
    else:
        covered = x.new_zeros(len(x), 1, *x.shape[2:]) if masks is None else masks.to(x)
        colors = x.expand(-1, 3, -1, -1)
        drawn = generator_for(seed, f"audit/{change}")
        new = counterfactual(colors, covered, change, generator=drawn)[:, : x.shape[1]]
    return torch.lerp(x, new, strength)
