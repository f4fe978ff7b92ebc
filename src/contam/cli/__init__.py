"""The command line: each command parses, calls and prints; only here do errors become messages.

Heavy modules are imported inside the commands, so that `contam --help` answers at once.
"""

import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tyro

from contam.cli.audit import audit
from contam.cli.claims import claims, report
from contam.cli.compare import compare
from contam.cli.data import ACTIONS, data
from contam.cli.figures import figures
from contam.cli.parsing import TYRO, deferred, nearest, one_line_errors, parse
from contam.cli.run import demo, list_experiments, run, run_experiment
from contam.cli.sweep import sweep
from contam.cli.trial import trial
from contam.cli.where import where
from contam.text_files import printable

__all__ = ["COMMANDS", "main"]

RESUMABLE = (["compare"], ["demo"], ["run"], ["sweep"], ["trial"], ["data", "make"])
"""First words of the commands that resume where they were stopped."""
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that end a command: Ctrl-C, `kill` or a scheduler's time limit, and a closed terminal."""
NO_MEMORY = ("can't allocate memory", "out of memory")
"""Parts of the messages of PyTorch's errors when memory runs out."""


def predict() -> int:
    """Predict contamination before any training, by the population model of two-layer networks."""
    raise AssertionError("parsed with the fields of the setting, which need torch")


COMMANDS: dict[str, Callable[..., int]] = {
    "demo": demo,
    "list": list_experiments,
    "run": run,
    "claims": claims,
    "figures": figures,
    "report": report,
    "predict": predict,
    "audit": audit,
    "sweep": sweep,
    "compare": compare,
    "trial": trial,
    "data": data,
    "where": where,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words of the command line, by default those of this process.

    Returns:
        The exit code: 0, 1 for a negative answer, 2 for a mistake of the user, and 128 and the
        signal's number after a signal, which is 130 for Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Names of files need not be UTF-8, and printing them must not fail.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _signals_as_interrupts(), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _print_error(f"warning: {message}")
            return _dispatch(words)
    except KeyboardInterrupt as stop:
        resumes = any(words[: len(command)] == command for command in RESUMABLE)
        _print_error("stopped" + "; run the same command again to resume" * resumes)
        return 128 + int(stop.args[0] if stop.args else signal.SIGINT)
    except (MemoryError, RuntimeError) as error:
        no_memory = isinstance(error, MemoryError) or any(k in str(error) for k in NO_MEMORY)
        if not no_memory or os.environ.get("CONTAM_TRACEBACK"):
            raise
        _print_error("memory runs out; choose smaller sizes or batches")
        return 2
    except BrokenPipeError:
        # The reader of our output (say, `head`) has closed the pipe; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        if os.environ.get("CONTAM_TRACEBACK"):
            raise
        _print_error(" ".join(str(error).split()))
        return 2


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Raise `KeyboardInterrupt` with the signal's number at each of `SIGNALS`.

    It is also raised where a library turned it into another error: an interrupt during the import
    of an extension module arrives as an `ImportError`. A second signal ends the process at once,
    and a signal that is ignored, as by nohup, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    received: int | None = None

    def interrupt(number: int, _frame: Any) -> None:
        nonlocal received
        received = number
        for other in caught:
            signal.signal(other, signal.SIG_DFL)
        raise KeyboardInterrupt(number)

    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, interrupt)
    try:
        yield
    except BaseException as error:
        if received is not None and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(received) from error
        raise
    finally:
        for number in caught:
            signal.signal(number, before[number])


def _dispatch(words: list[str]) -> int:
    match words:
        case ["--version"]:
            from contam import __version__

            print(f"contam {__version__}")
            return 0
        case ["--tyro-print-completion", *_]:
            from contam.cli.completion import print_completion

            print_completion(COMMANDS, words)
            return 0
        case ["run", name, *rest] if not name.startswith("-"):
            return run_experiment(name, rest)
        case ["predict", *rest]:
            from contam.cli import prediction
            from contam.cli.weights import registry

            return parse(prediction.predict, rest, prog="contam predict", constructors=registry)()
        case ["data", action, *rest] if action in ACTIONS:
            return parse(ACTIONS[action], rest, prog=f"contam data {action}")()
        case [name, *_] if not name.startswith("-") and name not in COMMANDS:
            raise ValueError(f"no command {name!r}; {nearest(name, COMMANDS)}")

    with one_line_errors():
        chosen: Any = tyro.extras.subcommand_cli_from_dict(
            {name: deferred(command) for name, command in COMMANDS.items()},
            prog="contam",
            description="Why a network fails on shifted data: feature contamination, reproduced, "
            "predicted and measured.",
            args=words or ["--help"],
            config=TYRO,
        )
    return chosen()


def _print_error(message: str) -> None:
    print(f"contam: {printable(message)}", file=sys.stderr)
