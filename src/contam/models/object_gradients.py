"""Training in which no gradient passes through pixels outside the object."""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ObjectGradients(nn.Module):
    """A copy of a network whose convolutions get gradients from positions of the object alone.

    The outputs are those of the network. In the backward pass, the outputs of a convolution outside
    the object count as constants, so its filters learn nothing from responses to the background. A
    position of a map belongs to the object if the object covers one of its pixels or of its
    neighbors' pixels. Parameters are those of `network`.

    Args:
        network: the network to copy; its inputs have three channels.

    Source: ours, a deep form of gradients that are projected on the core features.

    Raises:
        ValueError: the network has no two-dimensional convolution.

    >>> convolution = nn.Conv2d(3, 1, 1, bias=False)
    >>> model = ObjectGradients(nn.Sequential(convolution, nn.Flatten()))
    >>> image, mask = torch.ones(1, 3, 1, 4), torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    >>> model(torch.cat([image, mask], dim=1)).sum().backward()
    >>> model.network[0].weight.grad.flatten().tolist()  # from 2 of 4 positions
    [2.0, 2.0, 2.0]
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        convolutions = [m for m in self.network.modules() if isinstance(m, nn.Conv2d)]
        if not convolutions:
            raise ValueError(f"this {type(network).__name__} has no Conv2d")
        self.mask = torch.empty(0)
        for convolution in convolutions:
            convolution.register_forward_hook(self._stop)

    def forward(self, x: Float[Tensor, "batch 4 height width"]) -> Tensor:
        """Return the outputs for images whose fourth channel is the mask of the object."""
        self.mask = x[:, 3:]
        return self.network(x[:, :3])

    def _stop(self, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        covered = F.adaptive_max_pool2d(self.mask, output.shape[-2:])
        near = F.max_pool2d(covered, 3, stride=1, padding=1) > 0
        return torch.where(near, output, output.detach())
