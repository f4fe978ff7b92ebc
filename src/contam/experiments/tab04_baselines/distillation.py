"""Trains a teacher on more diverse images, and distills its features into a student."""

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from contam.batch import Domain, Shift
from contam.experiments.tab04_baselines.benchmarks import BaselineNetworks, DomainBenchmark
from contam.experiments.tab04_baselines.cells import (
    DEFAULT_STEP_SIZE,
    TimedTraining,
    TrainingCell,
    stored_network,
)
from contam.experiments.tab04_baselines.evaluation import evaluate
from contam.experiments.tab04_baselines.methods import TEACHER
from contam.models.classifier import Classifier
from contam.run import Run
from contam.training.checkpointed import checkpointed
from contam.training.distill import Distillation, distill
from contam.training.optimize import Recipe
from contam.training.precision import available_device
from contam.training.probe import FullBatch, extract, fit_probe
from contam.training.supervised import fit

TEACHER_BATCH, TEACHER_DECAY = 128, 0.05
"""Batch size and weight decay of the embedded benchmark's teacher and student."""
REPORTS = 10
"""Reports, and so checkpoints, of the trainings of teacher and student, about."""
PENALTIES = (1e-2, 1e-3)
"""Penalties of the probes of teacher and student, one of which is selected on held-out parts."""


def train_teacher(
    cell: TrainingCell, benchmark: DomainBenchmark, networks: BaselineNetworks, store: Run, *,
    trial: int,
) -> Generator[float, None, None]:  # fmt: skip
    """Train a classifier on the pre-training images, and fit its head to the training domains.

    Args and Yields are those of `train_cell`. The network is written to the store.
    """
    network = networks.build(len(benchmark.classes), seed=trial).to(available_device())
    shift = Shift(
        benchmark.name, benchmark.classes, benchmark.pretraining, benchmark.pretraining[0], ()
    )
    recipe = _recipe(networks)
    training = partial(
        fit, network, shift, **vars(recipe), seed=trial,
        report_every=max(1, networks.teacher_steps // REPORTS),
    )  # fmt: skip
    yield from _with_probe(cell, benchmark, store, training, network)


def train_student(
    cell: TrainingCell, benchmark: DomainBenchmark, networks: BaselineNetworks, store: Run, *,
    trial: int,
) -> Generator[float, None, None]:  # fmt: skip
    """Distill the teacher's features on the training domains, and fit a head to them.

    Args and Yields are those of `train_cell`. The teacher is read from the store, to which the
    student is written.
    """
    student = networks.build(len(benchmark.classes), seed=trial).to(available_device())
    teacher = stored_network(TEACHER, benchmark, networks, store, trial=trial)
    recipe = Distillation(
        _recipe(networks).step_size, TEACHER_DECAY, TEACHER_BATCH, steps=networks.student_steps
    )
    training = partial(
        distill, student.encoder, teacher.encoder, benchmark.shift(), recipe, seed=trial,
        report_every=max(1, networks.student_steps // REPORTS),
    )  # fmt: skip
    yield from _with_probe(cell, benchmark, store, training, student)


def _with_probe(
    cell: TrainingCell, benchmark: DomainBenchmark, store: Run,
    training: Callable[..., Iterator[Any]], network: Classifier,
) -> Generator[float, None, None]:  # fmt: skip
    """Train an encoder, fit the head to the inner parts, evaluate the end, and write the part."""
    timed = TimedTraining(training)
    stage, _ = yield from checkpointed(store, cell.part, timed)
    inner, held_out = ([split[k] for split in benchmark.train] for k in (0, 1))
    features = torch.cat([extract(network.encoder, domain) for domain in inner])
    validation = torch.cat([extract(network.encoder, domain) for domain in held_out])
    probe = fit_probe(
        features, _labels(inner), FullBatch(penalties=PENALTIES), classes=len(benchmark.classes),
        validation=(validation, _labels(held_out)),
    )  # fmt: skip
    weight, bias = probe.head()
    with torch.no_grad():
        network.head.weight.copy_(weight)
        network.head.bias.copy_(bias)
    measured = evaluate(network, benchmark, method=cell.method.name)
    rows = [{"step": stage.step} | row for row in measured]
    cost = {"what": "cost", "seconds": timed.seconds_per_step() * stage.step}
    store.write(cell.part, [*rows, cost], network.state_dict())


def _recipe(networks: BaselineNetworks) -> Recipe:
    size = DEFAULT_STEP_SIZE if networks.step_size is None else networks.step_size
    return Recipe(size, TEACHER_DECAY, TEACHER_BATCH, steps=networks.teacher_steps)


def _labels(domains: Sequence[Domain]) -> Tensor:
    return torch.cat([domain.y for domain in domains])
