"""Prediction depth and usable information of a network, as a row of numbers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contam.batch import Domain, Shift
from contam.measures.correlation import spearman
from contam.measures.depth import (
    Rule,
    decided_shares,
    draw_support,
    draw_unbalanced_support,
    model_depths,
)
from contam.measures.layerwise import over_grid
from contam.measures.usable_information import pointwise_information
from contam.models.classifier import Classifier
from contam.models.observe import layers_of, observe
from contam.models.resnet_cifar import resnet18_cifar
from contam.models.small import resnet8
from contam.models.sources import load
from contam.rng import seeded
from contam.training.precision import available_device

EARLY = 1
"""The last early probe: the input and the first layer are early."""
GRID = 8
"""Published side of the grid to which maps are resized, but for dominoes."""


def probed(model: nn.Module, domain: Domain) -> list[str]:
    """Return the layers that are probes between the input and the softmax: all activations.

    >>> from contam.batch import Batch
    >>> zeros = torch.zeros(4).long()
    >>> domain = Domain("meadow", Batch(torch.zeros(4, 2), zeros, zeros))
    >>> probed(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), domain)
    ['1']
    """
    device = next(model.parameters()).device
    return layers_of(model, domain.data.x[:1].to(device))


def convolutions(model: nn.Module) -> list[str]:
    """Return the 3 x 3 convolutions in order, the published probes of VGG16.

    >>> convolutions(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1)))
    ['0']
    """
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]


def behind_normalization(model: nn.Module) -> list[str]:
    """Return the published probes of ResNet-18: the first normalization in place of the first
    convolution, and the other 3 x 3 convolutions.

    >>> first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
    >>> behind_normalization(nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), second))
    ['1', '3']
    """
    names = (name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d))
    return [next(names), *convolutions(model)[1:]]


def over_nearest(maps: Float[Tensor, "batch neurons ..."]) -> Float[Tensor, "batch cells"]:
    """Resize maps to 8 x 8 by nearest neighbors, as published, and flatten them.

    Source: ours; the published code of Murali et al. (2023).

    >>> over_nearest(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 192])
    """
    return F.interpolate(maps, (GRID, GRID), mode="nearest").flatten(1)


def depth_row(
    model: nn.Module,
    shift: Shift,
    *,
    per_class: int,
    rule: Rule,
    seed: int,
    support: int | None = None,
    queries: int | None = None,
    layers: Sequence[str] | None = None,
    reduce: Callable[[Tensor], Tensor] = over_grid,
) -> dict[str, Any]:
    """Return the prediction depth on the ID test, among the pictures whose depth is defined.

    `depth` is the mean depth, with its 95 % bootstrap interval `depth_low` to `depth_high` over
    pictures; `early` is the share with a depth of at most `EARLY`, and `shares` the share at each
    depth. `undefined` is the share of all pictures without a depth. `information_correlation` is
    the rank correlation of depth and the pointwise usable information of the network's output.
    Numbers that are not defined are nan.

    Args:
        model: the network.
        shift: its training domain has the neighbors, and its ID test the queries.
        per_class: training pictures of each class in the support.
        rule: the definition of depth.
        seed: random seed of the support and of the interval.
        support: size of a support without balanced classes instead, as published.
        queries: number of test pictures, the first ones; None for all.
        layers: the probes; None for the input, all activations and the softmax.
        reduce: function from the output of a probe to rows of numbers.
    """
    pool, test = shift.train[0], shift.id_test
    if queries is not None:
        test = Domain(test.name, test.data.pick(torch.arange(len(test)) < queries))
    depths = model_depths(
        model, pool, test, probed(model, test) if layers is None else layers,
        support=draw_support(pool.y, per_class, seed=seed)
        if support is None
        else draw_unbalanced_support(pool.y, support, seed=seed),
        rule=rule, ends=layers is None, reduce=reduce,
    )  # fmt: skip
    (depth,) = depths.depth
    defined = depth[~depth.isnan()]
    decided = decided_shares(depth, len(depths.probes))
    row: dict[str, Any] = {"undefined": decided.undefined}
    if not decided.by_probe:
        missing = ("depth", "depth_low", "depth_high", "early", "information_correlation")
        return row | dict.fromkeys(missing, math.nan) | {"shares": [0.0] * len(depths.probes)}
    mean = depths.mean(seed=seed)
    bits = _output_information(model, test)[~depth.isnan()]
    return row | {
        "depth": mean.value,
        "depth_low": mean.low,
        "depth_high": mean.high,
        "early": decided.by_probe[min(EARLY, len(depths.probes) - 1)],
        "shares": [
            float((defined == probe).double().mean()) for probe in range(len(depths.probes))
        ],
        "information_correlation": _rank_correlation(defined, bits),
    }


def _output_information(model: nn.Module, domain: Domain) -> Float[Tensor, " examples"]:
    """Return the bits that the network's output gains on each example over the class frequencies.

    Source: Ethayarajh et al. (2022), the pointwise usable information of the network itself.
    """
    logits = torch.cat(
        [observation.logits.cpu() for observation in observe(model, domain, layers=())]
    )
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
    return model.to(available_device())
