"""The neurons of a network under audit as a table, those with the largest loss first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.auditing.layer_tables import LayerTable
from contam.auditing.records import NeuronTable
from contam.measures.attenuation import neuron_attenuation


@dataclass(frozen=True, eq=False)
class NeuronColumns:
    """The neurons of one layer."""

    layer: str
    favorite: Int[Tensor, " neurons"]
    """Class with the highest mean activation on ID data."""
    columns: Float[Tensor, "neurons 5"]
    """Selectivity on ID and OOD, rate on ID and OOD, attenuation; nan where there is none."""
    loss: Float[Tensor, " neurons"]
    """Loss of squared class profile under the shift, relative to the layer's mean."""


def neuron_columns(
    layer: str,
    own: LayerTable,
    new: LayerTable | None,
    *,
    unchanged: LayerTable | None = None,
    rows: Int[Tensor, " classes"] | None = None,
) -> NeuronColumns:
    """Return the measures of each neuron of a layer.

    Args:
        layer: name of the layer.
        own: class means on ID data.
        new: class means on other data.
        unchanged: the examples of `new` before they were changed, if they are changed ID images.
        rows: row of each class in the tables, -1 without one; None if rows are classes.

    Source: ours, the measures of a layer for each neuron.

    >>> own, new = LayerTable.empty(2, 1), LayerTable.empty(2, 1)
    >>> y, zeros = torch.arange(4) % 2, torch.zeros(4).long()
    >>> for table, height in ((own, 4.0), (new, 1.0)):
    ...     mean = height * (y == 1)  # The neuron fires for class 1.
    ...     table.update(torch.stack([mean, mean > 0], dim=1)[..., None].float(), y, zeros, zeros)
    >>> columns = neuron_columns("conv1", own, new)
    >>> columns.favorite.tolist(), [round(float(value), 2) for value in columns.columns[0]]
    ([1], [0.33, 0.33, 0.5, 0.5, 0.75])
    """
    counts = own.means.counts
    means = own.means.sums / counts.clamp(min=1)[:, None]
    favorite = means.masked_fill(counts[:, None] == 0, -torch.inf).argmax(dim=0)
    if rows is not None:
        favorite = rows.argsort()[(rows < 0).sum() + favorite]
    unknown = torch.full_like(own.rate, torch.nan)
    attenuation, loss = unknown, torch.zeros_like(unknown)
    if new is not None:
        before = own if unchanged is None else unchanged
        estimates = neuron_attenuation(before.means, new.means, paired=unchanged is not None)
        attenuation, loss = estimates.attenuation, estimates.loss.nan_to_num(0, 0, 0)
    columns = [
        own.selectivity,
        unknown if new is None else new.selectivity,
        own.rate,
        unknown if new is None else new.rate,
        attenuation,
    ]
    return NeuronColumns(layer, favorite, torch.stack(columns, dim=1), loss)


def neuron_table(layers: Sequence[NeuronColumns], classes: tuple[str, ...]) -> NeuronTable | None:
    """Return all neurons in one table, sorted by their loss relative to their layer's mean.

    Neurons without an attenuation come last: their loss is little more than noise.

    Source: ours, the neurons with the largest part in the loss.

    >>> columns = torch.tensor([[0.5, 0.4, 0.3, 0.2, 0.1], [0.9, 0.1, 0.3, 0.2, 0.8]])
    >>> layer = NeuronColumns("conv1", torch.tensor([0, 1]), columns, torch.tensor([0.2, 1.8]))
    >>> table = neuron_table([layer], ("cow", "camel"))
    >>> table.index, table.favorite  # Neuron 1 loses the most.
    ((1, 0), ('camel', 'cow'))
    """
    if not layers:
        return None
    sizes = [len(part.favorite) for part in layers]
    loss = torch.cat([part.loss for part in layers])
    columns = torch.cat([part.columns for part in layers])
    loss = loss.masked_fill(columns[:, -1].isnan(), -torch.inf)
    order = loss.argsort(descending=True, stable=True)
    layer = torch.repeat_interleave(torch.arange(len(layers)), torch.tensor(sizes))[order].tolist()
    index = torch.cat([torch.arange(size) for size in sizes])[order].tolist()
    favorite = torch.cat([part.favorite for part in layers])[order].tolist()
    own, new, rate, new_rate, attenuation = (
        tuple(_rounded(value) for value in column) for column in columns[order].T.tolist()
    )
    return NeuronTable(
        layer=tuple(layers[k].layer for k in layer),
        index=tuple(index),
        favorite=tuple(classes[k] for k in favorite),
        selectivity_id=tuple(0.0 if value is None else value for value in own),
        selectivity_ood=new,
        rate_id=tuple(0.0 if value is None else value for value in rate),
        rate_ood=new_rate,
        attenuation=attenuation,
    )


def _rounded(value: float) -> float | None:
    """Four digits, which keeps files small; None for nan."""
    return None if math.isnan(value) else float(f"{value:.4g}")
