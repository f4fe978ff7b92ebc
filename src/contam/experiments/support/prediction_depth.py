"""Prediction depth and usable information of a network, as a row of numbers."""

import math
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.batch import Domain, Shift
from contam.measures.correlation import spearman
from contam.measures.depth import Rule, draw_support, draw_unbalanced_support, model_depths
from contam.measures.layerwise import over_grid
from contam.measures.usable_information import pointwise_information
from contam.models.classifier import Classifier
from contam.models.observe import layers_of, observe
from contam.models.resnet_cifar import resnet18_cifar
from contam.models.small import resnet8
from contam.models.sources import load
from contam.rng import seeded

EARLY = 1
"""The last early probe: the input and the first layer are early."""
FULL_SIDE = 64
"""Side of a grid that keeps all values of the maps of a picture."""
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
    side: int = FULL_SIDE,
) -> dict[str, Any]:
    """Return the prediction depth on the ID test, among the pictures whose depth is defined.

    `depth` is the mean depth, with its 95 % bootstrap interval `depth_low` to `depth_high` over
    pictures; `early` is the share with a depth of at most `EARLY`, and `shares` the share at each
    depth. `undefined` is the share of all pictures without a depth. `information_correlation` is
    the rank correlation of depth and the pointwise usable information of the network's output.
    Numbers that are not defined are nan. `support`, `queries` and `probes` are those of an
    experiment's `Config`, and `side` is that of the grid over the maps of convolutions.
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
        reduce=partial(over_grid, side=side) if published else over_grid,
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


def network(name: str, width: int, seed: int, outputs: int = 2) -> Classifier:
    """Return a network with random weights.

    Args:
        name: resnet8, resnet18_cifar, or a name that `contam.models.sources.load` knows.
        width: channels of the first stage of resnet8 or resnet18_cifar.
        seed: random seed of the weights.
        outputs: number of logits, of which the first are classes.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "resnet8":
        model = resnet8(outputs, width=width, seed=seed)
    elif name == "resnet18_cifar":
        model = resnet18_cifar(outputs, width=width, seed=seed)
    else:
        source = load(name, seed=seed)
        with seeded(seed, "cues/head"):
            model = Classifier(source.encoder, outputs, source.width)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")
