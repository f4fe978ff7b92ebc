"""One snapshot of a network in training: measures of both papers from a few hundred examples.

Prediction depth and usable information come from the second paper; selectivity, asymmetry and the
attenuation of class profiles from the first. A measure that fails is left out with the reason.
Without other data sets, the ID domains are compared with each other.
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
from contam.measures.depth import decide, decided_shares, prediction_depth
from contam.measures.layerwise import Layer, layerwise, over_grid
from contam.measures.neighbors import vote
from contam.measures.selectivity import selectivity
from contam.measures.usable_information import neighbor_probability, pointwise_information
from contam.models.blocks import blocks_of
from contam.models.observe import layers_of, observe
from contam.models.readings import over_tokens
from contam.monitor.examples import Examples

BATCH = 100
"""Batch size."""
MAX_LAYERS = 8
"""Maximum number of layers that are selected automatically."""
EARLY = 1
"""Index of the first layer's probe; a prediction decided by it is decided early."""
SIDE = 4
"""Maximum number of cells per side over which maps are averaged."""
ATTENUATION = "class_profile_attenuation"


@dataclass
class Snapshot:
    """The numbers of a network and its layers at one step, and what was left out.

    >>> snapshot = Snapshot({"accuracy": 0.5}, {"relu": {"selectivity": 0.2}})
    >>> snapshot.scalars()
    {'accuracy': 0.5, 'selectivity/relu': 0.2}
    """

    network: dict[str, float] = field(default_factory=dict)
    layers: dict[str, dict[str, float]] = field(default_factory=dict)
    """Numbers by layer, in the order in which layers run, from the input to the softmax."""
    left_out: list[str] = field(default_factory=list)

    def records(self, step: int) -> list[dict[str, Any]]:
        """Return one record for the network, whose layer is empty, and one for each layer."""
        network = {"step": step, "layer": "", **self.network, "left_out": self.left_out}
        layers = ({"step": step, "layer": n, **numbers} for n, numbers in self.layers.items())
        return [network, *layers]

    def scalars(self) -> dict[str, float]:
        """Return every finite number under a plain name, such as `selectivity/layer2`."""
        flat = {
            f"{key}/{name}": value
            for name, numbers in self.layers.items()
            for key, value in numbers.items()
        }
        return {name: v for name, v in (self.network | flat).items() if math.isfinite(v)}


def layers_to_monitor(model: nn.Module, x: Float[Tensor, "batch ..."]) -> list[str]:
    """Select at most `MAX_LAYERS` layers to monitor.

    Args:
        model: the network.
        x: (batch, ...) an input.

    Returns:
        Names of the last activations of the residual blocks, evenly spaced; of all activations for
        a network without blocks.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> layers_to_monitor(model, torch.rand(1, 3))
    ['1']
    """
    activations = layers_of(model, x)
    try:
        layers = [block.last for block in blocks_of(model, x) if block.last in activations]
    except ValueError:
        layers = activations
    if len(layers) <= MAX_LAYERS:
        return layers
    last = len(layers) - 1
    return [layers[round(i * last / (MAX_LAYERS - 1))] for i in range(MAX_LAYERS)]


