"""Erasure of the domain from the features that the head reads."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor
from torch.nn.functional import one_hot

from contam.batch import Batch
from contam.models.linear_head import LinearHead
from contam.models.logits_adapter import LogitsAdapter
from contam.remedies.fresh_head import fit_linear_head
from contam.remedies.repair import HeadRepair
from contam.training.probe import LEAST_SHRINKAGE, in_span


@final
@dataclass(frozen=True)
class DomainErasure(HeadRepair):
    """A fresh head that does not read the directions in which ID and OOD features differ linearly.

    The groups of the ID examples, if there are several, are erased as well.

    Source: ours, LEACE (Belrose et al., 2023) on the features of the network.
    """

    name = "domain erasure"
    needs = frozenset({"linear head", "ID labels", "OOD inputs"})

    def applies(self, network: LogitsAdapter, id: Batch, ood: Batch) -> str:
        return "" if len(ood.y) else "there are no OOD examples"

    def fit_head(self, head: LinearHead, id: Batch, ood: Batch) -> LinearHead:
        group = id.domain.unique(return_inverse=True)[1]
        domain = torch.cat([group, torch.full_like(ood.y, int(group.max()) + 1)])
        kept, offset = erasing(torch.cat([id.x, ood.x]), domain)
        erased = (id.x.double() @ kept.T + offset).float()
        fitted = fit_linear_head(erased, id.y, classes=len(head.bias))
        weight = fitted.weight.double()
        return LinearHead((weight @ kept).float(), (fitted.bias.double() + weight @ offset).float())


def erasing(
    x: Float[Tensor, "n width"], concept: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "width width"], Float[Tensor, " width"]]:
    """Return the affine map that erases a concept from features with the least change.

    The size of the change is measured in the metric of the features' covariance, which is shrunk
    (Ledoit and Wolf, 2004), because there may be more features than examples.

    Args:
        x: features of each example.
        concept: index of the concept's value for each example.

    Returns:
        A matrix A and a vector b in double precision; A x + b are the erased features. They have
        the same mean for every value of the concept on these examples, so that no linear classifier
        of them does better than a constant.

    Source: ours, LEACE (Belrose et al., 2023) in closed form.

    >>> x = torch.tensor([[0.0, 1.0], [0.0, 2.0], [2.0, 1.0], [2.0, 2.0]])
    >>> A, b = erasing(x, torch.tensor([0, 0, 1, 1]))
    >>> (x.double() @ A.T + b).round(decimals=4).tolist()
    [[1.0, 1.0], [1.0, 2.0], [1.0, 1.0], [1.0, 2.0]]
    """
    x = x.double()
    mean, n = x.mean(dim=0), len(x)
    x = x - mean
    values = one_hot(concept).double()
    # All matrices act inside the span of the examples.
    if n < x.shape[1]:
        _, basis = in_span(x)
    else:
        basis = torch.linalg.eigh(x.T @ x)[1].T
    inside = x @ basis.T
    variance = inside.square().sum(dim=0) / n
    share = float(ledoit_wolf_shrinkage(x.numpy(), assume_centered=True))
    level = (variance.sum() / x.shape[1]).clamp(min=1e-30)
    scale = ((1 - share) * variance + max(share, LEAST_SHRINKAGE) * level).sqrt()
    directions, sizes, _ = torch.linalg.svd(
        inside.T @ (values - values.mean(dim=0)) / scale[:, None], full_matrices=False
    )
    directions = directions[:, sizes > 1e-9]
    left, right = basis.T @ (scale[:, None] * directions), (directions / scale[:, None]).T @ basis
    lost = left @ right
    return torch.eye(x.shape[1], dtype=x.dtype) - lost, lost @ mean
