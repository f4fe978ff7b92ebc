"""Probes of each layer: of the class, of the depth at which it is decided, and of the domain."""

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contam.auditing.head_probes import (
    CLOSED_FORM,
    EXACT_CLASSES,
    linear_classifier,
    probe_recipe,
)
from contam.auditing.records import Interval, Projection
from contam.auditing.single_pass import PassResult, balanced
from contam.measures.accuracy import clopper_pearson
from contam.measures.depth import Rule, decided_shares, depths, draw_support
from contam.measures.layerwise import OUTPUT, Layer
from contam.measures.separability import domain_error, held_out, principal_plane
from contam.measures.usable_information import usable_information
from contam.training.probe import FullBatch

RECIPE = FullBatch(penalties=(1e-2,), iterations=100)
MOST_DOMAINS = 20
"""Domains up to which they are separated; with more, each data set counts as one."""
FEWEST_OF_DOMAIN = 5
"""Examples below which a domain is left out."""
PROJECTED = 400
"""Examples in the projection."""


class ProbeExamples(NamedTuple):
    """Examples of a data set with their features in every probed layer."""

    features: dict[str, Tensor]
    """(examples, neurons) by layer."""
    logits: Float[Tensor, "examples classes"]
    y: Int[Tensor, " examples"]
    domain: Int[Tensor, " examples"]

    @classmethod
    def of(cls, result: PassResult) -> "ProbeExamples":
        """Return the examples whose features a pass kept."""
        return cls(
            result.features, result.logits, result.y[result.kept], result.domain[result.kept]
        )

    def pick(self, rows: Tensor) -> "ProbeExamples":
        """Return some of the examples."""
        some = {name: values[rows] for name, values in self.features.items()}
        return ProbeExamples(some, self.logits[rows], self.y[rows], self.domain[rows])


