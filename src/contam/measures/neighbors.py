"""Exact nearest neighbors of many features among many, and what their classes vote for.

Scores come from one matrix product in single precision, as fast as the machine has it. How wrong
they can be is known, and where that leaves a neighbor in doubt, distances are taken again in double
precision, from differences. So the result is that of the plain formula, also for duplicates.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Metric = Literal["l2", "l1"]

SCORES = 2**22
"""How many numbers are worked on at a time: 16 MiB in single precision."""


class Votes(NamedTuple):
    """What the neighbors of each query say."""

    counts: Tensor
    """(queries, classes) how many neighbors are of each class, int64."""
    winner: Tensor
    """(queries,) the class with most of them, int64."""
    tied: Tensor
    """(queries,) whether another class had as many."""


def nearest(
    support: Float[Tensor, "support neurons"],
    queries: Float[Tensor, "queries neurons"],
    *,
    k: int = 30,
    metric: Metric = "l2",
    itself: Int[Tensor, " queries"] | None = None,
) -> Int[Tensor, "queries k"]:
    """The indices of the `k` nearest members of the support, in no order.

    Of members at one distance, those of lower index are taken. A query that is in the support is
    no neighbor of its own: `itself` has its index there, or -1. Its duplicates are. `l2` holds a
    copy of the support and one block of scores; `l1` has no matrix product and is slow.

    Source: ours, so that nothing but torch is needed.

    Raises:
        ValueError: fewer than `k` neighbors, no query, features that are not finite, or another
            metric.
    """
    if metric not in ("l2", "l1"):
        raise ValueError(f"the metric is 'l2' or 'l1', not {metric!r}")
    if itself is None:
        itself = torch.full((len(queries),), -1)
    itself = itself.to(queries.device)
    others = len(support) - int((itself >= 0).any())
    if not 1 <= k <= others or not len(queries):
        raise ValueError(
            f"asked for {k} neighbors of {len(queries)} queries among {others}; want 1 to {others} "
            "of one query or more"
        )
    low, high = support.amin(dim=0), support.amax(dim=0)
    if not all(ends.isfinite().all() for ends in (low, high, queries.amin(0), queries.amax(0))):
        raise ValueError("some features are not finite; look at the network, or at its inputs")
    support, queries = (x if x.dtype == torch.float64 else x.float() for x in (support, queries))
    varied = high > low
    if not varied.all():
        # Where all members are alike, a feature favors none of them; dead neurons are common.
        support, queries = support[:, varied], queries[:, varied]
    if metric == "l1":
        everyone = torch.arange(len(support), device=support.device)
        asked = zip(queries, itself.tolist(), strict=True)
        rows = [_refined(support, query, everyone, own, k, metric=metric) for query, own in asked]
    else:
        rows = list(_by_product(support, queries, itself, k))
    return torch.cat(rows).view(-1, k)


def vote(
    support: Float[Tensor, "support neurons"],
    y: Int[Tensor, " support"],
    queries: Float[Tensor, "queries neurons"],
    *,
    classes: int,
    k: int = 30,
    metric: Metric = "l2",
    itself: Int[Tensor, " queries"] | None = None,
) -> Votes:
    """The class that most of the `k` nearest members of the support have.

    Of classes with as many votes, that of the nearest neighbor wins, then the smallest.

    Source: ours, the rule that the papers leave open.

    Raises:
        ValueError: what `nearest` refuses, or a class outside 0..classes - 1.
    """
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(
            f"classes {int(y.min())}..{int(y.max())} in the support; want 0..{classes - 1}"
        )
    index = nearest(support, queries, k=k, metric=metric, itself=itself)
    said = y.to(index.device)[index]
    counts = torch.zeros(len(index), classes, dtype=torch.int64, device=index.device)
    counts.scatter_add_(1, said, torch.ones_like(said))
    most = counts == counts.amax(dim=1, keepdim=True)
    tied = most.sum(dim=1) > 1
    distance = torch.full(said.shape, torch.inf, dtype=torch.float64, device=said.device)
    candidates = (tied[:, None] & most.gather(1, said)).nonzero()
    for some in candidates.split(_at_a_time(support.shape[1])):
        row, place = some.unbind(dim=1)
        members = support[index[row, place]]
        distance[row, place] = _distances(members, queries[row], metric)
    closest = distance == distance.amin(dim=1, keepdim=True)
    first = said.masked_fill(~closest, classes).amin(dim=1)
    winner = torch.where(tied, first, counts.argmax(dim=1))
    return Votes(counts.cpu(), winner.cpu(), tied.cpu())


def _by_product(
    support: Tensor, queries: Tensor, itself: Tensor, k: int
) -> Iterator[Int[Tensor, "block k"]]:
    """The neighbors of one block of queries after the other."""
    center = support.mean(dim=0)
    members = (support - center).float()
    norms = members.norm(dim=1)
    squares, longest = norms.square(), norms.amax()
    score = _scoring(members, squares)
    size = max(1, SCORES // len(support))
    for asked, own in zip(queries.split(size), itself.split(size), strict=True):
        here = (asked - center).float()
        with _single_precision(here.device):
            scores = score(here)
        inside = (own >= 0).nonzero().flatten()
        scores[inside, own[inside]] = torch.inf
        values, index = scores.topk(min(k + 1, len(support)), largest=False)
        # Rounding errors of a sum add up as a random walk does (Higham and Mary, 2019, whose
        # factor is 4 here); centering and squaring add a few roundings of the whole.
        length = here.norm(dim=1)
        walk = 8 * math.sqrt(here.shape[1]) * length * longest
        doubt = 2.0**-23 * (walk + 8 * (length + longest) ** 2)
        # What is not finite can't be told apart, and is in doubt.
        unsure = ~(values[:, -1] - values[:, k - 1] > doubt) & (len(support) > k)
        for row in unsure.nonzero().flatten().tolist():
            near = ~(scores[row] > values[row, k - 1] + doubt[row])
            candidates = near.nonzero().flatten()
            index[row, :k] = _refined(
                support, asked[row], candidates, int(own[row]), k, metric="l2"
            )
        yield index[:, :k].clone()


def _scoring(
    members: Float[Tensor, "support neurons"], squares: Float[Tensor, " support"]
) -> Callable[[Tensor], Tensor]:
    """Squared distances without the query's own square, which changes no order."""
    if members.device.type == "cpu" and torch.backends.mkldnn.is_available() and members.numel():
        # oneDNN uses vector units that torch's own product leaves idle on some processors.
        packed, bias = members.to_mkldnn(), squares.to_mkldnn()
        return lambda block: F.linear((-2 * block).to_mkldnn(), packed, bias).to_dense()
    return lambda block: torch.addmm(squares, block, members.T, alpha=-2)


def _refined(
    support: Tensor, query: Tensor, candidates: Tensor, own: int, k: int, *, metric: Metric
) -> Int[Tensor, " k"]:
    """The `k` nearest of some members, which come in rising order."""
    size = _at_a_time(support.shape[1])
    parts = [_distances(support[part], query, metric) for part in candidates.split(size)]
    distance = torch.cat(parts).masked_fill_(candidates == own, torch.inf)
    return candidates[distance.sort(stable=True).indices[:k]]


def _distances(members: Tensor, queries: Tensor, metric: Metric) -> Tensor:
    """What orders neighbors, in double precision: the squared or the absolute distance."""
    differences = members.double() - queries.double()
    return (differences.square() if metric == "l2" else differences.abs()).sum(dim=-1)


def _at_a_time(numbers: int) -> int:
    return max(1, SCORES // (2 * max(numbers, 1)))


@contextmanager
def _single_precision(device: torch.device) -> Iterator[None]:
    """Products keep 24 bits, whatever the caller allows elsewhere."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False), torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)
