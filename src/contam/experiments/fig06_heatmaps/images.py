"""The images whose heat is measured: natural tests, and objects under a controlled shift."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from contam.batch import Batch, Domain
from contam.data.backgrounds import OOD
from contam.data.images import FolderDomain
from contam.data.shapes import CLASSES, splits
from contam.data.style_transfer import restyled
from contam.experiments.fig06_heatmaps.config import SHIFTS, Config
from contam.experiments.fig06_heatmaps.heat import SMALL_BATCH, unchanged
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import NetworkSpec
from contam.models.preparation import Preparation
from contam.rng import generator_for

SHOWN = 4
"""ID images, and OOD images, in the figure of natural shifts."""


class HeatmapTest(NamedTuple):
    """Images of a natural test, with their classes and masks."""

    role: str
    images: Domain
    classes: Sequence[str]
    scores: Callable[[Tensor], Tensor]
    mask: Tensor | None
    """(n, height, width) True on the object."""


def natural_tests(config: Config, zoo: ModelZoo, spec: NetworkSpec) -> list[HeatmapTest]:
    """The ID test, and the OOD tests."""
    if config.networks.masked:
        return embedded_tests(config, zoo)
    return _published_tests(config, zoo, spec)


def embedded_tests(config: Config, zoo: ModelZoo) -> list[HeatmapTest]:
    """The embedded benchmark's ID test, and its OOD tests with the same objects in the same order.

    Source: ours, the same objects in all tests, so that only backgrounds differ.
    """
    # Nothing is trained on these images, so the training and validation splits are minimal.
    scenes = splits(
        zoo.seed, train=40, id_val=40, id_test=len(OOD) * config.images, ood_test=config.images
    )
    tests = []
    for key, name in [("id_test", "ID"), *((f"ood/{name}", name) for name in OOD)]:
        role, mask = "id" if name == "ID" else "ood", scenes[key].mask[:, 0] > 0.5
        tests.append(HeatmapTest(role, Domain(name, scenes[key].batch), CLASSES, unchanged, mask))
    return tests


def _published_tests(config: Config, zoo: ModelZoo, spec: NetworkSpec) -> list[HeatmapTest]:
    """Images of a published benchmark, drawn from its tests."""
    benchmark = zoo.benchmark(spec)
    own, ood = benchmark.shift.id_test, benchmark.shift.ood_tests
    names = benchmark.shift.classes
    tests = []
    for test in (own, *ood):
        count = config.images * (len(ood) if test is own else 1)
        order = torch.randperm(len(test), generator=generator_for(zoo.seed, f"heat/{test.name}"))
        # Tests of some of the classes number them differently.
        classes = [str(k) for k in range(len(names))] if test.name in benchmark.scorings else names
        role, images = "id" if test is own else "ood", test.pick(order[:count])
        tests.append(HeatmapTest(role, images, classes, partial(benchmark.scores, test), None))
    return tests


def pictured(index: int, ood: int, images: int) -> Tensor:
    """Return the indices of the images of a test that a figure shows.

    The OOD tests take turns, and the ID test shows the same objects.

    Args:
        index: index of the test; 0 is the ID test.
        ood: number of OOD tests.
        images: images of each OOD test.

    Source: ours, a figure shows the same objects in all tests.

    >>> pictured(1, 2, 40).tolist()
    [0, 2]
    """
    turns = range(SHOWN)
    if index == 0:
        places = [k % ood * images + k for k in turns]
    else:
        places = [k for k in turns if k % ood == index - 1]
    return torch.tensor(places, dtype=torch.int64)


class ChangedImages(NamedTuple):
    """The same objects while the image changes."""

    at: Callable[[float], Batch]
    """The images at a strength."""
    mask: Tensor | None
    """(n, height, width) True on the object."""
    classes: Sequence[str]


def changed_images(config: Config, zoo: ModelZoo, spec: NetworkSpec, shift: str) -> ChangedImages:
    """The objects of a controlled shift: drawn, or photos of a published benchmark."""
    if not config.networks.masked:
        return _restyled(config, zoo, spec)
    draw = partial(SHIFTS[shift].draw, zoo.seed, n=config.objects)
    mask = draw(0.0).mask[:, 0] > 0.5
    return ChangedImages(lambda strength: draw(strength).batch, mask, CLASSES)


def _restyled(config: Config, zoo: ModelZoo, spec: NetworkSpec) -> ChangedImages:
    """ID images of a published benchmark in the style of OOD images."""
    own, *others = _published_tests(config, zoo, spec)
    images = _whole(own.images.pick(torch.arange(min(config.images, len(own.images)))))
    styles = torch.cat([_whole(test.images).x for test in others])
    order = torch.randperm(len(styles), generator=generator_for(zoo.seed, "heat/styles"))
    styles = styles[order[torch.arange(len(images.y)) % len(styles)]]
    transform = own.images.transform if isinstance(own.images, FolderDomain) else None
    colors = (transform.mean, transform.std) if isinstance(transform, Preparation) else (0.0, 1.0)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in colors)

    def at(strength: float) -> Batch:
        # The statistics are those of pixels in [0, 1], not of normalized colors.
        content, style = ((x * std + mean).clamp(0, 1) for x in (images.x, styles))
        return images._replace(x=(restyled(content, style, strength) - mean) / std)

    return ChangedImages(at, None, own.classes)


def _whole(domain: Domain) -> Batch:
    """All examples of a domain in one batch."""
    return Batch(*map(torch.cat, zip(*domain.batches(SMALL_BATCH), strict=True)))


def eight_bits(x: Tensor) -> Tensor:
    """Convert a network's input to eight bits; values outside [0, 1] stretch the scale.

    Source: ours, pictures are stored as bytes, because a run has many.

    >>> eight_bits(torch.tensor([-1.0, 0.0, 3.0])).tolist()
    [0, 64, 255]
    """
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 1.0)
    return ((x - low) / (high - low) * 255).round().to(torch.uint8)
