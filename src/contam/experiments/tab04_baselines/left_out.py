"""Why a training is left out: it does not suit the network or the data, or it diverged."""

from typing import Any

import torch

from contam.batch import Batch, Domain
from contam.experiments.tab04_baselines.benchmarks import BaselineNetworks, DomainBenchmark
from contam.experiments.tab04_baselines.cells import TrainingCell, settings_of
from contam.experiments.tab04_baselines.methods import AFTER, ERM, METHODS, POOLED, Method
from contam.rng import seeded
from contam.run import Run
from contam.training.algorithms import ALGORITHMS, Algorithm
from contam.training.changes import TrainingChange
from contam.training.domainbed import picked
from contam.training.precision import available_device


def misfit(
    cell: TrainingCell, benchmark: DomainBenchmark, networks: BaselineNetworks, store: Run, *,
    trial: int,
) -> str:  # fmt: skip
    """Return why a built-in method does not suit network, data or batch size; empty if it does.

    Args are those of `train_cell`. A reference does not suit if a network that it starts from is
    left out in the store.
    """
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


def left_out_rows(reason: str) -> list[dict[str, Any]]:
    """Return the one row, with the reason on one line, that a training has instead of results."""
    return [{"what": "left out", "reason": " ".join(reason.split())}]


def why_left_out(store: Run, cell: TrainingCell) -> str:
    """Return the reason for which a training was left out; empty if it was not."""
    return next((row["reason"] for row in store.read(cell.part) if row["what"] == "left out"), "")


def _without_teacher(method: Method, benchmark: DomainBenchmark, store: Run) -> str:
    """Return why a network that a reference starts from is missing; empty if none is."""
    if not benchmark.pretraining:
        why = "has no pre-training images; Table 4 has the published teacher's scores"
        return f"{benchmark.name} {why}"
    bases = (TrainingCell(METHODS[name], 0) for name in AFTER.get(method.name, ()))
    reasons = (
        f"its {base.method.name} is left out: {why}"
        for base in bases
        if (why := why_left_out(store, base))
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
