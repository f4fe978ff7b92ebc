"""Statistics of batch norms, estimated anew on given inputs."""

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from contam.models.preserve import evaluating

Network = TypeVar("Network", bound=nn.Module)


def batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch norms that have running statistics.

    Source: ours.

    >>> len(batch_norms(nn.Sequential(nn.BatchNorm1d(2), nn.LayerNorm(2))))
    1
    """
    kind = nn.modules.batchnorm._BatchNorm
    return [m for m in network.modules() if isinstance(m, kind) and m.running_mean is not None]


def calibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the statistics of all batch norms by those of inputs, in one pass over them.

    Only batch norms are in training mode, and no weight changes. A network without batch norms
    sees no input.

    Args:
        network: the network, whose statistics change in place.
        batches: inputs (batch, ...) on any device; all batches have the same weight.

    Source: ours; the mean over batches as in `torch.optim.swa_utils.update_bn`, without dropout.

    Raises:
        ValueError: a batch norm has one value for each channel of a batch.

    >>> network = nn.Sequential(nn.BatchNorm1d(1))
    >>> calibrate(network, [torch.tensor([[1.0], [3.0]])])
    >>> network[0].running_mean.item(), network[0].running_var.item()
    (2.0, 2.0)
    """
    norms = batch_norms(network)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    device = next((value.device for value in network.parameters()), torch.device("cpu"))
    try:
        with evaluating(network):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches
                norm.train()
            for x in batches:
                network(x.to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def calibrated(network: Network, batches: Iterable[Tensor]) -> Network:
    """Return a copy of a network after `calibrate`.

    As a control with random weights, it shows what normalization alone does to the activations.

    Args:
        network: the network; unchanged.
        batches: inputs (batch, ...).

    Source: ours, the second control of every number about learning.

    Raises:
        ValueError: as `calibrate`.

    >>> network = nn.Sequential(nn.BatchNorm1d(1))
    >>> copied = calibrated(network, [torch.tensor([[1.0], [3.0]])])
    >>> copied[0].running_mean.item(), network[0].running_mean.item()
    (2.0, 0.0)
    """
    copied = copy.deepcopy(network)
    calibrate(copied, batches)
    return copied
