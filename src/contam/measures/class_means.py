"""One table serves every measure that asks how a neuron responds to each class."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class ClassMeans:
    """The mean of each neuron for each class, over any number of batches.

    Sums are kept on the CPU in double precision, so batches of any size, in any order and on any
    number of processes, give the same means to about 15 digits. Whole numbers and rates of a power
    of two of positions give the same to the last bit.

    Source: ours, the sums behind Morcos et al. (2018).
    """

    def __init__(self, classes: int, neurons: int) -> None:
        self.sums = torch.zeros(classes, neurons, dtype=torch.float64)
        self.counts = torch.zeros(classes, dtype=torch.int64)

    def update(
        self, values: Float[Tensor, "batch neurons"], y: Int[Tensor, " batch"]
    ) -> "ClassMeans":
        """Add a batch.

        Raises:
            ValueError: the table has other neurons or classes than the batch.
        """
        classes, neurons = self.sums.shape
        y = y.cpu()
        if values.shape != (len(y), neurons):
            raise ValueError(
                f"want {neurons} neurons for each of {len(y)} examples, "
                f"not values of shape {tuple(values.shape)}"
            )
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
            raise ValueError(
                f"labels {int(y.min())}..{int(y.max())} don't fit {classes} classes numbered from 0"
            )
        self.sums.index_add_(0, y, values.detach().cpu().double())
        self.counts += torch.bincount(y, minlength=classes)
        return self

    def merge(self, other: "ClassMeans") -> "ClassMeans":
        """Add what another one saw.

        Raises:
            ValueError: the other one has other classes or neurons.
        """
        if other.sums.shape != self.sums.shape:
            raise ValueError(
                f"a table of {tuple(self.sums.shape)} classes and neurons can't take in one of "
                f"{tuple(other.sums.shape)}"
            )
        self.sums += other.sums
        self.counts += other.counts
        return self

    def compute(self) -> Float[Tensor, "classes neurons"]:
        """The means, in double precision.

        Raises:
            ValueError: a class was never seen.
        """
        missing = (self.counts == 0).nonzero().flatten().tolist()
        if missing:
            raise ValueError(f"no example of class {missing} was seen; every class needs one")
        return self.sums / self.counts[:, None]
