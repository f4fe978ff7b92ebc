"""Projections of hidden weights on core and background features.

Letters, as in the paper: W[k, j] = u_kj = <w_k, m_j> is the projection of neuron k on feature j,
the core features first; a_k is its output weight; mu_j is the mean of the feature's ID weight.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.theory.distribution import DataModel, Sample


def weighted_sums(
    W: Float[Tensor, "m d0"], data: DataModel
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Sum each neuron's projections on core and background features, weighted by mu_j.

    Feature contamination is a B_k that grows although the background is independent of the label.

    Args:
        W: projections.
        data: the data model, which gives mu_j.

    Returns:
        C_k and B_k.

    Source: Thm. 4.2, Eq. 8.

    >>> from contam.theory.features import FeatureModel
    >>> data = DataModel(FeatureModel(core=2, background=1, dimension=4))
    >>> [part.tolist() for part in weighted_sums(torch.tensor([[1.0, 3.0, -2.0]]), data)]
    [[2.0], [-1.0]]
    """
    core, terms = data.features.core, W * data.means.to(W.dtype)
    return terms[:, :core].sum(dim=1), terms[:, core:].sum(dim=1)


def class_correlations(W: Float[Tensor, "m d0"], data: DataModel) -> Float[Tensor, "classes m"]:
    """Expected pre-activation of each neuron on each class in distribution, E[<w_k, x> | y].

    Args:
        W: projections.
        data: the data model.

    Returns:
        One row for each class; with two classes and no spurious correlation, y C_k + B_k.

    Source: ours, for any data model; the paper writes out the sum.

    >>> from contam.theory.features import FeatureModel
    >>> data = DataModel(FeatureModel(core=2, background=1, dimension=4))
    >>> class_correlations(torch.tensor([[1.0, 3.0, -2.0]]), data).tolist()
    [[-3.0], [1.0]]
    """
    return data.class_means.to(W.dtype) @ W.T


def own_class(
    W: Float[Tensor, "m d0"], data: DataModel, a: Float[Tensor, " m"] | None = None
) -> Int[Tensor, " m"]:
    """The class that each neuron supports, as a row of per-class tensors.

    Args:
        W: projections.
        data: the data model.
        a: output weights of a two-layer network with one output; then the class is the sign of
            a_k. Without them, it is the class whose mean input correlates most with the neuron.

    Returns:
        One row index for each neuron.

    Source: ours, to define a neuron's own class beyond the paper's networks.

    >>> from contam.theory.features import FeatureModel
    >>> data = DataModel(FeatureModel(core=1, background=1, dimension=2))
    >>> own_class(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), data).tolist()
    [1, 0]
    """
    if a is not None:
        return (a > 0).long()
    return class_correlations(W, data).argmax(dim=0)


def learned_sums(
    W: Float[Tensor, "m d0"], own: Int[Tensor, " m"], data: DataModel
) -> tuple[float, float]:
    """U and V: sums of projections on core and on background features, averaged over neurons.

    Args:
        W: projections.
        own: each neuron's own class; core projections count in the signs of this class.
        data: the data model.

    Returns:
        U and V.

    Source: ours, one number each for core and background.

    >>> from contam.theory.features import FeatureModel
    >>> data = DataModel(FeatureModel(core=1, background=1, dimension=2))
    >>> learned_sums(torch.tensor([[3.0, 1.0], [-1.0, 0.0]]), torch.tensor([1, 0]), data)
    (2.0, 0.5)
    """
    core = data.features.core
    u = (data.signs.to(W.dtype)[own] * W[:, :core]).sum(dim=1).mean()
    return float(u), float(W[:, core:].sum(dim=1).mean())


