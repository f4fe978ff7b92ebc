"""The command line: each command parses, calls and prints; only here do errors become messages.

Heavy modules are imported inside the commands, so that `contam --help` answers at once.
"""

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
from contam.cli.data import ACTIONS, data
from contam.cli.parsing import TYRO, deferred, nearest, one_line_errors, parse
from contam.cli.run import demo, list_experiments, run, run_experiment
from contam.cli.where import where

__all__ = ["COMMANDS", "main"]

RESUMABLE = ("demo", "run", "data")
"""Commands that resume where they were stopped."""


def predict() -> int:
    """Predict contamination before any training, by the population model of two-layer networks."""
    raise AssertionError("parsed with the fields of the setting, which need torch")


COMMANDS: dict[str, Callable[..., int]] = {
    "demo": demo,
    "list": list_experiments,
    "run": run,
    "claims": claims,
    "report": report,
    "predict": predict,
    "audit": audit,
    "data": data,
    "where": where,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words of the command line, by default those of this process.

    Returns:
        The exit code: 0, 1 for a negative answer, 2 for a mistake of the user, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _interrupts_kept(), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _print_error(f"warning: {message}")
            return _dispatch(words)
    except KeyboardInterrupt:
        resumes = bool(words) and words[0] in RESUMABLE
        _print_error("stopped" + "; run the same command again to resume" * resumes)
        return 130
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
def _interrupts_kept() -> Iterator[None]:
    """Raise `KeyboardInterrupt` after Ctrl-C, also where a library turned it into another error.

    An interrupt during the import of an extension module arrives as an `ImportError`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = False

    def interrupt(*_: Any) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException as error:
        if interrupted and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)


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
    print(f"contam: {message}", file=sys.stderr)
