"""Accuracy with the confidence interval that a finite test set allows."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from scipy.special import betaincinv
from torch import Tensor, nn

from contam.models.logits_adapter import LogitsAdapter
from contam.models.observe import observe
from contam.rng import preserve_rng


@dataclass(frozen=True)
class Accuracy:
    """The number of correct predictions among `count`.

    >>> Accuracy(9, 10).share
    0.9
    """

    correct: int
    count: int

    @property
    def share(self) -> float:
        """The accuracy, in [0, 1]."""
        return self.correct / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The Clopper-Pearson interval at 95 %."""
        return clopper_pearson(self.correct, self.count)


class Hits:
    """Counts correct predictions over any number of batches."""

    def __init__(self) -> None:
        self.correct = 0
        self.count = 0

    def update(self, logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]) -> "Hits":
        """Count a batch; the prediction is the class with the largest logit."""
        self.correct += int((logits.argmax(dim=1) == y).sum())
        self.count += len(y)
        return self

    def merge(self, other: "Hits") -> "Hits":
        """Add the counts of another object."""
        self.correct += other.correct
        self.count += other.count
        return self

    def compute(self) -> Accuracy:
        """The accuracy so far.

        Raises:
            ValueError: no example was counted.
        """
        if self.count == 0:
            raise ValueError("an accuracy needs at least one example, and none was counted")
        return Accuracy(self.correct, self.count)


def accuracy(model: nn.Module, data: Any, *, batch_size: int = 256) -> Accuracy:
    """The accuracy of a network, in evaluation mode.

    Args:
        model: returns logits in any form of `LogitsAdapter`; it stays as it was.
        data: data of any form of `contam.inputs`.
        batch_size: examples that are shown at a time.

    Raises:
        ValueError: the data can't be read, a label has no logit, the network returns no logits, or
            it returns several tensors, of which another than the first fits the labels.

    >>> import torch
    >>> accuracy(nn.Identity(), (torch.eye(3), [0, 1, 1]))
    Accuracy(correct=2, count=3)
    """
    hits, network, ends = Hits(), LogitsAdapter(model), [0]
    with preserve_rng(data):
        for observation in observe(network, data, (), batch_size=batch_size):
            hits.update(observation.logits, observation.batch.y)
            if len(observation.batch.y):
                ends += map(int, observation.batch.y.aminmax())
    width, lowest, highest = network.width or 0, min(ends), max(ends)
    if hits.count and not 0 <= lowest <= highest < width:
        raise ValueError(
            f"labels {min(ends[1:])}..{highest} don't fit {width} logits, numbered from 0"
        )
    if highest + 1 != width and highest + 1 in network.outputs.values():
        raise ValueError(
            f"the network returns tensors of {', '.join(map(str, network.outputs.values()))} "
            f"columns, and there are {highest + 1} classes; expected the logits first, so give a "
            "network that returns them alone"
        )
    return hits.compute()


def clopper_pearson(correct: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Both ends of the exact interval for a share, given `correct` successes in `count` trials.

    Raises:
        ValueError: more were correct than there were, or a confidence outside (0, 1).

    >>> [round(end, 3) for end in clopper_pearson(9, 10)]
    [0.555, 0.997]
    """
    if not (0 <= correct <= count and count > 0 and 0 < confidence < 1):
        raise ValueError(
            f"no interval for {correct} in {count} at confidence {confidence}; "
            "expected 0 <= correct <= count, at least one example and a confidence in (0, 1)"
        )
    # Beta quantiles, about 300 times as fast as the root finding of `binomtest`.
    tail = (1 - confidence) / 2
    low = betaincinv(correct, count - correct + 1, tail) if correct > 0 else 0.0
    high = betaincinv(correct + 1, count - correct, 1 - tail) if correct < count else 1.0
    return float(low), float(high)
