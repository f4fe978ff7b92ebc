"""Risk extrapolation: all domains have the same risk."""

from collections.abc import Sequence
from typing import Annotated, final

from jaxtyping import Float
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor

from contam.batch import Batch
from contam.training.algorithms.algorithm import AlgorithmSettings, pooled, risks
from contam.training.algorithms.annealed import AnnealedObjective
from contam.training.algorithms.search_space import LogUniform


class VRExSettings(AlgorithmSettings, frozen=True):
    """Settings of VREx; the defaults and ranges are DomainBed's."""

    penalty_weight: Annotated[NonNegativeFloat, LogUniform(-1, 5)] = 1e1
    """Weight of the penalty after the annealing; it is 1 before."""
    anneal_steps: Annotated[NonNegativeInt, LogUniform(0, 4, whole=True)] = 500


@final
class VREx(AnnealedObjective):
    """Minimizes the mean and the variance of the domains' risks.

    Source: App. E.4; Krueger et al. (2021).
    """

    name = "VREx"
    Settings = VRExSettings
    settings: VRExSettings
    needs_domains = 2

    @property
    def switches(self) -> tuple[int, ...]:
        """The end of the annealing."""
        return (self.settings.anneal_steps,)

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the mean risk and the weighted variance of the risks."""
        values = risks(self.logits(self.features(pooled(batches).x)), batches)
        weight = 1.0 if self.done < self.settings.anneal_steps else self.settings.penalty_weight
        return {"risk": values.mean(), "variance": weight * risk_variance(values)}


def risk_variance(domain_risks: Float[Tensor, " domains"]) -> Float[Tensor, ""]:
    """Return the variance of the risks over the domains.

    Args:
        domain_risks: risk of each domain.

    Returns:
        The mean squared deviation from the mean risk; 0 if all risks are the same.

    Source: Krueger et al. (2021), V-REx.

    >>> import torch
    >>> risk_variance(torch.tensor([1.0, 3.0]))
    tensor(1.)
    """
    return domain_risks.var(correction=0)
