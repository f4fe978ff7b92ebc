"""A classifier of two parameters, whose training by an algorithm is written out without torch.

The logits of a number x are (v0 x, v1 x), and they are the features, too.
"""

import math
from collections.abc import Callable, Collection
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import nn

from contam.batch import Batch
from contam.models.classifier import Classifier
from contam.training.algorithms import Algorithm
from support.plain_training import PlainAdam

X = ((1.0, -0.5, 2.0), (0.3, -1.5, 1.0))
"""Inputs of two domains."""
Y = ((0, 1, 0), (0, 1, 1))
START = (0.4, -0.2)

AlgorithmT = TypeVar("AlgorithmT", bound=Algorithm)
Parameters = tuple[float, float]
Loss = Callable[[Parameters], float]


def two_parameter_network() -> Classifier:
    """The classifier at its start, in double precision."""
    network = Classifier(nn.Linear(1, 2, bias=False), classes=2, width=2).double()
    with torch.no_grad():
        network.encoder.get_parameter("weight").copy_(
            torch.tensor(START, dtype=torch.float64)[:, None]
        )
        network.head.weight.copy_(torch.eye(2))
        network.head.bias.zero_()
    network.head.requires_grad_(False)
    return network


def two_domains() -> list[Batch]:
    """The minibatch of each domain."""
    return [
        Batch(torch.tensor(x, dtype=torch.float64)[:, None], torch.tensor(y), torch.full((3,), k))
        for k, (x, y) in enumerate(zip(X, Y, strict=True))
    ]


def made(kind: type[AlgorithmT], step_size: float = 0.1, **settings: float) -> AlgorithmT:
    """An algorithm that trains the classifier."""
    return kind(
        two_parameter_network(),
        domains=2,
        classes=2,
        settings=kind.Settings.model_validate({"step_size": step_size, **settings}),
        seed=0,
    )


def cross_entropy(v: Parameters, x: float, y: int) -> float:
    """The loss of one example."""
    return math.log(math.exp(v[0] * x) + math.exp(v[1] * x)) - v[y] * x


def probabilities(v: Parameters, x: float) -> Parameters:
    """The probabilities of both classes."""
    first = 1 / (1 + math.exp((v[1] - v[0]) * x))
    return first, 1 - first


def mean(values: Collection[float]) -> float:
    """The mean."""
    return sum(values) / len(values)


def risk_of(v: Parameters, domain: int) -> float:
    """The risk of one domain."""
    return mean([cross_entropy(v, x, y) for x, y in zip(X[domain], Y[domain], strict=True)])


def gradient_of(loss: Loss, v: Parameters, width: float = 1e-5) -> list[float]:
    """The gradient by central differences."""
    return [
        (loss((v[0] + (k == 0) * width, v[1] + (k == 1) * width))
         - loss((v[0] - (k == 0) * width, v[1] - (k == 1) * width))) / (2 * width)
        for k in (0, 1)
    ]  # fmt: skip


def risk_gradient(v: torch.Tensor, domain: int) -> torch.Tensor:
    """The gradient of the risk of one domain, as a tensor."""
    here = (float(v[0]), float(v[1]))
    return torch.tensor(gradient_of(lambda w: risk_of(w, domain), here), dtype=torch.float64)


def assert_trained_as(
    algorithm: Algorithm,
    loss: Callable[[int, Parameters], Loss],
    *,
    steps: int = 4,
    step_size: float = 0.1,
    resets: Collection[int] = (),
) -> None:
    """Assert that steps of the algorithm are steps of Adam on a loss.

    Args:
        algorithm: the algorithm on `two_parameter_network`.
        loss: from the number of completed steps and the parameters to the loss that is
            differentiated in this step.
        steps: number of steps.
        step_size: step size of Adam.
        resets: numbers of completed steps after which Adam starts afresh.
    """
    values, adam = {"v": np.array(START)}, PlainAdam(step_size)
    for step in range(steps):
        if step in resets:
            adam = PlainAdam(step_size)
        here = (float(values["v"][0]), float(values["v"][1]))
        objective = loss(step, here)
        torch.manual_seed(step)
        losses = algorithm.step(two_domains())
        assert sum(losses.values()) == pytest.approx(objective(here), rel=1e-9)
        adam.step(values, {"v": gradient_of(objective, here)})
        values_after = algorithm.network.encoder.get_parameter("weight").flatten().tolist()
        assert values_after == pytest.approx(values["v"].tolist(), rel=1e-6)
