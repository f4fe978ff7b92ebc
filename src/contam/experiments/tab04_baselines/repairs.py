"""Repairs networks of stored trainings, also by the mean of their weights, and evaluates them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from contam.batch import Batch, Domain
from contam.experiments.tab04_baselines.benchmarks import BaselineNetworks, DomainBenchmark
from contam.experiments.tab04_baselines.cells import TrainingCell, cost_clock, stored_network
from contam.experiments.tab04_baselines.evaluation import evaluate
from contam.experiments.tab04_baselines.left_out import left_out_rows, why_left_out
from contam.experiments.tab04_baselines.methods import ERM, FINE_TUNING, METHODS, TEACHER
from contam.remedies import Repair, WeightInterpolation
from contam.run import Run


def evaluate_repair(
    cell: TrainingCell, benchmark: DomainBenchmark, networks: BaselineNetworks, store: Run, *,
    trial: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Repair the network that ERM trained with this draw, and evaluate it.

    Args are those of `train_cell`.

    Returns:
        The rows of its part. A repair of the package that does not suit the network is left out.

    Raises:
        ValueError: a repair of the user's returned no network.
    """
    base = TrainingCell(METHODS[ERM], cell.draw)
    if why_left_out(store, base):
        return left_out_rows(f"ERM is left out with the settings of draw {cell.draw}")
    network = stored_network(ERM, benchmark, networks, store, trial=trial, draw=cell.draw).eval()
    inner, held_out = ([split[k] for split in benchmark.train] for k in (0, 1))
    start = cost_clock()
    if isinstance(cell.method.target, Repair):
        known, new = _batch(inner), _batch([split.held_out for split in benchmark.tests])
        try:
            repaired = cell.method.target.fit(network, id=known, ood=new)
        except ValueError as error:
            return left_out_rows(str(error))
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
    return _evaluated(cell, repaired, benchmark, store, base, seconds=cost_clock() - start)


def evaluate_interpolation(
    cell: TrainingCell, benchmark: DomainBenchmark, networks: BaselineNetworks, store: Run, *,
    trial: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Evaluate the mean of the weights of the teacher and of the fine-tuned teacher.

    Args are those of `train_cell`. Both networks are read from the store.

    Returns:
        The rows of its part.
    """
    base = TrainingCell(METHODS[FINE_TUNING], 0)
    teacher, tuned = (
        stored_network(name, benchmark, networks, store, trial=trial).eval()
        for name in (TEACHER, FINE_TUNING)
    )
    start = cost_clock()
    known = _batch([split.inner for split in benchmark.train])
    network = WeightInterpolation(teacher).fit(tuned, id=known)
    return _evaluated(cell, network, benchmark, store, base, seconds=cost_clock() - start)


def _evaluated(
    cell: TrainingCell, network: nn.Module, benchmark: DomainBenchmark, store: Run,
    base: TrainingCell, *, seconds: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """Evaluate a network that was made in so many seconds from the one of a stored training."""
    stored = store.read(base.part)
    step = max(row["step"] for row in stored if "step" in row)
    rows = [{"step": step} | row for row in evaluate(network, benchmark, method=cell.method.name)]
    trained = next(row for row in stored if row["what"] == "cost")
    return [*rows, {"what": "cost", "seconds": trained["seconds"] + seconds}]


def _batch(domains: Sequence[Domain]) -> Batch:
    parts = list(chain.from_iterable(domain.batches(256) for domain in domains))
    return Batch(*map(torch.cat, zip(*parts, strict=True)))
