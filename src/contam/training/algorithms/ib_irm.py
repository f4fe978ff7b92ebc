"""Invariant risk minimization with an information bottleneck."""

from collections.abc import Sequence
from typing import Annotated, final

from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor

from contam.batch import Batch
from contam.training.algorithms.algorithm import AlgorithmSettings, by_domain, pooled, risks
from contam.training.algorithms.annealed import AnnealedObjective
from contam.training.algorithms.ib_erm import feature_variance
from contam.training.algorithms.irm import mean_invariance_penalty
from contam.training.algorithms.search_space import LogUniform


class IBIRMSettings(AlgorithmSettings, frozen=True):
    """Settings of IB-IRM; the defaults and ranges are DomainBed's."""

    penalty_weight: Annotated[NonNegativeFloat, LogUniform(-1, 5)] = 1e2
    """Weight of IRM's penalty after its annealing; it is 1 before."""
    anneal_steps: Annotated[NonNegativeInt, LogUniform(0, 4, whole=True)] = 500
    bottleneck_weight: Annotated[NonNegativeFloat, LogUniform(-1, 5)] = 1e2
    """Weight of the bottleneck after its annealing; it is 0 before."""
    bottleneck_anneal_steps: Annotated[NonNegativeInt, LogUniform(0, 4, whole=True)] = 500


@final
class IBIRM(AnnealedObjective):
    """Minimizes the risk, IRM's penalty and the variance of the features within each domain.

    Source: App. E.4; Ahuja et al. (2021).
    """

    name = "IB-IRM"
    Settings = IBIRMSettings
    settings: IBIRMSettings

    @property
    def switches(self) -> tuple[int, ...]:
        """The ends of both annealings."""
        return (self.settings.anneal_steps, self.settings.bottleneck_anneal_steps)

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the mean risk and both weighted penalties."""
        features = self.features(pooled(batches).x)
        logits = self.logits(features)
        chosen, done = self.settings, self.done
        weight = 1.0 if done < chosen.anneal_steps else chosen.penalty_weight
        narrow = 0.0 if done < chosen.bottleneck_anneal_steps else chosen.bottleneck_weight
        return {
            "risk": risks(logits, batches).mean(),
            "invariance": weight * mean_invariance_penalty(logits, batches),
            "bottleneck": narrow * feature_variance(by_domain(features, batches)),
        }
