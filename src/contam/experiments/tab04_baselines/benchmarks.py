"""The data of a comparison: training domains, test domains and their parts.

The embedded benchmark has its families of backgrounds as domains. Published data sets are read from
their folders, and a folder DOMAIN/CLASS/IMAGE of the user's is read like PACS.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt

from contam.batch import Domain, Shift
from contam.data import domainnet, pacs
from contam.data.backgrounds import FAMILIES, ID, OOD
from contam.data.benchmarks import SHOWN, Metric
from contam.data.folders import merged
from contam.data.images import FolderDomain, domainbed_augmentation
from contam.data.layout import check
from contam.data.objects import CORES, Core
from contam.data.shapes import Scenes, pretraining, splits
from contam.data.wilds import WILDS
from contam.experiments.support.altered_backgrounds import Altered, altered_images
from contam.experiments.support.networks import SMALL
from contam.inputs import read_domains
from contam.inputs.lazy_files import LazyFolderDomain
from contam.models.classifier import Classifier
from contam.models.preparation import Preparation
from contam.models.small import resnet8
from contam.models.sources import load
from contam.rng import seeded
from contam.training.domainbed import (
    DomainSplit,
    by_origin,
    check_training_domains,
    split_domain,
)

DataKind = Literal["shapes", "digits", "domainnet", "pacs", "camelyon17", "iwildcam", "folder"]
EMBEDDED: tuple[Core, ...] = ("shapes", "digits")
"""The data sets that need no files; they have masks of their objects, and a teacher."""
CAMERA_GROUPS = 8
"""Training domains of iWildCam: its cameras, put together in turn."""


class BaselineNetworks(BaseModel, frozen=True, extra="forbid"):
    """Data, architecture and budget. Defaults are those of App. E.4 unless a field says otherwise.

    The other settings of an algorithm are the defaults and the draws of DomainBed's search.
    """

    folder: Path = Path("data")
    """Folder with the files of a published data set, or with DOMAIN/CLASS/IMAGE."""
    ood: str = "sketch"
    """Test domain of DomainNet, PACS or a folder; the other data sets have their own."""
    network: str = "open_clip:RN50"
    """Architecture, trained from random weights: a name for `contam.models.sources.load`, or
    resnet8."""
    side: PositiveInt = 224
    """Pixels of the square inputs of images in files."""
    width: PositiveInt = 16
    """Ours: channels of the first stage of resnet8; ARM's context network has half as many."""
    steps: PositiveInt = 20_000
    """Steps of each training."""
    report_every: PositiveInt = 1000
    """Ours: steps between two checkpoints that are evaluated, as DomainBed has them."""
    step_size: PositiveFloat | None = None
    """Ours: step size of draw 0, also of discriminators; other draws are scaled by the same factor.
    None takes DomainBed's, 5e-5."""
    batch_size: PositiveInt | None = None
    """Ours: examples from every domain in a step. None takes each algorithm's own."""
    scaled_steps: bool = False
    """Ours: numbers of steps among an algorithm's settings, such as those before a penalty begins,
    are scaled by this training's steps over DomainBed's 5000."""
    examples: PositiveInt = 2000
    """Ours: training images of the embedded benchmark, a fifth of which is held out."""
    id_examples: PositiveInt = 800
    """Ours: images of the embedded benchmark's ID test."""
    ood_examples: PositiveInt = 200
    """Ours: images of each of the embedded benchmark's five test domains."""
    teacher_examples: PositiveInt = 4500
    """Ours: images for the pre-training of the embedded benchmark's teacher."""
    teacher_steps: PositiveInt = 600
    """Ours: steps of the teacher, with 128 images each."""
    student_steps: PositiveInt = 600
    """Ours: steps of the distillation, with as many images as ERM has in a step."""
    altered: Annotated[int, Field(gt=0, multiple_of=40)] = 200
    """Ours: images whose backgrounds are changed to measure contamination, a multiple of 40."""
    objects: Annotated[int, Field(gt=0, multiple_of=10)] = 40
    """Ours: objects that are shown on every background of a list, a multiple of 10."""

    def build(self, classes: int, *, seed: int) -> Classifier:
        """Return the network with random weights, the same for all methods of a trial.

        Raises:
            ValueError: there is no such network.

        >>> BaselineNetworks(network="resnet8", width=4).build(3, seed=0).head.out_features
        3
        """
        if self.network == SMALL:
            return resnet8(classes, width=self.width, seed=seed)
        source = load(self.network, seed=seed)
        with seeded(seed, "baselines/head"):
            return Classifier(source.encoder, classes, source.width)


@dataclass(frozen=True, eq=False)
class DomainBenchmark:
    """The domains of one data set, split for one trial."""

    name: DataKind
    classes: tuple[str, ...]
    train: tuple[DomainSplit, ...]
    """Training domains: learned from, and held out for selection."""
    tests: tuple[DomainSplit, ...]
    """Test domains: the OOD test, and the part that the oracle and repairs with OOD data use."""
    id_tests: tuple[Domain, ...] = ()
    """ID tests that are not used for selection; without any, held-out parts are the ID test."""
    metric: Metric = "accuracy"
    masked: tuple[Domain, ...] = ()
    """The inner parts of the training domains with the masks of their objects as last channel."""
    pretraining: tuple[Domain, ...] = ()
    """Images for the pre-training of a teacher."""
    altered: Altered | None = None
    """Images for the measures of contamination."""

    def shift(self, left_out: str = "", *, masked: bool = False) -> Shift:
        """Return the training domains as a shift, for the algorithms.

        Args:
            left_out: a training domain that is not trained on.
            masked: whether the inputs have masks as last channel.
        """
        inner = self.masked if masked else tuple(split.inner for split in self.train)
        kept = tuple(domain for domain in inner if domain.name != left_out)
        return Shift(self.name, self.classes, kept, self.train[0].held_out, ())


