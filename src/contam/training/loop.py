"""The training loop is a generator: whoever iterates decides to measure, keep or stop."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from contam.batch import Batch


class Progress(NamedTuple):
    """Where training stands."""

    step: int
    """Steps done, from 1."""
    losses: dict[str, float]
    """The last step's named losses."""


def train(
    step: Callable[[Sequence[Batch]], dict[str, float]],
    minibatches: Iterable[Sequence[Batch]],
    *,
    steps: int,
    report_every: int,
    done: int = 0,
) -> Iterator[Progress]:
    """Take `steps` steps, one minibatch per domain each; yield every `report_every` and at the end.

    `done` says how many of the steps an interrupted training had taken already; `minibatches`
    then starts behind them.

    Raises:
        ValueError: the minibatches ended before the steps did.
    """
    taken = done
    for taken, batches in zip(range(done + 1, steps + 1), minibatches, strict=False):
        losses = step(batches)
        if taken % report_every == 0 or taken == steps:
            yield Progress(taken, losses)
    if taken < steps:
        raise ValueError(f"asked for {steps} steps, but the data ended after {taken}")
