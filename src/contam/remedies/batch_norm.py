"""Batch-norm statistics of OOD images."""

from dataclasses import dataclass
from typing import final

from contam.batch import Batch
from contam.models.batch_statistics import batch_norms, calibrate
from contam.models.linear_head import copy_network
from contam.models.logits_adapter import LogitsAdapter
from contam.remedies.repair import ImageRepair

FEWEST = 8
"""OOD inputs for which statistics are estimated, at least."""


@final
@dataclass(frozen=True)
class BatchNormStatistics(ImageRepair):
    """A network whose batch norms have the means and variances of OOD inputs.

    Source: ours, adaptive batch normalization (Li et al., 2017; Schneider et al., 2020).

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.BatchNorm1d(1))
    >>> x, y = torch.arange(8.0)[:, None], torch.arange(8) % 2
    >>> repaired = BatchNormStatistics().fit(model, id=(x, y), ood=(x, y))
    >>> repaired[0].running_mean.item()
    3.5
    """

    name = "batch-norm statistics"
    needs = frozenset({"batch norm", "OOD inputs"})

    def applies(self, network: LogitsAdapter, id: Batch, ood: Batch) -> str:
        if not batch_norms(network):
            return "the network has no batch norm with running statistics"
        if len(ood.y) < FEWEST:
            return f"{len(ood.y)} OOD inputs are too few for statistics"
        return ""

    def fit_network(
        self, network: LogitsAdapter, id: Batch, ood: Batch, *, batch_size: int
    ) -> LogitsAdapter:
        copied = copy_network(network)
        calibrate(copied, ood.x.tensor_split(max(1, round(len(ood.y) / batch_size))))
        return copied
