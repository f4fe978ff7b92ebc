"""How much a family of simple readers can say about the class from a layer, in bits.

V-information is what a family of predictors gains over the class frequencies when it sees the
features; the pointwise value is what it gains on one example, below 0 where the features mislead
it. Readers are fitted to one set and scored on another, so the estimate can fall below 0, too.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.batch import Domain
from contam.measures.intervals import Estimate, bootstrap
from contam.measures.layerwise import Layer, layerwise, over_grid
from contam.measures.neighbors import vote
from contam.models.readings import Reading
from contam.training.probe import FullBatch, Minibatches, fit_probe

Family = Literal["neighbors", "linear"]
OPTIMUM = FullBatch()
"""The linear reader: logistic regression with a small penalty, on standardized features."""


def pointwise_information(
    log_probability: Float[Tensor, "examples classes"],
    y: Int[Tensor, " examples"],
    prior: Float[Tensor, " classes"],
) -> Float[Tensor, " examples"]:
    """How many bits a reader saves on each example's class over one that knows the prior alone.

    Takes natural logarithms of the reader's probabilities. At most `-log2 prior[y]`, which says
    that the reader is certain and right; below 0 if it does worse than the prior.

    Source: ours; Ethayarajh et al. (2022).

    Raises:
        ValueError: an example of a class that has no prior probability.
    """
    known = prior.double()[y]
    if not torch.all(known > 0):
        lacking = y[known <= 0].unique().tolist()
        raise ValueError(f"classes {lacking} are scored, but none of them was fitted to")
    said = log_probability.double().gather(1, y[:, None])[:, 0]
    return (said - known.log()) / math.log(2)


def neighbor_probability(
    counts: Int[Tensor, "examples classes"], smoothing: float = 1.0
) -> Float[Tensor, "examples classes"]:
    """The probabilities that votes stand for: every class has `smoothing` votes beforehand.

    Without any, a class without votes would be impossible, and one example of it infinitely bad.

    Source: ours, Laplace's rule.

    Raises:
        ValueError: no smoothing.
    """
    if not smoothing > 0:
        raise ValueError(f"smoothing is above 0, not {smoothing}")
    added = counts.double() + smoothing
    return added / added.sum(dim=1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Information:
    """What each layer says about each example's class."""

    probes: tuple[str, ...]
    bits: Float[Tensor, "probes examples"]
    """Pointwise: what is saved on each scored example, in bits."""
    entropy: float
    """What there is to say: bits for an example's class when the prior alone is known."""
    right: Float[Tensor, " probes"]
    """The reader's accuracy on the scored examples, in [0, 1]."""

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
    """What readers of each layer, fitted to its support, say about its queries.

    `fitted` and `scored` are the classes of both, or whatever else is asked about: a feature that
    goes with the class, or the background. `k` and `smoothing` are for neighbors, `recipe` and
    `seed` for linear readers.

    Source: ours; Xu et al. (2020), Ethayarajh et al. (2022).

    Raises:
        ValueError: no layer, another family, a layer whose both sets are one, classes that were
            not fitted to, or what the reader refuses.
    """
    if family not in ("neighbors", "linear"):
        raise ValueError(f"the family is 'neighbors' or 'linear', not {family!r}")
    classes = int(torch.cat([fitted, scored]).max()) + 1
    prior = torch.bincount(fitted, minlength=classes).double() / len(fitted)
    probes, bits, right = [], [], []
    for layer in layers:
        if layer.support.data_ptr() == layer.queries.data_ptr():
            raise ValueError(
                f"layer {layer.name!r} is fitted to the features that it is scored on; split them"
            )
        if family == "neighbors":
            votes = vote(layer.support, fitted, layer.queries, classes=classes, k=k)
            said = neighbor_probability(votes.counts, smoothing).log()
            right.append((votes.winner == scored).double().mean())
        else:
            support, queries = layer.support.cpu(), layer.queries.cpu()
            reader = fit_probe(support, fitted, recipe, classes=classes, seed=seed)
            said = reader(queries.float()).double().log_softmax(dim=1)
            right.append((said.argmax(dim=1) == scored).double().mean())
        probes.append(layer.name)
        bits.append(pointwise_information(said, scored, prior))
    if not probes:
        raise ValueError("information needs at least one layer, and none came")
    entropy = -prior[scored].log2().mean()
    return Information(tuple(probes), torch.stack(bits), float(entropy), torch.stack(right))


def model_information(
    model: nn.Module,
    fit: Domain,
    score: Domain,
    layers: Collection[str] | Literal["auto"] = "auto",
    *,
    about: tuple[Int[Tensor, " support"], Int[Tensor, " queries"]] | None = None,
    family: Family = "neighbors",
    k: int = 30,
    smoothing: float = 1.0,
    recipe: Minibatches | FullBatch = OPTIMUM,
    reduce: Reading = over_grid,
    batch_size: int = 256,
    at_once: int = 1,
    seed: int = 0,
) -> Information:
    """What the layers of a network say about the class, or about other labels of both domains.

    `about` has a label for each example of both. Give it the background, say, to see where that can
    be read, and set an untrained network beside it: much of it is passed through, not learned.

    Source: ours; Xu et al. (2020).

    Raises:
        ValueError: both domains are one, or what `layerwise` and `usable_information` refuse.
    """
    if fit is score:
        raise ValueError(f"{fit.name!r} can't be fitted to and scored on; split it into two")
    fitted, scored = (fit.y, score.y) if about is None else about
    seen = layerwise(
        model, fit, score, layers, reduce=reduce, batch_size=batch_size, at_once=at_once
    )
    return usable_information(
        seen, fitted, scored, family=family, k=k, smoothing=smoothing, recipe=recipe, seed=seed
    )
