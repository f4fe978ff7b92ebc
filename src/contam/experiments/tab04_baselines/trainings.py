"""Trains one method in one trial, with one draw of its settings, and evaluates its checkpoints."""

import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contam.batch import Batch, Domain, Shift
from contam.experiments.support.networks import SMALL
from contam.experiments.tab04_baselines.benchmarks import BaselineNetworks, DomainBenchmark
from contam.experiments.tab04_baselines.evaluation import evaluate
from contam.experiments.tab04_baselines.methods import (
    AFTER,
    DISTILLATION,
    ERM,
    FINE_TUNING,
    INTERPOLATION,
    METHODS,
    POOLED,
    TEACHER,
    Method,
)
from contam.models.classifier import Classifier
from contam.remedies import Repair, WeightInterpolation
from contam.rng import seeded
from contam.run import Run
from contam.training.algorithms import (
    ALGORITHMS,
    Algorithm,
    AlgorithmSettings,
    NotFiniteError,
    Objective,
    fit_algorithm,
)
from contam.training.algorithms.algorithm import pooled
from contam.training.algorithms.search_space import LogUniform
from contam.training.changes import TrainingChange
from contam.training.checkpointed import checkpointed
from contam.training.distill import Distillation, distill
from contam.training.domainbed import NO_DOMAIN, picked
from contam.training.optimize import Recipe
from contam.training.precision import available_device
from contam.training.probe import FullBatch, extract, fit_probe
from contam.training.supervised import fit

DEFAULT_STEP_SIZE = AlgorithmSettings().step_size
STEP_SIZES = ("step_size", "discriminator_step_size")
"""Settings that are step sizes of optimizers."""
DEFAULT_STEPS = 5000
"""Steps of DomainBed's trainings, for which the defaults of numbers of steps were chosen."""
TEACHER_BATCH, TEACHER_DECAY = 128, 0.05
"""Batch size and weight decay of the embedded benchmark's teacher and student."""
REPORTS = 10
"""Reports, and so checkpoints, of the trainings of teacher and student, about."""
PENALTIES = (1e-2, 1e-3)
"""Penalties of the probes of teacher and student, one of which is selected on held-out parts."""


def cost_clock() -> float:
    """Return the seconds of the clock that measures every cost.

    It is processor time, which does not depend on what else runs. With a GPU it is wall time, since
    a GPU has no such clock.

    Source: ours, processor time does not depend on what else runs.

    >>> start = cost_clock()
    >>> cost_clock() >= start
    True
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class TrainingCell(NamedTuple):
    """One training of a trial."""

    method: Method
    draw: int
    """Draw of the search; 0 has the default settings."""
    left_out: str = NO_DOMAIN
    """A training domain that is not trained on, for leave-one-domain-out validation."""

    @property
    def part(self) -> str:
        """Name of its part.

        >>> TrainingCell(METHODS["ERM"], 2, "photo").part
        'ERM/draw2/without_photo'
        """
        name = f"{self.method.part}/draw{self.draw}"
        plain = "".join(c if c.isalnum() or c in "-." else "_" for c in self.left_out)
        return f"{name}/without_{plain}" if plain else name


class ChangedERM(Objective):
    """ERM on another network, other images, or with other gradients.

    The network is already that of `TrainingChange.network`. Inputs of changes that need masks have
    them as last channel.

    Source: ours, changes of a training, compared with the algorithms in one table.
    """

    name = "ERM with a change"
    change: TrainingChange

    plain: Callable[[], nn.Module]
    """Makes a network with the same parameters that nothing wraps."""

    @property
    def evaluated(self) -> nn.Module:
        """The network without what wraps it in the training, such as hooks."""
        if self.change.wrap is None:
            return self.network
        network = self.plain()
        network.load_state_dict(self.network.get_submodule("network").state_dict())
        return network

    def losses(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Return the risk on the changed images."""
        x, y, _ = pooled(batches)
        images, masks = (x[:, :-1], x[:, -1:]) if self.change.needs_masks else (x, None)
        if self.change.edit is not None:
            number = int(torch.randint(2**62, ()))
            images = self.change.edit(images, masks, torch.Generator().manual_seed(number))
        if self.change.wrap is not None and masks is not None:
            images = torch.cat([images, masks], dim=1)
        return {"risk": F.cross_entropy(self.network(images), y)}


