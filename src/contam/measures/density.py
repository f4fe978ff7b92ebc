"""How many neurons take part, and how much: the density of a layer's activations."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Activity(NamedTuple):
    """What each neuron does over an evaluation set."""

    mean: Tensor
    """(neurons,) mean activation, in the network's units."""
    active: Tensor
    """(neurons,) share of examples at which the neuron is positive, in [0, 1]."""


class Density:
    """Mean activation and active share of every neuron, over any number of batches in one pass.

    A neuron is what a reading makes one: `flat` takes every position of every channel, `over_space`
    every channel. Its active share means what the paper draws only with `flat`, since the mean
    over a map is positive as soon as one position is. Sums are kept on the CPU in double precision.

    Source: App. G.2.
    """

    def __init__(self, neurons: int) -> None:
        self.sums = torch.zeros(neurons, dtype=torch.float64)
        self.active = torch.zeros(neurons, dtype=torch.int64)
        self.count = 0

    def update(self, values: Float[Tensor, "batch neurons"]) -> "Density":
        """Add a batch of activations.

        Raises:
            ValueError: other neurons than before.
        """
        if values.shape[1] != len(self.sums):
            raise ValueError(f"want {len(self.sums)} neurons, not {values.shape[1]}")
        values = values.detach()
        self.sums += values.sum(dim=0, dtype=torch.float64).cpu()
        self.active += (values > 0).sum(dim=0).cpu()
        self.count += len(values)
        return self

    def merge(self, other: "Density") -> "Density":
        """Add what another one saw.

        Raises:
            ValueError: the other one has other neurons.
        """
        if len(other.sums) != len(self.sums):
            raise ValueError(f"want {len(self.sums)} neurons, not {len(other.sums)}")
        self.sums += other.sums
        self.active += other.active
        self.count += other.count
        return self

    def compute(self) -> Activity:
        """Means and shares so far, in double precision.

        Raises:
            ValueError: no example was seen.
        """
        if self.count == 0:
            raise ValueError("a mean needs at least one example, and none was seen")
        return Activity(self.sums / self.count, self.active.double() / self.count)


class Histogram(NamedTuple):
    """The share of the neurons in each bin; the shares add up to 1."""

    edges: Tensor
    """(bins + 1,) rising."""
    shares: Tensor
    """(bins,) A bin holds its left edge, the last one both."""


def common_edges(
    means: Sequence[Float[Tensor, " neurons"]], *, bins: int = 50
) -> Float[Tensor, " edges"]:
    """Edges of equal bins that hold all values of all networks, so that they can be compared.

    Takes the mean activations of each network. From 0, or from the lowest value if that is
    negative, to the highest.

    Source: ours, the paper does not print its bins.

    Raises:
        ValueError: no bins, or no value above all others.
    """
    values = torch.cat([each.double().flatten() for each in means])
    low, high = min(float(values.min()), 0.0), float(values.max())
    if bins < 1 or not low < high:
        raise ValueError(
            f"want at least 1 bin and activations above {low:.3g}, not {bins} bins up to {high:.3g}"
        )
    return torch.linspace(low, high, bins + 1, dtype=torch.float64)


def density_histogram(
    means: Float[Tensor, " neurons"], edges: Float[Tensor, " edges"]
) -> Histogram:
    """How a layer's neurons spread over mean activation; a denser layer has more to the right.

    Source: App. G.2.

    Raises:
        ValueError: a neuron lies outside the edges, or these do not rise.
    """
    means, edges = means.cpu().double(), edges.cpu().double()
    if len(edges) < 2 or not torch.all(edges.diff() > 0):
        raise ValueError(f"want two rising edges or more, not {edges.tolist()}")
    if means.min() < edges[0] or means.max() > edges[-1]:
        raise ValueError(
            f"neurons from {float(means.min()):.3g} to {float(means.max()):.3g} don't fit edges "
            f"from {float(edges[0]):.3g} to {float(edges[-1]):.3g}; take common_edges of all"
        )
    counts, _ = torch.histogram(means, edges)
    return Histogram(edges, counts / len(means))
