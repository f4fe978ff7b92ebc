"""Mixup between domains: mixed images have mixed labels."""

from collections.abc import Sequence
from typing import Annotated, final

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor
from torch.distributions import Beta

from contam.batch import Batch
from contam.training.algorithms.algorithm import AlgorithmSettings, Objective
from contam.training.algorithms.search_space import LogUniform


class MixupSettings(AlgorithmSettings, frozen=True):
    """Settings of Mixup; the default and the range are DomainBed's."""

    concentration: Annotated[PositiveFloat, LogUniform(-1, 1)] = 0.2
    """Both parameters of the beta distribution of the mixing share."""


@final
class Mixup(Objective):
    """Minimizes the risk on mixtures of examples of two domains.

    The domains form a random ring, in which each is mixed with the next one. Of two minibatches of
    different size, the examples that have no partner are left out.

    Source: App. E.4; Zhang et al. (2018).
    """

    name = "Mixup"
    Settings = MixupSettings
    settings: MixupSettings
    needs_domains = 2

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the mean risk of the mixtures."""
        ring = [batches[index] for index in torch.randperm(len(batches)).tolist()]
        concentration = torch.tensor(self.settings.concentration)
        shares = Beta(concentration, concentration).sample((len(batches),)).tolist()
        neighbors = [*ring[1:], ring[0]]
        mixed = [mixture(*pair) for pair in zip(ring, neighbors, shares, strict=True)]
        logits = self.logits(self.features(torch.cat([x for x, _, _ in mixed])))
        parts = logits.split([len(x) for x, _, _ in mixed])
        risks = [
            share * F.cross_entropy(part, y) + (1 - share) * F.cross_entropy(part, other)
            for part, (_, y, other), share in zip(parts, mixed, shares, strict=True)
        ]
        return {"risk": torch.stack(risks).mean()}


def mixture(one: Batch, other: Batch, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mix the inputs of two batches, example by example.

    Args:
        one: a batch.
        other: a batch; the size of the smaller one counts.
        share: share of the first batch, in [0, 1].

    Returns:
        Mixed inputs, the labels of the first batch and those of the second.

    Source: Zhang et al. (2018).

    >>> y = torch.tensor([0, 1])
    >>> mixture(Batch(torch.zeros(2), y, y), Batch(torch.ones(2), 1 - y, y), 0.75)
    (tensor([0.2500, 0.2500]), tensor([0, 1]), tensor([1, 0]))
    """
    size = min(len(one.y), len(other.y))
    return (
        share * one.x[:size] + (1 - share) * other.x[:size],
        one.y[:size],
        other.y[:size],
    )
