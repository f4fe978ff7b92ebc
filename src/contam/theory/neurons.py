"""For which class each neuron fires."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contam.theory.distribution import DataModel, Sample
from contam.theory.network import MLP
from contam.theory.projections import class_correlations

GOOD_OWN, GOOD_OTHER = 0.9, 0.1
"""A good neuron fires for more than this share of its own class, and for less of every other."""


@torch.no_grad()
def activation_probabilities(
    network: MLP, sample: Sample, data: DataModel
) -> list[Float[Tensor, "classes m"]]:
    """P(active | y) of every neuron, layer by layer, where active is a pre-activation >= 0.

    Activation is asymmetric where a neuron's row of one class is near 1 and the other near 0.

    Raises:
        ValueError: a class is missing in the sample.

    Source: Thm. 4.1, Eq. 5.
    """
    index = data.class_index(sample.y)
    counts = torch.bincount(index, minlength=data.classes)
    if missing := (counts == 0).nonzero().flatten().tolist():
        absent = [data.labels[row] for row in missing]
        raise ValueError(f"no example of class {absent} in the sample; draw more examples")
    active = [
        torch.zeros(data.classes, network.first.out_features, dtype=sample.f.dtype)
        for _ in network.hidden
    ]
    for part in _parts(len(index), network.first.out_features):
        for sums, z in zip(active, network.preactivations(sample.f[part]), strict=True):
            sums.index_add_(0, index[part], (z >= 0).to(sums.dtype))
    return [sums / counts[:, None] for sums in active]


def asymmetry(probability: Float[Tensor, "classes m"]) -> Float[Tensor, " m"]:
    """How much more often a neuron fires for its favorite class than for the average other one.

    In [0, 1]; with two classes, the difference of the two activation probabilities.

    Source: ours, to follow activation asymmetry with one number for each neuron.
    """
    favorite = probability.amax(dim=0)
    others = (probability.sum(dim=0) - favorite) / (len(probability) - 1)
    return favorite - others


def good_neurons(
    probability: Float[Tensor, "classes m"], own: Int[Tensor, " m"]
) -> tuple[Bool[Tensor, " m"], Float[Tensor, " m"]]:
    """Which neurons fire for their own class alone, and how often each fires for the others.

    Source: ours, a finite-size reading of "1 - O(d0^-1/2)" and "o(1)".
    """
    is_own = torch.arange(len(probability))[:, None] == own
    own_rate = probability.gather(0, own[None])[0]
    others = probability.masked_fill(is_own, 0.0)
    other_rate = others.sum(dim=0) / (len(probability) - 1)
    return (own_rate > GOOD_OWN) & (others.amax(dim=0) < GOOD_OTHER), other_rate


def neuron_sets(
    W: Float[Tensor, "m d0"], a: Float[Tensor, " m"], data: DataModel, c: float = 0.5
) -> Bool[Tensor, "2 m"]:
    """Membership in N_y: rows for y = -1 and y = +1.

    A neuron belongs to N_y when y C_k + B_k >= c sqrt(d0 / d) and sgn(a_k) = y. The paper's
    constant is not given; with weights of mean 1/2, c = 1/2 is one standard deviation at the start.

    Source: Def. A.4, Eq. 15.
    """
    features = data.features
    threshold = c * math.sqrt(features.size / features.dimension)
    signs = torch.tensor([[-1.0], [1.0]])
    return (class_correlations(W, data) >= threshold) & (a.sign() == signs)


def positive_examples(a: Float[Tensor, " m"], y: Int[Tensor, " n"]) -> Bool[Tensor, "n m"]:
    """Whether an example is a positive one of a neuron, which is sgn(a_k) = y, or a negative one.

    Source: Def. A.5.
    """
    return a.sign() == y[:, None]


def _parts(n: int, width: int) -> Iterator[slice]:
    """Slices of n rows that keep a layer's activations at a few million numbers."""
    size = max(1, 2**22 // width)
    return (slice(start, start + size) for start in range(0, n, size))
