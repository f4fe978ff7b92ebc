"""Stochastic weight averaging, densely: the average of the weights after every step."""

from collections.abc import Sequence
from typing import Annotated, final

import torch.nn.functional as F
from pydantic import NonNegativeInt
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from contam.batch import Batch
from contam.training.algorithms.algorithm import AlgorithmSettings, Objective, pooled
from contam.training.algorithms.search_space import LogUniform


class SWADSettings(AlgorithmSettings, frozen=True):
    """Settings of SWAD."""

    average_from: Annotated[NonNegativeInt, LogUniform(2, 4, whole=True)] = 500
    """Number of steps before the average begins; ours, where SWAD watches the validation loss."""


@final
class SWAD(Objective):
    """Trains as ERM does and evaluates the mean of the weights after every step.

    The mean includes the running statistics of batch norm. It begins at a given step, and ends
    where the evaluated network is taken; SWAD finds both on the validation loss.

    Source: ours to include it; Cha et al. (2021).
    """

    name = "SWAD"
    Settings = SWADSettings
    settings: SWADSettings
    average: AveragedModel

    def build(self) -> None:
        """Create the network of the averages."""
        self.average = AveragedModel(self.network, use_buffers=True)
        self.average.requires_grad_(False)

    @property
    def evaluated(self) -> nn.Module:
        """The average, or the network itself before the average begins."""
        return self.average.module if self.done > self.settings.average_from else self.network

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the risk."""
        x, y, _ = pooled(batches)
        return {"risk": F.cross_entropy(self.logits(self.features(x)), y)}

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Take one step of Adam and add the new weights to the average."""
        losses = super().step(batches)
        if self.done > self.settings.average_from:
            self.average.update_parameters(self.network)
        return losses