def settings_of(
    algorithm: type[Algorithm],
    benchmark: DomainBenchmark,
    networks: BaselineNetworks,
    *,
    trial: int,
    draw: int,
) -> AlgorithmSettings:
    """Return the settings of one draw, with the step size and the batch size of the budget.

    Args:
        algorithm: the algorithm.
        benchmark: the data; DomainNet has smaller minibatches in the search.
        networks: the budget.
        trial: the trial.
        draw: the draw; 0 has the defaults.

    Source: App. E.4; DomainBed (Gulrajani & Lopez-Paz 2021).

    >>> from contam.training.algorithms import ERM as Algorithm
    >>> budget = BaselineNetworks(step_size=1e-2, batch_size=8)
    >>> benchmark = DomainBenchmark("shapes", ("a", "b"), (), ())
    >>> settings_of(Algorithm, benchmark, budget, trial=0, draw=0).step_size
    0.01
    """
    smaller = {"batch_size": LogUniform(3, 5, base=2, whole=True)}
    drawn = algorithm.Settings.draw(
        trial=trial, draw=draw, instead=smaller if benchmark.name == "domainnet" else None
    )
    changed: dict[str, Any] = {}
    fields = type(drawn).model_fields
    if networks.step_size is not None:
        factor = networks.step_size / DEFAULT_STEP_SIZE
        for name in STEP_SIZES:
            if name in fields:
                changed[name] = round(getattr(drawn, name) * factor, 15)
    if networks.scaled_steps:
        for name in fields:
            if name.endswith("anneal_steps") or name == "average_from":
                changed[name] = getattr(drawn, name) * networks.steps // DEFAULT_STEPS
    if networks.network == SMALL and "context_width" in fields:
        # The published 64 channels cost thirty times as much as the network itself.
        changed["context_width"] = max(1, networks.width // 2)
    if networks.batch_size is not None:
        changed["batch_size"] = networks.batch_size
    return drawn.model_copy(update=changed)


def train_cell(
    cell: TrainingCell,
    benchmark: DomainBenchmark,
    networks: BaselineNetworks,
    store: Run,
    *,
    trial: int,
) -> Generator[float, None, None]:
    """Train and evaluate one cell, and write it to the store.

    The part has rows of accuracies, of measures of contamination and of the cost. If the network
    is needed by other methods, its weights are kept. A training that diverges or does not suit the
    network, the data or the batch size has one row instead: `what` is "left out", and `reason`.

    Args:
        cell: the training.
        benchmark: the data.
        networks: architecture and budget.
        store: the run of this data set and trial that all comparisons share.
        trial: the trial.

    Yields:
        The share that is done.

    Raises:
        ValueError: the code of a user's method raised an error, or a loss of it or of ERM is not
            finite with the default settings.

    Source: ours, one training as a part of a run, so that interrupted runs resume.
    """
    try:
        yield from _train_cell(cell, benchmark, networks, store, trial=trial)
    except NotFiniteError as error:
        # A draw of a search that diverges is not selected, and does not end the search.
        if cell.draw == 0 and (cell.method.code or cell.method.name == ERM):
            raise
        store.write(cell.part, _left_out(str(error)))
    except ValueError:
        raise
    except Exception as error:  # the code is the user's
        if not cell.method.code:
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"{cell.method.name} raised {type(error).__name__}: {reason}") from error


