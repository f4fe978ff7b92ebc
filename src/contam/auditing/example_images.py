"""Images for the page: examples that fail after the shift, and where the network looks.

A misclassified example is shown beside an ID example of the same class that is classified
correctly, both under heat maps of one scale, so that missing heat can be seen.
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
from torch import Tensor

from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.audited_layers import layers_with_positions
from contam.auditing.layers import LayerEvidence
from contam.auditing.passes import Passes
from contam.auditing.records import Example, NeuronTable
from contam.auditing.single_pass import PassResult
from contam.inputs.input_set import InputSet
from contam.measures.gradcam import (
    grad_cam,
    grad_cam_plus_plus,
    heat_maps,
    heat_on_object,
    heat_share,
    upsampled,
)
from contam.models.preserve import preserve_model
from contam.plots.heat import COVER, cividis

SIDE = 96
"""Pixels of an image's longer side, at most."""
PAIRS = 4
"""Groups of examples that fail after the shift, at most."""
NEURONS = 3
"""Groups of examples that show a neuron, at most."""


@dataclass(frozen=True, eq=False)
class _Chosen:
    """An example that was chosen for the page."""

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


def example_images(
    passes: Passes, evidence: LayerEvidence
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Return at most 22 images in groups of two, and sentences about what could not be shown.

    The first groups hold the misclassified OOD examples with the highest loss, or changed ID images
    without an OOD set, each beside the nearest correct ID example of its class. Further groups show
    the neurons of the last layer with the largest loss: the example at which each fires most for
    its class on ID data, and least on OOD data.

    Args:
        passes: results of `run_passes`.
        evidence: the records of layers and neurons.

    Source: ours, the heat maps of Fig. 6 for single examples.
    """
    inputs = passes.inputs
    if not passes.id.images:
        return (), ("No examples are shown: the inputs are not images.",)
    failing = [*(_failing if inputs.ood else _failing_when_changed)(passes)]
    chosen = [*failing, *_of_neurons(passes, evidence)]
    left_out: list[str] = []
    heat: list[Tensor | None] = [None] * len(chosen)
    maps = None
    if failing:
        with preserve_model(inputs.model):
            # Gradients are needed with respect to the maps alone, which saves time and memory.
            inputs.model.requires_grad_(False)
            maps = _heat(inputs, evidence, failing)
    if not failing:
        left_out.append(
            "No misclassified example is shown: none has a correct ID example of its class to "
            "compare with."
        )
    elif maps is not None:
        heat[: len(failing)] = maps
    else:
        left_out.append(
            "No heat maps: no layer with maps of several positions lies between the images and the "
            "logits, or its heat is not finite."
        )
    most: dict[str, float] = {}
    for example, own in zip(chosen, heat, strict=True):
        if own is not None:
            most[example.group] = max(most.get(example.group, 0.0), float(own.max()))
    examples = tuple(
        _example(inputs, example, own, most.get(example.group, 0.0))
        for example, own in zip(chosen, heat, strict=True)
    )
    return examples, tuple(left_out)


def _failing(passes: Passes) -> Iterator[_Chosen]:
    """Misclassified OOD examples, and similar ID examples that are correct."""
    inputs, own = passes.inputs, passes.id
    worst = {sample.name: _highest_loss(passes.sets[sample.name]) for sample in inputs.ood}
    groups: list[str] = []
    taken: set[int] = set()
    for place in range(max(map(len, worst.values()), default=0)):
        for sample in inputs.ood:
            if place >= len(worst[sample.name]) or len(groups) == PAIRS:
                continue
            result, row = passes.sets[sample.name], worst[sample.name][place]
            similar = _similar(own, result, row, taken)
            if similar is None:
                continue
            taken.add(similar)
            index = int(result.kept[row])
            label = inputs.classes[int(result.y[index])]
            group = _numbered(f"“{label}” fails after the shift", groups)
            before, after = float(own.loss[similar]), float(result.loss[index])
            yield _choose(inputs.id, own, similar, group, f"Loss {before:.2f} nats.")
            yield _choose(
                sample, result, index, group,
                f"Loss {after:.2f} nats, {after - before:.2f} more than on the ID example.",
            )  # fmt: skip


def _numbered(title: str, groups: list[str]) -> str:
    """The title, with a number if it is taken."""
    titles = (title if k == 1 else f"{title} ({k})" for k in range(1, len(groups) + 2))
    groups.append(next(name for name in titles if name not in groups))
    return groups[-1]


def _highest_loss(result: PassResult) -> list[int]:
    """Rows of the kept examples that are misclassified: highest loss first, classes in turn."""
    y, predicted, loss = (
        values[result.kept] for values in (result.y, result.predicted, result.loss)
    )
    taken: dict[int, int] = {}
    turns = []
    for row in loss.argsort(descending=True).tolist():
        if predicted[row] != y[row] and bool(loss[row].isfinite()):
            label = int(y[row])
            turns.append((taken.get(label, 0), row))
            taken[label] = turns[-1][0] + 1
    return [row for _, row in sorted(turns, key=lambda turn: turn[0])]


def _similar(own: PassResult, result: PassResult, row: int, taken: set[int]) -> int | None:
    """The correct ID example of the same class whose features in the last layer are nearest."""
    y = own.y[own.kept]
    correct = (y == result.y[result.kept[row]]) & own.correct[own.kept]
    fresh = torch.tensor([int(k) not in taken for k in own.kept], dtype=torch.bool)
    rows = (correct & fresh).nonzero().flatten()
    layers = [layer for layer in own.features if layer in result.features]
    if not len(rows):
        return None
    if not layers:
        return int(own.kept[rows[0]])
    here = result.features[layers[-1]][row].float()
    distance = (own.features[layers[-1]][rows].float() - here).square().sum(dim=1)
    return int(own.kept[rows[distance.argmin()]])


def _failing_when_changed(passes: Passes) -> Iterator[_Chosen]:
    """ID images whose loss grows most when they are changed, before and after."""
    if not passes.changed:
        return
    inputs, own, rows = passes.inputs, passes.id, passes.changed_rows
    before = own.loss[rows]
    growth = torch.stack([result.loss - before for result in passes.changed.values()])
    fails = torch.stack([~result.correct for result in passes.changed.values()])
    growth = growth.nan_to_num(0, 0, 0).masked_fill(~fails | ~own.correct[rows], 0)
    worst, change = growth.max(dim=0)
    names, groups = list(passes.changed), []
    for row in worst.argsort(descending=True)[:PAIRS].tolist():
        if worst[row] <= 0:
            return
        name, index, y = names[int(change[row])], int(rows[row]), int(own.y[rows[row]])
        group = _numbered(f"“{inputs.classes[y]}” fails when changed: {name}", groups)
        mask = None if inputs.id.masks is None else inputs.id.masks[index, 0] > 0.5
        yield _Chosen(
            group, inputs.id.name, index, passes.changed_inputs[""].x[row], mask, y,
            int(own.predicted[index]), f"Loss {float(before[row]):.2f} nats.",
        )  # fmt: skip
        result = passes.changed[name]
        yield _Chosen(
            group, inputs.id.name, index, passes.changed_inputs[name].x[row], mask, y,
            int(result.predicted[row]), f"Loss {float(result.loss[row]):.2f} nats when changed.",
        )  # fmt: skip


def _of_neurons(passes: Passes, evidence: LayerEvidence) -> Iterator[_Chosen]:
    """Examples at which neurons of the last layer fire most on ID data and least on OOD data."""
    inputs, own, table = passes.inputs, passes.id, evidence.neurons
    shared = [
        layer
        for layer in own.features
        if all(layer in result.features for result in passes.sets.values())
    ]
    if table is None or not shared or not inputs.ood:
        return
    layer, groups = shared[-1], []
    for index, favorite in _affected(table, layer):
        y = inputs.classes.index(favorite)
        most = _extreme(own, layer, index, y, sign=1)
        least = [
            (sample, extreme)
            for sample in inputs.ood
            if (extreme := _extreme(passes.sets[sample.name], layer, index, y, sign=-1))
        ]
        if most is None or not least:
            continue
        sample, (row, value) = min(least, key=lambda pair: pair[1][1])
        group = _numbered(f"Neuron {index} fires less for “{favorite}”", groups)
        name = f"Neuron {index} of {layer}"
        yield _choose(inputs.id, own, most[0], group, f"{name}: mean activation {most[1]:.3g}")
        yield _choose(
            sample, passes.sets[sample.name], row, group, f"{name}: mean activation {value:.3g}"
        )
        if len(groups) == NEURONS:
            return


def _affected(table: NeuronTable, layer: str) -> Iterator[tuple[int, str]]:
    """Neurons of a layer with a positive attenuation, in the order of the table."""
    columns = zip(table.layer, table.index, table.favorite, table.attenuation, strict=True)
    return ((k, name) for where, k, name, lost in columns if where == layer and (lost or 0) > 0)


def _extreme(
    result: PassResult, layer: str, neuron: int, y: int, *, sign: int
) -> tuple[int, float] | None:
    """The example of a class at which a neuron is highest or lowest, and its activation."""
    rows = (result.y[result.kept] == y).nonzero().flatten()
    if not len(rows):
        return None
    values = result.features[layer][rows, neuron].float()
    best = int((sign * values).argmax())
    return int(result.kept[rows[best]]), float(values[best])


def _choose(sample: InputSet, result: PassResult, index: int, group: str, note: str) -> _Chosen:
    one = sample.pick(torch.tensor([index]))
    mask = None if one.masks is None else one.masks[0, 0] > 0.5
    x = next(iter(one.domain.batches(1))).x[0].cpu()
    return _Chosen(
        group, sample.name, index, x, mask, int(result.y[index]), int(result.predicted[index]), note
    )


def _heat(
    inputs: AuditInputs, evidence: LayerEvidence, chosen: Sequence[_Chosen]
) -> list[Tensor] | None:
    """Grad-CAM of each example's class at the last layer with maps of several positions."""
    x = torch.stack([example.x for example in chosen])
    y = torch.tensor([example.y for example in chosen])
    modules = dict(inputs.model.named_modules())
    device = next((value.device for value in inputs.model.parameters()), torch.device("cpu"))
    # Of a layer that runs several times, heat maps show the last run, which has the plain name.
    plain = [record.name.partition("#")[0] for record in reversed(evidence.layers)]
    names = [name for name in dict.fromkeys(plain) if name in modules]
    for layer in layers_with_positions(inputs.model, x[:1].to(device), names):
        # The first formula requires layers that are never negative.
        for formula in (grad_cam_plus_plus, grad_cam):
            size, parts = len(x), []
            while sum(map(len, parts)) < len(x):
                here = slice(done := sum(map(len, parts)), done + size)
                try:
                    part = heat_maps(inputs.model, x[here], layer, y[here], formula=formula)
                except torch.OutOfMemoryError:
                    if size == 1:
                        return None
                    size //= 2
                    continue
                except ValueError:
                    break
                parts.append(part.cpu().float())
            else:
                heat = torch.cat(parts)
                return list(heat) if heat.isfinite().all() else None
    return None


def _example(inputs: AuditInputs, chosen: _Chosen, heat: Tensor | None, most: float) -> Example:
    on_object = of_heat = None
    if heat is not None and chosen.mask is not None and bool(chosen.mask.any()):
        mask = chosen.mask[None]
        on_object = float(heat_on_object(heat[None], mask))
        of_heat = float(heat_share(heat[None], mask))
    return Example(
        data=chosen.data,
        index=chosen.index,
        label=inputs.classes[chosen.y],
        predicted=inputs.classes[chosen.predicted],
        picture=_encoded(chosen.x, None, 0.0),
        heat=None if heat is None else _encoded(chosen.x, heat, most),
        heat_on_object=on_object,
        heat_share=None if of_heat is None or math.isnan(of_heat) else of_heat,
        group=chosen.group,
        note=chosen.note,
    )


def _encoded(
    x: Float[Tensor, "channels height width"],
    heat: Float[Tensor, "rows columns"] | None,
    most: float,
) -> str:
    """The image, or the image in gray under its heat from 0 to `most`, as WebP in base64."""
    colors = x.expand(3, -1, -1).permute(1, 2, 0).float().clamp(0, 1).numpy()
    image = Image.fromarray(np.rint(255 * colors).astype(np.uint8))
    scale = SIDE / max(image.size)
    if scale < 1:
        width, height = (max(1, round(scale * edge)) for edge in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    if heat is not None:
        over = upsampled(heat[None], (image.height, image.width))[0] / (most or 1.0)
        gray = np.asarray(image, dtype=np.float32).mean(axis=2, keepdims=True) / 255
        mixed = COVER * cividis(over.clamp(0, 1).numpy()) + (1 - COVER) * gray
        image = Image.fromarray(np.rint(255 * mixed).astype(np.uint8))
    file = BytesIO()
    image.save(file, "WEBP", quality=80)
    return base64.b64encode(file.getvalue()).decode()
