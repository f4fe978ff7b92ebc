"""What simple readers find in each layer: the class, from which layer on, and the domain."""

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.auditing.records import Interval, Plane
from contam.auditing.single_pass import Look, balanced
from contam.measures.accuracy import clopper_pearson
from contam.measures.depth import Rule, depths, draw_support
from contam.measures.layerwise import OUTPUT, Layer
from contam.measures.separability import domain_error, held_out, principal_plane
from contam.measures.usable_information import usable_information
from contam.training.probe import FullBatch, fit_probe

RECIPE = FullBatch(penalties=(1e-2,), iterations=100)
NUMBERS = 3 * 10**8
"""Examples times neurons times classes, up to which a probe takes seconds."""
DOMAINS = 20
"""Domains that are told apart, at most."""
POINTS = 400
"""Examples in the plane."""


class Points(NamedTuple):
    """Some examples of a data set, as every layer has them."""

    features: dict[str, Tensor]
    """(examples, neurons) for each layer."""
    logits: Float[Tensor, "examples classes"]
    y: Int[Tensor, " examples"]
    domain: Int[Tensor, " examples"]

    @classmethod
    def of(cls, look: Look) -> "Points":
        """Those whose features a pass kept."""
        return cls(look.features, look.logits, look.y[look.kept], look.domain[look.kept])

    def pick(self, which: Tensor) -> "Points":
        """Some of them."""
        some = {name: values[which] for name, values in self.features.items()}
        return Points(some, self.logits[which], self.y[which], self.domain[which])


