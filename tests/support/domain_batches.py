"""Minibatches of several domains, and a network of two parameters for derivations by hand."""

import torch
from torch import Tensor, nn

from contam.batch import Batch
from contam.models.classifier import Classifier


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


def two_parameters(first: float = 0.5, second: float = -0.25) -> Classifier:
    """A linear encoder with two weights w, and logits (w x, -w x) that nothing else changes."""
    network = Classifier(nn.Linear(2, 1, bias=False), classes=2, width=1).double()
    with torch.no_grad():
        network.encoder.get_parameter("weight").copy_(torch.tensor([[first, second]]))
        network.head.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        network.head.bias.zero_()
    network.head.requires_grad_(False)
    return network


def weights_of(network: Classifier) -> Tensor:
    """The two weights."""
    return network.encoder.get_parameter("weight").detach()[0]


def gradient_in(network: nn.Module, name: str = "encoder.weight") -> Tensor:
    """The gradient that the last step left in a parameter, that is in its first row."""
    gradient = network.get_parameter(name).grad
    assert gradient is not None
    return gradient[0]


def two_parameter_gradient(w: Tensor, batch: Batch) -> Tensor:
    """Gradient of the mean of log(1 + exp(-2 s w x)), where s is 1 for class 0 and -1 for 1."""
    sign = 1 - 2 * batch.y.to(w)
    slope = -2 * sign * torch.sigmoid(-2 * sign * (batch.x @ w))
    return (slope[:, None] * batch.x).mean(dim=0)


def points(*rows: tuple[float, float, int]) -> Batch:
    """A batch of points (x1, x2) with classes."""
    x = torch.tensor([row[:2] for row in rows], dtype=torch.float64)
    y = torch.tensor([row[2] for row in rows])
    return Batch(x, y, torch.zeros_like(y))
