"""The training loop is a generator: whoever iterates decides to measure, keep or stop."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

Taken = TypeVar("Taken")
"""What a step takes: a minibatch, one for each domain, or shares of one."""


class Progress(NamedTuple):
    """Where training stands."""

    step: int
    """Steps done, from 1."""
    losses: dict[str, float]
    """The last step's named losses."""


def train(
    step: Callable[[Taken], dict[str, float]],
    minibatches: Iterable[Taken],
    *,
    steps: int,
    report_every: int,
    done: int = 0,
) -> Iterator[Progress]:
    """Take `steps` steps, one item each; yield every `report_every` and at the end.

    `done` says how many of the steps an interrupted training had taken already; `minibatches`
    then starts behind them.

    Raises:
        ValueError: the minibatches ended before the steps did.
    """
    taken = done
    for taken, minibatch in zip(range(done + 1, steps + 1), minibatches, strict=False):
        losses = step(minibatch)
        if taken % report_every == 0 or taken == steps:
            yield Progress(taken, losses)
    if taken < steps:
        raise ValueError(f"asked for {steps} steps, but the data ended after {taken}")
