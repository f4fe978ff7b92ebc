"""The neurons of a network under audit, as rows of a table that the most coupled ones lead."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.auditing.coupling import Sums, neurons_lost
from contam.auditing.records import NeuronTable
from contam.measures.selectivity import selectivity


@dataclass(frozen=True, eq=False)
class Rows:
    """The neurons of one layer."""

    layer: str
    favorite: Int[Tensor, " neurons"]
    """The class of the highest ID mean."""
    columns: Float[Tensor, "neurons columns"]
    """Selectivity ID and OOD, rate ID and OOD, attenuation; nan where there is none."""
    lost: Float[Tensor, " neurons"]
    """What a shift takes of the class profile, beside what a neuron of the layer has."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a layer did, over all examples of one or several data sets."""

    sums: Sums
    fires: Float[Tensor, "classes neurons"]

    def __add__(self, other: "Seen") -> "Seen":
        sums = Sums(self.sums.values + other.sums.values, self.sums.counts + other.sums.counts)
        return Seen(sums, self.fires + other.fires)

    @property
    def selectivity(self) -> Float[Tensor, " neurons"]:
        """Eq. 61 on the classes that were seen; nan for fewer than two.

        Means below zero count as zero, without which the ratio has a pole for GELU neurons.
        """
        seen = self.sums.counts > 0
        means = self.sums.values[seen] / self.sums.counts[seen][:, None]
        if len(means) < 2:
            return means.new_full(means.shape[1:], torch.nan)
        return selectivity(means.clamp(min=0))

    @property
    def rate(self) -> Float[Tensor, " neurons"]:
        """The share of positions, over all examples, at which each neuron is positive."""
        return self.fires.sum(dim=0) / self.sums.counts.sum()


def rows_of(
    layer: str,
    own: Seen,
    new: Seen | None,
    *,
    baseline: Sums | None = None,
    noise: Float[Tensor, " neurons"] | float = 0.0,
) -> Rows:
    """A layer's neurons on ID data and, where there are any, on other data.

    `baseline` is what the other data are altered copies of, if they are that.

    Source: ours, the measures of a layer for each neuron alone.
    """
    counts = own.sums.counts.clamp(min=1)[:, None]
    means = (own.sums.values / counts).masked_fill(own.sums.counts[:, None] == 0, -torch.inf)
    unknown = torch.full_like(own.rate, torch.nan)
    attenuation, lost = unknown, torch.zeros_like(unknown)
    if new is not None:
        found = neurons_lost(baseline or own.sums, new.sums, noise)
        attenuation, lost = found.attenuation, found.lost.nan_to_num(0, 0, 0)
    columns = [
        own.selectivity,
        unknown if new is None else new.selectivity,
        own.rate,
        unknown if new is None else new.rate,
        attenuation,
    ]
    return Rows(layer, means.argmax(dim=0), torch.stack(columns, dim=1), lost)


def table_of(rows: Sequence[Rows], classes: tuple[str, ...], *, most: int) -> NeuronTable | None:
    """At most so many neurons, those first whose loss is largest beside their layer's average.

    Source: ours, the neurons that are coupled most.
    """
    if not rows:
        return None
    sizes = [len(each.favorite) for each in rows]
    lost = torch.cat([each.lost for each in rows])
    order = lost.argsort(descending=True, stable=True)[:most]
    layer = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(sizes))[order].tolist()
    index = torch.cat([torch.arange(size) for size in sizes])[order].tolist()
    favorite = torch.cat([each.favorite for each in rows])[order].tolist()
    columns = torch.cat([each.columns for each in rows])[order]
    own, new, rate, new_rate, attenuation = (
        tuple(rounded(value) for value in column) for column in columns.T.tolist()
    )
    return NeuronTable(
        layer=tuple(rows[k].layer for k in layer),
        index=tuple(index),
        favorite=tuple(classes[k] for k in favorite),
        selectivity_id=tuple(0.0 if value is None else value for value in own),
        selectivity_ood=new,
        rate_id=tuple(0.0 if value is None else value for value in rate),
        rate_ood=new_rate,
        attenuation=attenuation,
        total=sum(sizes),
    )


def rounded(value: float) -> float | None:
    """Four digits: more would make the files large, and no plainer. None for nan."""
    return None if math.isnan(value) else float(f"{value:.4g}")
