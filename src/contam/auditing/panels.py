"""Pictures for an audit: the examples that changed most, and where the network finds its evidence.

An example that went wrong stands beside an ID example of the same class that the network got right,
both under heat of one scale, so that heat that is gone looks gone.
"""

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from contam.auditing.audit_inputs import AuditInputs, Sample
from contam.auditing.changes import STRENGTHS, altered, is_picture
from contam.auditing.layer_evidence import LayerEvidence
from contam.auditing.records import Example, LayerRecord, NeuronTable
from contam.auditing.single_pass import Look, picked
from contam.batch import Batch
from contam.measures.gradcam import (
    grad_cam,
    grad_cam_plus_plus,
    heat_maps,
    heat_on_object,
    heat_share,
    upsampled,
)
from contam.models.observe import observe
from contam.plots.heat import COVER, cividis

SIDE = 96
"""Pixels of a picture's longer side, at most."""
PAIRS = 4
"""Groups of examples that changed most."""
NEURONS = 3
"""Groups of examples that show a coupled neuron."""


@dataclass(frozen=True, eq=False)
class _Shown:
    """An example that is to be shown."""

    group: str
    data: str
    index: int
    x: Tensor
    """(channels, height, width)"""
    mask: Tensor | None
    """(height, width) where the object is."""
    y: int
    predicted: int
    note: str


