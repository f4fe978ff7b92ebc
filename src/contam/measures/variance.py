"""Variance of activations between classes, and its split by class, background and interaction."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


def between_class_variance(
    class_means: Float[Tensor, "classes neurons"],
) -> Float[Tensor, " neurons"]:
    """Return the variance of each neuron's class means, with equal weight for every class.

    It has the square of the neuron's units, so it is comparable between conditions of one network
    and not between networks. Its sum over neurons is the spread of the classes in feature space;
    a new background that shrinks it has shrunk the responses to the classes.

    Source: ours, the effect of padded images that is largest in the last layer.

    >>> import torch
    >>> between_class_variance(torch.tensor([[3.0, 1.0], [1.0, 1.0]])).tolist()
    [1.0, 0.0]
    """
    return class_means.var(dim=0, correction=0)


class VarianceShares(NamedTuple):
    """Shares of a layer's variance over objects on backgrounds; the four add up to 1."""

    of_class: float
    of_background: float
    of_interaction: float
    """Dependence of the class response on the background."""
    of_rest: float
    """Differences between the objects of a class, alone and on each background."""


def variance_shares(
    values: Float[Tensor, "objects backgrounds neurons"], y: Int[Tensor, " objects"]
) -> VarianceShares:
    """Split a layer's variance, summed over neurons, by class, background and their interaction.

    Every object appears on every background and every class has the same number of objects, so the
    parts are orthogonal. For pure noise, each part is its degrees of freedom over the total ones.
    Only the interaction measures feature contamination: a network that encodes the background and
    adds it has a large background share, and can be robust.

    Args:
        values: Activations of each object on each background.
        y: Class of each object.

    Raises:
        ValueError: If classes differ in size, if there are fewer than two classes or backgrounds,
            or if the values are constant.

    Source: ours, two-way analysis of variance.

    >>> import torch
    >>> values = torch.tensor([[[1.0], [1.0]], [[0.0], [0.0]]])  # depends on the class alone
    >>> variance_shares(values, torch.tensor([0, 1])).of_class
    1.0
    """
    classes, group, counts = y.unique(return_inverse=True, return_counts=True)
    backgrounds = values.shape[1]
    if len(classes) < 2 or backgrounds < 2 or counts.min() < counts.max():
        raise ValueError(
            "expected at least 2 classes with equal numbers of objects, on at least 2 "
            f"backgrounds; got {counts.tolist()} objects on {backgrounds}"
        )
    values = values.double()
    centered = values - values.mean(dim=(0, 1))
    if not centered.any():
        raise ValueError("the values are constant, so there is no variance to split")
    cells = torch.zeros(len(classes), *values.shape[1:], dtype=values.dtype, device=values.device)
    cells.index_add_(0, group, centered)
    cells /= counts[0]
    by_class = cells.mean(dim=1, keepdim=True)
    by_background = cells.mean(dim=0, keepdim=True)
    total = centered.square().sum()

    def share(part: Tensor) -> float:
        return float(part.expand_as(values).square().sum() / total)

    return VarianceShares(
        of_class=share(by_class[group]),
        of_background=share(by_background),
        of_interaction=share((cells - by_class - by_background)[group]),
        of_rest=share(centered - cells[group]),
    )
