"""`contam claims` and `contam report`: judge finished runs and write a page about them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from contam.cli.progress import ProgressDisplay

if TYPE_CHECKING:
    from contam.experiment import Claim, Experiment
    from contam.run import Run

RunFolders = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
Format = Literal["text", "csv", "latex", "markdown", "json"]


def claims(
    runs: RunFolders, text_format: Annotated[Format, tyro.conf.arg(name="format")] = "text"
) -> int:
    """Print which of the paper's claims hold in the runs, with the numbers measured.

    Args:
        runs: folders of runs.
        text_format: csv and json have every field and all digits; latex (with booktabs) and
            markdown are tables for readers.
    """
    from contam.report.tables import claims_rows, table_text

    judged = _judge(load_runs(runs))
    if text_format == "text":
        for experiment, own in judged:
            _print(experiment, own)
        return 0
    if text_format in ("csv", "json"):
        rows = [claim.record(name) for name, own in judged for claim in own]
    else:
        rows = claims_rows([claim for _, own in judged for claim in own])
        if len(judged) > 1:
            names = [name for name, own in judged for _ in own]
            rows = [{"experiment": name} | row for name, row in zip(names, rows, strict=True)]
    print(table_text(rows, text_format), end="")
    return 0


def report(runs: RunFolders, out: Path = Path("contam-report.html")) -> int:
    """Write one HTML page about the runs: claims, figures, and how they were made.

    Args:
        runs: folders of runs.
        out: the file to write.
    """
    from contam.atomic_files import reserved

    loaded = _load(runs)
    with reserved(out):
        write_page(loaded, out)
    print(f"open {out.resolve().as_uri()} in a browser")
    return 0


def print_claims(run: "Run") -> None:
    """Print each claim beside its verdict, with the measured number below it."""
    for experiment, judged in _judge([run]):
        _print(experiment, judged)


def _judge(runs: Sequence["Run"]) -> "list[tuple[str, Sequence[Claim]]]":
    """Judge the claims of finished runs, with progress; return them with their experiments."""
    judged = []
    with ProgressDisplay("claims") as display:
        for place, run in enumerate(runs):
            display.update(place / len(runs), run.experiment)
            with run.reading():
                judged.append((run.experiment, read_experiment(run).claims(run)))
    return judged


def _print(experiment: str, judged: "Sequence[Claim]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from contam.report.tables import measured

    colors = {True: "green", False: "red", None: "dim"}
    table = Table.grid(padding=(0, 2))
    table.add_column(width=13)
    table.add_column()
    for claim in judged:
        quantity = f"{claim.quantity}: {measured(claim)} (n {claim.n})"
        expected = claim.not_judged or f"expected {claim.expected_range}"
        sentence = f"{claim.says} ({claim.source})\n"
        table.add_row(
            Text(claim.verdict, colors[claim.holds]),
            Text.assemble(sentence, (f"{quantity}; {expected}", "dim")),
        )
    console = Console(highlight=False)
    console.print(f"\n[bold]{experiment}[/]")
    console.print(table)


def write_page(runs: Sequence["Run"], path: Path) -> None:
    """Write the HTML page about runs."""
    from contam import experiments, report
    from contam.monitor.page import WATCHED
    from contam.sweep import SWEEP

    known = (*experiments.EXPERIMENTS, WATCHED, SWEEP)
    with ProgressDisplay("report") as display:
        by_name = {experiment.name: experiment for experiment in known}
        report.write(runs, path, by_name, display.update)


def load_runs(folders: Sequence[Path]) -> list["Run"]:
    """Open finished runs.

    Raises:
        ValueError: there is no folder, or a run is not finished.
    """
    runs = _load(folders)
    for run in runs:
        if not run.finished:
            raise ValueError(f"{run.folder}: is not finished; run the same command again to resume")
    return runs


def read_experiment(run: "Run") -> "Experiment":
    """Return the experiment that a run belongs to."""
    from contam import experiments
    from contam.monitor.page import WATCHED
    from contam.sweep import SWEEP

    others = {other.name: other for other in (WATCHED, SWEEP)}
    return others.get(run.experiment) or experiments.named(run.experiment)


def _load(folders: Sequence[Path]) -> list["Run"]:
    from contam.auditing.result import RECORD
    from contam.run import Run

    if not folders:
        raise ValueError("which run? give one or more folders that 'contam run' printed")
    for folder in folders:
        if (folder / RECORD).is_file():
            raise ValueError(
                f"{folder}: is an audit, not a run; open its page audit.html, or write its figures "
                f"with 'contam figures {folder}'"
            )
    return [Run.load(folder) for folder in folders]
