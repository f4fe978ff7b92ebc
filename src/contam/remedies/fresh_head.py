"""A fresh linear head that is fitted to ID data."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float, Int
from torch import Tensor

from contam.batch import Batch
from contam.models.linear_head import LOWEST_BIAS, LinearHead
from contam.remedies.repair import HeadRepair
from contam.training.probe import WITHIN_BUDGET, fit_probe, probe_recipe


@final
@dataclass(frozen=True)
class FreshHead(HeadRepair):
    """A linear head that is fitted to the network's features of ID data.

    Source: ours, the repair of good features under a bad head.

    >>> import torch
    >>> x, y = torch.eye(2).repeat(8, 1), torch.arange(16) % 2
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    >>> FreshHead().fit(model, id=(x, y))(torch.eye(2)).argmax(dim=1).tolist()
    [0, 1]
    """

    name = "fresh head"
    needs = frozenset({"linear head", "ID labels"})

    def fit_head(self, head: LinearHead, id: Batch, ood: Batch) -> LinearHead:
        return fit_linear_head(id.x, id.y, classes=len(head.bias))


def fit_linear_head(
    x: Float[Tensor, "n width"], y: Int[Tensor, " n"], *, classes: int
) -> LinearHead:
    """Fit a linear head, exactly within a budget and in closed form beyond it.

    Args:
        x: features of each example.
        y: class indices. A class without examples is hardly ever predicted.
        classes: number of classes.

    Source: ours, the head that the features allow, for any number of classes.

    >>> import torch
    >>> fit_linear_head(torch.eye(2), torch.arange(2), classes=3)(torch.eye(2)).argmax(1).tolist()
    [0, 1]
    """
    probe = fit_probe(x, y, probe_recipe([x], WITHIN_BUDGET, classes=classes), classes=classes)
    weight, bias = probe.double().head()
    return LinearHead(weight.float(), bias.float().clamp(min=LOWEST_BIAS))
