"""Whether the classes are in another order than the one that the network was trained with."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from contam.data.image_tree import natural_key

LIFT = 0.3
"""Smallest gain of accuracy by another order that is reported."""
MOST = 1000
"""Largest number of classes whose orders are compared."""
FEWEST = 20
"""Smallest number of examples."""
SHOWN = 3


def label_order_notes(
    predicted: Int[Tensor, " n"], y: Int[Tensor, " n"], classes: Sequence[str], name: str = "ID"
) -> list[str]:
    """Return a sentence if another order of the classes would give a much higher accuracy.

    The order is fitted on one half of the examples and judged on the other.

    Args:
        predicted: predicted class indices.
        y: class indices.
        classes: names of the classes in the order of the logits.
        name: name of the set.

    Source: ours, because a wrong order of the classes looks like a network that learned nothing.

    >>> y = torch.arange(40) % 2
    >>> label_order_notes(1 - y, y, ["cat", "dog"])[0][:61]
    "With another order of the classes, 100 % of 'ID' would be cor"
    """
    k = len(classes)
    if len(y) < FEWEST or not 2 <= k <= MOST:
        return []
    half = torch.zeros(len(y), dtype=torch.long)
    half[y.argsort(stable=True)] = torch.arange(len(y)) % 2
    correct = 0
    for fitted in (0, 1):
        meaning = _meaning(predicted[half == fitted], y[half == fitted], k)
        correct += int((meaning[predicted[half != fitted]] == y[half != fitted]).sum())
    accuracy, lifted = float((predicted == y).double().mean()), correct / len(y)
    if lifted - accuracy < LIFT:
        return []
    meaning = _meaning(predicted, y, k).tolist()
    moved = [logit for logit in predicted.unique().tolist() if meaning[logit] != logit]
    pairs = ", ".join(f"logit {i} fits {classes[meaning[i]]!r}" for i in moved[:SHOWN])
    orders = {"timm's": sorted(sorted(classes), key=natural_key), "torchvision's": sorted(classes)}
    known = [tool for tool, order in orders.items()
             if moved and all(order[i] == classes[meaning[i]] for i in moved)]  # fmt: skip
    fits = f" This is {known[0]} order." if known else ""
    return [
        f"With another order of the classes, {100 * lifted:.0f} % of {name!r} would be correct "
        f"instead of {100 * accuracy:.0f} %: {pairs}.{fits} Check the order, and give classes= in "
        "the order of the logits."
    ]


def _meaning(predicted: Tensor, y: Tensor, classes: int) -> Tensor:
    """Return the class of each logit in the order with the highest accuracy."""
    counts = torch.bincount(predicted * classes + y, minlength=classes**2).view(classes, classes)
    # Of several best orders, the one that changes least.
    counts = counts.double() + 0.5 * torch.eye(classes, dtype=torch.float64) / classes
    rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
    meaning = torch.empty(classes, dtype=torch.long)
    meaning[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return meaning
