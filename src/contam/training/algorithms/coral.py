"""Deep CORAL: features have the same mean and covariance in every domain."""

from collections.abc import Sequence
from typing import Annotated, final

import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat
from torch import Tensor

from contam.batch import Batch
from contam.training.algorithms.algorithm import (
    AlgorithmSettings,
    Objective,
    by_domain,
    pooled,
    risks,
)
from contam.training.algorithms.search_space import LogUniform


class CORALSettings(AlgorithmSettings, frozen=True):
    """Settings of CORAL; the default and the range are DomainBed's."""

    penalty_weight: Annotated[NonNegativeFloat, LogUniform(-1, 1)] = 1.0


@final
class CORAL(Objective):
    """Minimizes the risk and the distances between the domains' feature means and covariances.

    Source: App. E.4; Sun & Saenko (2016).
    """

    name = "CORAL"
    Settings = CORALSettings
    settings: CORALSettings
    needs_domains = 2

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the mean risk and the weighted distance."""
        features = self.features(pooled(batches).x)
        distance = moment_distance(by_domain(features, batches))
        return {
            "risk": risks(self.logits(features), batches).mean(),
            "distance": self.settings.penalty_weight * distance,
        }


def moment_distance(features: Sequence[Float[Tensor, "_ width"]]) -> Float[Tensor, ""]:
    """Return the mean squared distance of means and covariances over all pairs of domains.

    The distance of a pair is the mean over the entries of the mean vectors, plus that over the
    entries of the covariance matrices.

    Args:
        features: features of each domain, at least 2 domains of at least 2 examples.

    Raises:
        ValueError: a domain has fewer than 2 examples.

    Source: Sun & Saenko (2016), with the means of DomainBed.

    >>> x = torch.tensor([[0.0], [2.0]])
    >>> moment_distance([x, x + 3])
    tensor(9.)
    """
    if min(map(len, features)) < 2:
        raise ValueError(
            "CORAL needs at least 2 examples of every domain for a covariance; choose a larger "
            "batch size"
        )
    means = torch.stack([part.mean(dim=0) for part in features])
    centered = [part - mean for part, mean in zip(features, means, strict=True)]
    covariances = torch.stack([part.T @ part / (len(part) - 1) for part in centered])
    # The mean squared difference over all pairs is twice the variance.
    return 2 * means.var(dim=0).mean() + 2 * covariances.var(dim=0).mean()
