"""Group distributionally robust optimization: the domains with the largest risk count most."""

from collections.abc import Sequence
from typing import Annotated, final

from jaxtyping import Float
from pydantic import NonNegativeFloat
from torch import Tensor

from contam.batch import Batch
from contam.training.algorithms.algorithm import AlgorithmSettings, Objective, pooled, risks
from contam.training.algorithms.search_space import LogUniform


class GroupDROSettings(AlgorithmSettings, frozen=True):
    """Settings of GroupDRO; the default and the range are DomainBed's."""

    weight_step_size: Annotated[NonNegativeFloat, LogUniform(-3, -1)] = 1e-2
    """Step size of the domains' weights."""


@final
class GroupDRO(Objective):
    """Minimizes the weighted mean of the domains' risks; a weight grows with its domain's risk.

    Source: App. E.4; Sagawa et al. (2020).
    """

    name = "GroupDRO"
    Settings = GroupDROSettings
    settings: GroupDROSettings
    needs_domains = 2
    weights: Tensor
    """(domains,) weight of each domain; they sum to 1."""

    def build(self) -> None:
        """Create the weights, which are equal at first."""
        self.weights = self.network.head.weight.new_full((self.domains,), 1 / self.domains)

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Update the weights and return the weighted risk."""
        values = risks(self.logits(self.features(pooled(batches).x)), batches)
        step_size = self.settings.weight_step_size
        self.weights = reweighted(self.weights, values.detach(), step_size=step_size)
        return {"weighted risk": self.weights @ values}


def reweighted(
    weights: Float[Tensor, " domains"], risk: Float[Tensor, " domains"], *, step_size: float
) -> Float[Tensor, " domains"]:
    """Multiply weights by `exp(step_size * risk)` and normalize them.

    Source: Sagawa et al. (2020), Algorithm 1.

    >>> import torch
    >>> reweighted(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]), step_size=1.0)
    tensor([0.2689, 0.7311])
    """
    return (weights.log() + step_size * risk).softmax(dim=0)