def panels(
    subject: AuditInputs, inside: LayerEvidence
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """At most 22 pictures in groups of two, and sentences about what could not be shown.

    Groups called `changed 1` and so on hold the wrong answers of the highest loss on OOD data, or
    where there is none on changed ID pictures, each with its nearest ID look-alike. Groups called
    `neuron 1` and so on show the most coupled neurons of the last layer: where each fires most for
    its class, and where least.

    Source: ours, the heat maps of Fig. 6 for single examples.
    """
    if not inside.looks:
        return (), ()
    if not is_picture(next(iter(subject.id.domain.batches(1))).x):
        return (), ("No examples are shown: the inputs are no pictures.",)
    changed = [*(_changed if subject.ood else _under_changes)(subject, inside)]
    shown = [*changed, *_of_neurons(subject, inside)]
    left_out: list[str] = []
    heat: list[Tensor | None] = [None] * len(shown)
    if not changed:
        left_out.append("No example is shown that went wrong: there is none with a look-alike.")
    elif (found := _heat(subject, inside, changed)) is not None:
        heat[: len(changed)] = found
    else:
        left_out.append(
            "No heat maps: no layer with maps of several positions stands between the pictures and "
            "the answer, or its heat is not finite."
        )
    most: dict[str, float] = {}
    for each, own in zip(shown, heat, strict=True):
        if own is not None:
            most[each.group] = max(most.get(each.group, 0.0), float(own.max()))
    examples = tuple(
        _example(subject, each, own, most.get(each.group, 0.0))
        for each, own in zip(shown, heat, strict=True)
    )
    return examples, tuple(left_out)


def _changed(subject: AuditInputs, inside: LayerEvidence) -> Iterator[_Shown]:
    """Wrong answers to OOD examples, and ID look-alikes that were right."""
    own = inside.looks[subject.id.name]
    order = {
        sample.name: [row for row in _worst(inside.looks[sample.name])] for sample in subject.ood
    }
    turn, taken = 0, set()
    for place in range(max(map(len, order.values()), default=0)):
        for sample in subject.ood:
            rows = order[sample.name]
            if place >= len(rows) or turn == PAIRS:
                continue
            look, row = inside.looks[sample.name], rows[place]
            alike = _alike(own, look, row, taken)
            if alike is None:
                continue
            taken.add(alike)
            turn += 1
            group = f"changed {turn}"
            before, after = float(own.loss[alike]), float(look.loss[look.kept[row]])
            yield _shown(subject.id, own, alike, group, f"loss {before:.2f}")
            yield _shown(
                sample, look, int(look.kept[row]), group,
                f"loss {after:.2f}, {after - before:.2f} more than its look-alike's",
            )  # fmt: skip


def _worst(look: Look) -> list[int]:
    """Rows of kept examples that were wrong, the highest loss first, the classes in turn."""
    y, predicted, loss = look.y[look.kept], look.predicted[look.kept], look.loss[look.kept]
    rows = [k for k in loss.argsort(descending=True).tolist()
            if predicted[k] != y[k] and bool(loss[k].isfinite())]  # fmt: skip
    seen: dict[int, int] = {}
    turns = []
    for row in rows:
        turns.append(seen.get(int(y[row]), 0))
        seen[int(y[row])] = turns[-1] + 1
    return [row for _, row in sorted(zip(turns, rows, strict=True), key=lambda pair: pair[0])]


def _alike(own: Look, look: Look, row: int, taken: set[int]) -> int | None:
    """The right ID example of the same class that the last layer finds nearest."""
    y = own.y[own.kept]
    right = (y == look.y[look.kept[row]]) & (own.predicted[own.kept] == y)
    fresh = torch.tensor([int(k) not in taken for k in own.kept], dtype=torch.bool)
    rows = (right & fresh).nonzero().flatten()
    layers = [layer for layer in own.features if layer in look.features]
    if not len(rows):
        return None
    if not layers:
        return int(own.kept[rows[0]])
    here = look.features[layers[-1]][row].float()
    distance = (own.features[layers[-1]][rows].float() - here).square().sum(dim=1)
    return int(own.kept[rows[distance.argmin()]])


def _under_changes(subject: AuditInputs, inside: LayerEvidence) -> Iterator[_Shown]:
    """ID pictures whose loss grows most when they are changed, before and after."""
    if inside.shown is None or inside.picked is None or not inside.altered:
        return
    own, which = inside.looks[subject.id.name], inside.picked
    batch = next(iter(inside.shown.domain.batches(len(inside.shown))))
    before = own.loss[which]
    grown = torch.stack([look.loss - before for look in inside.altered.values()])
    wrong = torch.stack([look.predicted != look.y for look in inside.altered.values()])
    grown = grown.nan_to_num(0, 0, 0).masked_fill(
        ~wrong | (own.predicted[which] != own.y[which]), 0
    )
    worst, change = grown.max(dim=0)
    names = list(inside.altered)
    for turn, row in enumerate(worst.argsort(descending=True)[:PAIRS].tolist(), start=1):
        if worst[row] <= 0:
            return
        name, group = names[int(change[row])], f"changed {turn}"
        masks = inside.shown.masks
        # The whole batch, since what is shuffled is drawn for all of it.
        new = altered(batch.x, masks, name, STRENGTHS[-1], seed=subject.seed)[row]
        mask = None if masks is None else masks[row, 0] > 0.5
        index, y = int(which[row]), int(own.y[which[row]])
        told = (subject.id.name, index)
        yield _Shown(group, *told, batch.x[row], mask, y, int(own.predicted[index]),
                     f"loss {float(before[row]):.2f}")  # fmt: skip
        look = inside.altered[name]
        yield _Shown(group, *told, new, mask, y, int(look.predicted[row]),
                     f"{name}: loss {float(look.loss[row]):.2f}")  # fmt: skip


def _of_neurons(subject: AuditInputs, inside: LayerEvidence) -> Iterator[_Shown]:
    """For the most coupled neurons of the last layer, its class where it fires most and least."""
    own, table = inside.looks[subject.id.name], inside.neurons
    last = [layer for layer in own.features
            if all(layer in look.features for look in inside.looks.values())]  # fmt: skip
    if table is None or not last or not subject.ood:
        return
    turn = 0
    for index, favorite in _coupled(table, last[-1]):
        y = subject.classes.index(favorite)
        most = _extreme(own, last[-1], index, y, sign=1)
        least = [
            (sample, look, found)
            for sample in subject.ood
            if (found := _extreme(look := inside.looks[sample.name], last[-1], index, y, sign=-1))
        ]
        if most is None or not least:
            continue
        sample, look, (row, value) = min(least, key=lambda each: each[2][1])
        turn += 1
        group = f"neuron {turn}"
        name = f"neuron {index} of {last[-1]}"
        yield _shown(subject.id, own, most[0], group, f"{name} fires {most[1]:.3g}")
        yield _shown(sample, look, row, group, f"{name} fires {value:.3g}")
        if turn == NEURONS:
            return


def _coupled(table: NeuronTable, layer: str) -> Iterator[tuple[int, str]]:
    """Neurons of a layer that lose something, in the order of the table."""
    columns = zip(table.layer, table.index, table.favorite, table.attenuation, strict=True)
    return ((k, name) for where, k, name, lost in columns if where == layer and (lost or 0) > 0)


def _extreme(look: Look, layer: str, neuron: int, y: int, *, sign: int) -> tuple[int, float] | None:
    """The example of a class at which a neuron is highest, or lowest, and how high."""
    rows = (look.y[look.kept] == y).nonzero().flatten()
    if not len(rows):
        return None
    values = look.features[layer][rows, neuron].float()
    best = int((sign * values).argmax())
    return int(look.kept[rows[best]]), float(values[best])


def _shown(sample: Sample, look: Look, index: int, group: str, note: str) -> _Shown:
    one = picked(sample, torch.tensor([index]))
    mask = None if one.masks is None else one.masks[0, 0] > 0.5
    x = next(iter(one.domain.batches(1))).x[0].cpu()
    return _Shown(
        group, sample.name, index, x, mask, int(look.y[index]), int(look.predicted[index]), note
    )


def _heat(
    subject: AuditInputs, inside: LayerEvidence, shown: Sequence[_Shown]
) -> list[Tensor] | None:
    """The heat of each example's class at the last layer that has maps of several positions."""
    x = torch.stack([each.x for each in shown])
    y = torch.tensor([each.y for each in shown])
    modules = dict(subject.model.named_modules())
    for record in reversed(inside.layers):
        if record.name not in modules or not _has_maps(subject.model, x, y, record):
            continue
        # The first formula wants layers that are never negative.
        for formula in (grad_cam_plus_plus, grad_cam):
            try:
                found = heat_maps(subject.model, x, record.name, y, formula=formula)
            except ValueError:
                continue
            return list(found.cpu().float()) if found.isfinite().all() else None
    return None


def _has_maps(model: nn.Module, x: Tensor, y: Tensor, record: LayerRecord) -> bool:
    """Whether a layer gives (batch, neurons, height, width) with several positions."""
    shape: list[int] = []

    def read(output: Tensor) -> Tensor:
        shape[:] = output.shape[1:]
        return output.new_zeros(len(output), 0)

    list(observe(model, [Batch(x[:1], y[:1], y[:1])], [record.name], read))
    return len(shape) == 3 and shape[0] == record.neurons and max(shape[1:]) > 1


def _example(subject: AuditInputs, shown: _Shown, heat: Tensor | None, most: float) -> Example:
    on_object = of_heat = None
    if heat is not None and shown.mask is not None and bool(shown.mask.any()):
        inside = shown.mask[None]
        on_object = float(heat_on_object(heat[None], inside))
        of_heat = float(heat_share(heat[None], inside))
    return Example(
        data=shown.data,
        index=shown.index,
        label=subject.classes[shown.y],
        predicted=subject.classes[shown.predicted],
        picture=_picture(shown.x, None, 0.0),
        heat=None if heat is None else _picture(shown.x, heat, most),
        heat_on_object=on_object,
        heat_share=None if of_heat is None or math.isnan(of_heat) else of_heat,
        group=shown.group,
        note=shown.note,
    )


def _picture(
    x: Float[Tensor, "channels height width"],
    heat: Float[Tensor, "rows columns"] | None,
    most: float,
) -> str:
    """A picture, or it in gray under its heat, as WebP in base64.

    Heat is drawn from 0 to `most`.
    """
    colors = x.expand(3, -1, -1).permute(1, 2, 0).float().clamp(0, 1)
    drawn = colors.numpy()
    if heat is not None:
        over = upsampled(heat[None], (x.shape[1], x.shape[2]))[0] / (most or 1.0)
        gray = drawn.mean(axis=2, keepdims=True)
        drawn = COVER * cividis(over.clamp(0, 1).numpy()) + (1 - COVER) * gray
    image = Image.fromarray(np.rint(255 * drawn).astype(np.uint8))
    scale = SIDE / max(image.size)
    if scale < 1:
        width, height = (max(1, round(scale * edge)) for edge in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    file = BytesIO()
    image.save(file, "WEBP", quality=80)
    return base64.b64encode(file.getvalue()).decode()
