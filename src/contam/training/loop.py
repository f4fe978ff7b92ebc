"""The training loop as a generator: the caller decides when to measure, save or stop."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
"""Input of a step: a minibatch, one for each domain, or micro-batches."""


class Progress(NamedTuple):
    """Progress of a training."""

    step: int
    """Number of completed steps."""
    losses: dict[str, float]
    """Named losses of the last step."""


def train(
    step: Callable[[Item], dict[str, float]],
    minibatches: Iterable[Item],
    *,
    steps: int,
    report_every: int,
    done: int = 0,
) -> Iterator[Progress]:
    """Take training steps, and yield progress every `report_every` steps and at the end.

    Args:
        step: Function that takes one training step and returns its named losses.
        minibatches: One item for each step that remains.
        steps: Number of steps in all.
        report_every: Number of steps between two reports.
        done: Number of steps that were completed before an interruption.

    Raises:
        ValueError: If there are fewer minibatches than steps.

    >>> reports = train(lambda item: {"loss": 1.0 / item}, [1, 2, 4], steps=3, report_every=2)
    >>> [(progress.step, progress.losses["loss"]) for progress in reports]
    [(2, 0.5), (3, 0.25)]
    """
    taken = done
    for taken, minibatch in zip(range(done + 1, steps + 1), minibatches, strict=False):
        losses = step(minibatch)
        if taken % report_every == 0 or taken == steps:
            yield Progress(taken, losses)
    if taken < steps:
        raise ValueError(f"training takes {steps} steps, but the data ended after {taken}")
