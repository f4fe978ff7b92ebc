"""Invariant risk minimization: one head is optimal in every domain."""

from collections.abc import Sequence
from typing import Annotated, final

import torch
from jaxtyping import Float, Int
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor

from contam.batch import Batch
from contam.training.algorithms.algorithm import AlgorithmSettings, by_domain, pooled, risks
from contam.training.algorithms.annealed import AnnealedObjective
from contam.training.algorithms.search_space import LogUniform


class IRMSettings(AlgorithmSettings, frozen=True):
    """Settings of IRM; the defaults and ranges are DomainBed's."""

    penalty_weight: Annotated[NonNegativeFloat, LogUniform(-1, 5)] = 1e2
    """Weight of the penalty after the annealing; it is 1 before."""
    anneal_steps: Annotated[NonNegativeInt, LogUniform(0, 4, whole=True)] = 500


@final
class IRM(AnnealedObjective):
    """Minimizes the risk and the squared gradient of each domain's risk with respect to a scale.

    Source: App. E.4; Arjovsky et al. (2019), IRMv1.
    """

    name = "IRM"
    Settings = IRMSettings
    settings: IRMSettings

    @property
    def switches(self) -> tuple[int, ...]:
        """The end of the annealing."""
        return (self.settings.anneal_steps,)

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the mean risk and the weighted penalty."""
        logits = self.logits(self.features(pooled(batches).x))
        weight = 1.0 if self.done < self.settings.anneal_steps else self.settings.penalty_weight
        return {
            "risk": risks(logits, batches).mean(),
            "invariance": weight * mean_invariance_penalty(logits, batches),
        }


def mean_invariance_penalty(
    logits: Float[Tensor, "batch classes"], batches: Sequence[Batch]
) -> Float[Tensor, ""]:
    """Return the mean of `invariance_penalty` over the domains.

    Args:
        logits: logits of the pooled examples.
        batches: one minibatch for each training domain.

    >>> y = torch.tensor([0, 1])
    >>> mean_invariance_penalty(torch.zeros(4, 2), [Batch(torch.eye(2), y, y)] * 2)
    tensor(0.)
    """
    parts = by_domain(logits, batches)
    pairs = zip(parts, batches, strict=True)
    return torch.stack([invariance_penalty(part, batch.y) for part, batch in pairs]).mean()


def invariance_penalty(
    logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Estimate the squared gradient of the risk with respect to a scale of the logits.

    The gradients of two halves of the minibatch are multiplied, so that the estimate has no bias;
    it can be negative.

    Args:
        logits: logits of one domain.
        y: class indices.

    Raises:
        ValueError: there are fewer than 2 examples.

    Source: Arjovsky et al. (2019), App. D.

    >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    >>> invariance_penalty(logits, torch.tensor([0, 1])).item() < 0
    True
    """
    if len(y) < 2:
        raise ValueError(
            f"IRM splits the minibatch of a domain in two and needs at least 2 examples, got "
            f"{len(y)}; choose a larger batch size"
        )
    # d CE(s * logits, y) / ds at s = 1 is the mean logit less the logit of the label.
    labeled = logits.gather(1, y[:, None]).squeeze(1)
    slopes = (logits.softmax(dim=1) * logits).sum(dim=1) - labeled
    return slopes[::2].mean() * slopes[1::2].mean()
