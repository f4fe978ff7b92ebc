"""Training by an algorithm, with exact resuming."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from contam.batch import Batch, Shift
from contam.rng import seeded
from contam.training.algorithms.algorithm import Algorithm
from contam.training.distributed import processes
from contam.training.loop import train
from contam.training.minibatches import TrainingExamples
from contam.training.optimize import WARM_UP, NotFiniteError
from contam.training.schedule import warmup_cosine


@dataclass(frozen=True)
class AlgorithmStage:
    """A training by an algorithm at one of its reports."""

    step: int
    """Number of completed steps."""
    steps: int
    """Total number of steps."""
    losses: dict[str, float]
    """Named losses of the last step."""
    algorithm: Algorithm

    def checkpoint(self) -> dict[str, Tensor]:
        """Return a copy of everything that resuming needs, as named tensors."""
        return {"step": torch.tensor(self.step), **self.algorithm.state_tensors()}


def fit_algorithm(
    algorithm: Algorithm,
    shift: Shift,
    *,
    steps: int,
    seed: int,
    report_every: int,
    resume: Mapping[str, Tensor] | None = None,
    cosine: bool = True,
    warmup: int | None = None,
    per_domain: bool = True,
) -> Iterator[AlgorithmStage]:
    """Train by an algorithm with a minibatch from every training domain in each step.

    Minibatches are drawn with replacement from each domain. They depend on the seed, the step and
    the batch size only, so that all algorithms learn from the same examples. The step sizes warm up
    and follow a cosine.

    Args:
        algorithm: what is trained, in place; its modules are in training mode between the steps.
        shift: data; only its training domains are used.
        steps: number of steps.
        seed: random seed of the minibatches and the steps.
        report_every: number of steps between two reports.
        resume: checkpoint of a stage. With the same other arguments, a training on the CPU
            continues bit for bit.
        cosine: whether the step sizes follow a schedule or are constant.
        warmup: number of warm-up steps; None is a tenth of all steps.
        per_domain: whether every domain gives a minibatch. Otherwise a step has one minibatch, and
            all examples are shuffled together every epoch.

    Yields:
        The stage of the training, every `report_every` steps and at the end.

    Raises:
        NotFiniteError: a loss is not finite.
        ValueError: the algorithm was made for other numbers of domains or classes, the checkpoint
            belongs to another training, or there are several processes.

    Source: App. E.4; DomainBed (Gulrajani & Lopez-Paz 2021) for the minibatches.

    >>> from contam.models.classifier import Classifier
    >>> from contam.batch import Domain
    >>> from contam.training.algorithms.erm import ERM
    >>> y = torch.arange(4) % 2
    >>> domain = Domain("photo", Batch(torch.eye(4), y, y))
    >>> shift = Shift("toy", ("a", "b"), (domain, domain), domain, (domain,))
    >>> network = Classifier(torch.nn.Flatten(), classes=2, width=4)
    >>> stages = fit_algorithm(
    ...     ERM(network, domains=2, classes=2, seed=0), shift, steps=4, seed=0, report_every=2
    ... )
    >>> [stage.step for stage in stages]
    [2, 4]
    """
    if processes() > 1:
        raise ValueError(
            f"algorithms train in one process, and the launcher started {processes()}; start "
            "contam without it"
        )
    for what, expected, given in (
        ("training domains", algorithm.domains, len(shift.train) if per_domain else 1),
        ("classes", algorithm.classes, len(shift.classes)),
    ):
        if expected != given:
            raise ValueError(
                f"{algorithm.name} was made for {expected} {what}, but shift {shift.name!r} has "
                f"{given}"
            )
    warmup = math.ceil(WARM_UP * steps) if warmup is None else min(warmup, steps)
    done = 0
    if resume is not None:
        done = int(resume["step"])
        if done > steps:
            raise ValueError(
                f"the checkpoint is from step {done}, but this training has {steps} steps; resume "
                "with the number of steps of the original training"
            )
        algorithm.load_state_tensors(resume)
    device = algorithm.device
    taken = done

    def step(batches: tuple[Batch, ...]) -> dict[str, float]:
        nonlocal taken
        factor = warmup_cosine(taken, steps=steps, warmup=warmup) if cosine else 1.0
        algorithm.scale_step_sizes(factor)
        algorithm.train()
        moved = [Batch(*(part.to(device) for part in batch)) for batch in batches]
        with seeded(seed, f"algorithm/{algorithm.name}/step {taken}"):
            losses = algorithm.step(moved)
        if not isinstance(losses, dict):
            raise TypeError(f"step(batches) returned {losses!r:.40}; expected a dict of losses")
        taken += 1
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise NotFiniteError(
                    f"{algorithm.name}: the loss {name!r} is not finite at step {taken}; choose a "
                    f"step size below {algorithm.settings.step_size:g}, or check the inputs for "
                    "such values"
                )
        return losses

    examples = TrainingExamples(shift.train)
    picks = examples.minibatches(
        algorithm.settings.batch_size, purpose="algorithm", seed=seed, start=done,
        per_domain=per_domain,
    )  # fmt: skip
    pooled = ((batch,) for batch in examples.fetch(picks))
    minibatches = examples.fetch_domains(picks) if per_domain else pooled
    for progress in train(step, minibatches, steps=steps, report_every=report_every, done=done):
        yield AlgorithmStage(progress.step, steps, progress.losses, algorithm)
