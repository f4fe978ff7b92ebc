"""OOD problems by name, each with the way its tests are scored: the one list that pipelines know.

Every problem is a `Shift` with three things beside it that the published protocols differ in: which
logits an OOD test knows, by what measure a network is judged, and on what data it is chosen.
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
from contam.data.images import Transform
from contam.data.layout import check
from contam.data.pacs import pacs
from contam.data.wilds import WILDS

Kind = Literal["shapes", "imagenet", "iwildcam", "camelyon17", "domainnet", "pacs"]
Metric = Literal["accuracy", "macro F1"]

SHOWN = 8
"""Faults of a folder that are told at most."""


@dataclass(frozen=True)
class Benchmark:
    """A shift, and how networks are chosen and judged on it."""

    shift: Shift
    chosen_on: Domain
    """Where a probe's epoch or penalty is selected."""
    metric: Metric = "accuracy"
    scorings: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """For OOD tests, by name, that know some of the classes alone."""

    def scores(
        self, test: Domain, logits: Float[Tensor, "batch all"]
    ) -> Float[Tensor, "batch classes"]:
        """The scores among which a test's prediction is the largest."""
        scoring = self.scorings.get(test.name)
        return logits if scoring is None else scoring(logits)


def on_disk(kind: Kind, folder: Path, transform: Transform, *, seed: int = 0) -> Benchmark:
    """A published problem whose files lie in a folder.

    ImageNet and Camelyon17 have no ID validation set beside the one that they are judged on, and
    probes are chosen on it, as published; for the WILDS sets it is the OOD validation set.

    Source: App. E.1, App. E.2, App. E.3, App. E.4, App. G.1.

    Raises:
        ValueError: something of the data set is missing or wrong; the line says what and where.
    """
    found = check(kind, folder)
    faults = [*(f"missing {part}" for part in found.missing), *found.wrong]
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ValueError(
            f"{folder} has not all of {kind}: {'; '.join(faults[:SHOWN])}{more}. "
            f"Nothing is downloaded: put the data there, look again with "
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
    raise ValueError(f"no problem {kind!r} on disk; choose from {known}")


def _imagenet(folder: Path, transform: Transform) -> Benchmark:
    """Learn on ImageNet's training set, be judged on its validation set and the five shifts."""
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
