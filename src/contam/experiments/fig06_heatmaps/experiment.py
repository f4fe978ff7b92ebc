"""Heat maps while the background shifts: on ID images, on OOD images, and between."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from contam.batch import Domain
from contam.experiment import Experiment, Stage
from contam.experiments.fig06_heatmaps.claims import claims, summarize
from contam.experiments.fig06_heatmaps.config import (
    LAPTOP,
    PAPER,
    SMOKE,
    STRENGTHS,
    Config,
)
from contam.experiments.fig06_heatmaps.figures import draw
from contam.experiments.fig06_heatmaps.heat import (
    BATCH,
    PLUS,
    SMALL_BATCH,
    ScoredNetwork,
    heat_layers,
    observe_heat,
    unchanged,
)
from contam.experiments.fig06_heatmaps.images import (
    ChangedImages,
    changed_images,
    eight_bits,
    natural_tests,
    pictured,
)
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import TEACHER, NetworkSpec
from contam.experiments.support.per_network import contiguous, measure_each, null
from contam.measures.class_means import ClassMeans
from contam.measures.selectivity import selectivity
from contam.run import Run

KEPT = 40
"""Objects of the controlled shift whose heat is stored, to choose one for a figure."""

Measured = tuple[list[dict[str, Any]], dict[str, Tensor]]
"""Rows and arrays of a network."""


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the missing networks, and compute the heat maps of each."""
    yield from measure_each(
        run, config.networks, config.seeds, partial(_measure, config), chosen=config.specs
    )


def _measure(config: Config, zoo: ModelZoo, spec: NetworkSpec) -> Measured:
    """Heat on natural tests, and under the controlled shifts of the data."""
    rows, arrays = _natural(config, zoo, spec)
    for shift in config.shifts:
        changed = changed_images(config, zoo, spec, shift)
        more_rows, more_arrays = _shifted(zoo, spec, shift, changed)
        rows, arrays = rows + more_rows, arrays | more_arrays
    return rows, arrays


def _natural(config: Config, zoo: ModelZoo, spec: NetworkSpec) -> Measured:
    """Predictions and heat on the ID test and on every OOD test, with a few images of them."""
    rows: list[dict[str, Any]] = []
    pictures, heat = [], []
    layers: dict[str, str] = {}
    tests = natural_tests(config, zoo, spec)
    for index, test in enumerate(tests):
        model = ScoredNetwork(zoo.network(spec), test.scores)
        layers = layers or {"last": heat_layers(model, test.images)["last"]}
        observed = observe_heat(model, test.images, layers)
        where = {"set": "natural", "role": test.role, "test": test.images.name}
        rows += [where | row for row in [observed.answers, *observed.heated(test.mask)]]
        which = pictured(index, len(tests) - 1, config.images) % len(test.images)
        if len(which):
            few = test.images.pick(which)
            shown = observe_heat(model, few, layers)
            for y, predicted in zip(shown.y.tolist(), shown.predicted.tolist(), strict=True):
                answer = {"class": test.classes[y], "predicted": test.classes[predicted]}
                rows.append(where | {"what": "shown"} | answer)
            pictures += [eight_bits(x) for x in few.data.x]
            heat.append(shown.heat["last", PLUS])
    return rows, {"pictures": torch.stack(pictures), "heat": torch.cat(heat)}


def _shifted(zoo: ModelZoo, spec: NetworkSpec, shift: str, changed: ChangedImages) -> Measured:
    """Predictions, selectivity and heat on the same objects while the image changes."""
    model = ScoredNetwork(zoo.network(spec), unchanged)
    rows: list[dict[str, Any]] = [{"set": shift, "what": "names", "names": list(changed.classes)}]
    heat, predicted, pictures = [], [], []
    layers: dict[str, str] = {}
    size = SMALL_BATCH if changed.mask is None else BATCH
    for strength in STRENGTHS:
        batch = changed.at(strength)
        images = Domain(f"{shift} of {strength}", batch)
        layers = layers or heat_layers(model, images)
        observed = observe_heat(model, images, layers, size)
        y = contiguous(observed.y)
        means = ClassMeans(int(y.max()) + 1, observed.features.shape[1])
        means.update(observed.features, y)
        prefers = {"selectivity": float(selectivity(means.compute()).mean())}
        where = {"set": shift, "strength": strength}
        few = [observed.answers | prefers, *observed.heated(changed.mask)]
        rows += [where | row for row in few]
        heat.append(observed.heat["last", PLUS][:KEPT])
        predicted.append(observed.predicted[:KEPT])
        pictures.append(torch.stack([eight_bits(x) for x in batch.x[:KEPT]]))
    arrays = {"heat": torch.stack(heat), "predicted": torch.stack(predicted)}
    if spec == TEACHER:
        arrays |= {"pictures": torch.stack(pictures), "y": batch.y[:KEPT]}
    return rows, {f"{shift}_{name}": values for name, values in arrays.items()}


EXPERIMENT = Experiment(
    name="fig06_heatmaps",
    title="Heat maps: the object's heat falls when the background shifts",
    about="A heat map shows how much each position of an image supports its class. Heat maps are "
    "drawn for a teacher, its student and a standard network: on natural shifts, and on objects "
    "that do not change while their background does, or in the style of an OOD background, with "
    "masks of the objects. The third part of the figure is `fig13_padded_cifar`.",
    reproduces=("Fig. 6",),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: Fig. 6."""
