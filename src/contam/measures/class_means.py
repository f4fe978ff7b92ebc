"""Class means of neurons, accumulated over batches: the table behind every class-wise measure."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class ClassMeans:
    """Mean activation of each neuron for each class, accumulated over batches.

    Sums are kept on the CPU in double precision, so batches of any size, in any order and on any
    number of processes, give the same means to about 15 digits. Integers and rates of a power of
    two of positions give the same to the last bit.

    Args:
        classes: Number of classes.
        neurons: Number of neurons, or of any other values for each example.
        parts: Number of groups of examples with separate sums; 2 or more allow the jackknife
            intervals of `class_profile_attenuation`.
        domains: Number of domains with separate sums.

    Source: ours, the sums behind Morcos et al. (2018).

    >>> import torch
    >>> means = ClassMeans(classes=2, neurons=1)
    >>> means.update(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1])).compute()
    tensor([[2.],
            [5.]], dtype=torch.float64)
    """

    def __init__(self, classes: int, neurons: int, *, parts: int = 1, domains: int = 1) -> None:
        size = (domains, parts, classes)
        self.cell_sums = torch.zeros(*size, neurons, dtype=torch.float64)
        """Summed values, of shape (domains, parts, classes, neurons)."""
        self.cell_counts = torch.zeros(size, dtype=torch.int64)
        """Numbers of examples, of shape (domains, parts, classes)."""
        self.squares = torch.zeros(neurons, dtype=torch.float64)
        """Summed squares of the values over all examples, of shape (neurons,)."""

    @property
    def sums(self) -> Float[Tensor, "classes neurons"]:
        """Summed values of each class over all domains and parts."""
        return self.cell_sums.sum(dim=(0, 1))

    @property
    def counts(self) -> Int[Tensor, " classes"]:
        """Number of examples of each class."""
        return self.cell_counts.sum(dim=(0, 1))

    def update(
        self,
        values: Float[Tensor, "batch neurons"],
        y: Int[Tensor, " batch"],
        *,
        part: Int[Tensor, " batch"] | None = None,
        domain: Int[Tensor, " batch"] | None = None,
    ) -> "ClassMeans":
        """Add a batch.

        Args:
            values: Activations of each example.
            y: Class indices.
            part: Part of each example; by default the examples of a class go to the parts in turn.
            domain: Domain index of each example; by default 0.

        Raises:
            ValueError: If the shapes or the indices do not fit this table.
        """
        domains, parts, classes, neurons = self.cell_sums.shape
        y = y.cpu()
        if values.shape != (len(y), neurons):
            raise ValueError(
                f"expected {neurons} neurons for each of {len(y)} examples, got values of shape "
                f"{tuple(values.shape)}"
            )
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
            raise ValueError(
                f"labels {int(y.min())}..{int(y.max())} don't fit {classes} classes numbered from 0"
            )
        cell = y
        if parts > 1 or part is not None:
            if part is None:
                part = (self.counts[y] + rank_within_class(y, classes)) % parts
            cell = cell + classes * _checked("part", part, parts)
        if domain is not None:
            cell = cell + classes * parts * _checked("domain", domain, domains)
        values = values.detach().cpu().double()
        self.cell_sums.view(-1, neurons).index_add_(0, cell, values)
        self.cell_counts.view(-1).index_add_(0, cell, torch.ones_like(cell))
        self.squares += values.square().sum(dim=0)
        return self

    def merge(self, other: "ClassMeans") -> "ClassMeans":
        """Add the examples of another table.

        Raises:
            ValueError: If the other table has another shape.
        """
        if other.cell_sums.shape != self.cell_sums.shape:
            raise ValueError(
                f"cannot merge tables of shapes {tuple(self.cell_sums.shape)} and "
                f"{tuple(other.cell_sums.shape)} (domains, parts, classes, neurons)"
            )
        self.cell_sums += other.cell_sums
        self.cell_counts += other.cell_counts
        self.squares += other.squares
        return self

    def compute(self) -> Float[Tensor, "classes neurons"]:
        """Return the means over all domains and parts, in double precision.

        Raises:
            ValueError: If a class has no example.
        """
        missing = (self.counts == 0).nonzero().flatten().tolist()
        if missing:
            raise ValueError(f"no example of class {missing}; every class needs at least one")
        return self.sums / self.counts[:, None]

    def pooled(self) -> "ClassMeans":
        """Return a new table with the same examples in one part and one domain."""
        pooled = ClassMeans(*self.cell_sums.shape[2:])
        pooled.cell_sums += self.sums
        pooled.cell_counts += self.counts
        pooled.squares += self.squares
        return pooled

    def within_class_variance(self, *, by_domain: bool = False) -> Float[Tensor, " neurons"]:
        """Variance of each neuron within classes, pooled over the classes; nan if undefined.

        Args:
            by_domain: Whether to take the variance within the classes of each domain.

        Source: ours, the noise of class means.
        """
        axes = (1,) if by_domain else (0, 1)
        counts = self.cell_counts.sum(dim=axes)
        present = counts > 0
        sums, count = self.cell_sums.sum(dim=axes)[present], counts[present][:, None].double()
        freedom = int(counts.sum()) - int(present.sum())
        within = (self.squares - (sums.square() / count).sum(dim=0)).clamp(min=0)
        return within / freedom if freedom > 0 else within * torch.nan


def rank_within_class(y: Int[Tensor, " examples"], classes: int) -> Int[Tensor, " examples"]:
    """Return how many examples of the same class come before each example.

    Args:
        y: Class indices.
        classes: Number of classes.

    >>> import torch
    >>> rank_within_class(torch.tensor([1, 0, 1, 1]), classes=2).tolist()
    [0, 0, 1, 2]
    """
    order = y.argsort(stable=True)
    counts = torch.bincount(y, minlength=classes)
    first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    rank = torch.empty_like(y)
    rank[order] = torch.arange(len(y)) - first
    return rank


def _checked(name: str, index: Tensor, size: int) -> Tensor:
    index = index.cpu()
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
        raise ValueError(
            f"{name} {int(index.min())}..{int(index.max())} doesn't fit {size} {name}s "
            "numbered from 0"
        )
    return index
