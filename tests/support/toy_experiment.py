"""An experiment that takes no time, for tests of what runs experiments."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, PositiveInt

from contam.experiment import Claim, Experiment, Stage, judge
from contam.plots import Figure
from contam.run import Run


class Inner(BaseModel, frozen=True, extra="forbid"):
    rate: float = 0.5
    steps: int = 10


class Config(BaseModel, frozen=True, extra="forbid"):
    inner: Inner = Inner()
    width: PositiveInt = 4
    name: str = "a"
    seeds: PositiveInt = 2
    log: str = ""
    """File to which each computed seed appends a line."""
    seconds: float = 0.0
    """How long each seed takes."""
    dies: bool = False
    """Whether the process that computes the run is killed, the first time."""


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Write `width * rate + seed` for each seed; a negative rate fails."""
    if config.inner.rate < 0:
        raise ValueError("the rate is negative")
    for seed in range(config.seeds):
        part = f"seed{seed}"
        if run.has(part):
            continue
        time.sleep(config.seconds)
        run.write(part, [{"value": config.width * config.inner.rate + seed}])
        if config.log:
            with Path(config.log).open("a") as file:
                file.write(f"{run.folder.name}/{part}\n")
        died = run.folder / ".died"
        if config.dies and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield Stage((seed + 1) / config.seeds, part)


def claims(run: Run) -> Sequence[Claim]:
    values = run.table("seed")["value"].tolist()
    return [judge("It is large", values, source="ours", quantity="value", low=1.0)]


def draw(run: Run) -> Sequence[Figure]:
    return []


def summarize(run: Run) -> str:
    return "A number."


TOY = Experiment(
    name="toy",
    title="A number",
    about="A number.",
    reproduces=(),
    presets={"smoke": Config()},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
)
