"""Shell completion: the whole tree of commands, with the fields of every experiment as flags."""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import make_dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any

import tyro

from contam.cli.data import ACTIONS
from contam.cli.parsing import TYRO
from contam.cli.prediction import predict
from contam.cli.run import flags_of
from contam.cli.weights import registry
from contam.experiments import EXPERIMENTS


def print_completion(commands: Mapping[str, Callable[..., int]], arguments: Sequence[str]) -> None:
    """Print a completion script for bash, zsh or tcsh.

    Args:
        commands: the commands by name; `run`, `predict` and `data` are replaced by parsers that
            have all flags.
        arguments: `--tyro-print-completion` and the name of the shell.
    """
    experiments = {experiment.name: flags_of(experiment) for experiment in EXPERIMENTS}
    tree = {
        **commands,
        "predict": predict,
        "run": _nested(experiments, "Reproduce a figure or theorem."),
        "data": _nested(ACTIONS, "Check a data set's folder, or write the embedded benchmark."),
    }
    printed = io.StringIO()
    with registry, contextlib.suppress(SystemExit), contextlib.redirect_stdout(printed):
        tyro.extras.subcommand_cli_from_dict(
            tree, prog="contam", args=arguments, config=(*TYRO, tyro.conf.OmitSubcommandPrefixes)
        )
    for line in printed.getvalue().splitlines():
        # A line break inside a description would be offered as a word.
        print(line.replace("\\n", " ") if line.startswith("COMPLETION_SPEC") else line)


def _nested(choices: Mapping[str, Callable[..., Any]], summary: str) -> type:
    """A command whose first word chooses one of several parsers."""
    kinds = [
        Annotated[int, tyro.conf.subcommand(name, constructor=choice)]
        for name, choice in choices.items()
    ]
    return make_dataclass(
        "Nested", [("choice", reduce(or_, kinds))], namespace={"__doc__": summary}
    )
