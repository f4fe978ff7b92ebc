"""Minibatches of small images from several domains, and what a step leaves in a parameter."""

import torch
from torch import Tensor, nn

from contam.batch import Batch


def domain_batches(*sizes: int, dtype: torch.dtype = torch.float64) -> list[Batch]:
    """One minibatch of small images for each domain; the class is the brightest of 3 channels."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for domain, size in enumerate(sizes):
        y = torch.arange(size) % 3
        x = torch.rand(size, 3, 8, 8, generator=generator, dtype=dtype) + 0.2 * domain
        x[torch.arange(size), y] += 0.5
        batches.append(Batch(x, y, torch.full_like(y, domain)))
    return batches


def value_of(network: nn.Module, name: str = "encoder.weight") -> Tensor:
    """A flat copy of a parameter."""
    return network.get_parameter(name).detach().flatten().clone()


def gradient_of_step(network: nn.Module, name: str = "encoder.weight") -> Tensor:
    """A flat copy of the gradient that the last step left in a parameter."""
    gradient = network.get_parameter(name).grad
    assert gradient is not None
    return gradient.flatten().clone()
