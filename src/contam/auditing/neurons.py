"""The neurons of a network under audit, as rows of a table that the most coupled ones lead."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.auditing.records import NeuronTable
from contam.auditing.single_pass import Table
from contam.measures.attenuation import neuron_attenuation
from contam.measures.class_means import ClassMeans


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


def rows_of(
    layer: str, own: Table, new: Table | None, *, baseline: ClassMeans | None = None
) -> Rows:
    """Return the neurons of a layer on ID data and, if there are any, on other data.

    Args:
        layer: Name of the layer.
        own: The layer on ID data.
        new: The layer on other data.
        baseline: The layer on those ID examples of which `new` has altered copies, if it does.

    Source: ours, the measures of a layer for each neuron alone.
    """
    count = own.means.counts[:, None]
    means = (own.means.sums / count.clamp(min=1)).masked_fill(count == 0, -torch.inf)
    unknown = torch.full_like(own.rate, torch.nan)
    attenuation, lost = unknown, torch.zeros_like(unknown)
    if new is not None:
        paired = baseline is not None
        effect = neuron_attenuation(baseline if paired else own.means, new.means, paired=paired)
        attenuation, lost = effect.attenuation, effect.loss.nan_to_num(0, 0, 0)
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
