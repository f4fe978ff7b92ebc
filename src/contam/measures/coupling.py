"""How far a change of background alters the gain of the response to the class.

A class profile is a table of class means with each neuron's mean over the classes taken away. A
background that adds the same to every class leaves it alone, however much the neurons say about the
background; one that lowers what the core features are added to, before a ReLU, shrinks it. Tables
come from `ClassMeans`, over the same objects with and without the change wherever that can be had.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


def attenuation(
    id_means: Float[Tensor, "classes neurons"], new_means: Float[Tensor, "classes neurons"]
) -> Float[Tensor, ""]:
    """How much of a layer's class profile is lost under new backgrounds: 1 minus a slope.

    The slope is that of the profile under the new backgrounds on the profile under ID backgrounds,
    summed over the neurons, so strong ones count most. 0 if nothing is lost, 1 if nothing of it is
    left, more if the classes trade places, below 0 if the response grows. Noise in the ID means
    passes for loss: take hundreds of examples for each class. Without OOD examples it can't be had.

    Source: ours, since variance that the background explains does not go with failure.

    Raises:
        ValueError: tables of other sizes, or ID means that do not differ between classes.
    """
    shared, own = _profiles(id_means, new_means)
    if not own.any():
        raise ValueError("no neuron tells the ID classes apart, so there is nothing to lose")
    return 1 - shared.sum() / own.sum()


def neuron_attenuation(
    id_means: Float[Tensor, "classes neurons"], new_means: Float[Tensor, "classes neurons"]
) -> Float[Tensor, " neurons"]:
    """The same for each neuron alone; nan for one whose ID means do not differ between classes.

    Source: ours, to find where in a layer the loss is.

    Raises:
        ValueError: tables of other sizes.
    """
    shared, own = _profiles(id_means, new_means)
    return 1 - shared / own.masked_fill(own == 0, torch.nan)


def counterfactual_attenuation(
    id_means: Float[Tensor, "classes neurons"],
    altered_means: Sequence[Float[Tensor, "classes neurons"]],
) -> Float[Tensor, ""]:
    """The mean attenuation over altered ID backgrounds, which foretells without any OOD image.

    Each table is that of the ID images with their backgrounds altered in one way, such as negative,
    hue-permuted, of twice the contrast or pixel-shuffled; the objects stay as they are.

    Source: ours, what predicts the loss out of distribution.

    Raises:
        ValueError: no altered table, or what `attenuation` refuses.
    """
    if not altered_means:
        raise ValueError("want the class means under at least one altered background, got none")
    return torch.stack([attenuation(id_means, altered) for altered in altered_means]).mean()


class Shares(NamedTuple):
    """What accounts for a layer's variance over objects on backgrounds; the four add up to 1."""

    of_class: float
    of_background: float
    of_interaction: float
    """How the response to the class depends on the background: coupling."""
    of_rest: float
    """Objects of a class, alone and on each background."""


def variance_shares(
    values: Float[Tensor, "objects backgrounds neurons"], y: Int[Tensor, " objects"]
) -> Shares:
    """A layer's variance, summed over neurons, split by class, background and their interaction.

    Every object is seen on every background, and every class has as many objects: then the parts
    are orthogonal. Noise alone gives each part its degrees of freedom over those of the whole. Of
    the parts, only the interaction is coupling: a network that encodes the background and adds it
    has a large share of it, and can be robust.

    Source: ours, two-way analysis of variance.

    Raises:
        ValueError: classes of unequal size, fewer than two classes or backgrounds, or no variance.
    """
    classes, group, counts = y.unique(return_inverse=True, return_counts=True)
    backgrounds = values.shape[1]
    if len(classes) < 2 or backgrounds < 2 or counts.min() < counts.max():
        raise ValueError(
            f"want at least 2 classes with as many objects each, on at least 2 backgrounds; "
            f"got {counts.tolist()} objects on {backgrounds}"
        )
    values = values.double()
    centered = values - values.mean(dim=(0, 1))
    if not centered.any():
        raise ValueError("the values never change, so there is no variance to split")
    cells = torch.zeros(len(classes), *values.shape[1:], dtype=values.dtype, device=values.device)
    cells.index_add_(0, group, centered)
    cells /= counts[0]
    by_class = cells.mean(dim=1, keepdim=True)
    by_background = cells.mean(dim=0, keepdim=True)
    total = centered.square().sum()

    def share(part: Tensor) -> float:
        return float(part.expand_as(values).square().sum() / total)

    return Shares(
        of_class=share(by_class[group]),
        of_background=share(by_background),
        of_interaction=share((cells - by_class - by_background)[group]),
        of_rest=share(centered - cells[group]),
    )


def _profiles(id_means: Tensor, new_means: Tensor) -> tuple[Tensor, Tensor]:
    """For each neuron, the product of both profiles and the square of the ID profile."""
    if id_means.shape != new_means.shape:
        raise ValueError(
            f"tables of one layer and the same classes have one shape, not "
            f"{tuple(id_means.shape)} and {tuple(new_means.shape)}"
        )
    profile = id_means.double() - id_means.double().mean(dim=0)
    # Equal means may differ in their last bit once their mean is taken away.
    profile = profile.masked_fill(id_means.amax(dim=0) == id_means.amin(dim=0), 0)
    # The profile has mean zero, so that of the new means drops out.
    return (profile * new_means).sum(dim=0), profile.square().sum(dim=0)
