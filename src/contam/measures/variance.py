"""How much of what neurons do depends on the class, or on whatever else groups the examples."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def between_class_variance(
    class_means: Float[Tensor, "classes neurons"],
) -> Float[Tensor, " neurons"]:
    """The variance of each neuron's class means, every class counting the same.

    In the square of the neuron's own units, so comparable between conditions of one network
    and not between networks. Its sum over the neurons is the spread of the classes in feature
    space; where a new background shrinks it, the responses to the classes have shrunk.

    Source: ours, what the padded images show best in the last layer.
    """
    return class_means.var(dim=0, correction=0)


def explained_share(
    values: Float[Tensor, "batch neurons"], groups: Int[Tensor, " batch"]
) -> Float[Tensor, " neurons"]:
    """The share of each neuron's variance that its group means account for, in [0, 1].

    Groups are classes, domains or frames; their numbers carry no meaning. Known as eta squared.
    Noise alone gives about (groups - 1) / (batch - 1). A neuron that never changes has no
    variance to explain, and gets nan.

    Source: ours, one-way analysis of variance.

    Raises:
        ValueError: as many groups as examples, so that a share would mean nothing.
    """
    _, group, counts = groups.unique(return_inverse=True, return_counts=True)
    if len(counts) >= len(group):
        raise ValueError(
            f"{len(group)} examples in {len(counts)} groups; at least one group needs two examples"
        )
    values = values.double()
    centered = values - values.mean(dim=0)
    sums = torch.zeros(len(counts), values.shape[1], dtype=torch.float64, device=values.device)
    sums.index_add_(0, group, centered)
    between = (sums.square() / counts[:, None]).sum(dim=0)
    constant = values.amax(dim=0) == values.amin(dim=0)
    return (between / centered.square().sum(dim=0)).masked_fill(constant, torch.nan)
