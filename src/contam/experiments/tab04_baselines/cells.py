"""One training of a comparison: its name in runs, settings, cost and stored network."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from contam.experiments.support.networks import SMALL
from contam.experiments.tab04_baselines.benchmarks import BaselineNetworks, DomainBenchmark
from contam.experiments.tab04_baselines.methods import METHODS, Method
from contam.models.classifier import Classifier
from contam.run import Run
from contam.training.algorithms import Algorithm, AlgorithmSettings
from contam.training.algorithms.search_space import LogUniform
from contam.training.domainbed import NO_DOMAIN
from contam.training.precision import available_device

DEFAULT_STEP_SIZE = AlgorithmSettings().step_size
STEP_SIZES = ("step_size", "discriminator_step_size")
"""Settings that are step sizes of optimizers."""
DEFAULT_STEPS = 5000
"""Steps of DomainBed's trainings, for which the defaults of numbers of steps were chosen."""


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


class TimedTraining:
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


def stored_network(
    name: str, benchmark: DomainBenchmark, networks: BaselineNetworks, store: Run, *, trial: int,
    draw: int = 0,
) -> Classifier:  # fmt: skip
    """Load the network of a method of this name whose weights are kept in the store of a trial."""
    network = networks.build(len(benchmark.classes), seed=trial).to(available_device())
    network.load_state_dict(store.arrays(TrainingCell(METHODS[name], draw).part))
    return network
