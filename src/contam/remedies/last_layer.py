"""Last-layer retraining on a few labeled OOD examples, and on balanced groups of ID examples."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from contam.batch import Batch
from contam.models.linear_head import LinearHead
from contam.models.logits_adapter import LogitsAdapter
from contam.remedies.fresh_head import fit_linear_head
from contam.remedies.repair import HeadRepair
from contam.rng import generator_for

MOST_ROWS = 4
"""Rows after balancing at most, as a multiple of the examples."""


@final
@dataclass(frozen=True)
class LastLayerRetraining(HeadRepair):
    """A linear head that is fitted to ID data and a few labeled OOD examples of each class.

    Every class has the same weight in both sets.

    Args:
        per_class: labeled OOD examples of each class, at most.
        seed: random seed of the examples.

    Source: ours, after deep feature reweighting (Kirichenko et al., 2023), which fits the last
    layer to balanced groups.

    >>> LastLayerRetraining(8).labels(torch.tensor([0] * 20 + [1] * 5))
    13
    """

    per_class: int = 8
    seed: int = 0

    name = "last-layer retraining"
    needs = frozenset({"linear head", "ID labels", "OOD labels"})

    @property
    def title(self) -> str:
        return f"{self.name}, {self.per_class} OOD labels per class"

    @property
    def call(self) -> str:
        return f"LastLayerRetraining(per_class={self.per_class})"

    def labels(self, y: Int[Tensor, " n"]) -> int:
        return int(torch.bincount(y).clamp(max=self.per_class).sum())

    def applies(self, network: LogitsAdapter, id: Batch, ood: Batch) -> str:
        classes = len(ood.y.unique())
        if not classes or self.labels(ood.y) < self.per_class * classes / 2:
            return (
                f"{len(ood.y)} OOD examples of {classes} classes are fewer than half of "
                f"{self.per_class} per class"
            )
        return ""

    def fit_head(self, head: LinearHead, id: Batch, ood: Batch) -> LinearHead:
        order = torch.randperm(len(ood.y), generator=generator_for(self.seed, "repair/labels"))
        labeled = ood.pick(_first_of_each(ood.y, order, self.per_class))
        x, y = torch.cat([id.x, labeled.x]), torch.cat([id.y, labeled.y])
        group = torch.cat([2 * id.y, 2 * labeled.y + 1])
        rows = balanced_rows(group)
        return fit_linear_head(x[rows], y[rows], classes=len(head.bias))


@final
@dataclass(frozen=True)
class GroupBalancedHead(HeadRepair):
    """A linear head that is fitted to ID data in which every class has the same share of groups.

    The groups are the domains or backgrounds of the examples.

    Source: ours, after deep feature reweighting (Kirichenko et al., 2023).
    """

    name = "group-balanced head"
    needs = frozenset({"linear head", "ID labels", "ID groups"})

    def applies(self, network: LogitsAdapter, id: Batch, ood: Batch) -> str:
        group = id.domain.unique(return_inverse=True)[1]
        if not len(group) or int(group.max()) == 0:
            return "the ID examples have no groups"
        counts = torch.bincount(id.y * (1 + group.max()) + group)
        counts = counts[counts > 0]
        if counts.max() <= 1.5 * counts.min():
            return "the groups of the ID examples are balanced already"
        return ""

    def fit_head(self, head: LinearHead, id: Batch, ood: Batch) -> LinearHead:
        group = id.domain.unique(return_inverse=True)[1]
        rows = balanced_rows(id.y * (1 + int(group.max())) + group)
        return fit_linear_head(id.x[rows], id.y[rows], classes=len(head.bias))


def balanced_rows(group: Int[Tensor, " n"]) -> Int[Tensor, " rows"]:
    """Return rows of which every group has the same number, by repeating those of small groups.

    Args:
        group: index of the group of each example.

    Returns:
        Rows in rising order. If groups differ so much that there would be more than four times as
        many rows as examples, the examples of large groups are thinned out.

    Source: ours, small groups are repeated, because dropping examples of large ones would waste
        them.

    >>> balanced_rows(torch.tensor([0, 0, 0, 1])).tolist()
    [0, 1, 2, 3, 3, 3]
    """
    counts = torch.bincount(group)
    present = counts > 0
    per_group = min(int(counts.max()), MOST_ROWS * len(group) // int(present.sum()))
    rows = []
    for index in present.nonzero().flatten().tolist():
        members = (group == index).nonzero().flatten()
        # Evenly spaced, so that no member occurs much more often than another.
        rows.append(members[torch.arange(per_group) * len(members) // per_group])
    return torch.cat(rows).sort().values


def _first_of_each(y: Tensor, order: Tensor, most: int) -> Tensor:
    """The first examples of each class in an order."""
    kept = [order[y[order] == label][:most] for label in y.unique()]
    return torch.cat(kept).sort().values if kept else order
