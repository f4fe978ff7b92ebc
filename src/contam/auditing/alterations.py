"""Changes of ID images: other backgrounds behind masks, or another style of the whole image."""

from jaxtyping import Float
from torch import Tensor

from contam.data.counterfactual import CHANGES, counterfactual
from contam.rng import generator_for

STYLES = ("recolored", "contrast", "gray", "darkened")
"""Changes of whole images that keep the object's shape."""
COLORFUL = ("recolored", "gray")
"""Changes that need colors."""
DARKNESS = 0.6
"""The share of the light that `darkened` removes."""


def is_image(x: Tensor) -> bool:
    """Return whether a batch holds gray or color images.

    >>> import torch
    >>> is_image(torch.rand(2, 3, 8, 8)), is_image(torch.rand(2, 10))
    (True, False)
    """
    return x.ndim == 4 and x.shape[1] in (1, 3) and x.is_floating_point() and x.shape[2] > 1


def changes_of(x: Float[Tensor, "n channels height width"], *, masked: bool) -> tuple[str, ...]:
    """Return the names of the changes for such images.

    Args:
        x: the images; gray ones have no changes of color.
        masked: whether there are masks, so that backgrounds can be changed alone.

    >>> import torch
    >>> changes_of(torch.zeros(1, 1, 8, 8), masked=False)
    ('contrast', 'darkened')
    """
    known = tuple(CHANGES) if masked else STYLES
    return tuple(name for name in known if x.shape[1] == 3 or name not in COLORFUL)


def altered(
    x: Float[Tensor, "n channels height width"],
    masks: Float[Tensor, "n 1 height width"] | None,
    change: str,
    *,
    seed: int = 0,
) -> Float[Tensor, "n channels height width"]:
    """Change the backgrounds of images, or the style of whole images without masks.

    Args:
        x: images in [0, 1].
        masks: share of each pixel that the object covers.
        change: name of the change.
        seed: seed of the change `shuffled`, which is drawn for all images together.

    Source: ours, shifts that need no OOD data.

    Raises:
        ValueError: there is no such change.

    >>> import torch
    >>> altered(torch.ones(1, 1, 1, 1), None, "darkened").item()
    0.4000000059604645
    """
    if masks is None and change == "gray":
        return x.mean(dim=1, keepdim=True).expand_as(x)
    if masks is None and change == "darkened":
        return (1 - DARKNESS) * x
    covered = x.new_zeros(len(x), 1, *x.shape[2:]) if masks is None else masks.to(x)
    drawn = generator_for(seed, f"audit/{change}")
    colors = x.expand(-1, 3, -1, -1)
    return counterfactual(colors, covered, change, generator=drawn)[:, : x.shape[1]]
