"""Reads candidates for a measure of contamination off networks, without training them.

The candidates are the same for a small image network and for a two-layer network of the theory.
"""

import copy
import math
from statistics import fmean
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.batch import Batch, Domain
from contam.data.backgrounds import backgrounds
from contam.data.counterfactual import CHANGES, counterfactual
from contam.data.objects import CLASSES, objects
from contam.data.shapes import placed
from contam.experiments.support.paired_networks import (
    PairData,
    PairSetting,
    accuracy,
)
from contam.measures.attenuation import class_profile_attenuation
from contam.measures.background_response import background_response, gate_drive
from contam.measures.class_means import ClassMeans
from contam.measures.class_profiles import class_profiles
from contam.models.batch_statistics import calibrate
from contam.models.classifier import Classifier
from contam.models.normalization import with_centering
from contam.rng import generator_for
from contam.theory.engines import hinge
from contam.theory.neurons import activation_probabilities
from contam.theory.risks import held_out
from contam.theory.trajectory import State
from contam.training.probe import Discriminant, extract, fit_probe, top1_accuracy

FROM_FEATURES = {
    "relative": "background variance relative to class variance",
    "within": "background share of the variance within classes",
    "interaction": "interaction over class and interaction",
    "attenuation": "attenuation under altered ID backgrounds",
    "gates": "gate asymmetry times background drive",
}
"""Measures of the last features on ID backgrounds, and their names."""
FROM_ANSWERS = {
    "reflected": "loss on reflected ID backgrounds",
    "negative": "loss on negative ID backgrounds",
    "noise": "loss on noise",
    "flat": "loss on the mean color of each background",
    "gray": "loss on the mean color of all backgrounds",
}
"""Measures of accuracy on changed backgrounds, and their names."""
BACKGROUNDS = 12
"""Backgrounds on which all objects of a list are shown, about equally many of each ID family."""
NEW_DIRECTIONS = 32
"""Directions of the input space in which a two-layer network is given a new background."""
MEAN_WEIGHT = 0.5
"""Mean weight of a background feature of the theory, before inputs are centered."""


class Changed(NamedTuple):
    """Images of a pair setting for the measures."""

    plain: Batch
    """Images of the ID test."""
    changed: dict[str, Tensor]
    """The same images on other backgrounds."""
    grid: list[Domain]
    """The same objects on one ID background each."""
    alone: Tensor
    """The backgrounds of `grid` without an object."""