def read_benchmark(kind: DataKind, networks: BaselineNetworks, *, trial: int) -> DomainBenchmark:
    """Read or draw a data set and split it.

    Args:
        kind: the data set.
        networks: sizes, folder and test domain.
        trial: the trial, which is the seed of the splits and of the embedded benchmark.

    Raises:
        ValueError: files are missing, the test domain is unknown, there is no second training
            domain, or a training domain lacks a class.

    Source: App. E.4.

    >>> small = BaselineNetworks(examples=200, id_examples=40, ood_examples=20, altered=40)
    >>> benchmark = read_benchmark("shapes", small.model_copy(update={"objects": 10}), trial=0)
    >>> [(split.inner.name, len(split.inner), len(split.held_out)) for split in benchmark.train][:2]
    [('gradient', 40, 10), ('clouds', 40, 10)]
    """
    for core in EMBEDDED:
        if kind == core:
            return _embedded(core, networks, trial)
    benchmark = _of_files(kind, networks, trial)
    inner = [split.inner for split in benchmark.train]
    check_training_domains(inner, benchmark.classes, complete=kind != "iwildcam")
    return benchmark


def _embedded(core: Core, networks: BaselineNetworks, trial: int) -> DomainBenchmark:
    drawn = splits(
        trial, train=networks.examples, id_val=40, id_test=networks.id_examples,
        ood_test=networks.ood_examples, core=core,
    )  # fmt: skip
    families = {name: _family(drawn["train"], name, masked=True) for name in ID}
    masked = {name: split_domain(domain, seed=trial) for name, domain in families.items()}
    return DomainBenchmark(
        core,
        CORES[core],
        train=tuple(DomainSplit(*map(_unmasked, split)) for split in masked.values()),
        tests=tuple(
            split_domain(_family(drawn[f"ood/{name}"], name), seed=trial) for name in OOD
        ),
        id_tests=tuple(_family(drawn["id_test"], name) for name in ID),
        masked=tuple(split.inner for split in masked.values()),
        pretraining=pretraining(trial, n=networks.teacher_examples, core=core),
        altered=altered_images(
            trial, images=networks.altered, objects=networks.objects, core=core
        ),
    )  # fmt: skip


def _family(drawn: Scenes, name: str, *, masked: bool = False) -> Domain:
    """Return the images of one family of backgrounds."""
    here = drawn.domain == list(FAMILIES).index(name)
    batch = drawn.batch
    if masked:
        batch = batch._replace(x=torch.cat([drawn.x, drawn.mask], dim=1))
    return Domain(name, batch.pick(here))


def _unmasked(domain: Domain) -> Domain:
    return replace(domain, data=domain.data._replace(x=domain.data.x[:, :-1].contiguous()))


def _of_files(kind: DataKind, networks: BaselineNetworks, trial: int) -> DomainBenchmark:
    side, folder = networks.side, networks.folder
    transform = Preparation(side, side, interpolation="bilinear", squash=True)
    if kind in WILDS:
        _require(kind, folder)
        shift, validation = WILDS[kind](folder, transform)
        most = CAMERA_GROUPS if kind == "iwildcam" else None
        train = tuple(_augmented(d, side, trial) for d in by_origin(shift.train[0], most=most))
        return DomainBenchmark(
            kind, shift.classes, train,
            tests=(DomainSplit(shift.ood_tests[0], validation),), id_tests=(shift.id_test,),
            metric="macro F1" if kind == "iwildcam" else "accuracy",
        )  # fmt: skip
    classes, domains = _domains(kind, folder, transform)
    names = [domain.name for domain in domains]
    if networks.ood not in names:
        near = difflib.get_close_matches(networks.ood, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its domains are {', '.join(names)}"
        raise ValueError(f"no test domain {networks.ood!r} in {folder}; {hint}")
    test = domains[names.index(networks.ood)]
    train = tuple(_augmented(domain, side, trial) for domain in domains if domain is not test)
    return DomainBenchmark(kind, tuple(classes), train, (split_domain(test, seed=trial),))


def _augmented(domain: Domain, side: int, trial: int) -> DomainSplit:
    """Split a training domain; the part that is learned from is augmented."""
    split = split_domain(domain, seed=trial)
    assert isinstance(split.inner, FolderDomain | LazyFolderDomain)
    return DomainSplit(split.inner.augmented(domainbed_augmentation(side)), split.held_out)


def _domains(
    kind: DataKind, folder: Path, transform: Preparation
) -> tuple[tuple[str, ...], Sequence[Domain]]:
    """Return the classes and all domains of a data set, before any split."""
    if kind == "folder":
        domains = read_domains(folder, transform=transform)
        return domains[0].classes or (), domains
    _require(kind, folder)
    if kind == "pacs":
        return pacs.CLASSES, pacs.pacs_domains(folder, transform)
    return domainnet.CLASSES, [
        merged(
            name, [domainnet.listed(folder, name, part, transform) for part in domainnet.PARTS]
        )
        for name in domainnet.DOMAINS
    ]  # fmt: skip


def _require(kind: DataKind, folder: Path) -> None:
    """Raise an error that lists what is missing of a published data set."""
    contents = check(kind, folder)
    faults = [*(f"missing {part}" for part in contents.missing), *contents.wrong]
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ValueError(
            f"{folder} is not a complete {kind}: {'; '.join(faults[:SHOWN])}{more}. Nothing is "
            f"downloaded: put the data there, or give its folder ('contam compare' has --folder, "
            "'contam run' --networks.folder)"
        )
