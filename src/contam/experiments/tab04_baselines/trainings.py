"""Trains one method in one trial, with one draw of its settings, and evaluates its checkpoints."""

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contam.batch import Batch
from contam.experiments.tab04_baselines.benchmarks import BaselineNetworks, DomainBenchmark
from contam.experiments.tab04_baselines.cells import (
    TimedTraining,
    TrainingCell,
    settings_of,
    stored_network,
)
from contam.experiments.tab04_baselines.distillation import train_student, train_teacher
from contam.experiments.tab04_baselines.evaluation import evaluate
from contam.experiments.tab04_baselines.left_out import left_out_rows, misfit
from contam.experiments.tab04_baselines.methods import (
    DISTILLATION,
    ERM,
    FINE_TUNING,
    INTERPOLATION,
    POOLED,
    TEACHER,
)
from contam.experiments.tab04_baselines.repairs import evaluate_interpolation, evaluate_repair
from contam.run import Run
from contam.training.algorithms import (
    ALGORITHMS,
    Algorithm,
    NotFiniteError,
    Objective,
    fit_algorithm,
)
from contam.training.algorithms.algorithm import pooled
from contam.training.changes import TrainingChange
from contam.training.checkpointed import checkpointed
from contam.training.precision import available_device


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
        store.write(cell.part, left_out_rows(str(error)))
    except ValueError:
        raise
    except Exception as error:  # the code is the user's
        if not cell.method.code:
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"{cell.method.name} raised {type(error).__name__}: {reason}") from error


def _train_cell(
    cell: TrainingCell, benchmark: DomainBenchmark, networks: BaselineNetworks, store: Run, *,
    trial: int,
) -> Generator[float, None, None]:  # fmt: skip
    method = cell.method
    reason = misfit(cell, benchmark, networks, store, trial=trial)
    if reason:
        store.write(cell.part, left_out_rows(reason))
        return
    if method.kind == "repair":
        store.write(cell.part, evaluate_repair(cell, benchmark, networks, store, trial=trial))
        return
    if method.name == TEACHER:
        yield from train_teacher(cell, benchmark, networks, store, trial=trial)
        return
    if method.name == DISTILLATION:
        yield from train_student(cell, benchmark, networks, store, trial=trial)
        return
    if method.name == INTERPOLATION:
        rows = evaluate_interpolation(cell, benchmark, networks, store, trial=trial)
        store.write(cell.part, rows)
        return
    if method.name == FINE_TUNING:
        network = stored_network(TEACHER, benchmark, networks, store, trial=trial)
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
    timed = TimedTraining(training)

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