def changed_images(
    data: PairData, setting: PairSetting, seed: int, *, images: int, shown: int
) -> Changed:
    """Draw the images on which networks are measured; none of them has an OOD background.

    Args:
        data: the images of the pair.
        setting: objects and number of families.
        seed: random seed.
        images: number of images whose backgrounds are changed.
        shown: number of objects that are shown on all backgrounds of a list.

    Source: ours, images for measures that need no OOD data.
    """
    x, mask = data.id_test.x[:images], data.id_test.mask[:images]
    plain = data.id_test.batch.pick(slice(0, images))
    outside = (mask == 0).float()
    own = (x * outside).sum((2, 3), keepdim=True) / outside.sum((2, 3), keepdim=True).clamp(min=1)
    draws = generator_for(seed, f"pairs/noise {setting.name}")
    behind = {
        "reflected": (2 * own - x).clamp(0, 1),
        "noise": torch.rand(x.shape, generator=draws),
        "flat": own.expand_as(x),
        "gray": own.mean(dim=0, keepdim=True).expand_as(x),
    }
    changed = {name: torch.lerp(back, x, mask) for name, back in behind.items()}
    for change in CHANGES:
        shuffle = generator_for(seed, f"pairs/{change} {setting.name}")
        changed[change] = counterfactual(x, mask, change, generator=shuffle)
    things = objects(shown, seed=seed, core=setting.core)
    per_family = -(-BACKGROUNDS // setting.families)
    # Those of the next seed are not the backgrounds of the ID test.
    alone = torch.cat(
        [backgrounds(name, per_family, seed=seed + 1, part="test") for name in data.id_families]
    )
    none = torch.zeros_like(things.y)
    grid = [
        Domain(str(k), placed(things, back[None], none, noisy=False).batch)
        for k, back in enumerate(alone)
    ]
    return Changed(plain, changed, grid, alone)


def network_readings(model: Classifier, images: Changed, *, answers: bool) -> dict[str, float]:
    """Read all measures off an image network.

    Args:
        model: the network.
        images: the images of its setting.
        answers: whether to read the measures of accuracy, too; they say nothing of an untrained
            network.

    Source: ours, all measures of one network, so that every experiment has the same.
    """
    encoder, classes = model.encoder, len(CLASSES)
    values = torch.stack([extract(encoder, domain) for domain in images.grid], dim=1)
    y = images.grid[0].y
    last = [name for name, m in model.named_modules() if isinstance(m, nn.ReLU | nn.LeakyReLU)][-1]
    shown = Domain("grid", Batch(*map(torch.cat, zip(*(d.data for d in images.grid), strict=True))))
    rates = class_profiles(model, shown, [last], classes=classes, batch_size=256).layers[last].rates
    empty = torch.zeros(len(images.alone), dtype=torch.int64)
    alone = extract(encoder, (images.alone, empty))
    x, labels, _ = images.plain

    def means(x: Tensor) -> ClassMeans:
        features = extract(encoder, (x, labels))
        return ClassMeans(classes, features.shape[1]).update(features, labels)

    own = means(x)
    row = _feature_readings(values, y, rates, alone) | {
        "attenuation": fmean(
            class_profile_attenuation(own, means(images.changed[change]), paired=True).value
            for change in CHANGES
        )
    }
    if answers:
        before = accuracy(model, x, labels)
        row |= {
            name: before - accuracy(model, images.changed[name], labels) for name in FROM_ANSWERS
        }
    return row


def _feature_readings(
    values: Float[Tensor, "objects backgrounds neurons"],
    y: Int[Tensor, " objects"],
    rates: Float[Tensor, "classes neurons"],
    alone: Float[Tensor, "backgrounds neurons"],
) -> dict[str, float]:
    """Read the measures of features, except the attenuation.

    Args:
        values: features of each object on each background.
        y: class of each object.
        rates: activation rate of each neuron for each class.
        alone: features of the backgrounds without an object.

    Source: ours, the measures that features alone give.
    """
    response = background_response(values, y)
    return response._asdict() | {"gates": gate_drive(rates, values, alone)}


def centering_gain(model: Classifier, data: PairData) -> float:
    """Gain in OOD accuracy from centering the maps of a trained network, without training it.

    The network with centering and the one without get new statistics of batch norms and a head by
    discriminant analysis, both from ID validation images, so only the centering differs.

    Args:
        model: a trained network with batch norm.
        data: the images.

    Source: ours, what centering restores, as a measure of additive contamination.
    """
    own, new, scores = data.id_val, data.ood_test, []
    for network in (copy.deepcopy(model), with_centering(model)):
        assert isinstance(network, Classifier)
        calibrate(network, own.x.split(200))
        features = extract(network.encoder, (own.x, own.y))
        probe = fit_probe(features, own.y, Discriminant(), classes=len(CLASSES))
        scores.append(top1_accuracy(probe(extract(network.encoder, (new.x, new.y))), new.y))
    return scores[1] - scores[0]


@torch.no_grad()
def two_layer_readings(state: State, *, examples: int = 4096, shown: int = 40) -> dict[str, float]:
    """Read the known answer and all measures off a two-layer network of the theory.

    A new background lies in directions that no training example has. The weights there are as
    they were drawn, shrunk by weight decay. Losses are differences of hinge risk from that on ID
    data. The accuracy of these networks hardly changes.

    Args:
        state: a network with a fixed head, trained by SGD.
        examples: number of test examples.
        shown: number of objects of each class that are shown on all backgrounds of a list.

    Returns:
        The hinge risk `id`, the risks `flipped`, `added` and `added 4` (new directions beside the
        ID background, of its size and of four times its size) and `replaced` (new directions
        without the ID background), the classification error `flipped error`, and the measures.

    Source: ours; Def. 3.1, Thm. 4.3, Thm. 4.4.
    """
    setting, core = state.setting, state.setting.data.features.core
    own, flipped = held_out(state, "id", examples), held_out(state, "ood", examples)
    draws = generator_for(state.seed, "pairs/new directions")
    shrunk = (1 - setting.step_size * setting.weight_decay) ** setting.steps
    weights = torch.randn(setting.width, NEW_DIRECTIONS, generator=draws)
    weights *= shrunk / math.sqrt(setting.data.features.dimension)
    new = (torch.rand(examples, NEW_DIRECTIONS, generator=draws) @ weights.T).to(setting.dtype)
    network = state.network
    mean = float(setting.data.means[core:].mean())
    absent = mean - MEAN_WEIGHT  # Centered inputs have a background of 0 at its mean.

    def hidden(f: Tensor, more: Tensor | float = 0.0) -> Tensor:
        return network.activate(f @ state.W.T + more)

    def loss(f: Tensor, more: Tensor | float = 0.0) -> float:
        return float(hinge(hidden(f, more) @ state.a, own).mean())

    def behind(f: Tensor, background: Tensor | float) -> Tensor:
        changed = f.clone()
        changed[:, core:] = background
        return changed

    f = own.f
    back = f[:, core:]
    average = back.mean(dim=1, keepdim=True)
    row = {
        "id": loss(f),
        "flipped": float(hinge(hidden(flipped.f) @ state.a, flipped).mean()),
        "flipped error": float((flipped.y * state(flipped.f) <= 0).double().mean()),
        "added": loss(f, new),
        "added 4": loss(f, 4 * new),
        "replaced": loss(behind(f, absent), new),
    }
    row |= {
        "negative": row["flipped"] - row["id"],
        "reflected": loss(behind(f, 2 * average - back)) - row["id"],
        "noise": row["replaced"] - row["id"],
        "flat": loss(behind(f, average)) - row["id"],
        "gray": loss(behind(f, mean)) - row["id"],
    }
    picked = torch.cat([(own.y == label).nonzero()[:shown, 0] for label in (-1, 1)])
    y = (own.y[picked] > 0).long()
    others = back[-BACKGROUNDS:]

    def grid(backgrounds: Tensor) -> Tensor:
        return torch.stack([hidden(behind(f[picked], one)) for one in backgrounds], dim=1)

    values = grid(others)
    means = [
        ClassMeans(2, setting.width).update(some.mean(dim=1), y)
        for some in (values, grid(2 * absent - others))
    ]
    (rates,) = activation_probabilities(network, own, setting.data)
    empty = torch.zeros(len(others), f.shape[1], dtype=f.dtype)
    row |= _feature_readings(values, y, rates, hidden(behind(empty, others)))
    lost = class_profile_attenuation(means[0], means[1], paired=True).value
    return row | {"attenuation": lost}
