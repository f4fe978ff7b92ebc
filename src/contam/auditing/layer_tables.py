"""Tables of class means of a layer, in parts for intervals, and of few of many classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.measures.class_means import ClassMeans
from contam.measures.class_profiles import Profile
from contam.measures.selectivity import selectivity

PARTS = 10
"""Groups of examples with separate class means, from which intervals are made."""
FEWEST_PARTS = 4
"""Groups where tables are large."""
LARGE_TABLE = 2**26
"""Numbers in the class means of one pass above which there are fewer groups."""
LARGEST_TABLE = 2**27
"""Numbers in the class means of one pass above which domains have no separate means."""
LISTED = 100
"""Classes up to which every class has a row in tables, also one without examples."""
MOST_CLASS_MEANS = 23_000_000
"""Classes times neurons in the tables of one pass, at most; ResNet-50 has as many on ImageNet."""


@dataclass(frozen=True, eq=False)
class LayerTable:
    """Class means of a layer's activations and of its activation rates."""

    means: ClassMeans
    rate_sums: Float[Tensor, "classes neurons"]
    """Summed shares of positive activations of the examples of each class."""

    @classmethod
    def empty(cls, classes: int, neurons: int, *, parts: int = 1, domains: int = 1) -> "LayerTable":
        """Return a table without examples."""
        means = ClassMeans(classes, neurons, parts=parts, domains=domains)
        return cls(means, torch.zeros(classes, neurons, dtype=torch.float64))

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return self.rate_sums.shape[1]

    @property
    def finite(self) -> bool:
        """Whether every activation was finite."""
        return bool(self.means.sums.sum().isfinite() and self.means.squares.sum().isfinite())

    @property
    def profile(self) -> Profile:
        """Means and rates of the classes that have examples."""
        counts = self.means.counts
        present = counts > 0
        per_class = counts[present][:, None]
        rates = (self.rate_sums[present] / per_class).clamp(0, 1)
        return Profile(self.means.sums[present] / per_class, rates, counts[present])

    @property
    def selectivity(self) -> Float[Tensor, " neurons"]:
        """Eq. 61 on the classes that have examples; nan for fewer than two.

        Class means below zero count as zero, because the ratio has a pole for GELU neurons.
        """
        means = self.profile.means
        if len(means) < 2:
            return means.new_full(means.shape[1:], torch.nan)
        return selectivity(means.clamp(min=0))

    @property
    def rate(self) -> Float[Tensor, " neurons"]:
        """Share of positive activations over all examples."""
        return self.rate_sums.sum(dim=0) / self.means.counts.sum()

    def update(
        self, moments: Float[Tensor, "batch 2 neurons"], y: Tensor, part: Tensor, domain: Tensor
    ) -> None:
        """Add a batch of mean activations and activation rates."""
        means, rates = moments.detach().cpu().unbind(1)
        self.means.update(means, y, part=part, domain=domain)
        self.rate_sums.index_add_(0, y, rates.double())

    def merged(self, other: "LayerTable | None") -> "LayerTable":
        """Return a table of the examples of both, in one part and one domain."""
        means, rates = self.means.pooled(), self.rate_sums.clone()
        if other is not None:
            means.merge(other.means.pooled())
            rates += other.rate_sums
        return LayerTable(means, rates)


class TableCells:
    """Where the class means of each example are added.

    Args:
        label: row of the table for each example.
        classes: number of rows.
        domain: domain of each example.
        chosen: the examples that count; None for all.
    """

    def __init__(
        self, label: Tensor, classes: int, domain: Tensor, chosen: Tensor | None = None
    ) -> None:
        self.label, self.classes, self.domain, self.chosen = label, classes, domain, chosen
        # Examples in the order of their classes go to the parts in turn.
        counted = torch.arange(len(label)) if chosen is None else chosen.nonzero().flatten()
        self.part = torch.zeros_like(label)
        self.part[counted[label[counted].argsort(stable=True)]] = torch.arange(len(counted))

    def shape(self, neurons: int) -> tuple[int, int]:
        """Return how many domains and parts fit in memory."""
        domains = int(self.domain.max()) + 1
        if domains > 1 and domains * FEWEST_PARTS * self.classes * neurons > LARGEST_TABLE:
            domains = 1
        return domains, min(
            PARTS, max(FEWEST_PARTS, LARGE_TABLE // max(1, domains * self.classes * neurons))
        )

    def add(self, table: LayerTable, moments: Tensor, here: slice) -> None:
        """Add a batch of examples to a table."""
        domains, parts = table.means.cell_counts.shape[:2]
        label, part, domain = self.label[here], self.part[here] % parts, self.domain[here]
        if self.chosen is not None:
            inside = self.chosen[here]
            if not inside.any():
                return
            moments = moments[inside.to(moments.device)]
            label, part, domain = label[inside], part[inside], domain[inside]
        table.update(moments, label, part, domain if domains > 1 else domain * 0)


def table_rows(
    own: Int[Tensor, " n"], others: Sequence[Int[Tensor, " m"]], *, classes: int, most: int
) -> Int[Tensor, " classes"]:
    """Return the row of each class in tables of class means, -1 for classes without one.

    Classes that do not occur have no row. If more than `most` occur, the classes with the most
    examples in both the ID set and the OOD sets have one.

    Args:
        own: class indices of the ID set.
        others: class indices of each OOD set.
        classes: number of classes.
        most: maximum number of rows.

    Source: ours, since few of many classes occur in an audit.

    >>> table_rows(torch.tensor([3, 3, 1, 5]), [torch.tensor([3, 5])], classes=7, most=2).tolist()
    [-1, -1, -1, 0, -1, 1, -1]
    """
    known = torch.bincount(own, minlength=classes)
    new = torch.zeros_like(known)
    for y in others:
        new += torch.bincount(y, minlength=classes)
    order = known.argsort(descending=True, stable=True)
    if others:
        both = torch.minimum(known, new)
        order = order[both[order].argsort(descending=True, stable=True)]
    chosen = order[(known + new)[order] > 0][: max(2, most)].sort().values
    rows = torch.full((classes,), -1)
    rows[chosen] = torch.arange(len(chosen))
    return rows
