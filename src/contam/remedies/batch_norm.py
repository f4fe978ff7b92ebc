"""Batch-norm statistics of OOD images."""

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from contam.batch import Batch
from contam.models.linear_head import copy_network
from contam.models.logits_adapter import LogitsAdapter
from contam.models.preserve import evaluating
from contam.remedies.repair import ImageRepair

FEWEST = 8
"""OOD inputs for which statistics are estimated, at least."""


@final
@dataclass(frozen=True)
class BatchNormStatistics(ImageRepair):
    """A network whose batch norms have the means and variances of OOD inputs.

    Source: ours, adaptive batch normalization (Li et al., 2017; Schneider et al., 2020).

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
        norms = batch_norms(copied)
        momenta = [norm.momentum for norm in norms]
        device = next((value.device for value in copied.parameters()), torch.device("cpu"))
        parts = max(1, round(len(ood.y) / batch_size))
        with evaluating(copied):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches
                norm.train()
            for x in ood.x.tensor_split(parts):
                copied(x.to(device))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        return copied


def batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch norms that have running statistics.

    >>> len(batch_norms(nn.Sequential(nn.BatchNorm1d(2), nn.LayerNorm(2))))
    1
    """
    kind = nn.modules.batchnorm._BatchNorm
    return [m for m in network.modules() if isinstance(m, kind) and m.running_mean is not None]
