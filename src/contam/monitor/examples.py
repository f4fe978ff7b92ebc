"""The examples of a monitor: a few of every class, the same in every snapshot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contam.batch import Batch, Domain, Shift
from contam.inputs import as_domain, named_sets, read_set
from contam.rng import generator_for, preserve_rng

MAX_CLASSES = 20
"""Maximum number of monitored classes; of more classes, this many are drawn."""
SUPPORT = 200
"""Default number of support examples and of queries."""
MAX_READ = 2000
"""Maximum number of examples read from a set other than a `Domain`."""


@dataclass(frozen=True, eq=False)
class Sources:
    """The data sets that examples are drawn from."""

    pools: tuple[Domain, ...]
    """The sets of the support, and of the queries if these have none of their own."""
    queries: tuple[Domain, ...]
    """The sets of the queries; empty if half of the pools are queries."""
    others: dict[str, Domain]
    notes: tuple[str, ...]
    """Sentences about what was left out."""

    @property
    def first_input(self) -> Tensor:
        """(1, ...) one input.

        Raises:
            ValueError: there is no example.
        """
        if not len(self.pools[0]):
            raise ValueError(f"{self.pools[0].name!r} has no examples")
        return next(self.pools[0].batches(1)).x


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of every snapshot; class indices are contiguous from 0."""

    support: Domain
    """Examples among which neighbors are searched, equally many of every class."""
    queries: Domain
    """The examples whose predictions are measured."""
    others: tuple[Domain, ...]
    """The same classes in other data sets."""
    classes: tuple[int, ...]
    """The monitored classes as indices of the user's labels."""
    left_out: tuple[str, ...]
    """One line for each thing that is not monitored."""

    @property
    def per_class(self) -> int:
        """Number of support examples of every class."""
        return len(self.support) // len(self.classes)


def read_sources(
    data: Any,
    queries: Any,
    others: Any,
    *,
    seed: int,
    domain: str | int | None = None,
) -> Sources:
    """Read the data sets, in any form of `contam.inputs`; random states are preserved.

    Args:
        data: the set of the support; of a `Shift`, its training domains.
        queries: the set of the queries; None takes the ID validation or test set of a `Shift`.
        others: other data sets: one, a list, or a dict by name.
        seed: random seed of the draw from sets with more than `MAX_READ` examples.
        domain: name or number of the metadata column that is the domain.

    Returns:
        The data sets as domains.

    Raises:
        ValueError: a set can't be read, is an iterator, or is a `Shift` where one set is expected.

    >>> read_sources((torch.rand(8, 3), torch.arange(8) % 2), None, {}, seed=0).first_input.shape
    torch.Size([1, 3])
    """
    notes: list[str] = []
    classes: tuple[str, ...] | None = None

    def read(value: Any, name: str) -> Domain:
        nonlocal classes
        if isinstance(value, Domain):
            return as_domain(value)
        if isinstance(value, Shift):
            raise ValueError(f"{name!r} is a shift; give one of its domains")
        if isinstance(value, Iterator):
            raise ValueError(
                f"{name!r} is an iterator, which reading would exhaust; give the loader, or a list "
                "of its batches"
            )
        own = read_set(
            value, name=name, classes=classes, budget=MAX_READ, limit=MAX_READ, seed=seed,
            domain=domain,
        )  # fmt: skip
        classes = classes or own.classes
        notes.extend(own.notes)
        return own.domain

    named: dict[str, Any] = {}
    pairs = named_sets(others)
    for place, (name, value) in enumerate(pairs, start=1):
        plain = name or getattr(value, "name", None) or "other"
        named[plain if len(pairs) == 1 or name else f"{plain} {place}"] = value
    with preserve_rng(data, queries, *named.values()):
        if isinstance(data, Shift):
            pools = tuple(map(as_domain, data.train))
            if queries is None:
                queries = data.id_test if data.id_val is None else data.id_val
        else:
            pools = (read(data, "training"),)
        query_sets = () if queries is None else (read(queries, "queries"),)
        other_sets = {name: read(value, name) for name, value in named.items()}
    return Sources(pools, query_sets, other_sets, tuple(notes))


