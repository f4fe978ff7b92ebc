"""Very large dropout: the head can't rely on a few features."""

from collections.abc import Sequence
from typing import Annotated, final

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from contam.batch import Batch
from contam.training.algorithms.algorithm import AlgorithmSettings, Objective, pooled
from contam.training.algorithms.search_space import OneOf


class LargeDropoutSettings(AlgorithmSettings, frozen=True):
    """Settings of large dropout; the values are ours, around those of the source."""

    dropout: Annotated[float, Field(ge=0, lt=1), OneOf((0.8, 0.9, 0.95))] = 0.9


@final
class LargeDropout(Objective):
    """Minimizes the cross-entropy with most of the features dropped in every step.

    Source: ours to include it; Zhang & Bottou (2024).
    """

    name = "large dropout"
    Settings = LargeDropoutSettings
    settings: LargeDropoutSettings

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the risk."""
        x, y, _ = pooled(batches)
        return {"risk": F.cross_entropy(self.logits(self.features(x)), y)}
