"""`contam.load`: open a folder of results, whatever wrote it."""

from pathlib import Path
from typing import Any

from contam.auditing.result import RECORD, Audit
from contam.run import Run, RunError
from contam.trials.result import Trial


def load(folder: str | Path) -> Any:
    """Open the folder of a run, a sweep, a trial or an audit.

    Args:
        folder: the folder that `contam run`, `contam sweep`, `contam trial`, `contam audit` or
            `contam.watch` wrote.

    Returns:
        A `Run`, also of a sweep; a `Trial`; or an `Audit`.

    Raises:
        ValueError: the folder holds no results, or they are damaged.

    >>> import tempfile
    >>> from pydantic import BaseModel
    >>> class Config(BaseModel):
    ...     seeds: int = 1
    >>> with Run.start(Path(tempfile.mkdtemp()), "toy", Config()) as run:
    ...     run.write("seed0", [{"accuracy": 0.5}])
    >>> load(run.folder).table("seed").accuracy.tolist()
    [0.5]
    """
    folder = Path(folder)
    if (folder / RECORD).is_file():
        return Audit.load(folder)
    if not (folder / "run.json").is_file():
        what = "has no run.json and no audit.json" if folder.is_dir() else "is not a folder"
        raise RunError(
            f"{folder}: {what}; give the folder that 'contam run', 'contam trial' or "
            "'contam audit' wrote"
        )
    run = Run.load(folder)
    return Trial.load(folder) if run.experiment == "trial" else run
