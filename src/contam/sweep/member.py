"""One run of a sweep: computed or resumed in its own folder, and judged."""

import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from contam.atomic_files import UNFINISHED, write_atomically
from contam.experiment import Claim, Experiment, Stage
from contam.run import Run

NUMBER = ("quantity", "observed", "spread", "n", "holds", "not_judged")
"""What a sweep keeps of each claim's record."""


@dataclass(frozen=True)
class Member:
    """A run of a sweep that is to be computed; it can be sent to another process."""

    index: int
    """Its place in the sweep."""
    root: Path
    """The folder of all runs."""
    experiment: str
    config: BaseModel
    compute: Callable[[Any, Run], Iterator[Stage]]
    claims: Callable[[Run], Sequence[Claim]]

    @classmethod
    def of(cls, index: int, root: Path, experiment: Experiment, config: BaseModel) -> "Member":
        """The run of an experiment under a config."""
        return cls(index, root, experiment.name, config, experiment.compute, experiment.claims)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Run.place(self.root, self.experiment, self.config)

    @property
    def finished(self) -> bool:
        """Whether the run is in its folder and finished."""
        folder = self.folder
        return (folder / "run.json").is_file() and Run.load(folder).finished


@dataclass(frozen=True)
class Outcome:
    """What became of one run of a sweep."""

    index: int
    seconds: float = 0.0
    """Wall time of computing and judging it."""
    numbers: tuple[Mapping[str, Any], ...] = ()
    """One record for each claim, with the fields of `NUMBER`."""
    warnings: tuple[str, ...] = ()
    error: str = ""
    """Why the run failed; empty if it is finished."""


def compute_member(member: Member) -> Outcome:
    """Compute one run of a sweep, or resume it, and judge its claims.

    A run that is finished is only judged. While another process computes the run, this waits for
    its result instead of computing it again. A failure is part of the outcome, so that the other
    runs of the sweep are computed all the same.

    Args:
        member: the run.

    Returns:
        The outcome.

    >>> from contam.experiment import no_claims
    >>> class Config(BaseModel):
    ...     seeds: int = 1
    >>> member = Member(0, Path("runs"), "toy", Config(), lambda config, run: iter([]), no_claims)
    >>> compute_member(member).error, member.finished
    ('', True)
    """
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            numbers, error = _numbers(member), ""
        except (ValueError, OSError, RuntimeError, MemoryError, ArithmeticError) as failure:
            numbers = ()
            error = " ".join(str(failure).split()) or type(failure).__name__
    said = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    return Outcome(member.index, time.perf_counter() - start, numbers, said, error)


def _numbers(member: Member) -> tuple[dict[str, Any], ...]:
    with Run.start(member.root, member.experiment, member.config, wait=True) as run:
        if not run.finished:
            for _ in member.compute(member.config, run):
                pass
            run.finish()
        return tuple(
            {key: record[key] for key in NUMBER}
            for claim in member.claims(run)
            for record in [claim.record(member.experiment)]
        )


def read_files(folder: Path) -> dict[str, bytes]:
    """Read the files of a finished run, to send them to another machine.

    Args:
        folder: the folder of the run.

    Returns:
        The content of each file by its path in the folder.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     (Path(folder) / "tables").mkdir()
    ...     _ = (Path(folder) / "tables" / "rows.jsonl").write_text("{}")
    ...     read_files(Path(folder))
    {'tables/rows.jsonl': b'{}'}
    """
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a run that another machine has finished; a finished run is kept.

    The folder appears at once, with all its files.

    Args:
        folder: the folder of the run.
        files: what `read_files` returned.

    Raises:
        WriteError: the folder can't be written.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "run"
    >>> write_files(folder, {"tables/a.jsonl": b"{}"})
    >>> read_files(folder)
    {'tables/a.jsonl': b'{}'}
    """
    if (folder / "run.json").is_file() and Run.load(folder).finished:
        return
    arriving = folder.with_name(f"{UNFINISHED}{folder.name}")
    shutil.rmtree(arriving, ignore_errors=True)
    for path, content in files.items():
        write_atomically(arriving / path, content)
    shutil.rmtree(folder, ignore_errors=True)
    arriving.rename(folder)
