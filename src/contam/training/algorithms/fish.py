"""Fish: gradients of domains are aligned by one step on each domain in turn."""

from collections.abc import Sequence
from typing import Annotated, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch.optim import Adam

from contam.batch import Batch
from contam.training.algorithms.algorithm import Algorithm, AlgorithmSettings
from contam.training.algorithms.search_space import OneOf


class FishSettings(AlgorithmSettings, frozen=True):
    """Settings of Fish."""

    meta_step: Annotated[float, Field(gt=0, le=1), OneOf((0.05, 0.1, 0.5))] = 0.5
    """Share of the way to the end of the inner steps that the weights move."""


@final
class Fish(Algorithm):
    """Moves the weights part of the way to where one Adam step on each domain in turn ends.

    In expectation, this increases the inner products of the domains' gradients. The inner optimizer
    keeps its state from one update to the next. Buffers, such as the statistics of batch norm, are
    those after the inner steps.

    Source: App. E.4; Shi et al. (2022), Algorithm 1.
    """

    name = "Fish"
    Settings = FishSettings
    settings: FishSettings
    inner: Adam

    def build(self) -> None:
        """Create the optimizer of the inner steps."""
        self.inner = self.adam(self.network.parameters())

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Take an inner step on each domain, then move the weights towards the result.

        Returns:
            `risk`: mean cross-entropy of the domains, each before its inner step.
        """
        parameters = [p for group in self.inner.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in parameters]
        losses = []
        for batch in batches:
            loss = F.cross_entropy(self.logits(self.features(batch.x)), batch.y)
            self.inner.zero_grad()
            loss.backward()
            self.inner.step()
            losses.append(loss.detach())
        with torch.no_grad():
            for parameter, start in zip(parameters, before, strict=True):
                parameter.copy_(start.lerp(parameter, self.settings.meta_step))
        self.done += 1
        return {"risk": torch.stack(losses).mean().item()}
