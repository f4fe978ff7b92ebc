"""Fishr: gradients of the head vary equally in every domain."""

from collections.abc import Sequence
from typing import Annotated, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor

from contam.batch import Batch
from contam.training.algorithms.algorithm import AlgorithmSettings, by_domain, pooled
from contam.training.algorithms.annealed import AnnealedObjective
from contam.training.algorithms.search_space import LogUniform, UniformRange


class FishrSettings(AlgorithmSettings, frozen=True):
    """Settings of Fishr; the defaults and ranges are DomainBed's."""

    penalty_weight: Annotated[NonNegativeFloat, LogUniform(1, 4)] = 1e3
    """Weight of the penalty after the annealing; it is 0 before."""
    anneal_steps: Annotated[NonNegativeInt, UniformRange(0, 5000, whole=True)] = 1500
    decay: Annotated[float, Field(ge=0, lt=1), UniformRange(0.9, 0.99)] = 0.95
    """Decay rate of the moving average of the variances."""


@final
class Fishr(AnnealedObjective):
    """Minimizes the risk and the distance between the domains' variances of the head's gradients.

    The variances are moving averages, divided by `1 - decay` so that the gradient of the penalty
    does not depend on the decay.

    Source: ours to include it; Rame et al. (2022).
    """

    name = "Fishr"
    Settings = FishrSettings
    settings: FishrSettings
    needs_domains = 2
    variances: Tensor
    """(domains, parameters of the head) moving averages."""

    def build(self) -> None:
        """Create the moving averages, which are 0 at first."""
        head = self.network.head
        parameters = head.out_features * (head.in_features + 1)
        self.variances = head.weight.new_zeros(self.domains, parameters)

    @property
    def switches(self) -> tuple[int, ...]:
        """The end of the annealing."""
        return (self.settings.anneal_steps,)

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Update the moving averages; return the risk and the weighted penalty."""
        x, y, _ = pooled(batches)
        features = self.features(x)
        logits = self.logits(features)
        parts = zip(by_domain(features, batches), by_domain(logits, batches), batches, strict=True)
        now = torch.stack([gradient_variances(z, out, batch.y) for z, out, batch in parts])
        decay = self.settings.decay
        averages = decay * self.variances + (1 - decay) * now
        self.variances = averages.detach()
        weight = 0.0 if self.done < self.settings.anneal_steps else self.settings.penalty_weight
        # The variance over the domains is the mean squared distance to their mean.
        distance = (averages / (1 - decay)).var(dim=0, correction=0).mean()
        return {"risk": F.cross_entropy(logits, y), "gradient variance": weight * distance}


def gradient_variances(
    features: Float[Tensor, "batch width"],
    logits: Float[Tensor, "batch classes"],
    y: Int[Tensor, " batch"],
) -> Float[Tensor, " parameters"]:
    """Return the variance over examples of each entry of a linear head's gradient.

    Args:
        features: inputs of the head.
        logits: its outputs.
        y: class indices.

    Returns:
        Variances of the gradients of the cross-entropy with respect to the weights (class by
        class) and then the biases.

    Source: Rame et al. (2022), Eq. 3, in closed form for a linear layer.

    >>> logits = torch.zeros(2, 2)
    >>> gradient_variances(torch.tensor([[1.0], [1.0]]), logits, torch.tensor([0, 1]))
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    residuals = logits.softmax(dim=1) - F.one_hot(y, logits.shape[1])
    # The gradient of an example is the outer product of its residual and (features, 1).
    inputs = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
    means = residuals.T @ inputs / len(y)
    squares = residuals.square().T @ inputs.square() / len(y)
    variances = squares - means.square()
    return torch.cat([variances[:, :-1].flatten(), variances[:, -1]])