def split(points: Points, asked: int, *, seed: int = 0) -> tuple[Points, Points]:
    """Examples to fit to, and others to judge on: as many as asked for, or a third of all.

    Source: ours, with as many of every class on both sides as can be.
    """
    some = balanced(points.y, min(asked, len(points.y) // 3), seed=seed, purpose="audit/queries")
    rest = torch.ones(len(points.y), dtype=torch.bool)
    rest[some] = False
    return points.pick(rest), points.pick(some)


@dataclass
class Readings:
    """What readers of each layer found; tables are keyed by layer, then by data set."""

    probe: dict[str, dict[str, Interval]] = field(default_factory=dict)
    decided: dict[str, dict[str, float]] = field(default_factory=dict)
    information: dict[str, dict[str, Interval]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def read_classes(
    fitted: Points,
    asked: Mapping[str, Points],
    *,
    classes: int,
    per_class: int = 30,
    seed: int = 0,
) -> Generator[float, None, Readings]:
    """What linear probes and neighbors, fitted to ID examples, say of the class of others.

    Yields the share that is done. Examples of classes that none was fitted to are left out.

    Source: ours, where in the network the class is and where it is lost.
    """
    found = Readings()
    if not fitted.features:
        return found
    known = fitted.y.unique()
    asked = {name: points.pick(torch.isin(points.y, known)) for name, points in asked.items()}
    asked = {name: points for name, points in asked.items() if len(points.y)}
    if len(known) < 2 or not asked:
        found.left_out.append(
            "No layer is read by probes or neighbors: they need ID examples of two classes to be "
            "fitted to, and others to be judged on."
        )
        return found
    layers = list(fitted.features)
    for index, layer in enumerate(layers):
        values = fitted.features[layer]
        if values.numel() * classes <= NUMBERS:
            probe = fit_probe(values.float(), fitted.y, RECIPE, classes=classes)
            found.probe[layer] = {
                name: share(probe(points.features[layer].float()).argmax(1) == points.y)
                for name, points in asked.items()
            }
        yield 0.7 * (index + 1) / len(layers)
    missing = [layer for layer in layers if layer not in found.probe]
    if missing:
        found.left_out.append(
            f"No linear probe of {missing[0]} and {len(missing) - 1} other layers: for {classes} "
            "classes and their many neurons it would take minutes each."
        )
    counts = torch.bincount(fitted.y, minlength=classes)[known]
    each = min(per_class, int(counts.min()))
    if each < 2:
        found.left_out.append(
            "Neither prediction depth nor usable information: every class needs at least two ID "
            "examples as neighbors, beside those that are judged."
        )
        return found
    support = draw_support(fitted.y, each, seed=seed)
    near = fitted.pick(support.rows)
    for name, points in asked.items():
        pairs = [Layer(layer, near.features[layer], points.features[layer]) for layer in layers]
        told = Layer(OUTPUT, near.logits.softmax(dim=1), points.logits.softmax(dim=1))
        where = depths(
            [*pairs, told], support, points.logits.argmax(dim=1), rule=Rule(k=min(30, each)),
            reading="over_space",
        )  # fmt: skip
        # Fitted to a drawn support that is balanced, so that its prior is even.
        bits = usable_information(pairs, near.y, points.y, k=min(30, each))
        for place, layer in enumerate(layers):
            decided = float((where.depth <= place).double().mean())
            found.decided.setdefault(layer, {})[name] = decided
            got = bits.of(layer, seed=seed, resamples=200)
            told_bits = Interval(value=got.value, low=got.low, high=got.high)
            found.information.setdefault(layer, {})[name] = told_bits
    yield 1.0
    return found


def share(right: Tensor) -> Interval:
    """The share that is right, with its exact interval."""
    low, high = clopper_pearson(int(right.sum()), len(right))
    return Interval(value=float(right.double().mean()), low=low, high=high)


def domains_of(data: Mapping[str, Points]) -> Int[Tensor, " examples"] | None:
    """A number for each domain of each data set, for all examples in turn.

    Domains that are too small to fit and to test are joined with nothing: their number is -1. Data
    sets count as a domain each where they have too many. None for fewer than two.
    """
    parts, begin = [], 0
    many = sum(len(points.domain.unique()) for points in data.values()) > DOMAINS
    for points in data.values():
        own = points.domain * 0 if many else points.domain
        values, inverse, counts = own.unique(return_inverse=True, return_counts=True)
        parts.append(torch.where(counts[inverse] < 5, -1, inverse + begin))
        begin += len(values)
    joined = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
    return joined if len(joined[joined >= 0].unique()) > 1 else None


def read_domains(
    features: Float[Tensor, "examples neurons"], domain: Int[Tensor, " examples"], *, seed: int = 0
) -> Interval:
    """The error of a linear reader of the domain on a fifth of the examples that have one."""
    seen = domain >= 0
    values, domain = features[seen], domain[seen]
    test = held_out(domain, seed=seed)
    error, count = domain_error(values, domain, test), int(test.sum())
    low, high = clopper_pearson(round(error * count), count)
    return Interval(value=error, low=low, high=high)


def guessing(domain: Int[Tensor, " examples"]) -> float:
    """The error of always naming the most frequent domain."""
    counts = torch.bincount(domain[domain >= 0])
    return 1 - float(counts.max() / counts.sum())


def plane(
    layer: str, data: Mapping[str, Points], classes: tuple[str, ...], domains: tuple[str, ...]
) -> Plane | None:
    """Some examples of all data sets in the layer's plane; None if it has no two directions."""
    each = max(1, POINTS // max(1, len(data)))
    some = {
        name: points.pick(torch.linspace(0, len(points.y) - 1, min(each, len(points.y))).long())
        for name, points in data.items()
    }
    values = torch.cat([points.features[layer] for points in some.values()]).float()
    if values.shape[0] < 3 or values.shape[1] < 2 or not (values.std(dim=0) > 0).any():
        return None
    found = principal_plane(values)
    if not all(map(math.isfinite, found.shares)):
        return None
    numbers = [domain for points in some.values() for domain in points.domain.tolist()]
    x, y = ([rounded(value) for value in axis] for axis in found.points.T.tolist())
    return Plane(
        layer=layer,
        shares=found.shares,
        x=tuple(x),
        y=tuple(y),
        data=tuple(name for name, points in some.items() for _ in points.y),
        domain=tuple(domains[k] if k < len(domains) else str(k) for k in numbers),
        label=tuple(classes[k] for points in some.values() for k in points.y.tolist()),
    )


def rounded(value: float) -> float:
    """Four digits: more would make the files large, and no plainer."""
    return float(f"{value:.4g}")
