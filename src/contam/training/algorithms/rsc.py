"""RSC: the features that speak most for the true class are muted."""

from collections.abc import Sequence
from typing import Annotated, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from contam.batch import Batch
from contam.training.algorithms.algorithm import AlgorithmSettings, Objective, pooled
from contam.training.algorithms.search_space import UniformRange


class RSCSettings(AlgorithmSettings, frozen=True):
    """Settings of RSC."""

    muted_features: Annotated[float, Field(ge=0, le=1), UniformRange(0, 0.5)] = 1 / 3
    """Share of the features that are muted."""
    muted_examples: Annotated[float, Field(ge=0, le=1), UniformRange(0, 0.5)] = 1 / 3
    """Share of the examples whose features are muted."""


@final
class RSC(Objective):
    """Representation self-challenging: learns without the features that predict a class most.

    Of each example, the features with the largest gradient of the true class's logit are muted. The
    muting applies to the examples whose confidence it reduces most.

    Source: App. E.4; Huang et al. (2020).
    """

    name = "RSC"
    Settings = RSCSettings
    settings: RSCSettings

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the risk with muted features."""
        x, y, _ = pooled(batches)
        features = self.features(x)
        with torch.no_grad():
            # The head is linear: its row of a class is the gradient of the logit of the class.
            muted = largest(self.network.head.weight[y], self.settings.muted_features)
            drop = confidence_drop(
                self.logits(features), self.logits(features.masked_fill(muted, 0.0)), y
            )
            muted &= largest(drop, self.settings.muted_examples)[:, None]
        return {"risk": F.cross_entropy(self.logits(features.masked_fill(muted, 0.0)), y)}


def largest(values: Float[Tensor, "*n entries"], share: float) -> Bool[Tensor, "*n entries"]:
    """Mark the largest entries of each row.

    Args:
        values: rows of numbers.
        share: share of the entries to mark, in [0, 1]; their number is rounded.

    Source: ours. The published code marks what reaches a percentile, so at least one entry.

    >>> largest(torch.tensor([[3.0, 1.0, 2.0]]), 2 / 3).tolist()
    [[True, False, True]]
    """
    count = round(share * values.shape[-1])
    marked = torch.zeros_like(values, dtype=torch.bool)
    return marked.scatter_(-1, values.topk(count, dim=-1).indices, True)


def confidence_drop(
    logits: Float[Tensor, "batch classes"],
    muted: Float[Tensor, "batch classes"],
    y: Int[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Return how much muting reduces the probability of the true class.

    Args:
        logits: logits of all features.
        muted: logits without the muted features.
        y: class indices.

    Source: ours; Huang et al. (2020), Section 3.3.

    >>> confidence_drop(torch.tensor([[30.0, 0.0]]), torch.zeros(1, 2), torch.tensor([0]))
    tensor([0.5000])
    """
    change = logits.softmax(dim=1) - muted.softmax(dim=1)
    return change.gather(1, y[:, None]).squeeze(1)
