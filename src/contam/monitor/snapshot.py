"""One look at a network: what both papers would ask of it, from a few hundred examples.

How early predictions are decided and what each layer says about the class are the second paper's
questions; selectivity and asymmetry of neurons, and how a change of background alters the response
to the class, are the first one's. What can't be measured is left out, with the reason. Where there
is nothing to compare the ID domains with, one half of them is compared with the other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.batch import Domain
from contam.measures.activation import activation_asymmetry
from contam.measures.attenuation import attenuation_across_domains, class_profile_attenuation
from contam.measures.class_means import ClassMeans
from contam.measures.depth import decide, prediction_depth
from contam.measures.layerwise import Layer, layerwise, over_grid
from contam.measures.neighbors import vote
from contam.measures.selectivity import selectivity
from contam.measures.usable_information import neighbor_probability, pointwise_information
from contam.models.blocks import blocks_of
from contam.models.observe import layers_of, observe
from contam.models.readings import over_tokens
from contam.monitor.examples import Answers, Examples

BATCH = 100
"""Examples that are shown at once."""
MOST_LAYERS = 8
"""Layers that are chosen at most when the user names none."""
EARLY = 1
"""Decided by this probe, the first layer's, is early."""
SIDE = 4
"""Maps are averaged over at most so many cells a side."""


@dataclass
class Snapshot:
    """What one look found: numbers of the network, numbers of each probe, and what is missing."""

    network: dict[str, float] = field(default_factory=dict)
    layers: dict[str, dict[str, float]] = field(default_factory=dict)
    """In the order in which they run, from the input to the softmax."""
    left_out: list[str] = field(default_factory=list)

    def records(self, step: int) -> list[dict[str, Any]]:
        """One for the network, whose layer is empty, and one for each layer."""
        told = {"step": step, "layer": "", **self.network, "left_out": self.left_out}
        return [told, *({"step": step, "layer": n, **found} for n, found in self.layers.items())]

    def scalars(self) -> dict[str, float]:
        """Every finite number under a plain name, such as `selectivity/layer2`."""
        flat = {f"{key}/{n}": v for n, found in self.layers.items() for key, v in found.items()}
        return {name: v for name, v in (self.network | flat).items() if math.isfinite(v)}


def layers_to_watch(model: nn.Module, x: Tensor) -> list[str]:
    """The last activations of the residual blocks, else activations evenly spread, at most 8."""
    try:
        found = [block.last for block in blocks_of(model, x)]
    except ValueError:
        found = layers_of(model, x)
    if len(found) <= MOST_LAYERS:
        return found
    last = len(found) - 1
    return [found[round(i * last / (MOST_LAYERS - 1))] for i in range(MOST_LAYERS)]


