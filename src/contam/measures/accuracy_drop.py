"""Accuracy that a network loses on the same examples after a change, with its interval."""

from jaxtyping import Bool
from scipy.optimize import root_scalar
from scipy.stats import norm
from torch import Tensor

from contam.measures.intervals import Estimate


def accuracy_drop(
    correct: Bool[Tensor, " examples"],
    correct_changed: Bool[Tensor, " examples"],
    *,
    confidence: float = 0.95,
) -> Estimate:
    """Return the accuracy lost when the same examples are changed, with a score interval.

    To measure how much a network relies on a feature, randomize the feature instead of removing it:
    an image without it is shifted in another way, too. The interval inverts the score test for
    paired proportions, so it keeps a width when no answer changes.

    Args:
        correct: Which answers are correct on the original examples.
        correct_changed: Which answers are correct on the changed examples, in the same order.
        confidence: Level of the interval.

    Returns:
        The difference of both accuracies, in [-1, 1].

    Raises:
        ValueError: If there is no example or the confidence is not in (0, 1).

    Source: ours, for Murali et al. (2023); Tango (1998) for the interval.

    >>> import torch
    >>> correct, changed = torch.tensor([True, True, True, False]), torch.tensor([True, False] * 2)
    >>> accuracy_drop(correct, changed).value
    0.25
    """
    n = len(correct)
    if n < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"expected at least 1 example and a confidence in (0, 1), got {n} and {confidence}"
        )
    lost = int((correct & ~correct_changed).sum())
    gained = int((correct_changed & ~correct).sum())
    drop = (lost - gained) / n
    bound = float(norm.ppf((1 + confidence) / 2))

    def excess(delta: float) -> float:
        """Squared score statistic beyond the bound, times its variance, at a difference."""
        # The most likely share of wrong answers that become correct, given the difference.
        b = (2 * n - lost + gained) * delta - lost - gained
        gain = ((b**2 + 8 * n * gained * delta * (1 - delta)) ** 0.5 - b) / (4 * n)
        variance = n * (2 * gain + delta * (1 - delta))
        return (lost - gained - n * delta) ** 2 - bound**2 * variance

    def end(limit: float) -> float:
        # Without changed answers, the difference itself is a root, but not the one wanted.
        inside = drop + (limit - drop) * 1e-6 / n
        return limit if drop == limit else root_scalar(excess, bracket=(inside, limit)).root

    return Estimate(drop, end(-1.0), end(1.0))
