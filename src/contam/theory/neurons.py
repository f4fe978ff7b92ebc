"""Activation probabilities of neurons per class."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contam.theory.distribution import DataModel, Sample
from contam.theory.network import MLP
from contam.theory.projections import class_correlations

GOOD_OWN, GOOD_OTHER = 0.9, 0.1
"""A good neuron is active on more than this share of its own class, and on less of the others."""


@torch.no_grad()
def activation_probabilities(
    network: MLP, sample: Sample, data: DataModel
) -> list[Float[Tensor, "classes m"]]:
    """P(active | y) of every neuron in every layer; active means a pre-activation >= 0.

    Activation is asymmetric where a neuron's probability is near 1 for one class and near 0 for the
    other.

    Args:
        network: the network.
        sample: examples of every class.
        data: the data model, which gives the order of the classes.

    Returns:
        Probabilities for each layer, the first layer first; rows are in the order of `data.labels`.

    Raises:
        ValueError: a class is missing in the sample.

    Source: Thm. 4.1, Eq. 5.

    >>> from contam.rng import bit_generator_for
    >>> from contam.theory.initialization import initial_network
    >>> from contam.theory.setting import Setting
    >>> setting = Setting(width=4)
    >>> sample = setting.data.sample(100, bit_generator_for(0, "example"))
    >>> network = initial_network(setting, seed=0)
    >>> [p.shape for p in activation_probabilities(network, sample, setting.data)]
    [torch.Size([2, 4])]
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
    """Activation probability on the favorite class minus the mean over the other classes.

    Args:
        probability: activation probabilities of one layer.

    Returns:
        One number in [0, 1] for each neuron; with two classes, the difference of the two
        probabilities.

    Source: ours, one number per neuron for activation asymmetry.

    >>> asymmetry(torch.tensor([[0.75, 0.5], [0.25, 0.5]])).tolist()
    [0.5, 0.0]
    """
    favorite = probability.amax(dim=0)
    others = (probability.sum(dim=0) - favorite) / (len(probability) - 1)
    return favorite - others


def good_neurons(
    probability: Float[Tensor, "classes m"], own: Int[Tensor, " m"]
) -> tuple[Bool[Tensor, " m"], Float[Tensor, " m"]]:
    """Find the neurons that are active for their own class only.

    Args:
        probability: activation probabilities.
        own: each neuron's own class, a row of `probability`.

    Returns:
        Whether each neuron is good, and its mean activation probability on the other classes.

    Source: ours, a finite-size version of "1 - O(d0^-1/2)" and "o(1)".

    >>> probability = torch.tensor([[0.95, 0.95], [0.05, 0.5]])
    >>> good, other_rate = good_neurons(probability, own=torch.tensor([0, 0]))
    >>> good.tolist()
    [True, False]
    """
    is_own = torch.arange(len(probability))[:, None] == own
    own_rate = probability.gather(0, own[None])[0]
    others = probability.masked_fill(is_own, 0.0)
    other_rate = others.sum(dim=0) / (len(probability) - 1)
    return (own_rate > GOOD_OWN) & (others.amax(dim=0) < GOOD_OTHER), other_rate


def neuron_sets(
    W: Float[Tensor, "m d0"], a: Float[Tensor, " m"], data: DataModel, c: float = 0.5
) -> Bool[Tensor, "2 m"]:
    """Membership in N_y, where y C_k + B_k >= c sqrt(d0 / d) and sgn(a_k) = y.

    Args:
        W: projections.
        a: output weights of a two-layer network.
        data: the data model.
        c: the constant, which the paper does not give; with data weights of mean 1/2, c = 1/2 is
            one standard deviation at initialization.

    Returns:
        One row for y = -1 and one for y = +1.

    Source: Def. A.4, Eq. 15.

    >>> from contam.theory.features import FeatureModel
    >>> data = DataModel(FeatureModel(core=1, background=1, dimension=2))
    >>> W, a = torch.tensor([[2.0, 1.0], [-2.0, 1.0], [0.0, 0.0]]), torch.tensor([1.0, -1.0, 1.0])
    >>> neuron_sets(W, a, data).tolist()
    [[False, True, False], [True, False, False]]
    """
    features = data.features
    threshold = c * math.sqrt(features.size / features.dimension)
    signs = torch.tensor([[-1.0], [1.0]])
    return (class_correlations(W, data) >= threshold) & (a.sign() == signs)


def positive_examples(a: Float[Tensor, " m"], y: Int[Tensor, " n"]) -> Bool[Tensor, "n m"]:
    """Whether each example is a positive one of each neuron: sgn(a_k) = y.

    Args:
        a: output weights.
        y: labels, -1 and +1.

    Returns:
        One row for each example.

    Source: Def. A.5.

    >>> positive_examples(torch.tensor([0.5, -0.5]), torch.tensor([1, -1])).tolist()
    [[True, False], [False, True]]
    """
    return a.sign() == y[:, None]


def _parts(n: int, width: int) -> Iterator[slice]:
    """Slices of n rows that keep a layer's activations at a few million numbers."""
    size = max(1, 2**22 // width)
    return (slice(start, start + size) for start in range(0, n, size))
