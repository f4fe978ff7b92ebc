"""Training on the difference between the logits of an image and those of its background."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.data.object_removal import without_objects


class BackgroundDifference(nn.Module):
    """A copy of a network whose logits for an image lose those for its background.

    The background is the image whose object is filled with its surroundings. What the network
    answers to the background alone cancels, so it does not change the loss. Parameters are those of
    `network`.

    Args:
        network: the network to copy.

    Source: ours, f(x) - f(background).

    >>> network = BackgroundDifference(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    >>> image, mask = torch.ones(1, 3, 1, 5), torch.tensor([[[[0.0, 0.0, 1.0, 0.0, 0.0]]]])
    >>> network(torch.cat([image, mask], dim=1)).tolist()  # a background that is the image
    [[0.0, 0.0, 0.0]]
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return the differences for images whose last channel is the mask of the object."""
        images, masks = x[:, :-1], x[:, -1:]
        # In one pass, so that batch norm has one set of statistics for both.
        both = self.network(torch.cat([images, without_objects(images, masks)]))
        logits, of_background = both.chunk(2)
        return logits - of_background