def _train_cell(
    cell: TrainingCell,
    benchmark: DomainBenchmark,
    networks: BaselineNetworks,
    store: Run,
    *,
    trial: int,
) -> Generator[float, None, None]:
    method = cell.method
    reason = _misfit(cell, benchmark, networks, store, trial)
    if reason:
        store.write(cell.part, _left_out(reason))
        return
    if method.kind == "repair":
        store.write(cell.part, _repaired(cell, benchmark, networks, store, trial=trial))
        return
    if method.name == TEACHER:
        yield from _train_teacher(cell, benchmark, networks, store, trial=trial)
        return
    if method.name == DISTILLATION:
        yield from _train_student(cell, benchmark, networks, store, trial=trial)
        return
    if method.name == INTERPOLATION:
        store.write(cell.part, _interpolated(benchmark, networks, store, trial=trial))
        return
    if method.name == FINE_TUNING:
        network = _stored(TEACHER, benchmark, networks, store, trial=trial)
    else:
        network = networks.build(len(benchmark.classes), seed=trial).to(available_device())
    masked = False
    if isinstance(method.target, TrainingChange):
        network = method.target.network(network)
        if method.target.wrap is not None:
            network = method.target.wrap(network)
        algorithm_type: type[Algorithm] = ChangedERM
        masked = method.target.needs_masks
    else:
        algorithm_type = method.target or ALGORITHMS[ERM]
    shift = benchmark.shift(cell.left_out, masked=masked)
    settings = settings_of(algorithm_type, benchmark, networks, trial=trial, draw=cell.draw)
    pooled = method.target is POOLED
    if pooled:
        settings = settings.model_copy(
            update={"batch_size": settings.batch_size * len(shift.train)}
        )
    algorithm = algorithm_type(
        network,  # type: ignore[arg-type]
        domains=1 if pooled else len(shift.train),
        classes=len(benchmark.classes),
        settings=settings,
        seed=trial,
    )
    if isinstance(algorithm, ChangedERM):
        algorithm.change = method.target
        algorithm.plain = lambda: method.target.network(
            networks.build(len(benchmark.classes), seed=trial).to(available_device())
        )
    training = partial(
        fit_algorithm, algorithm, shift, steps=networks.steps, seed=trial,
        report_every=networks.report_every, per_domain=not pooled,
    )  # fmt: skip
    yield from _train(
        cell, benchmark, store, training, lambda: algorithm.evaluated, trial=trial,
        keep=method.name in (ERM, FINE_TUNING) and not cell.left_out,
    )  # fmt: skip


def _train(
    cell: TrainingCell,
    benchmark: DomainBenchmark,
    store: Run,
    training: Callable[..., Iterator[Any]],
    network: Callable[[], nn.Module],
    *,
    trial: int,
    keep: bool = False,
) -> Generator[float, None, None]:
    """Train with checkpoints, evaluate each report, and write the part."""
    timed = _Timed(training)

    def measure(stage: Any) -> list[dict[str, Any]]:
        return [
            {"step": stage.step} | row
            for row in evaluate(
                network(), benchmark, method=cell.method.name, left_out=cell.left_out
            )
        ]

    _, rows = yield from checkpointed(store, cell.part, timed, measure=measure)
    cost = {"what": "cost", "seconds": timed.seconds_per_step() * rows[-1]["step"]}
    store.write(cell.part, [*rows, cost], network().state_dict() if keep else None)


class _Timed:
    """A training whose time is measured without that of evaluations and checkpoints."""

    def __init__(self, training: Callable[..., Iterator[Any]]) -> None:
        self.training = training
        self.seconds: list[float] = []

    def __call__(self, *, resume: Mapping[str, Tensor] | None) -> Iterator[Any]:
        stages = self.training(resume=resume)
        done = 0 if resume is None else int(resume["step"])
        while True:
            start = cost_clock()
            stage = next(stages, None)
            if stage is None:
                return
            self.seconds.append((cost_clock() - start) / (stage.step - done))
            done = stage.step
            yield stage

    def seconds_per_step(self) -> float:
        """The median over the reports of this process; the first one also loads libraries."""
        return statistics.median(self.seconds[1:] or self.seconds)


