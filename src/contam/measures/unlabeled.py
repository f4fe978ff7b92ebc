"""Accuracy on data without labels: estimates from confidences, and which examples to label first.

Both estimates assume that confidence and correctness go together under the shift as they do on
labeled ID data. Nothing in unlabeled data can show whether that holds, so an estimate needs its
error on labeled data beside it.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contam.rng import generator_for


def log_odds(logits: Float[Tensor, "n classes"], temperature: float = 1.0) -> Float[Tensor, " n"]:
    """Return the log odds of the most likely class, in nats.

    Their sigmoid is the confidence, the largest softmax probability. They order examples as it
    does, but do not tie where it rounds to 1.

    Args:
        logits: Logits of at least two classes.
        temperature: Divisor of the logits, such as one that calibrates them.

    Source: ours, they do not tie where the confidence rounds to 1.

    >>> log_odds(torch.tensor([[0.0, 3.0], [200.0, 0.0]])).tolist()
    [3.0, 200.0]
    """
    scaled = logits.double() / temperature
    top = scaled.max(dim=1, keepdim=True)
    others = scaled.scatter(1, top.indices, -torch.inf)
    return top.values[:, 0] - others.logsumexp(dim=1)


def average_thresholded_confidence(
    score: Float[Tensor, " n"], correct: Bool[Tensor, " n"], new_score: Float[Tensor, " m"]
) -> Float[Tensor, ""]:
    """Estimate the accuracy on unlabeled examples as the share with a score above a threshold.

    The threshold is such that the share of labeled examples above it is their accuracy.

    Args:
        score: Score of each labeled example, higher for confident predictions; any increasing
            function of it gives the same estimate.
        correct: Whether the prediction of each labeled example is correct.
        new_score: Score of each unlabeled example.

    Returns:
        The accuracy, in [0, 1].

    Raises:
        ValueError: If there are no examples, or a score is nan.

    Source: ours; average thresholded confidence (Garg et al., 2022).

    >>> score, correct = torch.tensor([0.2, 0.4, 0.6, 0.8]), torch.tensor([False, True, True, True])
    >>> average_thresholded_confidence(score, correct, torch.tensor([0.1, 0.3, 0.5, 0.9])).item()
    0.5
    """
    _check(score, new_score)
    errors = int((~correct).sum())
    if errors == len(score):
        return new_score.new_zeros(())
    threshold = score.sort().values[errors]
    return (new_score >= threshold).double().mean()


def difference_of_confidences(
    confidence: Float[Tensor, " n"],
    correct: Bool[Tensor, " n"],
    new_confidence: Float[Tensor, " m"],
) -> Float[Tensor, ""]:
    """Estimate the accuracy on unlabeled examples as the labeled one minus the drop in confidence.

    Args:
        confidence: Largest probability of each labeled example.
        correct: Whether the prediction of each labeled example is correct.
        new_confidence: Largest probability of each unlabeled example.

    Returns:
        The accuracy, limited to [0, 1].

    Raises:
        ValueError: If there are no examples, or a confidence is nan.

    Source: ours; difference of confidences (Guillory et al., 2021).

    >>> right = torch.tensor([True, True, True, False])
    >>> difference_of_confidences(torch.full((4,), 0.75), right, torch.tensor([0.5])).item()
    0.5
    """
    _check(confidence, new_confidence)
    drop = confidence.double().mean() - new_confidence.double().mean()
    return (correct.double().mean() - drop).clamp(0, 1)


def sample_to_label(
    predicted: Int[Tensor, " n"], count: int, *, seed: int = 0
) -> Int[Tensor, " some"]:
    """Draw examples to label, in which every predicted class has its share of the whole set.

    Every example is drawn with the same probability, so the plain accuracy on the sample is an
    unbiased estimate of that on all examples. It varies less than on a simple random sample. The
    order is random, so the first ones alone are such a sample of fewer.

    Args:
        predicted: Predicted class of each example.
        count: Number of examples to draw; all if there are fewer.
        seed: Random seed.

    Returns:
        Their positions.

    Source: ours; systematic sampling (Madow and Madow, 1944).

    >>> predicted = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    >>> predicted[sample_to_label(predicted, 10)].bincount().tolist()
    [6, 3, 1]
    """
    generator = generator_for(seed, "unlabeled/to label")
    n = len(predicted)
    shuffled = torch.randperm(n, generator=generator)
    if count >= n:
        return shuffled
    ordered = shuffled[predicted.cpu()[shuffled].argsort(stable=True)]
    begin = torch.rand((), generator=generator, dtype=torch.float64)
    places = ((torch.arange(count) + begin) * n / count).long().clamp(max=n - 1)
    return ordered[places][torch.randperm(count, generator=generator)]


def _check(known: Tensor, new: Tensor) -> None:
    if not len(known) or not len(new) or known.isnan().any() or new.isnan().any():
        raise ValueError(
            f"expected numbers for labeled and for unlabeled examples, got {len(known)} and "
            f"{len(new)}, {int(known.isnan().sum() + new.isnan().sum())} of them nan"
        )
