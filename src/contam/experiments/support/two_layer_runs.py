"""Networks of the theory in a run: trained so that a stopped one goes on, and read as curves."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from contam.plots import over_seeds
from contam.run import Run
from contam.theory.setting import Setting
from contam.theory.trajectory import State, simulate

KEEP_EVERY = 5.0
"""Seconds between check-points."""


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
    """Train, measure at about `points` even steps and write the part; yield the share done.

    Records hold `step`, `time` (steps times the step size, as momentum lengthens it) and what
    `measure` returns; `arrays` says what to keep of the last state. A part that is written
    already is left alone, one with a check-point goes on behind it, and both give the same bytes.
    """
    if run.has(part):
        return
    kept = run.checkpoint(part)
    checkpoint, records = kept if kept is not None else (None, [])
    last = time.monotonic()
    state = None
    for state in simulate(setting, seed, report_steps(setting.steps, points), checkpoint):
        clock = {"step": state.step, "time": state.step * pace(setting)}
        records.append(dict(measure(state)) | clock)
        if state.step < setting.steps and time.monotonic() - last > KEEP_EVERY:
            run.save_checkpoint(part, state.checkpoint(), records)
            last = time.monotonic()
        yield state.step / setting.steps
    assert state is not None, "check-points are taken before the last step"
    run.write(part, records, arrays(state) if arrays is not None else None)


def report_steps(steps: int, points: int) -> list[int]:
    """About `points` steps from 0 to `steps`, both included."""
    return sorted({round(step) for step in np.linspace(0, steps, min(points, steps) + 1)})


def pace(setting: Setting) -> float:
    """How much training time one step takes: its size, as momentum lengthens it."""
    if setting.optimizer == "momentum":
        return setting.step_size / (1 - setting.momentum)
    return setting.step_size


def curve(run: Run, name: str, x: str, key: str, label: str) -> list[dict[str, Any]]:
    """`key` over `x`, its mean and range over the seeds of the parts `name/seed...`, as `label`."""
    rows = [row for part in run.parts(f"{name}/seed") for row in run.read(part)]
    return [
        {x: row[x], "what": label, "value": row[key], "low": row["low"], "high": row["high"]}
        for row in over_seeds(rows, [x], key)
    ]