def _train_teacher(
    cell: TrainingCell,
    benchmark: DomainBenchmark,
    networks: BaselineNetworks,
    store: Run,
    *,
    trial: int,
) -> Generator[float, None, None]:
    """Train a classifier on the pre-training images, and fit its head to the training domains."""
    network = networks.build(len(benchmark.classes), seed=trial).to(available_device())
    shift = Shift(
        benchmark.name, benchmark.classes, benchmark.pretraining, benchmark.pretraining[0], ()
    )
    recipe = _recipe(networks)
    training = partial(
        fit,
        network,
        shift,
        **vars(recipe),
        seed=trial,
        report_every=max(1, networks.teacher_steps // REPORTS),
    )
    yield from _with_probe(cell, benchmark, store, training, network)


def _train_student(
    cell: TrainingCell,
    benchmark: DomainBenchmark,
    networks: BaselineNetworks,
    store: Run,
    *,
    trial: int,
) -> Generator[float, None, None]:
    """Distill the teacher's features on the training domains, and fit a head to them."""
    student = networks.build(len(benchmark.classes), seed=trial).to(available_device())
    teacher = _stored(TEACHER, benchmark, networks, store, trial=trial)
    recipe = Distillation(
        _recipe(networks).step_size, TEACHER_DECAY, TEACHER_BATCH, steps=networks.student_steps
    )
    training = partial(
        distill, student.encoder, teacher.encoder, benchmark.shift(), recipe, seed=trial,
        report_every=max(1, networks.student_steps // REPORTS),
    )  # fmt: skip
    yield from _with_probe(cell, benchmark, store, training, student)


def _interpolated(
    benchmark: DomainBenchmark, networks: BaselineNetworks, store: Run, *, trial: int
) -> list[dict[str, Any]]:
    """Evaluate the mean of the weights of the teacher and of the fine-tuned teacher."""
    base = TrainingCell(METHODS[FINE_TUNING], 0)
    teacher, tuned = (
        _stored(name, benchmark, networks, store, trial=trial).eval()
        for name in (TEACHER, FINE_TUNING)
    )
    start = cost_clock()
    known = _batch([split.inner for split in benchmark.train])
    network = WeightInterpolation(teacher).fit(tuned, id=known)
    return _evaluated(INTERPOLATION, network, benchmark, store, base, seconds=cost_clock() - start)


def _stored(
    name: str, benchmark: DomainBenchmark, networks: BaselineNetworks, store: Run, *, trial: int,
    draw: int = 0,
) -> Classifier:  # fmt: skip
    """Load the network of a method whose weights are kept."""
    network = networks.build(len(benchmark.classes), seed=trial).to(available_device())
    network.load_state_dict(store.arrays(TrainingCell(METHODS[name], draw).part))
    return network


def _evaluated(
    method: str,
    network: nn.Module,
    benchmark: DomainBenchmark,
    store: Run,
    base: TrainingCell,
    *,
    seconds: float,
) -> list[dict[str, Any]]:
    """Evaluate a network that was made in so many seconds from the one of a stored training."""
    stored = store.read(base.part)
    step = max(row["step"] for row in stored if "step" in row)
    rows = [{"step": step} | row for row in evaluate(network, benchmark, method=method)]
    trained = next(row for row in stored if row["what"] == "cost")
    return [*rows, {"what": "cost", "seconds": trained["seconds"] + seconds}]


def _with_probe(
    cell: TrainingCell,
    benchmark: DomainBenchmark,
    store: Run,
    training: Callable[..., Iterator[Any]],
    network: Classifier,
) -> Generator[float, None, None]:
    """Train an encoder, fit the head to the inner parts, evaluate the end, and write the part."""
    timed = _Timed(training)
    stage, _ = yield from checkpointed(store, cell.part, timed)
    inner, held_out = ([split[k] for split in benchmark.train] for k in (0, 1))
    features = torch.cat([extract(network.encoder, domain) for domain in inner])
    validation = torch.cat([extract(network.encoder, domain) for domain in held_out])
    probe = fit_probe(
        features, _labels(inner), FullBatch(penalties=PENALTIES), classes=len(benchmark.classes),
        validation=(validation, _labels(held_out)),
    )  # fmt: skip
    with torch.no_grad():
        weight = probe.weight / probe.scale
        network.head.weight.copy_(weight)
        network.head.bias.copy_(probe.bias - weight @ probe.mean)
    measured = evaluate(network, benchmark, method=cell.method.name)
    rows = [{"step": stage.step} | row for row in measured]
    cost = {"what": "cost", "seconds": timed.seconds_per_step() * stage.step}
    store.write(cell.part, [*rows, cost], network.state_dict())


def _recipe(networks: BaselineNetworks) -> Recipe:
    size = DEFAULT_STEP_SIZE if networks.step_size is None else networks.step_size
    return Recipe(size, TEACHER_DECAY, TEACHER_BATCH, steps=networks.teacher_steps)


def _repaired(
    cell: TrainingCell,
    benchmark: DomainBenchmark,
    networks: BaselineNetworks,
    store: Run,
    *,
    trial: int,
) -> list[dict[str, Any]]:
    """Repair the network that ERM trained with this draw, and evaluate it."""
    base = TrainingCell(METHODS[ERM], cell.draw)
    if _why_left_out(store, base):
        return _left_out(f"ERM is left out with the settings of draw {cell.draw}")
    network = _stored(ERM, benchmark, networks, store, trial=trial, draw=cell.draw).eval()
    inner, held_out = ([split[k] for split in benchmark.train] for k in (0, 1))
    start = cost_clock()
    if isinstance(cell.method.target, Repair):
        known, new = _batch(inner), _batch([split.held_out for split in benchmark.tests])
        try:
            repaired = cell.method.target.fit(network, id=known, ood=new)
        except ValueError as error:
            return _left_out(str(error))
    else:
        data = replace(
            benchmark.shift(), id_val=Domain("ID validation", _batch(held_out)), name=benchmark.name
        )
        repaired = cell.method.target(network, data)
        if not isinstance(repaired, nn.Module):
            raise ValueError(
                f"{cell.method.name} returned {type(repaired).__name__}; expected the repaired "
                "network"
            )
    return _evaluated(
        cell.method.name, repaired, benchmark, store, base, seconds=cost_clock() - start
    )


def _misfit(
    cell: TrainingCell,
    benchmark: DomainBenchmark,
    networks: BaselineNetworks,
    store: Run,
    trial: int,
) -> str:
    """Return why a built-in method does not suit network, data or batch size; empty if it does."""
    method = cell.method
    if method.kind == "reference":
        return _without_teacher(method, benchmark, store)
    if method.code or method.name == ERM or method.kind == "repair":
        return ""
    network = networks.build(len(benchmark.classes), seed=trial)
    if isinstance(method.target, TrainingChange):
        x = next(benchmark.train[0].inner.batches(2)).x
        if method.target is POOLED:
            return _too_small(cell, benchmark, networks, trial)
        # Images in files are normalized for the network, so they have no known black and white.
        embedded = benchmark.altered is not None
        return method.target.misfit(
            network, x, masks=bool(benchmark.masked), pixels=embedded, domains=len(benchmark.train)
        )
    # Whether an algorithm suits a network shows in its first step, which is taken on a copy.
    # Images are read outside of the `try`: a damaged file is no property of the algorithm.
    settings = settings_of(method.target, benchmark, networks, trial=trial, draw=cell.draw)
    domains = benchmark.shift(cell.left_out).train
    batches = [_first(domain, settings.batch_size) for domain in domains]
    try:
        with seeded(trial, "baselines/misfit"):
            algorithm: Algorithm = method.target(
                network.to(available_device()), domains=len(domains),
                classes=len(benchmark.classes), settings=settings, seed=trial,
            )  # fmt: skip
            algorithm.train()
            algorithm.step(batches)
    except ValueError as error:
        return str(error)
    return ""


def _without_teacher(method: Method, benchmark: DomainBenchmark, store: Run) -> str:
    """Return why a network that a reference starts from is missing; empty if none is."""
    if not benchmark.pretraining:
        why = "has no pre-training images; Table 4 has the published teacher's scores"
        return f"{benchmark.name} {why}"
    bases = (TrainingCell(METHODS[name], 0) for name in AFTER.get(method.name, ()))
    reasons = (
        f"its {base.method.name} is left out: {why}"
        for base in bases
        if (why := _why_left_out(store, base))
    )
    return next(reasons, "")


def _too_small(
    cell: TrainingCell, benchmark: DomainBenchmark, networks: BaselineNetworks, trial: int
) -> str:
    """Return why the training images are too few for a minibatch of all domains."""
    train = benchmark.shift(cell.left_out).train
    settings = settings_of(ALGORITHMS[ERM], benchmark, networks, trial=trial, draw=cell.draw)
    size, images = settings.batch_size * len(train), sum(map(len, train))
    return f"a minibatch of {size} needs more than {images} training images" * (size > images)


def _first(domain: Domain, size: int) -> Batch:
    """Return the first examples of a domain, repeated where it has fewer, on the device."""
    some = picked(domain, torch.arange(size) % len(domain), augmented=False)
    return Batch(*(part.to(available_device()) for part in next(some.batches(size))))


def _left_out(reason: str) -> list[dict[str, Any]]:
    return [{"what": "left out", "reason": " ".join(reason.split())}]


def _why_left_out(store: Run, cell: TrainingCell) -> str:
    """Return the reason for which a training was left out; empty if it was not."""
    return next((row["reason"] for row in store.read(cell.part) if row["what"] == "left out"), "")


def _batch(domains: Sequence[Domain]) -> Batch:
    parts = list(chain.from_iterable(domain.batches(256) for domain in domains))
    return Batch(*map(torch.cat, zip(*parts, strict=True)))


def _labels(domains: Sequence[Domain]) -> Tensor:
    return torch.cat([domain.y for domain in domains])
