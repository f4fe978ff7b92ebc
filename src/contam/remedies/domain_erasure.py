"""Erasure of the domain from the features that the head reads."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from contam.batch import Batch
from contam.models.linear_head import LinearHead
from contam.remedies.fresh_head import fit_linear_head
from contam.remedies.repair import HeadRepair
from contam.training.probe import LEAST_SHRINKAGE


@final
@dataclass(frozen=True)
class DomainErasure(HeadRepair):
    """A fresh head that does not read the directions in which ID and OOD features differ linearly.

    The groups of the ID examples, if there are several, are erased as well.

    Source: ours, LEACE (Belrose et al., 2023) on the features of the network.
    """

    name = "domain erasure"
    needs = frozenset({"linear head", "ID labels", "OOD inputs"})

    def fit_head(self, head: LinearHead, id: Batch, ood: Batch) -> LinearHead:
        group = id.domain.unique(return_inverse=True)[1]
        domain = torch.cat([group, torch.full_like(ood.y, int(group.max()) + 1)])
        eraser = fit_eraser(torch.cat([id.x, ood.x]), domain)
        fitted = fit_linear_head(eraser(id.x).float(), id.y, classes=len(head.bias))
        weight = fitted.weight.double()
        lost = (weight @ eraser.left) @ eraser.right
        return LinearHead(
            (weight - lost).float(), (fitted.bias.double() + lost @ eraser.mean).float()
        )


@dataclass(frozen=True, eq=False)
class Eraser:
    """The affine map x - left right (x - mean)."""

    left: Float[Tensor, "width rank"]
    right: Float[Tensor, "rank width"]
    mean: Float[Tensor, " width"]

    def __call__(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        """Return the erased features in double precision."""
        x = x.double()
        return x - ((x - self.mean) @ self.right.T) @ self.left.T


def fit_eraser(x: Float[Tensor, "n width"], concept: Int[Tensor, " n"]) -> Eraser:
    """Fit the affine map that erases a concept from features with the least change.

    The size of the change is measured in the metric of the features' covariance, which is shrunk
    (Ledoit and Wolf, 2004), because there may be more features than examples.

    Args:
        x: features of each example.
        concept: index of the concept's value for each example.

    Returns:
        The map. Erased features have the same mean for every value of the concept on these
        examples, so that no linear classifier of them does better than a constant.

    Source: ours, LEACE (Belrose et al., 2023) in closed form.

    >>> x = torch.tensor([[0.0, 1.0], [0.0, 2.0], [2.0, 1.0], [2.0, 2.0]])
    >>> fit_eraser(x, torch.tensor([0, 0, 1, 1]))(x).round(decimals=4).tolist()
    [[1.0, 1.0], [1.0, 2.0], [1.0, 1.0], [1.0, 2.0]]
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    mean = x.double().mean(dim=0)
    x, (n, width) = x.double() - mean, x.shape
    values = one_hot(concept).double()
    cross = x.T @ (values - values.mean(dim=0)) / n
    shrinkage = max(float(ledoit_wolf_shrinkage(x.numpy(), assume_centered=True)), LEAST_SHRINKAGE)
    ridge = (shrinkage * x.square().sum() / n / width).clamp(min=1e-30)
    scale = (1 - shrinkage) / n
    # The covariance is scale * x.T @ x + ridge * identity; its inverse times the cross-covariance
    # comes from the smaller of two matrices, by Woodbury's identity.
    if width <= n:
        covariance = scale * x.T @ x
        covariance.diagonal().add_(ridge)
        solved = torch.cholesky_solve(cross, torch.linalg.cholesky(covariance))
    else:
        gram = scale * x @ x.T
        gram.diagonal().add_(ridge)
        inside = torch.cholesky_solve(scale * x @ cross, torch.linalg.cholesky(gram))
        solved = (cross - x.T @ inside) / ridge
    size = cross.T @ solved
    return Eraser(cross @ torch.linalg.pinv(size, rtol=1e-9, hermitian=True), solved.T, mean)
