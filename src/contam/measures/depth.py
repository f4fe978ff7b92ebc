"""Prediction depth: the layer from which on nearest neighbors agree with the network's prediction.

At every probe, from the input to the softmax, the nearest members of a labeled support vote. An
example on which all probes agree has depth 0: it is easy, and so may be the feature that decides
it. Depth depends on the label alone. It grows when the support shrinks, so mean depths are
comparable only for the same support, and `difference` rejects other comparisons.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.inputs import as_domain
from contam.measures.accuracy import clopper_pearson
from contam.measures.intervals import Estimate, bootstrap
from contam.measures.layerwise import (
    MEMORY,
    Layer,
    layerwise,
    over_grid,
    predictions,
    reading_name,
)
from contam.measures.neighbors import Metric, Votes, vote
from contam.models.readings import Reading
from contam.rng import generator_for

Reference = Literal["model", "label", "last probe"]
UNCERTAIN = -1
"""Decision of a probe whose votes are within the margin."""


@dataclass(frozen=True)
class Rule:
    """Definition of depth; the defaults are those of Baldock et al. (2021)."""

    k: int = 30
    """Number of neighbors."""
    metric: Metric = "l2"
    """Distance; `l1` is used by Murali et al. (2023) and far slower."""
    reference: Reference = "model"
    """Class with which probes have to agree: the prediction, the label, or the last probe."""
    margin: float = 0.0
    """Required excess of the share of votes over one half; for two classes only.

    The code of Murali et al. (2023) uses 0.12 but rounds shares, so that 18 of 29 votes are too
    few; the equivalent here is 0.13."""

    certain_end: bool = False
    """Whether depth is undefined, too, where the last probe but one is within the margin, as in
    the chest X-ray code of Murali et al. (2023)."""


@dataclass(frozen=True, eq=False)
class Support:
    """Labeled examples that serve as neighbors, in some draws."""

    index: Int[Tensor, "draws examples"]
    """Indices in the pool, in increasing order."""
    y: Int[Tensor, "draws examples"]
    per_class: int | None
    """Number of examples of each class; None if the classes were not balanced."""
    classes: int
    """Number of classes, including those without examples."""
    seed: int

    @property
    def rows(self) -> Int[Tensor, " rows"]:
        """Indices of the examples of all draws, without repetition, in increasing order."""
        return self.index.unique()


def draw_support(
    y: Int[Tensor, " examples"], per_class: int, *, draws: int = 1, seed: int = 0
) -> Support:
    """Draw the same number of examples of each class, once or several times.

    With several draws, intervals include the variation between supports.

    Args:
        y: Class indices of the pool.
        per_class: Examples of each class.
        draws: Number of independent draws.
        seed: Random seed.

    Raises:
        ValueError: If a class has too few examples, there are fewer than two classes, or a number
            is less than 1.

    Source: ours, since mean depth changes severalfold with the size of the support.

    >>> support = draw_support(torch.tensor([0, 0, 0, 1, 1]), per_class=2)
    >>> support.y.tolist()
    [[0, 0, 1, 1]]
    """
    present = y.unique().tolist()
    scarce = {c: n for c in present if (n := int((y == c).sum())) < per_class}
    if per_class < 1 or draws < 1 or len(present) < 2 or present[0] < 0 or scarce:
        raise ValueError(
            "expected at least 1 draw of at least 1 example of each of two classes or more, got "
            f"{draws} draws of {per_class} examples of classes {present}; classes with too few "
            f"examples: {scarce or 'none'}"
        )
    picked = []
    for draw in range(draws):
        generator = generator_for(seed, f"support/draw {draw}")
        members = [(y == c).nonzero().flatten().cpu() for c in present]
        drawn = [
            rows[torch.randperm(len(rows), generator=generator)[:per_class]] for rows in members
        ]
        picked.append(torch.cat(drawn).sort().values)
    index = torch.stack(picked)
    return Support(index, y.cpu()[index], per_class, present[-1] + 1, seed)


def draw_unbalanced_support(y: Int[Tensor, " examples"], size: int, *, seed: int = 0) -> Support:
    """Draw examples without regard to their classes, once.

    Args:
        y: Class indices of the pool.
        size: Number of examples.
        seed: Random seed.

    Raises:
        ValueError: If the pool is smaller, or has a negative class.

    Votes favor frequent classes, so `draw_support` is preferable.

    Source: ours; Murali et al. (2023), prediction depth.

    >>> draw_unbalanced_support(torch.tensor([0, 0, 0, 1]), size=4).y.tolist()
    [[0, 0, 0, 1]]
    """
    if not 1 <= size <= len(y) or int(y.min()) < 0:
        raise ValueError(
            f"cannot draw {size} examples from a pool of {len(y)} with classes from 0 on"
        )
    generator = generator_for(seed, "support/unbalanced")
    index = torch.randperm(len(y), generator=generator)[:size].sort().values[None]
    return Support(index, y.cpu()[index], None, int(y.max()) + 1, seed)


def decide(votes: Votes, margin: float = 0.0) -> Int[Tensor, " queries"]:
    """Return the class with most votes, or `UNCERTAIN` if its share is below 1/2 + `margin`.

    Args:
        votes: Votes of the neighbors of each query.
        margin: Required excess over one half; above 0 for two classes only.

    Raises:
        ValueError: If the margin is not in [0, 1/2) or there are not two classes.

    Source: ours; Murali et al. (2023) for the margin.

    >>> support, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 0, 1])
    >>> decide(vote(support, y, torch.tensor([[0.5]]), classes=2, k=3)).tolist()
    [0]
    """
    if not 0 <= margin < 0.5 or (margin and votes.counts.shape[1] != 2):
        raise ValueError(
            f"a margin must lie in [0, 1/2) and is for two classes, got {margin} for "
            f"{votes.counts.shape[1]} classes"
        )
    share = votes.counts.amax(dim=1) / votes.counts.sum(dim=1)
    return votes.winner.masked_fill(share < 0.5 + margin, UNCERTAIN) if margin else votes.winner


def prediction_depth(
    decided: Int[Tensor, "*draws probes queries"], reference: Int[Tensor, "*#draws queries"]
) -> Float[Tensor, "*draws queries"]:
    """Return the first probe from which on all probes agree with the reference class.

    Args:
        decided: Decision of each probe, from the input to the output.
        reference: Reference class of each query.

    Returns:
        Depths in [0, probes - 1]; nan if the last probe disagrees. `UNCERTAIN` never agrees.

    Source: ours; Baldock et al. (2021).

    >>> decided = torch.tensor([[0, 1], [1, 0], [1, 0]])  # three probes, two queries
    >>> prediction_depth(decided, torch.tensor([1, 1])).tolist()
    [1.0, nan]
    """
    agree = (decided == reference.unsqueeze(-2)) & (decided != UNCERTAIN)
    # Length of the final run of agreement.
    run = agree.flip(-2).long().cumprod(dim=-2).sum(dim=-2)
    depth = (decided.shape[-2] - run).double()
    return depth.masked_fill(run == 0, torch.nan)


class DecidedShares(NamedTuple):
    """Which share of the predictions each probe decides."""

    by_probe: tuple[float, ...]
    """Share of the defined depths that are at most each probe; empty if none is defined."""
    undefined: float
    """Share of queries without a depth."""


def decided_shares(depth: Float[Tensor, "..."], probes: int) -> DecidedShares:
    """Return the share of predictions that each probe or an earlier one decides.

    Undefined depths are not counted as late ones: a network that guesses has many, and would look
    like one whose predictions are decided late.

    Args:
        depth: Depths in [0, probes - 1]; nan where undefined.
        probes: Number of probes.

    Returns:
        Shares of the defined depths, and the share of undefined ones, in [0, 1].

    Source: ours, one rule for audits, monitors and experiments.

    >>> decided_shares(torch.tensor([0.0, 2.0, torch.nan, 0.0]), probes=3)
    DecidedShares(by_probe=(0.6666666666666666, 0.6666666666666666, 1.0), undefined=0.25)
    """
    defined = depth[~depth.isnan()]
    shares = [float((defined <= probe).double().mean()) for probe in range(probes)]
    undefined = float(depth.isnan().double().mean())
    return DecidedShares(tuple(shares) if len(defined) else (), undefined)


@dataclass(frozen=True, eq=False)
class Depths:
    """Depth of every query, with the rule and the support that define it."""

    probes: tuple[str, ...]
    depth: Float[Tensor, "draws queries"]
    """In [0, probes - 1]; nan where the last probe disagrees."""
    decided: Int[Tensor, "draws probes queries"]
    """Class that each probe decides for, or `UNCERTAIN`."""
    tied: Float[Tensor, " probes"]
    """Share of votes that were tied, so that the nearest neighbor decided."""
    rule: Rule
    support: Support
    reading: str = "not recorded"
    """Reading of the features, which is part of the definition of depth."""

    def mean(self, *, seed: int = 0, resamples: int = 1000, confidence: float = 0.95) -> Estimate:
        """Return the mean of defined depths; the interval is over queries and draws.

        Raises:
            ValueError: If no depth is defined.
        """
        if self.depth.isnan().all():
            raise ValueError("the last probe disagrees with every reference: no depth is defined")
        return bootstrap(
            lambda d, q: self.depth[d][:, q].nanmean(),
            self.depth.shape,
            seed=seed, resamples=resamples, confidence=confidence,
        )  # fmt: skip

    def undefined(self, *, confidence: float = 0.95) -> Estimate:
        """Return the share of queries without a depth, in [0, 1], with its exact interval."""
        return share_over_draws(self.depth.isnan().double(), confidence=confidence)

    def decided_by(self, probe: int, *, confidence: float = 0.95) -> Estimate:
        """Return the share of defined depths that are at most `probe`, in [0, 1].

        A high share at the first probes, early in training, means that an easy feature decides. It
        does not show whether this feature is spurious. Report `undefined` beside it. The interval
        is that of `share_over_draws`.

        Raises:
            ValueError: If there is no such probe, or no depth is defined.
        """
        if not 0 <= probe < len(self.probes):
            raise ValueError(f"probe must be in 0..{len(self.probes) - 1}, got {probe}")
        if self.depth.isnan().all():
            raise ValueError("the last probe disagrees with every reference: no depth is defined")
        early = torch.where(self.depth.isnan(), torch.nan, (self.depth <= probe).double())
        return share_over_draws(early, confidence=confidence)


def share_over_draws(
    events: Float[Tensor, "draws queries"], *, confidence: float = 0.95
) -> Estimate:
    """Return the share of events with its exact interval, also for several draws of a support.

    For one draw this is the Clopper-Pearson interval. Several draws of the same queries are not
    independent; they count as the number of independent queries with the same variance of the
    share, and at most as the number of queries.

    Args:
        events: 1 or 0 for each draw and query; nan is left out.
        confidence: Level of the interval.

    Raises:
        ValueError: If all are nan.

    Source: ours; Clopper and Pearson (1934), Korn and Graubard (1998) for the effective number.

    >>> share = share_over_draws(torch.zeros(1, 10))
    >>> round(share.value, 3), round(share.low, 3), round(share.high, 3)
    (0.0, 0.0, 0.308)
    """
    known = ~events.isnan()
    if not known.any():
        raise ValueError("a share needs at least one event that is not nan")
    draws, queries = events.shape
    share = float(events.nanmean(dtype=torch.float64))
    # Residuals of the ratio of two sums, whose means add up to 0.
    residuals = (events.double() - share).nan_to_num(0.0) / known.double().mean()
    variance = float(residuals.mean(0).square().sum()) / queries**2
    if draws > 1:
        variance += float(residuals.mean(1).var()) / draws
    count = float(known.any(0).sum())
    if variance > 0:
        count = min(count, share * (1 - share) / variance)
    low, high = clopper_pearson(share * count, count, confidence)
    return Estimate(share, low, high)


def depths(
    layers: Iterable[Layer],
    support: Support,
    reference: Int[Tensor, " queries"] | None,
    *,
    rule: Rule = Rule(),
    itself: Int[Tensor, " queries"] | None = None,
    reading: str = "not recorded",
) -> Depths:
    """Return the depth of every query from features that come one layer at a time.

    Args:
        layers: Features of each layer, with one row of support for each of `support.rows`.
        support: Labeled examples.
        reference: Class of each query that the rule's reference names; None for the last probe.
        rule: Definition of depth.
        itself: Index of each query in the pool of the support, or -1; a query is not a neighbor of
            itself.
        reading: Name of the reading of the features.

    Raises:
        ValueError: If there is no layer, the rows do not fit the support, or the reference does not
            fit the rule.

    Source: ours; Baldock et al. (2021), Murali et al. (2023).

    >>> y = torch.arange(40) % 2
    >>> constant, separated = torch.zeros(40, 1), 1.0 * y[:, None]
    >>> layers = [Layer("a", constant, 1 - separated), Layer("b", separated, separated)]
    >>> depths(layers, draw_support(y, per_class=20), y, rule=Rule(k=5)).mean().value
    0.5
    """
    if (reference is None) != (rule.reference == "last probe"):
        raise ValueError(
            f"the rule's reference is {rule.reference!r}: give the class of every query, or None "
            "for 'last probe'"
        )
    rows = support.rows
    within = torch.searchsorted(rows, support.index)
    probes, decided, tied = [], [], []
    for layer in layers:
        if len(layer.support) != len(rows):
            raise ValueError(
                f"layer {layer.name!r} has {len(layer.support)} rows of support for {len(rows)} "
                "examples; give the rows of support.rows, in order"
            )
        drawn = []
        for index, members, y in zip(support.index, within, support.y, strict=True):
            # A single draw is the whole layer, so no copy is needed.
            features = layer.support if len(support.index) == 1 else layer.support[members]
            drawn.append(
                vote(
                    features, y, layer.queries, classes=support.classes, k=rule.k,
                    metric=rule.metric, itself=None if itself is None else _position(index, itself),
                )
            )  # fmt: skip
        probes.append(layer.name)
        decided.append(torch.stack([decide(votes, rule.margin) for votes in drawn]))
        tied.append(torch.stack([votes.tied for votes in drawn]).double().mean())
    if not probes:
        raise ValueError("a depth needs at least one layer")
    table = torch.stack(decided, dim=1)
    depth = prediction_depth(table, table[:, -1] if reference is None else reference.cpu()[None])
    if rule.certain_end and len(probes) > 1:
        depth = depth.masked_fill(table[:, -2] == UNCERTAIN, torch.nan)
    return Depths(tuple(probes), depth, table, torch.stack(tied), rule, support, reading)


def model_depths(
    model: nn.Module,
    pool: Any,
    queries: Any,
    layers: Collection[str] | Literal["auto"] = "auto",
    *,
    per_class: int | None = None,
    draws: int = 1,
    seed: int = 0,
    support: Support | None = None,
    rule: Rule = Rule(),
    itself: Int[Tensor, " queries"] | None = None,
    reduce: Reading = over_grid,
    ends: bool = True,
    batch_size: int = 256,
    memory: int = MEMORY,
) -> Depths:
    """Return the depth of every query in a network.

    Args:
        model: Network.
        pool: Training examples from which the support is drawn.
        queries: Examples whose depth is measured. If they are the pool, each example is excluded
            from its own neighbors.
        layers: Names of the layers, or "auto" for all activations.
        per_class: Support examples of each class.
        draws: Number of supports.
        seed: Random seed of the support.
        support: Support drawn from the pool, instead of `per_class`, `draws` and `seed`.
        rule: Definition of depth.
        itself: Index of each query in the pool, or -1, if some queries are in it.
        reduce: Reading of the features of each layer.
        ends: Whether input and softmax are probes, too.
        batch_size: Examples of a forward pass.
        memory: Bytes of features that are held at a time, see `layerwise`.

    Raises:
        ValueError: If not exactly one of `per_class` and `support` is given, or as for
            `draw_support`, `layerwise` and `depths`.

    Source: ours; Baldock et al. (2021).

    >>> y = torch.arange(40) % 2
    >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> data = torch.eye(2)[y], y
    >>> result = model_depths(model, data, data, per_class=15, rule=Rule(k=5))
    >>> result.probes, result.depth.shape
    (('input', '1', 'softmax'), torch.Size([1, 40]))
    """
    same = queries is pool
    pool = as_domain(pool)
    queries = pool if same else as_domain(queries)
    if (per_class is None) == (support is None):
        raise ValueError("give either the support examples of each class or a support")
    if per_class is not None:
        support = draw_support(pool.y, per_class, draws=draws, seed=seed)
    assert support is not None
    if itself is None and queries is pool:
        itself = torch.arange(len(pool))
    reference = None
    if rule.reference != "last probe":
        by_model = rule.reference == "model"
        reference = predictions(model, queries, batch_size=batch_size) if by_model else queries.y
    neighbors = layerwise(
        model, pool, queries, layers, rows=support.rows, reduce=reduce, ends=ends,
        batch_size=batch_size, memory=memory,
    )  # fmt: skip
    return depths(
        neighbors, support, reference, rule=rule, itself=itself, reading=reading_name(reduce)
    )


def difference(
    first: Depths,
    second: Depths,
    *,
    relative: bool = False,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """Return the difference of mean depths, second minus first, in probes.

    The interval treats both sets of queries as independent.

    Args:
        first: Depths of one set of queries.
        second: Depths of another.
        relative: Whether to divide each depth by the index of its last probe, to compare networks
            with different numbers of probes.
        seed: Random seed of the bootstrap.
        resamples: Number of resamples.
        confidence: Level of the interval.

    Raises:
        ValueError: If rule, support, reading or number of probes differ, or no depth is defined.

    Source: ours, since depths with different supports are not comparable.

    >>> y = torch.arange(40) % 2
    >>> separated, support = [Layer("a", 1.0 * y[:, None], 1.0 * y[:, None])], draw_support(y, 20)
    >>> one = depths(separated, support, y, rule=Rule(k=5))
    >>> difference(one, one).value
    0.0
    """
    sides = (first, second)
    for what, (one, other) in {
        **{f.name: tuple(getattr(s.rule, f.name) for s in sides) for f in fields(Rule)},
        **{
            f"the support's {name}": tuple(getattr(s.support, name) for s in sides)
            for name in ("per_class", "classes", "seed")
        },
        "the support's size": tuple(s.support.index.shape[1] for s in sides),
        "draws": tuple(len(s.depth) for s in sides),
        "reading": tuple(s.reading for s in sides),
        "number of probes": (0, 0) if relative else tuple(len(s.probes) for s in sides),
    }.items():
        if one != other:
            raise ValueError(
                f"these depths are not comparable: {what} is {one!r} for the first and {other!r} "
                "for the second"
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
    """Return the position of each query in one draw of the support, or -1."""
    itself = itself.cpu()
    place = torch.searchsorted(index, itself).clamp(max=len(index) - 1)
    return torch.where(index[place] == itself, place, -1)
