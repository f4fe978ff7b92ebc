"""Accuracy with the confidence interval that a finite test set allows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.special import betaincinv, ndtri
from torch import Tensor, nn

from contam.measures.intervals import Estimate
from contam.models.logits_adapter import LogitsAdapter
from contam.models.observe import observe
from contam.rng import preserve_rng

STEP = 1e-9
"""Distance from a change of accuracy at which the search of the ends of its interval begins."""


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


def clopper_pearson(correct: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
    """Both ends of the exact interval for a share, given `correct` successes in `count` trials.

    The numbers may be effective numbers of dependent trials, which are not whole.

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


def paired_change(
    gained: float, lost: float, count: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Both ends of the score interval for a change of accuracy on the same examples.

    Args:
        gained: examples that are correct only after the change.
        lost: examples that are correct only before it.
        count: all examples. The numbers may be effective numbers, which are not whole.
        confidence: level of the interval.

    Source: ours; Tango (1998).

    Raises:
        ValueError: more examples changed than there are.

    >>> [round(end, 3) for end in paired_change(9, 1, 100)]
    [0.023, 0.154]
    >>> [round(end, 3) for end in paired_change(0, 0, 20)]
    [-0.161, 0.161]
    """
    if not (gained >= 0 <= lost and gained + lost <= count and count > 0):
        raise ValueError(f"no interval for {gained} gained and {lost} lost examples of {count}")
    normal, value = float(ndtri((1 + confidence) / 2)), (gained - lost) / count

    def excess(change: float) -> float:
        """The squared score of a change of the accuracy, above that of the level."""
        b = (2 * count - gained + lost) * change - gained - lost
        c = -lost * change * (1 - change)
        # The most likely rate of lost examples for this change.
        rate = (max(b * b - 8 * count * c, 0.0) ** 0.5 - b) / (4 * count)
        variance = count * (2 * rate + change * (1 - change))
        return (gained - lost - count * change) ** 2 - normal**2 * variance

    low: Any = -1.0
    high: Any = 1.0
    if value - STEP > -1 and excess(-1.0) > 0:
        low = brentq(excess, -1.0, value - STEP)
    if value + STEP < 1 and excess(1.0) > 0:
        high = brentq(excess, value + STEP, 1.0)
    return float(low), float(high)


def mean_change(changes: Sequence[Float[Tensor, " n"]], confidence: float = 0.95) -> Estimate:
    """The mean over data sets of the mean change on the same examples, with its interval.

    Each set has the interval of `paired_change`. Means over several networks vary less than the
    changes of one; they count as the number of examples with the same variance of the mean.

    Args:
        changes: for each data set, the change of each example, in [-1, 1]: 1 and -1 for an example
            that is gained and lost, or a mean of such changes over several networks.
        confidence: level of the interval.

    Source: ours; Tango (1998) for each set, Newcombe (1998) for the sum over independent sets.

    Raises:
        ValueError: there is no set, or one has no example.

    >>> import torch
    >>> unchanged = mean_change([torch.zeros(20)])
    >>> [round(end, 3) for end in (unchanged.low, unchanged.value, unchanged.high)]
    [-0.161, 0.0, 0.161]
    """
    if not changes or not all(map(len, changes)):
        raise ValueError(f"expected changes of examples, got sets of {[len(c) for c in changes]}")
    total, below, above = 0.0, 0.0, 0.0
    for changed in changes:
        change, count = changed.double(), len(changed)
        value, size = float(change.mean()), float(change.abs().sum())
        gained, lost = (size + count * value) / 2, (size - count * value) / 2
        # The variance in proportion to that of one network; as if two more examples had changed,
        # one gained and one lost by half, since the variance of few changes is uncertain.
        center = (count * value / (count + 2)) ** 2
        squares = float(change.square().sum())
        ratio = ((squares + 1) / (count + 2) - center) / ((size + 1) / (count + 2) - center)
        low, high = paired_change(
            max(gained, 0.0) / ratio, max(lost, 0.0) / ratio, count / ratio, confidence
        )
        total += value
        below += (value - low) ** 2
        above += (high - value) ** 2
    sets = len(changes)
    return Estimate(total / sets, (total - below**0.5) / sets, (total + above**0.5) / sets)


def unpaired_change(
    before: Accuracy, after: Accuracy, confidence: float = 0.95
) -> tuple[float, float]:
    """Both ends of an interval for the difference of two accuracies on different examples.

    Args:
        before: the accuracy that is subtracted.
        after: the other accuracy.
        confidence: level of the interval.

    Source: ours; Agresti and Caffo (2000), one success and one failure added to each sample.

    >>> [round(end, 3) for end in unpaired_change(Accuracy(50, 100), Accuracy(70, 100))]
    [0.064, 0.328]
    """
    shares = [((one.correct + 1) / (one.count + 2), one.count + 2) for one in (before, after)]
    variance = sum(share * (1 - share) / count for share, count in shares)
    return _around(shares[1][0] - shares[0][0], variance, confidence)


def _around(center: float, variance: float, confidence: float) -> tuple[float, float]:
    """Both ends of a normal interval for a difference of two shares."""
    half = float(ndtri((1 + confidence) / 2)) * max(variance, 0.0) ** 0.5
    return max(-1.0, center - half), min(1.0, center + half)