def grid_or_tokens(output: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch numbers"]:
    """Maps averaged over at most 4 x 4 cells, or the mean over tokens.

    Source: ours, coarse enough to be cheap; it is part of what depth means here.
    """
    return over_tokens(output) if output.ndim == 3 else over_grid(output, side=SIDE)


def look_at(model: Answers, examples: Examples, layers: list[str], *, k: int) -> Snapshot:
    """The joint profile of a network in evaluation mode, which is left as it was found.

    Source: ours, both papers' questions of one network; Murali et al. (2023).
    """
    found = Snapshot(left_out=list(examples.left_out))
    _try(found, "depth and information", lambda: _neighbors(model, examples, layers, k, found))
    if layers:
        _try(found, "profiles of classes", lambda: _profiles(model, examples, layers, found))
    else:
        found.left_out.append("profiles of classes: no activation runs in this network")
    return found


def _try(found: Snapshot, what: str, measure: Callable[[], None]) -> None:
    """Measure, or say why not: no fault of a measure may end a training."""
    try:
        measure()
    except Exception as error:
        told = " ".join(str(error).split())
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        found.left_out.append(f"{what}: {kind}{told or type(error).__name__}"[:300])


def _plain(layer: str) -> str:
    return layer.removeprefix("model.")


def _neighbors(
    model: Answers, examples: Examples, layers: list[str], k: int, found: Snapshot
) -> None:
    """Accuracy, prediction depth and usable information, from one pass over both sides."""
    support, queries = examples.support, examples.queries
    probes = list(
        layerwise(
            model, support, queries, layers, reduce=grid_or_tokens, batch_size=BATCH,
            at_once=len(layers) + 2,
        )
    )  # fmt: skip
    said = probes[-1].queries
    if not said.isfinite().all():
        raise ValueError("the network's answers are not finite")
    answers = said.argmax(dim=1).cpu()
    found.network["accuracy"] = float((answers == queries.y).double().mean())
    prior = torch.bincount(support.y, minlength=len(examples.classes)).double() / len(support)
    decided = []
    for probe in probes:
        name = _plain(probe.name)
        found.layers[name] = {}
        _try(
            found,
            f"neighbors in {name}",
            lambda probe=probe, name=name: decided.append(
                _asked(probe, examples, k, prior, found.layers[name])
            ),
        )
    if len(decided) < len(probes):
        found.left_out.append("depth: it needs every probe")
        return
    depth = prediction_depth(torch.stack(decided), answers)
    for place, probe in enumerate(probes):
        share = float((depth <= place).double().mean())
        found.layers[_plain(probe.name)]["decided"] = share
        if place == EARLY:
            found.network["decided_early"] = share
    found.network["undefined"] = float(depth.isnan().double().mean())


def _asked(
    probe: Layer, examples: Examples, k: int, prior: Tensor, into: dict[str, float]
) -> Int[Tensor, " queries"]:
    """What neighbors decide in one probe; how many bits they say goes `into` its numbers."""
    classes = len(examples.classes)
    votes = vote(probe.support, examples.support.y, probe.queries, classes=classes, k=k)
    said = neighbor_probability(votes.counts).log()
    into["information"] = float(pointwise_information(said, examples.queries.y, prior).mean())
    return decide(votes)


def _profiles(model: Answers, examples: Examples, layers: list[str], found: Snapshot) -> None:
    """Selectivity, asymmetry and attenuation, from one pass over the queries and other sets."""
    classes = len(examples.classes)
    y = examples.queries.y
    own, _ = _moments(model, examples.queries, layers)
    elsewhere = {}
    for other in examples.others:
        elsewhere[other.name], right = _moments(model, other, layers)
        found.network[f"accuracy/{other.name}"] = right
    domain = examples.queries.data.domain
    for layer in layers:
        name = _plain(layer)
        into = found.layers.setdefault(name, {})
        values = own[layer]
        if not values.isfinite().all():
            found.left_out.append(f"profiles of {name}: activations are not finite")
            continue
        table = ClassMeans(classes, values[:1].numel()).update(values.flatten(1), y).compute()
        means, rates = table.unflatten(1, (2, -1)).unbind(1)
        into["selectivity"] = float(selectivity(means).mean())
        into["asymmetry"] = float(activation_asymmetry(rates).mean())

        mean = ClassMeans(classes, means.shape[1]).update(values[:, 0], y)
        for other in examples.others:
            new = ClassMeans(classes, means.shape[1])
            new.update(elsewhere[other.name][layer][:, 0], other.y)
            lost = class_profile_attenuation(mean, new)
            into[f"class_profile_attenuation/{other.name}"] = lost.value
        _, index = domain.unique(return_inverse=True)
        if not examples.others and int(index.max()) > 0:
            by_domain = ClassMeans(classes, means.shape[1], domains=int(index.max()) + 1)
            lost = attenuation_across_domains(by_domain.update(values[:, 0], y, domain=index))
            into["class_profile_attenuation/domains"] = lost.value
    final = found.layers.get(_plain(layers[-1]), {})
    values = [v for key, v in final.items() if key.startswith("class_profile_attenuation/")]
    finite = [value for value in values if not math.isnan(value)]
    if finite:
        found.network["class_profile_attenuation"] = sum(finite) / len(finite)


def _moments(
    model: Answers, domain: Domain, layers: list[str]
) -> tuple[dict[str, Float[Tensor, "batch 2 neurons"]], float]:
    """What each layer's neurons do on every example, and the share that the network gets right."""
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    right = 0
    for seen in observe(model, domain.batches(BATCH), layers, "moments"):
        for layer in layers:
            parts[layer].append(seen.layers[layer].cpu())
        right += int((seen.logits.argmax(dim=1) == seen.batch.y).sum())
    return {layer: torch.cat(some) for layer, some in parts.items()}, right / len(domain)
