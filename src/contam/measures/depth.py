"""Prediction depth: from which layer on an example's neighbors say what the network will say.

Every probe, from the input to the softmax, lets the nearest members of a labeled support vote. An
example that all probes agree on has depth 0: it is easy, and so may be the feature that decides it.
Depth speaks of the label alone. It rises with every lack of support, so a mean depth means
something beside another one with the same support, and `difference` compares no others.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.inputs import as_domain
from contam.measures.intervals import Estimate, bootstrap
from contam.measures.layerwise import Layer, layerwise, over_grid, predictions, reading_name
from contam.measures.neighbors import Metric, Votes, vote
from contam.models.readings import Reading
from contam.rng import generator_for

Reference = Literal["model", "label", "last probe"]
UNCERTAIN = -1
"""What a probe decides whose votes are too close."""


@dataclass(frozen=True)
class Rule:
    """How a depth is read off votes; the defaults are those of Baldock et al. (2021)."""

    k: int = 30
    """Neighbors that vote."""
    metric: Metric = "l2"
    """`l1` is the second paper's, and far slower."""
    reference: Reference = "model"
    """What the probes are to agree with: the network's class, the label, or the last probe."""
    margin: float = 0.0
    """How far beyond one half the share of votes has to be; for two classes only.

    The second paper's code asks for 0.12, but rounds shares, so that 18 of 29 votes are too few:
    that is 0.13 here."""


@dataclass(frozen=True, eq=False)
class Support:
    """Labeled examples to look neighbors up in: as many of each class, in one or several draws."""

    index: Int[Tensor, "draws examples"]
    """Where they are in what they were drawn from, rising."""
    y: Int[Tensor, "draws examples"]
    per_class: int
    classes: int
    """Classes are numbered from 0; one without examples gets no votes."""
    seed: int

    @property
    def rows(self) -> Int[Tensor, " rows"]:
        """The examples of all draws, each once, rising."""
        return self.index.unique()


def draw_support(
    y: Int[Tensor, " examples"], per_class: int, *, draws: int = 1, seed: int = 0
) -> Support:
    """The same number of each class, drawn anew as often as wanted.

    Several draws let an interval say how much depends on which examples were drawn.

    Source: ours, since mean depth changes severalfold with the size of the support.

    Raises:
        ValueError: a class has too few examples, or nothing is asked for.
    """
    present = y.unique().tolist()
    scarce = {c: n for c in present if (n := int((y == c).sum())) < per_class}
    if per_class < 1 or draws < 1 or len(present) < 2 or present[0] < 0 or scarce:
        raise ValueError(
            f"want at least 1 draw of at least 1 example of each of two classes or more; asked for "
            f"{draws} of {per_class} each, of classes {present}; too few are there of "
            f"{scarce or 'none'}"
        )
    picked = []
    for draw in range(draws):
        generator = generator_for(seed, f"support/draw {draw}")
        members = [(y == c).nonzero().flatten().cpu() for c in present]
        drawn = [
            each[torch.randperm(len(each), generator=generator)[:per_class]] for each in members
        ]
        picked.append(torch.cat(drawn).sort().values)
    index = torch.stack(picked)
    return Support(index, y.cpu()[index], per_class, present[-1] + 1, seed)


def decide(votes: Votes, margin: float = 0.0) -> Int[Tensor, " queries"]:
    """The class that the votes are for, or `UNCERTAIN` where its share is below 1/2 + `margin`.

    Source: ours; Murali et al. (2023) for the margin.

    Raises:
        ValueError: a margin outside [0, 1/2), or one with other than two classes.
    """
    if not 0 <= margin < 0.5 or (margin and votes.counts.shape[1] != 2):
        raise ValueError(
            f"a margin lies in [0, 1/2) and is for two classes; got {margin} with "
            f"{votes.counts.shape[1]}"
        )
    share = votes.counts.amax(dim=1) / votes.counts.sum(dim=1)
    return votes.winner.masked_fill(share < 0.5 + margin, UNCERTAIN) if margin else votes.winner


def prediction_depth(
    decided: Int[Tensor, "*draws probes queries"], reference: Int[Tensor, "*#draws queries"]
) -> Float[Tensor, "*draws queries"]:
    """The first probe from which on all probes decide for the reference; nan if the last does not.

    In [0, probes - 1]. `UNCERTAIN` agrees with nothing.

    Source: ours; Baldock et al. (2021).
    """
    agree = (decided == reference.unsqueeze(-2)) & (decided != UNCERTAIN)
    # How long the last run of agreement is, counted from the end.
    run = agree.flip(-2).long().cumprod(dim=-2).sum(dim=-2)
    depth = (decided.shape[-2] - run).double()
    return depth.masked_fill(run == 0, torch.nan)


