"""The information bottleneck as a penalty: features vary as little as possible."""

from collections.abc import Sequence
from typing import Annotated, final

import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor

from contam.batch import Batch
from contam.training.algorithms.algorithm import AlgorithmSettings, by_domain, pooled, risks
from contam.training.algorithms.annealed import AnnealedObjective
from contam.training.algorithms.search_space import LogUniform


class IBERMSettings(AlgorithmSettings, frozen=True):
    """Settings of IB-ERM; the defaults and ranges are DomainBed's."""

    bottleneck_weight: Annotated[NonNegativeFloat, LogUniform(-1, 5)] = 1e2
    """Weight of the bottleneck after its annealing; it is 0 before."""
    bottleneck_anneal_steps: Annotated[NonNegativeInt, LogUniform(0, 4, whole=True)] = 500


@final
class IBERM(AnnealedObjective):
    """Minimizes the risk and the variance of the features within each domain.

    Source: App. E.4; Ahuja et al. (2021).
    """

    name = "IB-ERM"
    Settings = IBERMSettings
    settings: IBERMSettings

    @property
    def switches(self) -> tuple[int, ...]:
        """The end of the annealing."""
        return (self.settings.bottleneck_anneal_steps,)

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the mean risk and the weighted bottleneck."""
        features = self.features(pooled(batches).x)
        annealed = self.done >= self.settings.bottleneck_anneal_steps
        weight = self.settings.bottleneck_weight if annealed else 0.0
        return {
            "risk": risks(self.logits(features), batches).mean(),
            "bottleneck": weight * feature_variance(by_domain(features, batches)),
        }


def feature_variance(features: Sequence[Float[Tensor, "_ width"]]) -> Float[Tensor, ""]:
    """Return the variance of the features, averaged over neurons and domains.

    Args:
        features: features of each domain, at least 2 examples of each.

    Raises:
        ValueError: a domain has fewer than 2 examples.

    Source: Ahuja et al. (2021).

    >>> feature_variance([torch.tensor([[0.0, 1.0], [2.0, 1.0]])])
    tensor(1.)
    """
    if min(map(len, features)) < 2:
        raise ValueError(
            "the information bottleneck needs at least 2 examples of every domain for a variance; "
            "choose a larger batch size"
        )
    return torch.stack([part.var(dim=0).mean() for part in features]).mean()