def grid_or_tokens(output: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch numbers"]:
    """Average maps over at most 4 x 4 cells, and sequences over tokens.

    Args:
        output: (batch, channels, height, width), (batch, tokens, channels) or (batch, numbers).

    Returns:
        (batch, numbers) features.

    Source: ours, coarse enough to be cheap; prediction depth depends on it.

    >>> grid_or_tokens(torch.zeros(2, 3, 8, 8)).shape, grid_or_tokens(torch.zeros(2, 5, 3)).shape
    (torch.Size([2, 48]), torch.Size([2, 3]))
    """
    return over_tokens(output) if output.ndim == 3 else over_grid(output, side=SIDE)


def take_snapshot(model: nn.Module, examples: Examples, layers: list[str], *, k: int) -> Snapshot:
    """Measure a network in evaluation mode.

    Args:
        model: returns the logits of the monitored classes.
        examples: support, queries and other data sets.
        layers: names of layers, in the order in which they run.
        k: number of neighbors that vote.

    Returns:
        The numbers of the network and of each layer.

    Source: ours, the measures of both papers for one network; Murali et al. (2023).

    >>> from contam.monitor.examples import draw_examples, read_sources
    >>> y = torch.arange(40) % 2
    >>> sources = read_sources((torch.eye(2)[y], y), None, {}, seed=0)
    >>> examples = draw_examples(sources, outputs=2, per_class=5, seed=0)
    >>> take_snapshot(nn.Sequential(nn.ReLU()), examples, ["0"], k=3).network["accuracy"]
    1.0
    """
    snapshot = Snapshot(left_out=list(examples.left_out))
    _try(
        snapshot,
        "depth and information",
        lambda: _neighbors(model, examples, layers, k, snapshot),
    )
    if layers:
        _try(snapshot, "class profiles", lambda: _profiles(model, examples, layers, snapshot))
    return snapshot


def _try(snapshot: Snapshot, what: str, measure: Callable[[], None]) -> None:
    """Measure, or record why it fails, because a failed measure must not end a training."""
    try:
        measure()
    except Exception as error:
        message = " ".join(str(error).split())
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        snapshot.left_out.append(f"{what}: {kind}{message or type(error).__name__}"[:300])


def _neighbors(
    model: nn.Module, examples: Examples, layers: list[str], k: int, snapshot: Snapshot
) -> None:
    """Accuracy, prediction depth and usable information, from one pass over both sides."""
    support, queries = examples.support, examples.queries
    probes = list(
        layerwise(model, support, queries, layers, reduce=grid_or_tokens, batch_size=BATCH)
    )
    softmax = probes[-1].queries
    if not softmax.isfinite().all():
        raise ValueError("the network's logits are not finite")
    predictions = softmax.argmax(dim=1).cpu()
    snapshot.network["accuracy"] = float((predictions == queries.y).double().mean())
    prior = torch.bincount(support.y, minlength=len(examples.classes)).double() / len(support)
    decisions = []
    for probe in probes:
        numbers = snapshot.layers[probe.name] = {}
        _try(
            snapshot,
            f"neighbors in {probe.name}",
            lambda probe=probe, numbers=numbers: decisions.append(
                _decisions(probe, examples, k, prior, numbers)
            ),
        )
    if len(decisions) < len(probes):
        snapshot.left_out.append("depth: it needs every probe")
        return
    depth = prediction_depth(torch.stack(decisions), predictions)
    shares = decided_shares(depth, len(probes))
    snapshot.network["undefined"] = shares.undefined
    if not shares.by_probe:
        return
    for probe, share in zip(probes, shares.by_probe, strict=True):
        snapshot.layers[probe.name]["decided"] = share
    snapshot.network["decided_early"] = shares.by_probe[min(EARLY, len(probes) - 1)]


def _decisions(
    probe: Layer, examples: Examples, k: int, prior: Tensor, numbers: dict[str, float]
) -> Int[Tensor, " queries"]:
    """Return the class with most neighbors in one probe; add the usable information in bits."""
    classes = len(examples.classes)
    votes = vote(probe.support, examples.support.y, probe.queries, classes=classes, k=k)
    log_probability = neighbor_probability(votes.counts).log()
    bits = pointwise_information(log_probability, examples.queries.y, prior)
    numbers["information"] = float(bits.mean())
    return decide(votes)


def _profiles(model: nn.Module, examples: Examples, layers: list[str], snapshot: Snapshot) -> None:
    """Selectivity, asymmetry and attenuation, from one pass over the queries and other sets."""
    classes = len(examples.classes)
    y = examples.queries.y
    own, _ = _moments(model, examples.queries, layers)
    other_moments = {}
    for other in examples.others:
        other_moments[other.name], share = _moments(model, other, layers)
        snapshot.network[f"accuracy/{other.name}"] = share
    domain = examples.queries.data.domain
    for layer in layers:
        numbers = snapshot.layers.setdefault(layer, {})
        values = own[layer]
        if not values.isfinite().all():
            snapshot.left_out.append(f"profiles of {layer}: activations are not finite")
            continue
        table = ClassMeans(classes, values[:1].numel()).update(values.flatten(1), y).compute()
        means, rates = table.unflatten(1, (2, -1)).unbind(1)
        numbers["selectivity"] = float(selectivity(means).mean())
        numbers["asymmetry"] = float(activation_asymmetry(rates).mean())

        mean = ClassMeans(classes, means.shape[1]).update(values[:, 0], y)
        for other in examples.others:
            new = ClassMeans(classes, means.shape[1])
            new.update(other_moments[other.name][layer][:, 0], other.y)
            numbers[f"{ATTENUATION}/{other.name}"] = class_profile_attenuation(mean, new).value
        _, index = domain.unique(return_inverse=True)
        if not examples.others and int(index.max()) > 0:
            by_domain = ClassMeans(classes, means.shape[1], domains=int(index.max()) + 1)
            by_domain.update(values[:, 0], y, domain=index)
            numbers[f"{ATTENUATION}/domains"] = attenuation_across_domains(by_domain).value
    final = snapshot.layers.get(layers[-1], {})
    values = [value for key, value in final.items() if key.startswith(f"{ATTENUATION}/")]
    finite = [value for value in values if not math.isnan(value)]
    if finite:
        snapshot.network[ATTENUATION] = sum(finite) / len(finite)


def _moments(
    model: nn.Module, domain: Domain, layers: list[str]
) -> tuple[dict[str, Float[Tensor, "batch 2 neurons"]], float]:
    """Moments of each layer on every example, and the accuracy."""
    moments: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    correct = 0
    for observation in observe(model, domain, layers, "moments", batch_size=BATCH):
        for layer in layers:
            moments[layer].append(observation.layers[layer].cpu())
        correct += int((observation.logits.argmax(dim=1) == observation.batch.y).sum())
    return {layer: torch.cat(some) for layer, some in moments.items()}, correct / len(domain)