@dataclass(frozen=True, eq=False)
class Depths:
    """The depth of every query, and by which rule and support it was found."""

    probes: tuple[str, ...]
    depth: Float[Tensor, "draws queries"]
    """In [0, probes - 1]; nan where the last probe disagrees."""
    decided: Int[Tensor, "draws probes queries"]
    """The class that each probe decides for, or `UNCERTAIN`."""
    tied: Float[Tensor, " probes"]
    """The share of votes that the nearest neighbor had to decide."""
    rule: Rule
    support: Support
    reading: str = "not recorded"
    """How features were read; depth is defined by it as by the rule."""

    def mean(self, *, seed: int = 0, resamples: int = 1000, confidence: float = 0.95) -> Estimate:
        """Mean depth where it is defined; the interval is over queries, and draws if several.

        Raises:
            ValueError: no depth is defined.
        """
        if self.depth.isnan().all():
            raise ValueError("the last probe disagrees with every reference: no depth is defined")
        return bootstrap(
            lambda d, q: self.depth[d][:, q].nanmean(),
            self.depth.shape,
            seed=seed, resamples=resamples, confidence=confidence,
        )  # fmt: skip

    def undefined(
        self, *, seed: int = 0, resamples: int = 1000, confidence: float = 0.95
    ) -> Estimate:
        """The share of queries without a depth, in [0, 1]."""
        return bootstrap(
            lambda d, q: self.depth[d][:, q].isnan().double().mean(),
            self.depth.shape,
            seed=seed, resamples=resamples, confidence=confidence,
        )  # fmt: skip

    def decided_by(
        self, probe: int, *, seed: int = 0, resamples: int = 1000, confidence: float = 0.95
    ) -> Estimate:
        """The share of all queries whose depth is at most this probe, in [0, 1].

        A high share at the first probes, early in training, says that something easy decides. It
        does not say whether that is spurious.

        Raises:
            ValueError: no such probe.
        """
        if not 0 <= probe < len(self.probes):
            raise ValueError(f"probes are numbered 0 to {len(self.probes) - 1}, not {probe}")
        return bootstrap(
            lambda d, q: (self.depth[d][:, q] <= probe).double().mean(),
            self.depth.shape,
            seed=seed, resamples=resamples, confidence=confidence,
        )  # fmt: skip


def depths(
    layers: Iterable[Layer],
    support: Support,
    reference: Int[Tensor, " queries"] | None,
    *,
    rule: Rule = Rule(),
    itself: Int[Tensor, " queries"] | None = None,
    reading: str = "not recorded",
) -> Depths:
    """The depth of every query, from features that come one layer at a time.

    The support of each layer has one row for each of `support.rows`. `reference` is the class that
    the rule's reference names, `None` for the last probe. A query that is where the support was
    drawn from has its index there in `itself`, or -1, and is no neighbor of its own.

    Source: ours; Baldock et al. (2021), Murali et al. (2023).

    Raises:
        ValueError: no layer, rows that do not fit the support, or a reference that does not fit
            the rule.
    """
    if (reference is None) != (rule.reference == "last probe"):
        raise ValueError(
            f"the rule's reference is {rule.reference!r}: give the class of every query, and none "
            "for 'last probe'"
        )
    rows = support.rows
    within = torch.searchsorted(rows, support.index)
    probes, decided, tied = [], [], []
    for layer in layers:
        if len(layer.support) != len(rows):
            raise ValueError(
                f"layer {layer.name!r} has {len(layer.support)} rows of support for {len(rows)} "
                "examples; give those of support.rows, in order"
            )
        found = []
        for index, members, y in zip(support.index, within, support.y, strict=True):
            # One draw is the whole layer, which need not be copied.
            features = layer.support if len(support.index) == 1 else layer.support[members]
            found.append(
                vote(
                    features, y, layer.queries, classes=support.classes, k=rule.k,
                    metric=rule.metric, itself=None if itself is None else _position(index, itself),
                )
            )  # fmt: skip
        probes.append(layer.name)
        decided.append(torch.stack([decide(votes, rule.margin) for votes in found]))
        tied.append(torch.stack([votes.tied for votes in found]).double().mean())
    if not probes:
        raise ValueError("a depth needs at least one layer, and none came")
    table = torch.stack(decided, dim=1)
    depth = prediction_depth(table, table[:, -1] if reference is None else reference.cpu()[None])
    return Depths(tuple(probes), depth, table, torch.stack(tied), rule, support, reading)


