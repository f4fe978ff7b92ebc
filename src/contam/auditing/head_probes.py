"""Linear probes of the representation that the network's head reads."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contam.rng import generator_for
from contam.training.probe import FullBatch, fit_probe

PROBE = FullBatch(penalties=(1e-3,), iterations=200)
"""How heads and probes are fitted."""

Features = tuple[Float[Tensor, "n width"], Int[Tensor, " n"]]
"""Features and class indices of a data set."""


def correct_with_fresh_head(
    id_set: Features, ood_sets: Mapping[str, Features], *, classes: int, seed: int = 0
) -> tuple[Bool[Tensor, " n"], dict[str, Bool[Tensor, " m"]]]:
    """Return which examples a linear head that is fitted on ID data classifies correctly.

    An ID example is judged by a head that was fitted on the other half of the ID set, an OOD
    example by one that was fitted on the whole ID set.

    Args:
        id_set: features and labels of the ID set.
        ood_sets: the same of OOD sets by name.
        classes: number of classes.
        seed: seed of the halves.

    Source: ours, the accuracy that the features allow.
    """
    head = fit_probe(*id_set, PROBE, classes=classes)
    own = correct_by_other_half(*id_set, classes=classes, seed=seed)
    return own, {name: head(x).argmax(dim=1) == y for name, (x, y) in ood_sets.items()}


def correct_by_other_half(
    features: Float[Tensor, "n width"], y: Int[Tensor, " n"], *, classes: int, seed: int = 0
) -> Bool[Tensor, " n"]:
    """Return which examples a probe that is fitted on the other half classifies correctly.

    Source: ours, two-fold cross-fitting.

    >>> x, y = torch.eye(2).repeat(4, 1), torch.tensor([0, 1] * 4)
    >>> bool(correct_by_other_half(x, y, classes=2).all())
    True
    """
    order = torch.randperm(len(y), generator=generator_for(seed, "audit/halves"))
    # The classes in turn, so that both halves have equal numbers of each as far as possible.
    order = order[y[order].argsort(stable=True)]
    halves = (order[::2], order[1::2])
    correct = torch.zeros(len(y), dtype=torch.bool)
    for fitted, judged in (halves, halves[::-1]):
        if len(fitted) and len(judged):
            probe = fit_probe(features[fitted], y[fitted], PROBE, classes=classes)
            correct[judged] = probe(features[judged]).argmax(dim=1) == y[judged]
    return correct
