"""Which process computed a part of a run: versions, hardware and commit."""

import contextlib
import functools
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import BaseModel

from contam.training.distributed import processes


class Session(BaseModel):
    """One process that computed parts of a run: start, duration, versions and hardware."""

    started: str
    """Coordinated universal time, ISO 8601."""
    seconds: float = 0.0
    """Wall time from the start to the last write."""
    processor_seconds: float = 0.0
    """CPU time of the process over the same period; 0 in runs of earlier versions."""
    process: int
    versions: dict[str, str]
    hardware: dict[str, str | int]
    commit: str | None
    """Git commit of contam, with the suffix '+changes' when the working tree was not clean."""


def this_session() -> Session:
    """Return the versions, the hardware and the commit of this process, for a run that it starts.

    Returns:
        A session that starts now, with 0 seconds of work.

    >>> session = this_session()
    >>> session.process == os.getpid(), session.seconds
    (True, 0.0)
    """
    hardware: dict[str, str | int] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        hardware["accelerator"] = torch.cuda.get_device_name()
    if processes() > 1:
        hardware["processes"] = processes()
    return Session(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        process=os.getpid(),
        versions=versions(),
        hardware=hardware,
        commit=current_commit(),
    )


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python, contam and the libraries that determine numbers.

    Returns:
        Versions by name, Python first.

    >>> list(versions())
    ['python', 'contam', 'torch', 'numpy', 'scikit-learn']
    """
    packages = ("contam", "torch", "numpy", "scikit-learn")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


@functools.cache
def _processor() -> str:
    """Return the name of the processor, or "unknown"."""
    with contextlib.suppress(OSError):
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if match:
            return match[1].strip()
    return platform.processor() or "unknown"


@functools.cache
def current_commit() -> str | None:
    """Return the git commit of the checkout of this file, or None if it is in no checkout.

    It is read once, since a process goes on with the code that it has imported.

    Returns:
        The hash in hexadecimal digits, with the suffix '+changes' if a file of contam was changed.

    >>> commit = current_commit()
    >>> commit is None or len(commit.removesuffix("+changes")) == 40
    True
    """

    def git(*arguments: str) -> str:
        here = Path(__file__)
        command = ["git", "-C", str(here.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = "+changes" if git("status", "--porcelain", "--", ".") else ""
        return git("rev-parse", "HEAD") + changed
    except (OSError, subprocess.SubprocessError):
        return None
