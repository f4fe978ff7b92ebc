"""Usable information (V-information) of layers about the class, in bits.

V-information is the gain in log likelihood of a family of simple predictors over the class
frequencies when they see the features. The pointwise value is the gain on one example; it is
negative where the features mislead the predictor. Predictors are fitted to one set and scored on
another, so the estimate can be negative, too.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.measures.intervals import Estimate, bootstrap
from contam.measures.layerwise import Layer
from contam.measures.neighbors import vote
from contam.training.probe import FullBatch, Minibatches, fit_probe

Family = Literal["neighbors", "linear"]
OPTIMUM = FullBatch()
"""The linear predictor: logistic regression with a small penalty on standardized features."""


def pointwise_information(
    log_probability: Float[Tensor, "examples classes"],
    y: Int[Tensor, " examples"],
    prior: Float[Tensor, " classes"],
) -> Float[Tensor, " examples"]:
    """Return the bits that a predictor gains on each example over the class frequencies.

    Args:
        log_probability: Natural logarithms of the predicted probabilities.
        y: Class indices.
        prior: Class frequencies.

    Returns:
        At most `-log2 prior[y]`, for a certain and correct prediction; negative for a prediction
        that is worse than the prior.

    Raises:
        ValueError: If the class of an example has no prior probability.

    Source: ours; Ethayarajh et al. (2022).

    >>> import torch
    >>> certain = torch.tensor([[1.0, 0.0]]).log()
    >>> pointwise_information(certain, torch.tensor([0]), torch.tensor([0.25, 0.75])).tolist()
    [2.0]
    """
    known = prior.double()[y]
    if not torch.all(known > 0):
        lacking = y[known <= 0].unique().tolist()
        raise ValueError(f"classes {lacking} are scored, but no example of them was fitted")
    predicted = log_probability.double().gather(1, y[:, None])[:, 0]
    return (predicted - known.log()) / math.log(2)


def neighbor_probability(
    counts: Int[Tensor, "examples classes"], smoothing: float = 1.0
) -> Float[Tensor, "examples classes"]:
    """Return class probabilities from the votes of neighbors.

    Args:
        counts: Votes for each class.
        smoothing: Votes added to every class. Without them, a class without votes would have
            probability 0, and a single example of it an infinite loss.

    Raises:
        ValueError: If smoothing is not positive.

    Source: ours, Laplace's rule of succession.

    >>> import torch
    >>> neighbor_probability(torch.tensor([[3, 0]])).tolist()
    [[0.8, 0.2]]
    """
    if not smoothing > 0:
        raise ValueError(f"smoothing must be positive, got {smoothing}")
    added = counts.double() + smoothing
    return added / added.sum(dim=1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Information:
    """Usable information of each layer about the class of each example."""

    probes: tuple[str, ...]
    bits: Float[Tensor, "probes examples"]
    """Pointwise information on each scored example, in bits."""
    entropy: float
    """Bits of the class when only the prior is known: the upper limit."""
    right: Float[Tensor, " probes"]
    """Accuracy of the predictor on the scored examples, in [0, 1]."""

    def of(
        self, probe: int | str, *, seed: int = 0, resamples: int = 1000, confidence: float = 0.95
    ) -> Estimate:
        """The V-information of one probe in bits; its interval is over the scored examples.

        Raises:
            ValueError: no such probe.
        """
        names = dict(zip(self.probes, range(len(self.probes)), strict=True))
        place = names.get(probe, -1) if isinstance(probe, str) else probe
        if not 0 <= place < len(self.probes):
            raise ValueError(f"no probe {probe!r}; choose from {list(names)}, or by its number")
        values = self.bits[place]
        return bootstrap(
            lambda rows: values[rows].mean(), (len(values),),
            seed=seed, resamples=resamples, confidence=confidence,
        )  # fmt: skip


def usable_information(
    layers: Iterable[Layer],
    fitted: Int[Tensor, " support"],
    scored: Int[Tensor, " queries"],
    *,
    family: Family = "neighbors",
    k: int = 30,
    smoothing: float = 1.0,
    recipe: Minibatches | FullBatch = OPTIMUM,
    seed: int = 0,
) -> Information:
    """Return the usable information of each layer, from predictors fitted to its support.

    Compare with an untrained network: part of the information is passed on without being learned.

    Args:
        layers: Features of both sets, such as `layerwise` yields.
        fitted: Labels of the support: classes, a correlated feature, or backgrounds.
        scored: Labels of the queries.
        family: Family of predictors: k-nearest neighbors or logistic regression.
        k: Number of neighbors.
        smoothing: Votes added to every class, for neighbors.
        recipe: Training of the linear predictor.
        seed: Random seed of the linear predictor.

    Raises:
        ValueError: If there is no layer, the family is unknown, a layer is scored on the features
            it is fitted to, or a scored class has no fitted example.

    Source: ours; Xu et al. (2020), Ethayarajh et al. (2022).

    >>> import torch
    >>> from contam.measures.layerwise import Layer
    >>> y = torch.tensor([0, 1] * 40)
    >>> layer = Layer("sign", 2.0 * y[:, None], 2.0 * y[:, None] + 0.1)
    >>> round(usable_information([layer], y, y, k=30).of("sign").value, 2)
    0.95
    """
    if family not in ("neighbors", "linear"):
        raise ValueError(f"family must be 'neighbors' or 'linear', got {family!r}")
    classes = int(torch.cat([fitted, scored]).max()) + 1
    prior = torch.bincount(fitted, minlength=classes).double() / len(fitted)
    probes, bits, right = [], [], []
    for layer in layers:
        if layer.support.data_ptr() == layer.queries.data_ptr():
            raise ValueError(
                f"layer {layer.name!r} is scored on the features it is fitted to; split them"
            )
        if family == "neighbors":
            votes = vote(layer.support, fitted, layer.queries, classes=classes, k=k)
            log_probability = neighbor_probability(votes.counts, smoothing).log()
            right.append((votes.winner == scored).double().mean())
        else:
            support, queries = layer.support.cpu(), layer.queries.cpu()
            probe = fit_probe(support, fitted, recipe, classes=classes, seed=seed)
            log_probability = probe(queries.float()).double().log_softmax(dim=1)
            right.append((log_probability.argmax(dim=1) == scored).double().mean())
        probes.append(layer.name)
        bits.append(pointwise_information(log_probability, scored, prior))
    if not probes:
        raise ValueError("information needs at least one layer")
    entropy = -prior[scored].log2().mean()
    return Information(tuple(probes), torch.stack(bits), float(entropy), torch.stack(right))
