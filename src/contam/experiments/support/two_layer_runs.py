"""Networks of the theory in a run: trained with checkpoints, and read as tables and curves."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from contam.plots import over_seeds
from contam.run import Run
from contam.theory.setting import Activation, Setting
from contam.theory.trajectory import State, simulate
from contam.training.checkpointed import checkpointed

NAMES: dict[Activation, str] = {
    "relu": "ReLU",
    "gelu": "GELU",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "leaky_relu": "leaky ReLU",
    "identity": "linear",
}
"""Names of the activation functions in sentences and figures."""


Columns = Callable[[str], list[float]]
"""From the name of a column to its values, one per seed."""


def train_into(
    run: Run,
    part: str,
    setting: Setting,
    seed: int,
    *,
    points: int,
    measure: Callable[[State], Mapping[str, Any]],
    arrays: Callable[[State], Mapping[str, Tensor]] | None = None,
) -> Iterator[float]:
    """Train a network, measure it along the way, and write the results as one part of a run.

    A finished part is left alone. An interrupted one resumes from its checkpoint and ends with the
    same bytes as a part that was never interrupted.

    Args:
        run: the run to write.
        part: name of the part.
        setting: the data, the network and the optimizer.
        seed: names all random draws.
        points: number of measurements after the first, spread evenly over the steps.
        measure: values of one record; `step` and `time` (steps times the step size, lengthened by
            momentum) are added.
        arrays: tensors of the last state to write.

    Yields:
        The share of the steps done.
    """
    if run.has(part):
        return
    state, records = yield from checkpointed(
        run,
        part,
        partial(simulate, setting, seed, report_steps(setting.steps, points)),
        measure=lambda state: [
            dict(measure(state))
            | {"step": state.step, "time": state.step * state.setting.time_per_step}
        ],
    )
    run.write(part, records, arrays(state) if arrays is not None else None)


def report_steps(steps: int, points: int) -> list[int]:
    """At most `points` + 1 even steps from 0 to `steps`, both included.

    >>> report_steps(10, 4)
    [0, 2, 5, 8, 10]
    """
    return sorted({round(step) for step in np.linspace(0, steps, min(points, steps) + 1)})


def ends(run: Run, name: str) -> tuple[Columns, Columns]:
    """The first and the last record of every seed of a network.

    Args:
        run: a finished run.
        name: the network; its parts are `name/seed0` and so on.

    Returns:
        The values of any column in the first record of each seed, and in the last.
    """
    seeds = run.table(f"{name}/seed").groupby("part", sort=False)
    first, last = seeds.head(1), seeds.tail(1)
    return lambda column: first[column].tolist(), lambda column: last[column].tolist()


def curve(run: Run, name: str, x: str, column: str, label: str) -> list[dict[str, Any]]:
    """The curve of a column, with its mean and range over the seeds of a network.

    Args:
        run: a finished run.
        name: the network.
        x: column of the horizontal axis.
        column: column of the vertical axis.
        label: name of the curve.
    """
    return [
        {x: row[x], "what": label, "value": row[column], "low": row["low"], "high": row["high"]}
        for row in over_seeds(run.table(f"{name}/seed").to_dict("records"), [x], column)
    ]