def layer_sums(z: Float[Tensor, "n m"], sample: Sample, data: DataModel) -> tuple[float, float]:
    """U and V of a layer at any depth, from its pre-activations on examples.

    A neuron's weights are replaced by the slopes of its pre-activation on the features: its least
    squares fit within its own class, the one with the largest mean. Of the first layer these are
    its projections, so U and V are those of `learned_sums`.

    Args:
        z: pre-activations of the layer.
        sample: the examples in distribution, more of each class than features.
        data: the data model.

    Returns:
        U and V, to ten decimals.

    Raises:
        ValueError: a class has no more examples than there are features.

    Source: ours, the sums of Thm. 4.2 where neurons read other neurons.

    >>> from contam.rng import bit_generator_for
    >>> from contam.theory.features import FeatureModel
    >>> data = DataModel(FeatureModel(core=1, background=1, dimension=2))
    >>> sample = data.sample(40, bit_generator_for(0, "example"))
    >>> W = torch.tensor([[3.0, 1.0], [-1.0, 0.0]])
    >>> [round(value, 4) for value in layer_sums(sample.f @ W.T, sample, data)]
    [2.0, 0.5]
    """
    core, index = data.features.core, data.class_index(sample.y)
    members = [index == row for row in range(data.classes)]
    if (fewest := min(int(part.sum()) for part in members)) <= data.features.size:
        raise ValueError(
            f"{fewest} examples of a class for {data.features.size} features: draw more examples"
        )
    own = torch.stack([z[part].mean(dim=0) for part in members]).argmax(dim=0)
    u = v = 0.0
    for row, part in enumerate(members):
        f, values = (
            table - table.mean(dim=0) for table in (sample.f[part].double(), z[part].double())
        )
        slopes = torch.linalg.lstsq(f, values[:, own == row]).solution
        u += float((data.signs[row].double() @ slopes[:core]).sum())
        v += float(slopes[core:].sum())
    # The last digits of least squares depend on where in memory the tables are.
    return round(u / z.shape[1], 10), round(v / z.shape[1], 10)


def average_norms(W: Float[Tensor, "m d0"], core: int) -> tuple[float, float]:
    """Norms of the core and of the background projections, averaged over neurons.

    Args:
        W: projections.
        core: number of core features.

    Returns:
        The mean norm of the core part and of the background part.

    Source: App. F.1.

    >>> average_norms(torch.tensor([[3.0, 4.0, 1.0]]), core=2)
    (5.0, 1.0)
    """
    return float(W[:, :core].norm(dim=1).mean()), float(W[:, core:].norm(dim=1).mean())


def largest_background(W: Float[Tensor, "m d0"], core: int, dimension: int) -> float:
    """The largest |<w_k, m_j>| over background features, in units of 1 / sqrt(d).

    In a linear network it stays of order 1, up to logarithms, for all time.

    Args:
        W: projections.
        core: number of core features.
        dimension: d, the dimension of the input space.

    Returns:
        The largest value; 0 without background features.

    Source: Thm. 4.4.

    >>> largest_background(torch.tensor([[1.0, 0.5, -0.25]]), core=1, dimension=4)
    1.0
    """
    background = W[:, core:]
    return math.sqrt(dimension) * float(background.abs().max()) if background.numel() else 0.0


def gradient_projections(
    W: Float[Tensor, "m d0"],
    a: Float[Tensor, " m"],
    sample: Sample,
    activation: str = "relu",
) -> Float[Tensor, "m d0"]:
    """Negative gradient of the loss along each feature, while all examples are inside the hinge.

    It is (a_k / 2) (E[1{active} z_j | y = 1] - E[1{active} z_j | y = -1]) for background features
    and a_k E[1{active} z_j] for core features, with the sample's means as expectations. The
    background terms cancel where a neuron is equally active for both classes.

    Args:
        W: projections.
        a: output weights of a two-layer network.
        sample: examples of both classes.
        activation: "relu" or "identity".

    Returns:
        The pull of each feature on each neuron, in the shape of W.

    Raises:
        ValueError: a class is missing, or the activation is neither "relu" nor "identity".

    Source: Eq. 7, Lemma A.3, Eq. 14, Lemma C.3, Eq. 51.

    >>> W, a = torch.tensor([[1.0, 0.0]]), torch.tensor([1.0])
    >>> f, y = torch.tensor([[1.0, 0.5], [-1.0, 0.5]]), torch.tensor([1, -1])
    >>> gradient_projections(W, a, Sample(f, y, f[:, :1])).tolist()
    [[0.5, 0.25]]
    >>> gradient_projections(W, a, Sample(f, y, f[:, :1]), "identity").tolist()
    [[1.0, 0.0]]
    """
    if activation not in ("relu", "identity"):
        raise ValueError(
            f"the closed form holds for activation 'relu' and 'identity', not {activation!r}"
        )
    pull = torch.zeros_like(W)
    for y in (-1, 1):
        f = sample.f[sample.y == y]
        if len(f) == 0:
            raise ValueError(f"no example of class {y} in the sample; draw more examples")
        z = f @ W.T
        active = (z >= 0).to(W.dtype) if activation == "relu" else torch.ones_like(z)
        pull += y / 2 * (active.T @ f) / len(f)
    return a[:, None] * pull
