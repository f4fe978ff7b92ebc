"""Accuracy of a network on one data set, overall and by class and domain."""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from contam.auditing.records import (
    ConfusedPair,
    CorrectExamples,
    Interval,
    Score,
    SetScores,
)
from contam.auditing.single_pass import PassResult
from contam.data.image_tree import natural_key
from contam.measures.accuracy import Accuracy, clopper_pearson
from contam.measures.robustness import Line, effective_robustness, robustness_interval

CONFUSED = 400
"""Pairs of confused classes that are recorded, at most; 20 classes have 380."""


def share_correct(correct: Bool[Tensor, " n"]) -> Score:
    """Return the share of correct predictions with its exact binomial interval.

    >>> share_correct(torch.tensor([True, True, False])).correct
    2
    """
    return _score(int(correct.sum()), len(correct))


def _score(right: int, count: int) -> Score:
    low, high = clopper_pearson(right, count)
    share = Interval(value=right / count, low=low, high=high)
    return Score(correct=right, count=count, accuracy=share)


def correct_examples(
    correct: Bool[Tensor, " n"], y: Int[Tensor, " n"], classes: Sequence[str]
) -> CorrectExamples:
    """Return which predictions are correct, in a form that takes a bit for each example.

    Args:
        correct: whether each prediction is correct.
        y: class indices.
        classes: names of the classes; the digest does not depend on their order.

    Source: ours, because a paired test needs both answers to each example.

    >>> correct_examples(torch.tensor([True, False]), torch.tensor([0, 1]), ["cat", "dog"])
    CorrectExamples(bits='gA==', labels='3a450eb155d6a4c6')
    """
    single = [name.replace("\n", " ") for name in classes]
    names = "\n".join(single[k] for k in y.tolist())
    return CorrectExamples(
        bits=base64.b64encode(np.packbits(correct.cpu().numpy()).tobytes()).decode(),
        labels=hashlib.sha256(names.encode("utf-8", "backslashreplace")).hexdigest()[:16],
    )


def unpacked(correct: CorrectExamples, count: int) -> Bool[Tensor, " n"]:
    """Return which of `count` predictions are correct.

    Args:
        correct: the result of `correct_examples`.
        count: number of examples.

    Source: ours, answers are kept as bits, which take an eighth of the space.

    Raises:
        ValueError: the record holds another number of examples.

    >>> unpacked(CorrectExamples(bits="gA==", labels=""), 2)
    tensor([ True, False])
    """
    packed = np.frombuffer(base64.b64decode(correct.bits), np.uint8)
    if len(packed) != -(-count // 8):
        raise ValueError(f"expected the answers to {count} examples, got {8 * len(packed)} bits")
    return torch.from_numpy(np.unpackbits(packed, count=count).astype(bool))


def set_scores(
    result: PassResult,
    name: str,
    classes: Sequence[str],
    role: Literal["id", "ood"],
    *,
    domains: Sequence[str] = (),
    domain_column: str = "",
    groups: Mapping[str, Sequence[str]] | None = None,
    baseline: tuple[Accuracy, Line] | None = None,
) -> SetScores:
    """Return the accuracy on a data set, of each class and of each domain in it.

    Args:
        result: the pass over the data set.
        name: name of the data set.
        classes: names of the classes.
        role: whether the set is ID or OOD.
        domains: names of the domains by index; others are called by their index. A single domain
            is not listed.
        domain_column: name of the metadata column that is the domain.
        groups: (n,) values of the examples in other metadata columns.
        baseline: ID accuracy, and the line of standard models for effective robustness.

    Returns:
        Accuracies as shares with exact binomial intervals, and the most frequent confusions.

    Source: ours, exact binomial intervals.

    >>> y, predicted = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0])
    >>> result = PassResult(y, predicted, domain=torch.zeros_like(y), loss=torch.zeros(4))
    >>> scores = set_scores(result, "beach", ("cow", "camel"), "ood")
    >>> scores.by_class["camel"].accuracy.value, scores.confused[0].predicted
    (0.5, 'cow')
    """
    correct, y = result.correct, result.y
    counts, right = torch.bincount(y).tolist(), torch.bincount(y[correct]).tolist()
    right += [0] * (len(counts) - len(right))
    by_class = {classes[k]: _score(right[k], count) for k, count in enumerate(counts) if count}
    indices = [int(k) for k in result.domain.unique()]
    by_domain = {
        domains[k] if k in range(len(domains)) else str(k): share_correct(
            correct[result.domain == k]
        )
        for k in indices
        if len(indices) > 1
    }
    worst = min(by_domain, key=lambda domain: by_domain[domain].accuracy.value, default=None)
    above = None
    if baseline is not None:
        known, line = baseline
        own = Accuracy(int(correct.sum()), len(correct))
        id_share, ood_share = (torch.tensor([part.share]).double() for part in (known, own))
        low, high = robustness_interval(known, own, line)
        value = float(effective_robustness(id_share, ood_share, line))
        above = Interval(value=value, low=low, high=high)
    return SetScores(
        name=name, role=role, overall=share_correct(correct), by_class=by_class,
        by_domain=by_domain, worst_domain=worst, effective_robustness=above,
        domain_column=domain_column, correct=correct_examples(correct, y, classes),
        by_group={name: _by_value(correct, values) for name, values in (groups or {}).items()},
        confused=_confused(result, classes),
    )  # fmt: skip


def _confused(result: PassResult, classes: Sequence[str]) -> tuple[ConfusedPair, ...]:
    """Return the most frequent pairs of a class and another that is predicted for it."""
    wrong = ~result.correct
    pairs = Counter(zip(result.y[wrong].tolist(), result.predicted[wrong].tolist(), strict=True))
    ordered = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(
        ConfusedPair(label=classes[int(y)], predicted=classes[int(predicted)], count=count)
        for (y, predicted), count in ordered[:CONFUSED]
    )


def _by_value(correct: Bool[Tensor, " n"], values: Sequence[str]) -> dict[str, Score]:
    """Return the accuracy on the examples with each value, in the natural order of the values."""
    counts = Counter(values)
    right = Counter(value for value, good in zip(values, correct.tolist(), strict=True) if good)
    return {value: _score(right[value], counts[value]) for value in sorted(counts, key=natural_key)}
