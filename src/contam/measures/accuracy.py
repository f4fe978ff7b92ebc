"""Accuracy with the interval that a finite test set leaves it."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from scipy.stats import beta
from torch import Tensor, nn

from contam.batch import Domain
from contam.models.observe import observe


@dataclass(frozen=True)
class Accuracy:
    """How many of how many examples were right; with its exact 95 % interval."""

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
    """Right and wrong predictions, over any number of batches."""

    def __init__(self) -> None:
        self.correct = 0
        self.count = 0

    def update(self, logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]) -> "Hits":
        """Count a batch; the prediction is the class with the largest logit."""
        self.correct += int((logits.argmax(dim=1) == y).sum())
        self.count += len(y)
        return self

    def merge(self, other: "Hits") -> "Hits":
        """Add what another one counted."""
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


def accuracy(model: nn.Module, domain: Domain, *, batch_size: int = 256) -> Accuracy:
    """The model's accuracy on a domain, in evaluation mode."""
    hits = Hits()
    for seen in observe(model, domain.batches(batch_size), layers=()):
        hits.update(seen.logits, seen.batch.y)
    return hits.compute()


def clopper_pearson(correct: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Both ends of the exact interval for a share, given that `correct` of `count` were seen.

    Raises:
        ValueError: more were correct than there were, or a confidence outside (0, 1).
    """
    if not (0 <= correct <= count and count > 0 and 0 < confidence < 1):
        raise ValueError(
            f"asked for the interval of {correct} in {count} at confidence {confidence}; "
            "want 0 <= correct <= count, at least one example and a confidence in (0, 1)"
        )
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, correct, count - correct + 1)) if correct else 0.0
    high = float(beta.isf(tail, correct + 1, count - correct)) if correct < count else 1.0
    return low, high
