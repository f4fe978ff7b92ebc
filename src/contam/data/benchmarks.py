"""Published OOD benchmarks by name, each with its protocol.

A benchmark is a `Shift` with what the published protocols differ in: the classes of each OOD test,
the metric, the data for model selection, and how images are resized and augmented.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from contam.batch import Domain, Shift
from contam.data.domainnet import domainnet
from contam.data.imagenet import imagenet, natural_tests
from contam.data.images import (
    Augmentation,
    Transform,
    cropped_and_flipped,
    domainbed_augmentation,
)
from contam.data.layout import check
from contam.data.pacs import pacs
from contam.data.wilds import WILDS

Kind = Literal["shapes", "imagenet", "iwildcam", "camelyon17", "domainnet", "pacs"]
Metric = Literal["accuracy", "macro F1"]

SHOWN = 8
"""Maximum number of problems that an error message lists."""


@dataclass(frozen=True)
class Protocol:
    """How a benchmark's images are resized for a network, and augmented for its training.

    The colors are always normalized as the network's weights need it.
    """

    side: int | None = None
    """Pixels of the square input; None takes the network's own."""
    squash: bool = False
    """Whether images are resized to the square (bilinear) at any aspect ratio, and not cropped."""
    augmentation: Callable[[int], Augmentation] | None = None
    """From the side to the random change of images in distillation and supervised training."""
    augmented_probes: bool = False
    """Whether probes that learn from minibatches get augmented images, too."""


PROTOCOLS: Mapping[Kind, Protocol] = {
    "shapes": Protocol(),
    "imagenet": Protocol(augmentation=cropped_and_flipped),
    "iwildcam": Protocol(side=448, squash=True),
    "camelyon17": Protocol(),
    "domainnet": Protocol(squash=True, augmentation=domainbed_augmentation, augmented_probes=True),
    "pacs": Protocol(squash=True, augmentation=domainbed_augmentation),
}
"""The published protocols.

ImageNet has the augmentation of the published code, since the paper describes none. The paper
refers to the WILDS repository, which augments neither iWildCam nor Camelyon17, and to DomainBed for
DomainNet. It says nothing about PACS, which has DomainBed's protocol here.

Source: App. E.1, App. E.2, App. E.3, App. E.4.
"""


@dataclass(frozen=True)
class Benchmark:
    """A shift with its protocol of model selection and evaluation."""

    shift: Shift
    chosen_on: Domain
    """Data for selecting a probe's epoch or penalty."""
    metric: Metric = "accuracy"
    scorings: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """Functions from logits to class scores, for OOD tests with a subset of the classes."""

    def scores(
        self, test: Domain, logits: Float[Tensor, "batch all"]
    ) -> Float[Tensor, "batch classes"]:
        """Return a test's class scores from the logits; the prediction is the largest."""
        scoring = self.scorings.get(test.name)
        return logits if scoring is None else scoring(logits)


def on_disk(kind: Kind, folder: Path, transform: Transform, *, seed: int = 0) -> Benchmark:
    """Read a published benchmark from a folder.

    As published, probes are selected on ImageNet's validation set, which is also its ID test, and
    on the OOD validation set of the WILDS benchmarks.

    Args:
        kind: name of the benchmark.
        folder: the folder of its files.
        transform: function from a Pillow image to a tensor.
        seed: random seed of splits.

    Raises:
        ValueError: a part of the data set is missing or wrong; the message lists what and where.

    Source: App. E.1, App. E.2, App. E.3, App. E.4, App. G.1.

    >>> from contam.data.images import pixels
    >>> on_disk("pacs", Path("nowhere"), pixels)
    Traceback (most recent call last):
        ...
    ValueError: nowhere is not a complete pacs: missing ...
    """
    contents = check(kind, folder)
    faults = [*(f"missing {part}" for part in contents.missing), *contents.wrong]
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ValueError(
            f"{folder} is not a complete {kind}: {'; '.join(faults[:SHOWN])}{more}. "
            f"Nothing is downloaded: put the data there, check it with "
            f"'contam data check {kind} {folder}', and run again"
        )
    if kind == "imagenet":
        return _imagenet(folder, transform)
    if kind in ("domainnet", "pacs"):
        shift = (domainnet if kind == "domainnet" else pacs)(folder, transform, seed=seed)
        return Benchmark(shift, _validation(shift))
    if kind in WILDS:
        shift, validation = WILDS[kind](folder, transform)
        return Benchmark(shift, validation, "macro F1" if kind == "iwildcam" else "accuracy")
    known = ", ".join(("imagenet", "domainnet", "pacs", *WILDS))
    raise ValueError(f"unknown benchmark {kind!r}; choose from {known}")


def _imagenet(folder: Path, transform: Transform) -> Benchmark:
    """ImageNet's training set, with its validation set and the five natural shifts as tests."""
    opened = {name: test() for name, test in natural_tests(folder, transform).items()}
    own = opened.pop("imagenet")
    shift = Shift(
        name="ImageNet",
        classes=own.classes,
        train=(imagenet(folder, transform, split="train").domain,),
        id_val=own.domain,
        id_test=own.domain,
        ood_tests=tuple(test.domain for test in opened.values()),
    )
    scorings = {test.domain.name: test.scores for test in opened.values()}
    return Benchmark(shift, own.domain, scorings=scorings)


def _validation(shift: Shift) -> Domain:
    return shift.id_test if shift.id_val is None else shift.id_val
