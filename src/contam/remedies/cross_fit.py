"""The effect of a repair on examples that it was not fitted to."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from contam.batch import Batch
from contam.measures.accuracy import mean_change
from contam.measures.intervals import Estimate
from contam.models.linear_head import LinearHead, find_head, head_of
from contam.models.logits_adapter import LogitsAdapter
from contam.remedies.fresh_head import FreshHead
from contam.remedies.repair import Conversion, HeadRepair, ImageRepair, Repair, head_features
from contam.remedies.repair import predict as predicted_classes
from contam.rng import generator_for

RowPair = tuple[Int[Tensor, " n"], Int[Tensor, " m"]]
"""Rows of ID and of OOD examples."""
Halves = tuple[RowPair, RowPair]


@dataclass(frozen=True, eq=False)
class RepairEffect:
    """Which examples are classified correctly before and after a repair.

    Every example is judged by a repair that was fitted to others.
    """

    id_before: Bool[Tensor, " n"]
    id_after: Bool[Tensor, " n"]
    ood_before: Bool[Tensor, " m"]
    ood_after: Bool[Tensor, " m"]
    labels: int
    """Labels of OOD examples that one fit uses, at most."""

    def gain(self) -> Estimate:
        """Return OOD accuracy after minus before, with the interval of `paired_change`."""
        return mean_change([self.ood_after.double() - self.ood_before.double()])


def cross_fit(
    repair: Repair,
    network: LogitsAdapter,
    id: Batch,
    ood: Batch,
    *,
    same: Int[Tensor, "pairs two"] | None = None,
    before: tuple[Int[Tensor, " n"], Int[Tensor, " m"]] | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> RepairEffect:
    """Measure a repair: fit it to one half of the examples, judge it on the other, both ways.

    Args:
        repair: the repair; it has to fit the network and the data.
        network: the network; it stays as it was.
        id: ID inputs with labels and groups.
        ood: OOD inputs with labels.
        same: rows of ID and OOD examples with the same content; they are kept in one half.
        before: predicted classes of the network, if they are known.
        seed: random seed of the halves.
        batch_size: number of examples in a forward pass.

    Returns:
        The effect on all examples.

    Raises:
        ValueError: the repair does not fit the network or the data.

    Source: ours, two-fold cross-fitting.

    >>> x, y = torch.eye(2).repeat(20, 1), torch.arange(40) % 2
    >>> data, model = Batch(x, y, 0 * y), LogitsAdapter(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    >>> effect = cross_fit(FreshHead(), model, data, data)
    >>> bool(effect.id_after.all())
    True
    """
    reason = repair.applies(network, id, ood)
    if reason:
        raise ValueError(f"{repair.title!r} does not fit: {reason}")
    if before is None:
        old, new = (predicted_classes(network, part.x, batch_size=batch_size) for part in (id, ood))
        before = old, new
    if isinstance(repair, ImageRepair):
        halves = matched_halves(id.y, ood.y, same, seed=seed)
        return _cross_fit_images(repair, network, (id, ood), halves, before, batch_size=batch_size)
    if isinstance(repair, Conversion):
        network, repair = repair.convert(network), FreshHead()
    assert isinstance(repair, HeadRepair)
    fits = _cross_fit_of(repair, network, id, seed=seed, batch_size=batch_size)
    return fits.effect(head_features(network, ood, batch_size=batch_size), same=same, before=before)


@dataclass(frozen=True, eq=False)
class HeadCrossFit:
    """Measures a repair of the head on features; what needs ID data alone is fitted once.

    A repair that uses no OOD examples is fitted to all ID examples for OOD examples, unless some
    have the same content.

    Args:
        repair: the repair.
        head: the network's own head.
        id: features that the head reads of ID examples, with labels and groups.
        seed: random seed of the halves.

    Source: ours, two-fold cross-fitting.
    """

    repair: HeadRepair
    head: LinearHead
    id: Batch
    seed: int = 0

    @cached_property
    def whole(self) -> LinearHead:
        """The repaired head without OOD examples, fitted to all ID examples."""
        return self.repair.fit_head(self.head, self.id, self.id.pick(slice(0, 0)))

    @cached_property
    def id_after(self) -> Int[Tensor, " n"]:
        """Predicted class of each ID example after a fit to the other half of the ID examples."""
        none = self.id.pick(slice(0, 0))
        after = torch.empty_like(self.id.y)
        halves = matched_halves(self.id.y, none.y, seed=self.seed)
        for (fitted, _), (judged, _) in (halves, halves[::-1]):
            head = self.repair.fit_head(self.head, self.id.pick(fitted), none)
            after[judged] = head(self.id.x[judged]).argmax(1)
        return after

    def effect(
        self,
        ood: Batch,
        *,
        same: Int[Tensor, "pairs two"] | None = None,
        before: tuple[Int[Tensor, " n"], Int[Tensor, " m"]] | None = None,
    ) -> RepairEffect:
        """Fit the repair to one half, judge it on the other, both ways.

        Args:
            ood: features of OOD examples with labels and groups.
            same: rows of ID and OOD examples with the same content; they are kept in one half.
            before: predicted classes of the network, if they are known.

        Returns:
            The effect on all examples.
        """
        repair, head, id = self.repair, self.head, self.id
        own, other = before or (head(id.x).argmax(1), head(ood.x).argmax(1))
        labels = 0
        if not repair.uses_ood and (same is None or not len(same)):
            id_after, ood_after = self.id_after, self.whole(ood.x).argmax(1)
        else:
            id_after, ood_after = torch.empty_like(id.y), torch.empty_like(ood.y)
            halves = matched_halves(id.y, ood.y, same, seed=self.seed)
            for (id_fit, ood_fit), (id_judged, ood_judged) in (halves, halves[::-1]):
                fitted = repair.fit_head(head, id.pick(id_fit), ood.pick(ood_fit))
                id_after[id_judged] = fitted(id.x[id_judged]).argmax(1)
                ood_after[ood_judged] = fitted(ood.x[ood_judged]).argmax(1)
                labels = max(labels, repair.labels(ood.y[ood_fit]))
        return RepairEffect(
            own == id.y, id_after == id.y, other == ood.y, ood_after == ood.y, labels
        )  # fmt: skip


def _cross_fit_of(
    repair: HeadRepair, network: LogitsAdapter, id: Batch, *, seed: int = 0, batch_size: int = 64
) -> HeadCrossFit:
    """Prepare the measurement of a repair of a network's head.

    Args:
        repair: the repair.
        network: the network.
        id: ID inputs with labels and groups.
        seed: random seed of the halves.
        batch_size: number of examples in a forward pass.

    Source: ours, a repair is judged on examples that it was not fitted to.

    Raises:
        ValueError: the network has no linear head that can be replaced.
    """
    device = next((value.device for value in network.parameters()), torch.device("cpu"))
    head = head_of(network, find_head(network, id.x[:2].to(device)))
    return HeadCrossFit(repair, head, head_features(network, id, batch_size=batch_size), seed)


def matched_halves(
    id_y: Int[Tensor, " n"],
    ood_y: Int[Tensor, " m"],
    same: Int[Tensor, "pairs two"] | None = None,
    *,
    seed: int = 0,
) -> Halves:
    """Divide ID and OOD examples into halves, with about half of each class in both.

    Args:
        id_y: class indices of the ID examples.
        ood_y: class indices of the OOD examples.
        same: rows of ID and OOD examples with the same content; they are kept in one half.
        seed: random seed.

    Returns:
        The rows of ID and of OOD examples, for each half.

    Source: ours, halves with equal classes and groups, so that their heads are alike.

    >>> y = torch.tensor([0, 0, 1, 1])
    >>> (id_rows, ood_rows), _ = matched_halves(y, y, torch.arange(4)[:, None].expand(4, 2))
    >>> id_rows.equal(ood_rows), len(id_rows)
    (True, 2)
    """
    n, total = len(id_y), len(id_y) + len(ood_y)
    pairs = torch.empty(0, 2).long() if same is None else same.cpu().long()
    rows, columns = pairs[:, 0].numpy(), pairs[:, 1].numpy() + n
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(total, total))
    group = torch.from_numpy(connected_components(graph, directed=False)[1]).long()
    # A group counts by its first example; groups of pairs are divided apart from single ones.
    label = torch.cat([id_y, ood_y]).cpu()
    kind = torch.cat([torch.zeros(n), torch.ones(total - n)]).long()
    if len(pairs):
        kind[torch.cat([pairs[:, 0], pairs[:, 1] + n])] = 2
    order = torch.randperm(total, generator=generator_for(seed, "repair/halves"))
    order = order[(label + (1 + label.max()) * kind)[order].argsort(stable=True)]
    _, first = np.unique(group[order].numpy(), return_index=True)
    half_of_group = torch.empty(len(first), dtype=torch.long)
    half_of_group[torch.from_numpy(first.argsort(kind="stable"))] = torch.arange(len(first)) % 2
    half = half_of_group[group]
    one, two = (
        ((half[:n] == k).nonzero().flatten(), (half[n:] == k).nonzero().flatten()) for k in (0, 1)
    )
    return one, two


def _cross_fit_images(
    repair: ImageRepair,
    network: LogitsAdapter,
    data: tuple[Batch, Batch],
    halves: Halves,
    before: tuple[Tensor, Tensor],
    *,
    batch_size: int,
) -> RepairEffect:
    (id, ood), labels = data, 0
    id_after, ood_after = torch.empty_like(id.y), torch.empty_like(ood.y)
    for (id_fit, ood_fit), judged in (halves, halves[::-1]):
        fitted = repair.fit_network(
            network, id.pick(id_fit), ood.pick(ood_fit), batch_size=batch_size
        )
        for after, part, rows in zip((id_after, ood_after), data, judged, strict=True):
            after[rows] = predicted_classes(fitted, part.x[rows], batch_size=batch_size)
        labels = max(labels, repair.labels(ood.y[ood_fit]))
    return RepairEffect(
        before[0] == id.y, id_after == id.y, before[1] == ood.y, ood_after == ood.y, labels
    )
