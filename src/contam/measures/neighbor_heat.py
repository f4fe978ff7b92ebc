"""Grad-CAM of a soft nearest-neighbor score: where a layer finds what its neighbors vote for.

Prediction depth names the layer at which most examples are decided. The heat shows which positions
of that layer make an example similar to the support of its class. It needs no head: the gradient
is that of the score with respect to the layer's own maps.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.measures.gradcam import Formula, grad_cam
from contam.models.observe import observe


def neighbor_score(
    features: Float[Tensor, "queries neurons"],
    support: Float[Tensor, "support neurons"],
    support_y: Int[Tensor, " support"],
    y: Int[Tensor, " queries"],
    *,
    scale: float,
) -> Float[Tensor, " queries"]:
    """Return the share of a query's similarity that members of its class have, in [0, 1].

    A member's similarity is exp(-d / scale), where d is the L1 distance.

    Args:
        features: Features of the queries.
        support: Features of the support.
        support_y: Classes of the support.
        y: Class of each query, usually the predicted one.
        scale: Distance at which similarity falls by a factor of e.

    Raises:
        ValueError: If the scale is not positive, or the support has no member of a query's class.

    Source: ours; Murali et al. (2023), Step 3.

    >>> support, support_y = torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])
    >>> half, y = torch.tensor([[0.5]]), torch.tensor([1])
    >>> neighbor_score(half, support, support_y, y, scale=1).tolist()
    [0.5]
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    absent = sorted(set(y.tolist()) - set(support_y.tolist()))
    if absent:
        raise ValueError(f"the support has no member of class {absent[0]}")
    similarity = (-torch.cdist(features, support, p=1.0) / scale).log_softmax(dim=1)
    other = support_y[None] != y[:, None]
    return similarity.masked_fill(other, -torch.inf).logsumexp(dim=1).exp()


def neighbor_heat(
    model: nn.Module,
    queries: Any,
    support: Any,
    layer: str,
    y: Int[Tensor, " queries"] | None = None,
    *,
    scale: float | None = None,
    formula: Formula = grad_cam,
) -> Float[Tensor, "queries height width"]:
    """Return the heat of each query for its class among the nearest neighbors at one layer.

    Args:
        model: Network; its modes and weights are unchanged.
        queries: Images to explain.
        support: Labeled images among which the neighbors are, such as 100 of each class.
        layer: Layer with maps (batch, channels, height, width). Use the one at which most examples
            are decided: the mode of `Depths.depth`.
        y: Class of each query; by default the network's prediction.
        scale: Distance at which similarity falls by a factor of e; by default the median over
            queries of the distance to the nearest member, because the published constant fits one
            network only.
        formula: Grad-CAM, or another formula.

    Returns:
        Unnormalized heat at the layer's resolution.

    Raises:
        ValueError: If the layer has no maps, or as for `neighbor_score` and `observe`.

    Source: ours; Murali et al. (2023), Step 3.

    >>> layers = nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    >>> data = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    >>> neighbor_heat(nn.Sequential(*layers), data, data, "1").shape
    torch.Size([4, 6, 6])
    """
    maps, predicted, _ = _read(model, queries, layer)
    members, _, support_y = _read(model, support, layer)
    y = predicted if y is None else y.cpu()
    members = members.flatten(1)
    if scale is None:
        nearest = torch.cdist(maps.flatten(1), members, p=1.0).sort(dim=1).values
        # A query that is in the support is its own nearest member.
        scale = float(nearest.masked_fill(nearest == 0, torch.inf).amin(dim=1).median())
    with torch.enable_grad():
        maps = maps.clone().requires_grad_()
        score = neighbor_score(maps.flatten(1), members, support_y, y, scale=scale)
        (gradients,) = torch.autograd.grad(score.sum(), maps)
    return formula(maps.detach(), gradients)


def _read(model: nn.Module, data: Any, layer: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the layer's maps, the predictions and the labels of all examples."""
    observations = list(observe(model, data, [layer], reduce=_whole))
    maps = torch.cat([one.layers[layer].cpu() for one in observations])
    predicted = torch.cat([one.logits.argmax(dim=1).cpu() for one in observations])
    return maps, predicted, torch.cat([one.batch.y.cpu() for one in observations])


def _whole(maps: Tensor) -> Tensor:
    if maps.ndim != 4:
        raise ValueError(
            f"the layer returns {tuple(maps.shape)}, not maps (batch, channels, height, width); "
            "choose a convolutional layer"
        )
    return maps.clone()
