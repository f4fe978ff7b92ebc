"""Compute a sweep: every config as an ordinary run, and one table of all their numbers."""

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from scipy.special import stdtrit

from contam.experiment import Experiment, Stage
from contam.run import Run, RunError
from contam.sweep.local import run_locally
from contam.sweep.member import Member, Outcome
from contam.sweep.space import Space

NAME = "sweep"
"""The experiment's name in the run of a sweep."""
CONFIDENCE = 0.95
"""Level of the intervals over seeds."""

RunEngine = Callable[[Sequence[Member]], Iterator[Outcome]]
"""Computes runs and yields the outcome of each, in any order."""


def sweep(
    experiment: Experiment,
    space: Space,
    *,
    out: Path = Path("runs"),
    engine: RunEngine = run_locally,
) -> Generator[Stage, None, Run]:
    """Compute every run of a sweep, and write the table of their numbers.

    Each config becomes an ordinary run in `out`, named by its content, so a run that is finished
    is never computed again, whoever computed it. The sweep itself is a run as well: its part
    `runs` has one row for each run, and `numbers` one for each run and claim.

    Args:
        experiment: the experiment.
        space: the configs; see `space`.
        out: the folder of all runs.
        engine: computes the runs: `run_locally`, or `partial(run_on_ray, address=...)`.

    Yields:
        The share of the runs that is done.

    Returns:
        The run of the sweep.

    Raises:
        ValueError: a config of the sweep is not valid; nothing was computed.
        RunError: another process computes the same sweep.
        WriteError: the folder can't be written.

    Source: ours, so that a question about many settings is one command.

    >>> import tempfile
    >>> from contam.experiments import named
    >>> from contam.sweep import run_locally, space
    >>> simulation = named("simulation")
    >>> grid = space("simulation", simulation.presets["smoke"], {"width": [16, 32], "seeds": [1]})
    >>> work = sweep(simulation, grid, out=Path(tempfile.mkdtemp()),
    ...              engine=lambda members: run_locally(members, jobs=1))
    >>> [stage.done for stage in work]
    [0.5, 1.0]
    """
    configs = space.configs(type(next(iter(experiment.presets.values()))))
    members = [Member.of(i, out, experiment, config) for i, (_, config) in enumerate(configs)]
    with Run.start(out, NAME, space) as run:
        if run.finished and run.read("runs") and not any(row["error"] for row in run.read("runs")):
            return Run.load(run.folder)
        done = [member for member in members if member.finished]
        left = [member for member in members if not member.finished]
        outcomes: dict[int, Outcome] = {}
        said: set[str] = set()
        for outcome in engine([*done, *left]):
            outcomes[outcome.index] = outcome
            for text in set(outcome.warnings) - said:
                warnings.warn(text, stacklevel=2)
                said.add(text)
            if len(outcomes) >= len(done):
                failed = sum(bool(outcome.error) for outcome in outcomes.values())
                doing = f"{len(outcomes)} of {len(members)} runs" + f", {failed} failed" * (
                    failed > 0
                )
                yield Stage(len(outcomes) / len(members), doing)
        _write(run, space, [point for point, _ in configs], members, outcomes)
        run.finish()
    return Run.load(run.folder)


def resumed(folder: Path) -> Space:
    """Read the configs of an earlier sweep.

    Args:
        folder: the folder of the sweep's run.

    Raises:
        RunError: the folder is not that of a sweep.

    >>> from contam.experiments import named
    >>> from contam.sweep import space
    >>> grid = space("simulation", named("simulation").presets["smoke"], {"width": [16, 32]})
    >>> with Run.start(Path("runs"), NAME, grid) as run:
    ...     run.finish()
    >>> resumed(run.folder) == grid
    True
    """
    run = Run.load(folder)
    try:
        if run.experiment != NAME:
            raise ValueError
        return Space.model_validate(run.config)
    except (ValueError, ValidationError):
        raise RunError(
            f"{folder}: is a run of {run.experiment!r}, not a sweep; give a folder that "
            "'contam sweep' printed"
        ) from None


def _write(
    run: Run,
    space: Space,
    points: Sequence[dict[str, Any]],
    members: Sequence[Member],
    outcomes: dict[int, Outcome],
) -> None:
    names = space.names()
    runs, numbers = [], []
    for member, point in zip(members, points, strict=True):
        outcome = outcomes[member.index]
        place = {names[path]: value for path, value in point.items()}
        place["run"] = member.folder.name
        runs.append(place | {"seconds": round(outcome.seconds, 3), "error": outcome.error})
        numbers += [place | _with_interval(number) for number in outcome.numbers]
    run.write("runs", runs)
    run.write("numbers", numbers)


def _with_interval(number: Any) -> dict[str, Any]:
    """A number with its t interval over seeds."""
    mean, spread, n = number["observed"], number["spread"], number["n"]
    row = dict(number) | {"low": None, "high": None}
    if mean is not None and spread is not None and n > 1:
        half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * spread / n**0.5
        row |= {"low": mean - half, "high": mean + half}
    return row
