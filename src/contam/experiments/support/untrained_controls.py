"""The two controls with random weights: as they are drawn, and with calibrated batch norms.

Activations of a network depend on the statistics of its batch norms. With the initial ones they
shrink or grow from layer to layer; with those of the training images they are as in a trained
network, and only the weights are random. What training adds is claimed beyond the stricter one.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal, TypeVar

import numpy as np
from torch import Tensor, nn

from contam.batch import Domain
from contam.models.batch_statistics import calibrated
from contam.training.minibatches import TrainingExamples

TRAINED: Literal["trained"] = "trained"
DRAWN: Literal["untrained"] = "untrained"
CALIBRATED: Literal["calibrated"] = "calibrated"
"""States of a network."""
CONTROLS: tuple[Literal["untrained"], Literal["calibrated"]] = (DRAWN, CALIBRATED)

BATCH = 256
BATCHES = 40
"""Size and largest number of the batches from which batch norms get their statistics."""

Network = TypeVar("Network", bound=nn.Module)


def training_inputs(train: Sequence[Domain], seed: int) -> Iterator[Tensor]:
    """Yield inputs of training examples in a random order, each at most once, in equal batches.

    Source: ours.
    """
    examples = TrainingExamples(tuple(train))
    size = min(BATCH, len(examples))
    picks = examples.minibatches(size, purpose="statistics", seed=seed, start=0)
    batches = examples.fetch(islice(picks, min(BATCHES, len(examples) // size)))
    return (batch.x for batch in batches)


def controls(model: Network, train: Sequence[Domain], seed: int) -> dict[str, Network]:
    """Return an untrained network as it is, and a copy with calibrated batch norms, by state.

    Args:
        model: the network before training; unchanged.
        train: its training data.
        seed: order of the examples.

    Source: ours.
    """
    return {DRAWN: model, CALIBRATED: calibrated(model, training_inputs(train, seed))}


def strictest(differences: Sequence[np.ndarray], *, at_least: bool) -> np.ndarray:
    """Return, of differences from several controls, those that support a claim the least.

    Args:
        differences: (seeds,) trained minus control, for each control.
        at_least: whether the claim is that the difference is large, and not small.

    Source: ours.

    >>> strictest([np.array([0.5, 0.2]), np.array([0.1, 0.3])], at_least=True).tolist()
    [0.1, 0.2]
    """
    return (np.minimum if at_least else np.maximum).reduce(list(differences))
