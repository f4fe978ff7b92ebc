"""SelfReg: examples of a class have similar logits and features."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.batch import Batch
from contam.training.algorithms.algorithm import Objective, pooled

BETA = 0.5
"""Both parameters of the Beta distribution that the share of a mixture is drawn from."""
FEATURE_WEIGHT = 0.3
"""Weight of the dissimilarity of features, relative to that of logits."""
WIDEST = 2048
"""Features of a ResNet-50, for which the hidden layers of the projection are no wider."""


@final
class SelfReg(Objective):
    """Self-supervised contrastive regularization: pulls examples of the same class together.

    Logits and features approach those of another example of the class, and a mixture of two others.
    The features of the others are projected by a network of three layers, which is trained as well.

    Source: App. E.4; Kim et al. (2021).
    """

    name = "SelfReg"
    projection: nn.Sequential

    def build(self) -> None:
        """Create the projection."""
        width = self.network.head.in_features
        self.projection = projection(width, width if width == WIDEST else 2 * width)

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the risk and the dissimilarities of logits and of features."""
        x, y, _ = pooled(batches)
        features = self.features(x)
        logits = self.logits(features)
        risk = F.cross_entropy(logits, y)
        share = float(torch.distributions.Beta(BETA, BETA).sample())
        one, other = same_class_shuffle(y), same_class_shuffle(y)
        scale = risk.detach().clamp(max=1.0)
        near = dissimilarity(logits, logits, one, other, share)
        alike = dissimilarity(features, self.projection(features), one, other, share)
        return {
            "risk": risk,
            "logits": scale * near,
            "features": FEATURE_WEIGHT * scale * alike,
        }


def projection(width: int, hidden: int) -> nn.Sequential:
    """Return a network of three layers with batch norm, from features to features.

    Args:
        width: number of features.
        hidden: width of the two hidden layers.

    Source: ours; Kim et al. (2021).

    >>> projection(4, 8)(torch.rand(3, 4)).shape
    torch.Size([3, 4])
    """
    return nn.Sequential(
        nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True),
        nn.Linear(hidden, width), nn.BatchNorm1d(width),
    )  # fmt: skip


def same_class_shuffle(y: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Return a random permutation that maps each example to an example of its class.

    The random numbers are those of torch's global generator.

    Args:
        y: class indices.

    Source: ours; Kim et al. (2021).

    >>> y = torch.tensor([1, 0, 1, 1, 0])
    >>> y[same_class_shuffle(y)].tolist()
    [1, 0, 1, 1, 0]
    """
    draws = torch.rand(len(y), dtype=torch.float64, device="cpu").to(y.device)
    # Both orders list the classes one after the other: in place, and in random order.
    in_place, shuffled = y.argsort(stable=True), (y + draws).argsort()
    return torch.empty_like(in_place).scatter_(0, in_place, shuffled)


def dissimilarity(
    values: Float[Tensor, "batch width"],
    targets: Float[Tensor, "batch width"],
    one: Int[Tensor, " batch"],
    other: Int[Tensor, " batch"],
    share: float,
) -> Float[Tensor, ""]:
    """Return the squared distance to another example, and to a mixture of two others.

    Args:
        values: logits or features.
        targets: what they are compared to, in the same order.
        one: index of another example of the class.
        other: index of a second one.
        share: share of the first in the mixture, and weight of the distance to it.

    Source: ours; Kim et al. (2021), whose two losses have the weights `share` and `1 - share`.

    >>> value, order = torch.tensor([[1.0], [3.0]]), torch.tensor([1, 0])
    >>> dissimilarity(value, value, order, torch.tensor([0, 1]), 0.5)
    tensor(2.5000)
    """
    mixed = share * targets[one] + (1 - share) * targets[other]
    return share * F.mse_loss(values, targets[one]) + (1 - share) * F.mse_loss(values, mixed)
