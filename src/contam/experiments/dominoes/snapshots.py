"""Measurements of a network that learns dominoes, as rows of numbers."""

import math
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.batch import Domain, Shift
from contam.measures.accuracy_drop import accuracy_drop
from contam.measures.correlation import spearman
from contam.measures.depth import Rule, draw_support, draw_unbalanced_support, model_depths
from contam.measures.example_difficulty import DifficultyLog, auc
from contam.measures.layerwise import layerwise, over_grid, predictions
from contam.measures.neighbors import vote
from contam.measures.usable_information import pointwise_information, usable_information
from contam.models.observe import layers_of, observe

EARLY = 1
"""The last early probe: the input and the first layer are early."""
FULL_SIDE = 64
"""Side of a grid that keeps all values of the maps of a domino."""
AT_ONCE = 8
"""Number of probes that are held in memory."""


def probed(model: nn.Module, domain: Domain) -> list[str]:
    """Return the layers that are probes between the input and the softmax: all activations."""
    device = next(model.parameters()).device
    return layers_of(model, domain.data.x[:1].to(device))


def convolutions(model: nn.Module) -> list[str]:
    """Return the published probes: the first normalization and the 3 x 3 convolutions behind it."""
    modules = dict(model.named_modules())
    (_, *behind) = (
        name
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    )
    first = next(name for name, module in modules.items() if isinstance(module, nn.BatchNorm2d))
    return [first, *behind]


def depth_row(
    model: nn.Module,
    shift: Shift,
    *,
    per_class: int,
    rule: Rule,
    seed: int,
    support: int | None = None,
    queries: int | None = None,
    probes: Literal["activations", "convolutions"] = "activations",
) -> dict[str, Any]:
    """Return the prediction depth on the ID test, among the pictures whose depth is defined.

    `depth` is the mean depth, with its 95 % bootstrap interval `depth_low` to `depth_high` over
    pictures; `early` is the share with a depth of at most `EARLY`, and `shares` the share at each
    depth. `undefined` is the share of all pictures without a depth. `information_correlation` is
    the rank correlation of depth and the pointwise usable information of the network's output.
    Numbers that are not defined are nan. `support`, `queries` and `probes` are those of `Config`.
    """
    pool, test = shift.train[0], shift.id_test
    if queries is not None:
        test = Domain(test.name, test.data.pick(torch.arange(len(test)) < queries))
    published = probes == "convolutions"
    depths = model_depths(
        model, pool, test, convolutions(model) if published else probed(model, test),
        support=draw_support(pool.y, per_class, seed=seed)
        if support is None
        else draw_unbalanced_support(pool.y, support, seed=seed),
        rule=rule, ends=not published,
        reduce=partial(over_grid, side=FULL_SIDE) if published else over_grid,
        at_once=1 if published else AT_ONCE,
    )  # fmt: skip
    (depth,) = depths.depth
    defined = depth[~depth.isnan()]
    row: dict[str, Any] = {"undefined": 1 - len(defined) / len(depth)}
    if not len(defined):
        missing = ("depth", "depth_low", "depth_high", "early", "information_correlation")
        return row | dict.fromkeys(missing, math.nan) | {"shares": [0.0] * len(depths.probes)}
    mean = depths.mean(seed=seed)
    bits = output_information(model, test)[~depth.isnan()]
    return row | {
        "depth": mean.value,
        "depth_low": mean.low,
        "depth_high": mean.high,
        "early": float((defined <= EARLY).double().mean()),
        "shares": [
            float((defined == probe).double().mean()) for probe in range(len(depths.probes))
        ],
        "information_correlation": _rank_correlation(defined, bits),
    }


def output_information(model: nn.Module, domain: Domain) -> Float[Tensor, " examples"]:
    """Return the bits that the network's output gains on each example over the class frequencies.

    Source: Ethayarajh et al. (2022), the pointwise usable information of the network itself.
    """
    logits = torch.cat([seen.logits.cpu() for seen in observe(model, domain, layers=())])
    prior = torch.bincount(domain.y, minlength=logits.shape[1]).double() / len(domain.y)
    return pointwise_information(logits.double().log_softmax(dim=1), domain.y, prior)


def _rank_correlation(depth: Tensor, bits: Tensor) -> float:
    """Spearman's correlation; nan where a side is constant."""
    if len(depth) < 2 or any(len(side.unique()) < 2 for side in (depth, bits)):
        return math.nan
    return spearman(depth, bits)


def accuracy_row(model: nn.Module, shift: Shift, *, interval: bool = False) -> dict[str, Any]:
    """Return the accuracy on every test, and the accuracy drop on the first OOD test.

    `follows` is the share of that OOD test for which the prediction is the class that the upper
    half shows. The interval of the drop is over pictures, which share their cores in both tests.
    """
    first, y = shift.ood_tests[0], shift.id_test.y
    tests = (shift.id_test, *shift.ood_tests)
    predicted = {test.name: predictions(model, test) for test in tests}
    correct = {name: classes == y for name, classes in predicted.items()}
    row: dict[str, Any] = {name: float(hits.double().mean()) for name, hits in correct.items()}
    row["accuracy_drop"] = row[shift.id_test.name] - row[first.name]
    row["follows"] = float((predicted[first.name] == first.data.domain).double().mean())
    if interval:
        drop = accuracy_drop(correct[shift.id_test.name], correct[first.name])
        row |= {"drop_low": drop.low, "drop_high": drop.high}
    return row


def counterexample_row(
    model: nn.Module, train: Domain, *, k: int, outputs: int = 2
) -> dict[str, Any]:
    """Return the areas under the curve of two scores that detect counter-examples.

    `neighbors` is the number of an example's nearest neighbors, in pixel space, with another
    label; it needs no network. `loss` is the loss of the example.
    """
    counter = train.data.domain != train.y
    x, y = over_grid(train.data.x), train.y
    votes = vote(x, y, x, classes=2, k=k, itself=torch.arange(len(y)))
    other = votes.counts.gather(1, 1 - y[:, None])[:, 0].double()
    log = DifficultyLog(len(y), outputs).evaluate(1.0, model, train).compute()
    return {"neighbors": auc(other, counter), "loss": auc(log.early_loss, counter)}


def information_rows(
    model: nn.Module, fitted: Domain, scored: Domain, *, k: int
) -> list[dict[str, Any]]:
    """Return the usable information of every probe about `label` and `Batch.domain`, in bits."""
    layers = list(layerwise(model, fitted, scored, probed(model, scored), at_once=AT_ONCE))

    def bits(fitted_y: Int[Tensor, " n"], scored_y: Int[Tensor, " m"]) -> Float[Tensor, " probes"]:
        return usable_information(layers, fitted_y, scored_y, k=k).bits.mean(dim=1)

    label = bits(fitted.y, scored.y).tolist()
    domain = bits(fitted.data.domain, scored.data.domain).tolist()
    return [
        {"probe": place, "layer": layer.name, "label": label[place], "domain": domain[place]}
        for place, layer in enumerate(layers)
    ]