def draw_examples(sources: Sources, *, outputs: int, per_class: int | None, seed: int) -> Examples:
    """Draw the examples of every snapshot.

    Args:
        sources: the data sets; without a set of queries, half of the pools are queries.
        outputs: number of logits of the network.
        per_class: number of support examples and of queries of every class; by default, about
            `SUPPORT` over all classes.
        seed: random seed of the draw.

    Returns:
        Support, queries and other sets.

    Raises:
        ValueError: a label has no logit, or fewer than two classes have enough examples.

    >>> sources = read_sources((torch.rand(40, 3), torch.arange(40) % 2), None, {}, seed=0)
    >>> examples = draw_examples(sources, outputs=2, per_class=5, seed=0)
    >>> len(examples.support), len(examples.queries), examples.classes
    (10, 10, (0, 1))
    """
    pools = sources.pools
    y = _labels(pools, outputs)
    counts = torch.bincount(y, minlength=outputs)
    if sources.queries:
        query_pools, share = sources.queries, 1.0
        counts = counts.minimum(torch.bincount(_labels(query_pools, outputs), minlength=outputs))
    else:
        query_pools, counts, share = pools, counts // 2, 0.5
    enough = (counts >= 2).nonzero().flatten()
    if len(enough) < 2:
        raise ValueError(
            "expected two classes or more with 2 examples for the support and 2 queries; "
            f"of {len(y)} "
            f"examples, {len(enough)} have them: give more data"
        )
    left_out = list(sources.notes)
    scarce = sorted(set(y.tolist()) - set(enough.tolist()))
    if scarce:
        left_out.append(f"classes {_few(scarce)}: fewer than 2 examples on a side")
    if len(enough) > MAX_CLASSES:
        drawn = torch.randperm(len(enough), generator=generator_for(seed, "watch/classes"))
        left_out.append(f"{len(enough) - MAX_CLASSES} of {len(enough)} classes, drawn at random")
        enough = enough[drawn[:MAX_CLASSES]].sort().values
    size = min(per_class or max(2, SUPPORT // len(enough)), int(counts[enough].min()))
    classes = tuple(enough.tolist())
    support = _draw("support", pools, classes, size, seed, part=(0.0, share))
    queries = _draw("queries", query_pools, classes, size, seed, part=(1 - share, 1.0))
    others = []
    for name, other in sources.others.items():
        missing = sorted(set(classes) - set(_labels((other,), outputs).tolist()))
        if missing:
            left_out.append(f"{name!r}: no example of classes {_few(missing)}")
        else:
            others.append(_draw(name, (other,), classes, size, seed))
    return Examples(support, queries, tuple(others), classes, tuple(left_out))


def _labels(pools: Sequence[Domain], outputs: int) -> Tensor:
    y = torch.cat([pool.y.cpu() for pool in pools])
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < outputs:
        raise ValueError(
            f"labels {int(y.min())}..{int(y.max())} in {pools[0].name!r} don't fit a network with "
            f"{outputs} logits; expected 0..{outputs - 1}"
        )
    return y


def _draw(
    name: str,
    pools: Sequence[Domain],
    classes: Sequence[int],
    size: int,
    seed: int,
    *,
    part: tuple[float, float] = (0.0, 1.0),
) -> Domain:
    """Draw at most `size` examples of every class from a part of a shuffled order."""
    y = torch.cat([pool.y.cpu() for pool in pools])
    rows = []
    for c in classes:
        members = (y == c).nonzero().flatten()
        generator = generator_for(seed, f"watch/class {c}")
        members = members[torch.randperm(len(members), generator=generator)]
        begin, end = (round(edge * len(members)) for edge in part)
        rows.append(members[begin:end][:size])
    wanted, batches, start = torch.cat(rows).sort().values, [], 0
    for pool in pools:
        # Take the size before reading, which can leave out files.
        count = len(pool)
        own = wanted[(wanted >= start) & (wanted < start + count)] - start
        start += count
        if len(own):
            batches += pool.fetch([(own, torch.zeros_like(own))])
    batch = Batch(*(torch.cat(column).cpu() for column in zip(*batches, strict=True)))
    renumbered = torch.full((max(classes) + 1,), -1)
    renumbered[torch.tensor(classes)] = torch.arange(len(classes))
    return Domain(name, batch._replace(y=renumbered[batch.y]))


def _few(items: Sequence[Any]) -> str:
    shown = ", ".join(map(str, items[:5]))
    return f"{shown}, ..." if len(items) > 5 else shown
