"""Training in which no gradient passes along directions in which backgrounds move the features."""

import copy
from abc import ABC, abstractmethod
from typing import final

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


class _BlockedGradients(nn.Module, ABC):
    """A copy of a network whose features get no gradient along directions that it estimates.

    The outputs are those of the network; in the backward pass, the features' components in the
    span count as constants. Parameters are those of `network`.
    """

    span: Tensor
    second_moment: Tensor
    step: Tensor

    def __init__(self, network: nn.Module, directions: int) -> None:
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

    @abstractmethod
    def images(self, x: Tensor) -> Tensor:
        """The images among the inputs."""

    @abstractmethod
    def moment(self, x: Tensor) -> Float[Tensor, "width width"] | None:
        """The second moment of what backgrounds do to the features, None where x has too little."""

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return the outputs."""
        if self.training:
            if self.step % EVERY == 0:
                self._estimate(x)
            self.step += 1
        return self.network(self.images(x))

    def features(self, images: Tensor) -> Float[Tensor, "batch width"]:
        """What the head reads of images, in evaluation mode."""
        self._estimating = True
        with evaluating(self.network):
            self.network(images)
        self._estimating = False
        assert self._read is not None
        values, self._read = self._read.flatten(1), None
        return values

    @torch.no_grad()
    def _estimate(self, x: Tensor) -> None:
        moment = self.moment(x)
        if moment is not None:
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


@final
class ProjectedGradients(_BlockedGradients):
    """A copy of a network whose features get no gradient along the background's directions.

    Every image of a minibatch and its object on the background of another image are a pair. The
    main directions of the differences between the features of pairs span what a background does
    to the features. The outputs are those of the network; in the backward pass, the features'
    components in this span count as constants. Parameters are those of `network`. Inputs are
    images whose last channel is the mask of the object.

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

    def __init__(self, network: nn.Module, directions: int = DIRECTIONS) -> None:
        super().__init__(network, directions)

    def images(self, x: Tensor) -> Tensor:
        """All channels but the last one."""
        return x[:, :-1]

    def moment(self, x: Tensor) -> Float[Tensor, "width width"] | None:
        """The moment of the pairs of a minibatch; a single image has no pair."""
        if len(x) < 2:
            return None
        images, masks = x[:, :-1], x[:, -1:]
        others = without_objects(images, masks).roll(1, 0)
        plain, swapped = self.features(
            torch.cat([images, pasted(images, masks, others)])
        ).chunk(2)  # fmt: skip
        return background_moment(plain, swapped)


@final
class EnvironmentGradients(_BlockedGradients):
    """A copy of a network whose features get no gradient where two environments differ.

    Both environments have images of all classes. The main directions of the differences between
    the features' class means in the two environments are blocked as in `ProjectedGradients`.
    Neither masks nor pairs are needed, and there are at most as many directions as classes.

    Args:
        network: the network to copy; its last linear map is the head, and reads the features.
        first: images of the first environment, as many of each class.
        second: images of the second environment, in the same order of the classes.
        directions: dimension of the span.

    Source: ours, the projection of Sec. 5 from two environments, in the features of a deep network.

    Raises:
        ValueError: the network has no linear head that reads more features than `directions`, or
            there are fewer classes than directions.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    >>> first, second = torch.rand(2, 4, 5, 3, 2, 2)
    >>> model = EnvironmentGradients(network, first, second, directions=3)
    >>> model(torch.rand(2, 3, 2, 2)).shape
    torch.Size([2, 2])
    """

    def __init__(
        self,
        network: nn.Module,
        first: Float[Tensor, "classes images channels height width"],
        second: Float[Tensor, "classes images channels height width"],
        *,
        directions: int,
    ) -> None:
        super().__init__(network, directions)
        if len(first) < directions:
            raise ValueError(
                f"two environments of {len(first)} classes differ in at most as many directions, "
                f"not in {directions}"
            )
        # Not in the state: the images do not change in training.
        self.register_buffer("environments", torch.stack([first, second]), persistent=False)
        self.environments: Tensor

    def images(self, x: Tensor) -> Tensor:
        """All inputs."""
        return x

    def moment(self, x: Tensor) -> Float[Tensor, "width width"]:
        """The moment of the differences of class means; it does not depend on the minibatch."""
        shape = self.environments.shape[:3]
        features = self.features(self.environments.flatten(0, 2))
        return background_moment(*features.view(*shape, -1).mean(dim=2))


def background_moment(
    plain: Float[Tensor, "pairs width"], swapped: Float[Tensor, "pairs width"]
) -> Float[Tensor, "width width"]:
    """Return the second moment of the differences between the features of pairs, in float64.

    Args:
        plain: features of images.
        swapped: features of the same objects on other backgrounds.

    Source: ours, pairs differ in the background alone, so their differences show its directions.

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

    Source: ours, few directions hold most of a background's variance.

    >>> main_directions(torch.diag(torch.tensor([1.0, 4.0, 2.0])), 2).abs()
    tensor([[0., 0.],
            [1., 0.],
            [0., 1.]])
    """
    return torch.linalg.eigh(moment)[1].flip(1)[:, :directions]
