"""Density of a layer's activations: mean activation and active share of each neuron."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Activity(NamedTuple):
    """Activity of each neuron over an evaluation set."""

    mean: Tensor
    """(neurons,) mean activation, in the network's units."""
    active: Tensor
    """(neurons,) share of examples at which the neuron is positive, in [0, 1]."""


class Density:
    """Mean activation and active share of every neuron, accumulated over batches.

    The reading defines what a neuron is: `flat` makes one of every position of every channel,
    `over_space` one of every channel. The active share is that of the paper's figure only with
    `flat`, since the mean over a map is positive as soon as one position is. Sums are kept on the
    CPU in double precision.

    Args:
        neurons: Number of neurons.

    Source: App. G.2.

    >>> import torch
    >>> activity = Density(neurons=2).update(torch.tensor([[1.0, 0.0], [3.0, 0.0]])).compute()
    >>> activity.mean.tolist(), activity.active.tolist()
    ([2.0, 0.0], [1.0, 0.0])
    """

    def __init__(self, neurons: int) -> None:
        self.sums = torch.zeros(neurons, dtype=torch.float64)
        self.active = torch.zeros(neurons, dtype=torch.int64)
        self.count = 0

    def update(self, values: Float[Tensor, "batch neurons"]) -> "Density":
        """Add a batch of activations.

        Raises:
            ValueError: If the number of neurons differs.
        """
        if values.shape[1] != len(self.sums):
            raise ValueError(f"expected {len(self.sums)} neurons, got {values.shape[1]}")
        values = values.detach()
        self.sums += values.sum(dim=0, dtype=torch.float64).cpu()
        self.active += (values > 0).sum(dim=0).cpu()
        self.count += len(values)
        return self

    def merge(self, other: "Density") -> "Density":
        """Add the examples of another accumulator.

        Raises:
            ValueError: If the number of neurons differs.
        """
        if len(other.sums) != len(self.sums):
            raise ValueError(f"expected {len(self.sums)} neurons, got {len(other.sums)}")
        self.sums += other.sums
        self.active += other.active
        self.count += other.count
        return self

    def compute(self) -> Activity:
        """Return means and shares, in double precision.

        Raises:
            ValueError: If there is no example.
        """
        if self.count == 0:
            raise ValueError("a mean needs at least one example")
        return Activity(self.sums / self.count, self.active.double() / self.count)


def common_edges(
    means: Sequence[Float[Tensor, " neurons"]], *, bins: int = 50
) -> Float[Tensor, " edges"]:
    """Return the edges of equal bins for the histograms of several networks.

    The bins run from 0, or from the lowest value if that is negative, to the highest value.

    Args:
        means: Mean activations of each network.
        bins: Number of bins.

    Raises:
        ValueError: If there is no bin or all values are equal.

    Source: ours, the paper does not print its bins.

    >>> import torch
    >>> common_edges([torch.tensor([1.0, 2.0]), torch.tensor([4.0])], bins=2).tolist()
    [0.0, 2.0, 4.0]
    """
    values = torch.cat([values.double().flatten() for values in means])
    low, high = min(float(values.min()), 0.0), float(values.max())
    if bins < 1 or not low < high:
        raise ValueError(
            f"expected at least 1 bin and activations above {low:.3g}, got {bins} bins up to "
            f"{high:.3g}"
        )
    return torch.linspace(low, high, bins + 1, dtype=torch.float64)
