"""Linear probes of the representation that the network's head reads."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contam.rng import generator_for
from contam.training.probe import (
    EXACT_CLASSES,
    WITHIN_BUDGET,
    Discriminant,
    FullBatch,
    fit_probe,
    probe_recipe,
)

PROBE = WITHIN_BUDGET
"""How heads and probes are fitted, within the budget."""
CLOSED_FORM = (
    "With this many classes, neurons or examples, linear probes and fresh heads are linear "
    "discriminants in closed form, because logistic regressions would take minutes."
)
"""Note on probes beyond the budget."""
FEWEST_PER_CLASS = 4
"""Mean number of ID examples per class below which no fresh head is fitted to many classes."""

Features = tuple[Float[Tensor, "n width"], Int[Tensor, " n"]]
"""Features and class indices of a data set."""


def too_few_per_class(y: Int[Tensor, " n"]) -> bool:
    """Return whether there are many classes with too few examples each to fit a head to a half.

    >>> too_few_per_class(torch.arange(300)), too_few_per_class(torch.arange(300) % 60)
    (True, False)
    """
    present = len(y.unique())
    return present > EXACT_CLASSES and len(y) < FEWEST_PER_CLASS * present


def linear_classifier(
    features: Float[Tensor, "n width"],
    y: Int[Tensor, " n"],
    recipe: FullBatch | Discriminant,
    *,
    classes: int,
) -> Callable[[Float[Tensor, "m width"]], Int[Tensor, " m"]]:
    """Fit a probe, and return the function from features to predicted classes.

    Args:
        features: features of each example.
        y: class indices.
        recipe: how the probe is fitted. The closed form has weights for the classes that occur
            only, which saves memory.
        classes: number of classes.

    Source: ours, one linear probe for many or few classes, by the recipe that fits.

    >>> x, y = torch.eye(2).repeat(4, 1), torch.tensor([7, 90] * 4)
    >>> linear_classifier(x, y, Discriminant(), classes=100)(torch.eye(2)).tolist()
    [7, 90]
    """
    if isinstance(recipe, FullBatch):
        probe = fit_probe(features, y, recipe, classes=classes)
        return lambda x: probe(x).argmax(dim=1)
    known, labels = y.unique(return_inverse=True)
    if len(known) == 1:
        return lambda x: known.expand(len(x))
    few = fit_probe(features, labels, recipe, classes=len(known))
    return lambda x: known[few(x).argmax(dim=1)]


def correct_with_fresh_head(
    id_set: Features,
    ood_sets: Mapping[str, Features],
    *,
    classes: int,
    same: Mapping[str, Int[Tensor, "pairs 2"]] | None = None,
    seed: int = 0,
) -> tuple[Bool[Tensor, " n"], dict[str, Bool[Tensor, " m"]]]:
    """Return which examples a linear head that is fitted on ID data classifies correctly.

    An ID example is judged by a head that was fitted on the other half of the ID set, an OOD
    example by one that was fitted on the whole ID set. An OOD example that shows the content of an
    ID example is judged by the head of the half without it.

    Args:
        id_set: features and labels of the ID set.
        ood_sets: the same of OOD sets by name.
        classes: number of classes.
        same: rows of ID and OOD examples with the same content, by OOD set.
        seed: seed of the halves.

    Source: ours, the accuracy that the features allow.

    >>> x = torch.tensor([[0.0], [1.0]]).repeat(20, 1)
    >>> y = torch.tensor([0, 1]).repeat(20)
    >>> own, ood = correct_with_fresh_head((x, y), {"swapped": (1 - x, y)}, classes=2)
    >>> bool(own.all()), bool(ood["swapped"].any())
    (True, False)
    """
    recipe = probe_recipe([id_set[0]], PROBE, classes=classes)
    features, y = id_set
    head = linear_classifier(features, y, recipe, classes=classes)
    half_heads = list(_half_heads(features, y, recipe, classes=classes, seed=seed))
    own = _by_other_half(half_heads, features, y)
    results = {}
    for name, (x, labels) in ood_sets.items():
        predicted = head(x)
        pairs = (same or {}).get(name, torch.empty(0, 2).long())
        for judged, half_head in half_heads:
            rows = pairs[torch.isin(pairs[:, 0], judged), 1]
            if len(rows):
                predicted[rows] = half_head(x[rows])
        results[name] = predicted == labels
    return own, results


def correct_by_other_half(
    features: Float[Tensor, "n width"],
    y: Int[Tensor, " n"],
    recipe: FullBatch | Discriminant = PROBE,
    *,
    classes: int,
    seed: int = 0,
) -> Bool[Tensor, " n"]:
    """Return which examples a probe that is fitted on the other half classifies correctly.

    Args:
        features: features of each example.
        y: class indices.
        recipe: how the probe is fitted.
        classes: number of classes.
        seed: seed of the halves.

    Source: ours, two-fold cross-fitting.

    >>> x, y = torch.eye(2).repeat(4, 1), torch.tensor([0, 1] * 4)
    >>> bool(correct_by_other_half(x, y, classes=2).all())
    True
    """
    return _by_other_half(
        list(_half_heads(features, y, recipe, classes=classes, seed=seed)), features, y
    )


HalfHead = tuple[Int[Tensor, " judged"], Callable[[Float[Tensor, "m width"]], Int[Tensor, " m"]]]
"""Rows of one half, and a classifier that was fitted on the other half."""


def _half_heads(
    features: Tensor, y: Tensor, recipe: FullBatch | Discriminant, *, classes: int, seed: int
) -> Iterator[HalfHead]:
    """A classifier of each half of the examples."""
    order = torch.randperm(len(y), generator=generator_for(seed, "audit/halves"))
    # The classes in turn, so that both halves have equal numbers of each as far as possible.
    order = order[y[order].argsort(stable=True)]
    halves = (order[::2], order[1::2])
    for fitted, judged in (halves, halves[::-1]):
        if len(fitted) and len(judged):
            yield (
                judged, linear_classifier(features[fitted], y[fitted], recipe, classes=classes)
            )  # fmt: skip


def _by_other_half(half_heads: Sequence[HalfHead], features: Tensor, y: Tensor) -> Tensor:
    """Which examples the classifier of the other half predicts correctly."""
    correct = torch.zeros(len(y), dtype=torch.bool)
    for judged, head in half_heads:
        correct[judged] = head(features[judged]) == y[judged]
    return correct
