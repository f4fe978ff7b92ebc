"""Show the progress of long work: a bar on a terminal, lines elsewhere, with the time left."""

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from contam.experiment import Stage

Result = TypeVar("Result")

QUIET_SECONDS = 1.0
"""Work that ends within this time prints no lines where there is no terminal."""


class ProgressDisplay:
    """The progress of one piece of work, on standard error.

    A terminal gets a bar with the time elapsed and the time left. Anything else gets a line at
    every 5 %, with an estimate of the time left. Nothing is shown before the first update, so a
    mistake in the arguments is reported alone.

    Args:
        title: what the work is, in a word.
        silent: show nothing, for processes that are not the main one.
    """

    def __init__(self, title: str, *, silent: bool = False) -> None:
        self.title, self.silent = title, silent
        self.console = stderr_console(silent=silent)
        self._bars: Progress | None = None
        self._start = 0.0
        self._done_at_start: float | None = None
        self._printed = -1

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, done: float, doing: str = "") -> None:
        """Report progress.

        Args:
            done: share of the work done, from 0 to 1.
            doing: the current part of the work, in a few words.
        """
        now = time.monotonic()
        if self._done_at_start is None:
            self._start, self._done_at_start = now, done
        if self.silent:
            return
        if self.console.is_terminal:
            if self._bars is None:
                from rich.progress import Progress

                self._bars = Progress(*columns(), console=self.console)
                self._bars.add_task(self.title, total=1.0)
                self._bars.start()
            text = f"{self.title}: {doing}" if doing else self.title
            self._bars.update(self._bars.task_ids[0], completed=done, description=text)
            return
        elapsed, percent = now - self._start, int(100 * done)
        if percent // 5 > self._printed and elapsed > QUIET_SECONDS:
            self._printed = percent // 5
            left = _time_left(elapsed, self._done_at_start, done)
            self.console.print(f"{self.title}: {percent:3} %{left} {doing}".rstrip())


def follow(title: str, stages: "Generator[Stage, None, Result]", *, silent: bool = False) -> Result:
    """Run a generator of stages to its end, showing its progress; return what it returns.

    >>> def work():
    ...     yield Stage(0.5, "half")
    ...     return "done"
    >>> from contam.experiment import Stage
    >>> follow("work", work(), silent=True)
    'done'
    """
    with ProgressDisplay(title, silent=silent) as display:
        while True:
            try:
                stage = next(stages)
            except StopIteration as finished:
                return finished.value
            display.update(stage.done, stage.doing)


def columns() -> tuple[Any, ...]:
    """The columns of a progress bar."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return (
        TextColumn("{task.description:45}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )


def stderr_console(*, silent: bool = False) -> "Console":
    """The console for progress and messages."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, quiet=silent)


def _time_left(elapsed: float, done_at_start: float, done: float) -> str:
    """An estimate in words, from the share done since the start; empty when there is none yet."""
    if done <= done_at_start or done >= 1:
        return ""
    seconds = round(elapsed * (1 - done) / (done - done_at_start))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f" ({clock} left)"
