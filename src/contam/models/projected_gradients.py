"""Training in which no gradient passes along directions in which backgrounds move the features."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.data.object_removal import pasted, without_objects
from contam.models.preserve import evaluating

DIRECTIONS = 8
"""Directions of the features that get no gradient."""
EVERY = 4
"""Steps between two estimates of the directions."""
KEPT = 0.9
"""Weight of earlier estimates in the next one."""


class ProjectedGradients(nn.Module):
    """A copy of a network whose features get no gradient along the background's directions.

    Every image of a minibatch and its object on the background of another image are a pair. The
    main directions of the differences between the features of pairs span what a background does
    to the features. The outputs are those of the network; in the backward pass, the features'
    components in this span count as constants. Parameters are those of `network`.

    Args:
        network: the network to copy; its last linear map is the head, and reads the features.
        directions: dimension of the span.

    Source: ours, the projection of Sec. 5 from counterfactual pairs, in the features of a deep
    network.

    Raises:
        ValueError: the network has no linear head that reads more features than `directions`.

    >>> head = nn.Linear(12, 2)
    >>> model = ProjectedGradients(nn.Sequential(nn.Flatten(), head), directions=3)
    >>> model(torch.rand(2, 4, 2, 2)).shape
    torch.Size([2, 2])
    """

    span: Tensor
    second_moment: Tensor
    step: Tensor

    def __init__(self, network: nn.Module, directions: int = DIRECTIONS) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        heads = [m for m in self.network.modules() if isinstance(m, nn.Linear)]
        if not heads or heads[-1].in_features <= directions:
            raise ValueError(
                f"this {type(network).__name__} has no linear head that reads more than "
                f"{directions} features"
            )
        width = heads[-1].in_features
        self.register_buffer("span", torch.zeros(width, directions))
        self.register_buffer("second_moment", torch.zeros(width, width, dtype=torch.float64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self._read: Tensor | None = None
        self._estimating = False
        heads[-1].register_forward_pre_hook(self._enter_head)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return the outputs for images whose last channel is the mask of the object."""
        images, masks = x[:, :-1], x[:, -1:]
        if self.training:
            if self.step % EVERY == 0 and len(x) > 1:
                self._estimate(images, masks)
            self.step += 1
        return self.network(images)

    @torch.no_grad()
    def _estimate(self, images: Tensor, masks: Tensor) -> None:
        others = without_objects(images, masks).roll(1, 0)
        self._estimating = True
        with evaluating(self.network):
            self.network(torch.cat([images, pasted(images, masks, others)]))
        self._estimating = False
        assert self._read is not None
        plain, swapped = self._read.flatten(1).chunk(2)
        self._read = None
        moment = background_moment(plain, swapped)
        self.second_moment.mul_(KEPT).add_(moment)
        self.span.copy_(main_directions(self.second_moment, self.span.shape[1]))

    def _enter_head(self, _module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        (features,) = inputs
        if self._estimating:
            self._read = features
            return None
        if not self.training:
            return None
        moved = (features @ self.span) @ self.span.T
        return (features - moved + moved.detach(),)


def background_moment(
    plain: Float[Tensor, "pairs width"], swapped: Float[Tensor, "pairs width"]
) -> Float[Tensor, "width width"]:
    """Return the second moment of the differences between the features of pairs, in float64.

    Args:
        plain: features of images.
        swapped: features of the same objects on other backgrounds.

    Source: ours.

    >>> background_moment(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [3.0, 0.0]])).tolist()
    [[5.0, 0.0], [0.0, 0.0]]
    """
    difference = (swapped - plain).double()
    return difference.T @ difference / len(difference)


def main_directions(
    moment: Float[Tensor, "width width"], directions: int
) -> Float[Tensor, "width directions"]:
    """Return an orthonormal basis of the directions in which a second moment is largest.

    Args:
        moment: a symmetric matrix.
        directions: number of directions.

    Source: ours.

    >>> main_directions(torch.diag(torch.tensor([1.0, 4.0, 2.0])), 2).abs()
    tensor([[0., 0.],
            [1., 0.],
            [0., 1.]])
    """
    return torch.linalg.eigh(moment)[1].flip(1)[:, :directions]
