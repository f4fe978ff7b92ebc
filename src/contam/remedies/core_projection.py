"""Projection of features on an estimated core subspace."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.batch import Batch
from contam.models.linear_head import LinearHead
from contam.models.logits_adapter import LogitsAdapter
from contam.remedies.fresh_head import fit_linear_head
from contam.remedies.repair import HeadRepair


@final
@dataclass(frozen=True)
class CoreProjection(HeadRepair):
    """A fresh head that reads the span of the class means alone.

    A background that is not correlated with the class shifts no class mean of ID features, so the
    differences between class means estimate the core subspace. What a shift changes in other
    directions does not reach the logits.

    Source: ours, an estimate of the core subspace of features that needs no OOD data.
    """

    name = "core projection"
    needs = frozenset({"linear head", "ID labels"})

    def applies(self, network: LogitsAdapter, id: Batch, ood: Batch) -> str:
        return "" if len(id.y.unique()) > 1 else "the ID examples have a single class"

    def fit_head(self, head: LinearHead, id: Batch, ood: Batch) -> LinearHead:
        basis = core_basis(id.x, id.y)
        fitted = fit_linear_head(id.x @ basis, id.y, classes=len(head.bias))
        return LinearHead(fitted.weight @ basis.T, fitted.bias)


def core_basis(
    x: Float[Tensor, "n width"], y: Int[Tensor, " n"], tolerance: float = 1e-3
) -> Float[Tensor, "width rank"]:
    """Return an orthonormal basis of the differences between class means.

    Args:
        x: features of each example.
        y: class indices.
        tolerance: smallest singular value that counts, as a share of the largest.

    Returns:
        The basis; its rank is at most the number of classes minus 1.

    Source: ours, differences between class means are the directions that a linear head needs.

    >>> x, y = torch.tensor([[1.0, 5.0], [1.0, 3.0], [3.0, 4.0]]), torch.tensor([0, 0, 1])
    >>> core_basis(x, y).abs()
    tensor([[1.],
            [0.]])
    """
    means = torch.stack([x[y == label].double().mean(dim=0) for label in y.unique()])
    _, values, directions = torch.linalg.svd(means - means.mean(dim=0), full_matrices=False)
    return directions[values > tolerance * values[0]].T.to(x.dtype)