def split(
    examples: ProbeExamples, queries: int, *, seed: int = 0
) -> tuple[ProbeExamples, ProbeExamples]:
    """Split examples into those to fit to and those to judge on, class by class.

    Args:
        examples: examples of the ID set.
        queries: examples to judge on, at most a third of all.
        seed: seed of the draw.

    Source: ours, probes are judged on ID examples that they were not fitted to.

    >>> part = ProbeExamples({}, torch.empty(12, 0), torch.arange(12) % 2, torch.zeros(12).long())
    >>> fitted, judged = split(part, queries=4)
    >>> len(fitted.y), torch.bincount(judged.y)
    (8, tensor([2, 2]))
    """
    most = min(queries, len(examples.y) // 3)
    judged = balanced(examples.y, most, seed=seed, purpose="audit/queries")
    rest = torch.ones(len(examples.y), dtype=torch.bool)
    rest[judged] = False
    return examples.pick(rest), examples.pick(judged)


@dataclass
class ClassProbes:
    """Results of the probes, keyed by layer and then by data set."""

    probe: dict[str, dict[str, Interval]] = field(default_factory=dict)
    """Accuracy of a linear probe."""
    decided: dict[str, dict[str, float]] = field(default_factory=dict)
    """Share of the predictions with a depth that are decided by the layer."""
    undefined: dict[str, dict[str, float]] = field(default_factory=dict)
    """Share of predictions without a depth, the same for all layers."""
    information: dict[str, dict[str, Interval]] = field(default_factory=dict)
    """Usable information, in bits."""
    left_out: list[str] = field(default_factory=list)


def probe_classes(
    fitted: ProbeExamples,
    judged: Mapping[str, ProbeExamples],
    *,
    classes: int,
    per_class: int = 30,
    seed: int = 0,
) -> Generator[float, None, ClassProbes]:
    """Fit linear probes and nearest neighbors to ID examples, and judge them on others.

    Examples of classes that have no fitted example are left out.

    Args:
        fitted: ID examples.
        judged: other examples, by data set.
        classes: number of classes.
        per_class: neighbors of each class.
        seed: seed of the draws.

    Yields:
        The share of the work that is done.

    Returns:
        The results by layer and data set.

    Source: ours, where in the network the class can be read and where it is lost.

    >>> y = torch.arange(40) % 2
    >>> x = torch.eye(2)[y]
    >>> examples = ProbeExamples({"conv1": x}, x, y, torch.zeros_like(y))
    >>> def accuracy():
    ...     results = yield from probe_classes(examples, {"beach": examples}, classes=2)
    ...     print(results.probe["conv1"]["beach"].value)
    >>> [round(share, 1) for share in accuracy()]
    1.0
    [0.7, 1.0]
    """
    results = ClassProbes()
    if not fitted.features:
        return results
    known = fitted.y.unique()
    judged = {name: part.pick(torch.isin(part.y, known)) for name, part in judged.items()}
    judged = {name: part for name, part in judged.items() if len(part.y)}
    if len(known) < 2 or not judged:
        results.left_out.append(
            "No layer has probes: they need ID examples of at least two classes to be fitted to, "
            "and others to be judged on."
        )
        return results
    layers = list(fitted.features)
    recipe = probe_recipe(fitted.features.values(), RECIPE, classes=classes)
    if recipe is not RECIPE:
        results.left_out.append(CLOSED_FORM)
    for index, layer in enumerate(layers):
        values = fitted.features[layer].float()
        probe = linear_classifier(values, fitted.y, recipe, classes=classes)
        results.probe[layer] = {
            name: _share(probe(part.features[layer].float()) == part.y)
            for name, part in judged.items()
        }
        yield 0.7 * (index + 1) / len(layers)
    counts = torch.bincount(fitted.y, minlength=classes)[known]
    # Votes are counted for the classes that occur, of which there are few among many logits.
    numbers = known if classes > EXACT_CLASSES else torch.arange(classes)
    fitted = fitted._replace(y=torch.searchsorted(numbers, fitted.y))
    neighbors = min(per_class, int(counts.min()))
    if neighbors < 2:
        results.left_out.append(
            "Neither prediction depth nor usable information is given: every class needs at least "
            "two ID examples beside those that are judged."
        )
        return results
    support = draw_support(fitted.y, neighbors, seed=seed)
    near = fitted.pick(support.rows)
    for name, part in judged.items():
        pairs = [Layer(layer, near.features[layer], part.features[layer]) for layer in layers]
        output = Layer(OUTPUT, near.logits.softmax(dim=1), part.logits.softmax(dim=1))
        predicted = part.logits.argmax(dim=1)
        # A class without fitted examples has a number that no neighbor has.
        fitted_class = torch.isin(predicted, numbers)
        predicted = torch.where(fitted_class, torch.searchsorted(numbers, predicted), len(numbers))
        decision = depths(
            [*pairs, output], support, predicted, rule=Rule(k=min(30, neighbors)),
            reading="over_space",
        )  # fmt: skip
        # The support is balanced, so the prior is even.
        y = torch.searchsorted(numbers, part.y)
        bits = usable_information(pairs, near.y, y, k=min(30, neighbors))
        shares = decided_shares(decision.depth, len(decision.probes))
        for place, layer in enumerate(layers):
            results.undefined.setdefault(layer, {})[name] = shares.undefined
            if shares.by_probe:
                results.decided.setdefault(layer, {})[name] = shares.by_probe[place]
            estimate = bits.of(layer, seed=seed, resamples=200)
            results.information.setdefault(layer, {})[name] = Interval(
                value=estimate.value, low=estimate.low, high=estimate.high
            )
    yield 1.0
    return results


def _share(correct: Bool[Tensor, " n"]) -> Interval:
    low, high = clopper_pearson(int(correct.sum()), len(correct))
    return Interval(value=float(correct.double().mean()), low=low, high=high)


def domain_labels(data: Mapping[str, ProbeExamples]) -> Int[Tensor, " examples"] | None:
    """Return a number for each domain of each data set, for all examples in turn.

    Examples of domains that are too small to fit and to judge have the number -1. With more than
    `MOST_DOMAINS` domains, each data set counts as one. None for fewer than two domains.

    >>> part = ProbeExamples({}, torch.empty(40, 0), torch.zeros(40).long(), torch.arange(40) % 2)
    >>> domain_labels({"ID": part}).unique()
    tensor([0, 1])
    """
    parts, begin = [], 0
    many = sum(len(part.domain.unique()) for part in data.values()) > MOST_DOMAINS
    for part in data.values():
        own = part.domain * 0 if many else part.domain
        values, inverse, counts = own.unique(return_inverse=True, return_counts=True)
        parts.append(torch.where(counts[inverse] < FEWEST_OF_DOMAIN, -1, inverse + begin))
        begin += len(values)
    joined = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
    return joined if len(joined[joined >= 0].unique()) > 1 else None


def probe_domain(
    features: Float[Tensor, "examples neurons"], domain: Int[Tensor, " examples"], *, seed: int = 0
) -> Interval:
    """Return the error of a linear probe of the domain, on a fifth of the examples with a domain.

    Args:
        features: mean activations of a layer.
        domain: domain of each example, -1 for none.
        seed: seed of the split.

    >>> domain = torch.arange(200) % 2
    >>> probe_domain(torch.nn.functional.one_hot(domain).float(), domain).value
    0.0
    """
    known = domain >= 0
    values, domain = features[known], domain[known]
    test = held_out(domain, seed=seed)
    error, count = domain_error(values, domain, test), int(test.sum())
    low, high = clopper_pearson(round(error * count), count)
    return Interval(value=error, low=low, high=high)


def majority_error(domain: Int[Tensor, " examples"]) -> float:
    """Return the error of always predicting the most frequent domain.

    >>> majority_error(torch.tensor([0, 0, 0, 1, -1]))
    0.25
    """
    counts = torch.bincount(domain[domain >= 0])
    return 1 - float(counts.max() / counts.sum())


def projection(
    layer: str,
    data: Mapping[str, ProbeExamples],
    classes: tuple[str, ...],
    domains: tuple[str, ...],
) -> Projection | None:
    """Return examples of all data sets in the layer's first two principal directions.

    None if the layer has no two directions.

    >>> x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    >>> y, zeros = torch.tensor([0, 1, 0, 1]), torch.zeros(4).long()
    >>> examples = ProbeExamples({"conv1": x}, torch.zeros(4, 2), y, zeros)
    >>> plane = projection("conv1", {"meadow": examples}, ("cow", "camel"), ("farm",))
    >>> [round(share, 2) for share in plane.shares], plane.label
    ([0.9, 0.1], ('cow', 'camel', 'cow', 'camel'))
    """
    most = max(1, PROJECTED // max(1, len(data)))
    some = {
        name: part.pick(torch.linspace(0, len(part.y) - 1, min(most, len(part.y))).long())
        for name, part in data.items()
    }
    values = torch.cat([part.features[layer] for part in some.values()]).float()
    if values.shape[0] < 3 or values.shape[1] < 2 or not (values.std(dim=0) > 0).any():
        return None
    plane = principal_plane(values)
    if not all(map(math.isfinite, plane.shares)):
        return None
    numbers = [domain for part in some.values() for domain in part.domain.tolist()]
    x, y = ([float(f"{value:.4g}") for value in axis] for axis in plane.points.T.tolist())
    return Projection(
        layer=layer,
        shares=plane.shares,
        x=tuple(x),
        y=tuple(y),
        data=tuple(name for name, part in some.items() for _ in part.y),
        domain=tuple(domains[k] if k < len(domains) else str(k) for k in numbers),
        label=tuple(classes[k] for part in some.values() for k in part.y.tolist()),
    )
