"""Empirical risk minimization, to which every other algorithm is compared."""

from collections.abc import Sequence
from typing import final

import torch.nn.functional as F
from torch import Tensor

from contam.batch import Batch
from contam.training.algorithms.algorithm import Objective, pooled


@final
class ERM(Objective):
    """Minimizes the cross-entropy over the examples of all domains.

    Source: App. E.4; Vapnik (1999).
    """

    name = "ERM"

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the risk."""
        x, y, _ = pooled(batches)
        return {"risk": F.cross_entropy(self.logits(self.features(x)), y)}