def model_depths(
    model: nn.Module,
    pool: Any,
    queries: Any,
    layers: Collection[str] | Literal["auto"] = "auto",
    *,
    per_class: int,
    draws: int = 1,
    seed: int = 0,
    rule: Rule = Rule(),
    itself: Int[Tensor, " queries"] | None = None,
    reduce: Reading = over_grid,
    ends: bool = True,
    batch_size: int = 256,
    at_once: int = 1,
) -> Depths:
    """Return the prediction depth of each query in a network.

    Args:
        model: a network that returns logits.
        pool: labeled examples from which the support is drawn.
        queries: the examples whose depths are measured.
        layers: names of the layers; by default all activations.
        per_class: number of support examples per class.
        draws: number of supports; with several, intervals cover the choice of the support.
        seed: random seed of the supports.
        rule: number of neighbors, metric and reference of the votes.
        itself: index of each query in the pool, or -1. If `queries` is the pool, this is automatic:
            an example is never its own neighbor.
        reduce: reading of a layer's output.
        ends: whether the input and the softmax are probes, too.
        batch_size: number of examples per forward pass.
        at_once: number of layers per forward pass.

    Raises:
        ValueError: as for `draw_support`, `layerwise` and `depths`.

    Source: ours; Baldock et al. (2021).

    >>> x, y = torch.eye(2).repeat(10, 1), torch.arange(20) % 2
    >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
    >>> result = model_depths(model, (x, y), (x, y), ["1"], per_class=10, rule=Rule(k=5))
    >>> result.mean().value  # neighbors in the input already vote for the prediction
    0.0
    """
    same = queries is pool
    pool = as_domain(pool)
    queries = pool if same else as_domain(queries)
    support = draw_support(pool.y, per_class, draws=draws, seed=seed)
    if itself is None and queries is pool:
        itself = torch.arange(len(pool))
    reference = None
    if rule.reference != "last probe":
        by_model = rule.reference == "model"
        reference = predictions(model, queries, batch_size=batch_size) if by_model else queries.y
    seen = layerwise(
        model, pool, queries, layers, rows=support.rows, reduce=reduce, ends=ends,
        batch_size=batch_size, at_once=at_once,
    )  # fmt: skip
    return depths(seen, support, reference, rule=rule, itself=itself, reading=reading_name(reduce))


def difference(
    first: Depths,
    second: Depths,
    *,
    relative: bool = False,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """How much deeper the second's queries are on average than the first's, in probes.

    `relative` divides each depth by the number of its last probe, to compare networks with other
    numbers of them. The interval takes both sets of queries as drawn independently.

    Source: ours, since depths under other supports can't be compared.

    Raises:
        ValueError: another rule, support, reading or number of probes, or no depth is defined.
    """
    sides = (first, second)
    for what, (one, other) in {
        **{f.name: tuple(getattr(s.rule, f.name) for s in sides) for f in fields(Rule)},
        **{
            f"the support's {name}": tuple(getattr(s.support, name) for s in sides)
            for name in ("per_class", "classes", "seed")
        },
        "draws": tuple(len(s.depth) for s in sides),
        "reading": tuple(s.reading for s in sides),
        "number of probes": (0, 0) if relative else tuple(len(s.probes) for s in sides),
    }.items():
        if one != other:
            raise ValueError(
                f"these depths can't be compared: {what} is {one!r} for the first and {other!r} "
                "for the second; measure both alike"
            )
    if any(s.depth.isnan().all() for s in sides):
        raise ValueError("the last probe disagrees with every reference: no depth is defined")
    a, b = (s.depth / max(len(s.probes) - 1, 1) if relative else s.depth for s in sides)
    return bootstrap(
        lambda d, q, e, r: b[e][:, r].nanmean() - a[d][:, q].nanmean(),
        (*a.shape, *b.shape),
        seed=seed, resamples=resamples, confidence=confidence,
    )  # fmt: skip


def _position(index: Tensor, itself: Tensor) -> Tensor:
    """Where each query is in one draw of the support, or -1."""
    itself = itself.cpu()
    place = torch.searchsorted(index, itself).clamp(max=len(index) - 1)
    return torch.where(index[place] == itself, place, -1)
