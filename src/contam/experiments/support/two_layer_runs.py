"""Trains two-layer networks into the parts of a run, and reads them as columns and curves."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
from torch import Tensor

from contam.experiment import NULL_STEP_SIZE
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
"""Maps the name of a column to its values, one per seed."""


def null_setting(config: Any) -> Any:
    """Return a config whose setting has a step size at which nothing is learned.

    Args:
        config: a config of pydantic with a field `setting`.

    >>> from contam.experiments.joint_law import Config
    >>> null_setting(Config()).setting.step_size == NULL_STEP_SIZE
    True
    """
    setting = replace(config.setting, step_size=NULL_STEP_SIZE)
    return config.model_copy(update={"setting": setting})


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
    """Train a two-layer network, measure it during training, and write one part of a run.

    A finished part is skipped. An interrupted one resumes from its checkpoint and ends with the
    same bytes as a part that was never interrupted.

    Args:
        run: the run to write.
        part: name of the part.
        setting: the data, the network and the optimizer.
        seed: seed of all random numbers.
        points: number of measurements after the initial one, evenly spaced over the steps.
        measure: computes one record from a state; `step` and `time` (steps times the step size,
            scaled by momentum) are added.
        arrays: computes the tensors to write from the last state.

    Yields:
        The fraction of the steps that are done.
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


def changed_fields(setting: Setting, names: Iterable[str]) -> list[str]:
    """Return those of some fields of a setting that differ from the default setting.

    Args:
        setting: the setting.
        names: the fields to compare, such as "data.correlation".

    >>> changed_fields(Setting(depth=2, width=64), ["depth", "data.correlation"])
    ['depth']
    """
    default = Setting()
    return [name for name in names if attrgetter(name)(setting) != attrgetter(name)(default)]


def report_steps(steps: int, points: int) -> list[int]:
    """Return at most `points` + 1 evenly spaced steps from 0 to `steps`, both included.

    Args:
        steps: number of training steps.
        points: number of measurements after the initial one.

    >>> report_steps(10, 4)
    [0, 2, 5, 8, 10]
    """
    return sorted({round(step) for step in np.linspace(0, steps, min(points, steps) + 1)})


def ends(run: Run, name: str) -> tuple[Columns, Columns]:
    """Read the first and the last record of every seed of a network.

    Args:
        run: a finished run.
        name: the network; its parts are `name/seed0` and so on.

    Returns:
        Two functions from the name of a column to its values, one per seed: of the first records,
        and of the last.
    """
    seeds = run.table(f"{name}/seed").groupby("part", sort=False)
    first, last = seeds.head(1), seeds.tail(1)
    return lambda column: first[column].tolist(), lambda column: last[column].tolist()


def curve(run: Run, name: str, x: str, column: str, label: str) -> list[dict[str, Any]]:
    """Compute the curve of a column: mean and range over the seeds of a network.

    Args:
        run: a finished run.
        name: the network.
        x: column of the horizontal axis.
        column: column of the vertical axis.
        label: name of the curve.

    Returns:
        A row for each value of `x`, with the mean in `value` and the range in `low` and `high`.
    """
    return [
        {x: row[x], "what": label, "value": row[column], "low": row["low"], "high": row["high"]}
        for row in over_seeds(run.table(f"{name}/seed").to_dict("records"), [x], column)
    ]
