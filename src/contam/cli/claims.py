"""`contam claims` and `contam report`: judge finished runs and write a page about them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from contam.experiment import Claim
    from contam.run import Run

RunFolders = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]


def claims(runs: RunFolders, as_json: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
    """Print which of the paper's claims hold in the runs, with the numbers measured.

    Args:
        runs: folders of runs.
        as_json: print a list of objects instead of text.
    """
    loaded = _load(runs)
    if as_json:
        records = [claim.record(run.experiment) for run in loaded for claim in _judged(run)]
        print(json.dumps(records, indent=1, ensure_ascii=False))
    else:
        for run in loaded:
            print_claims(run)
    return 0


def report(runs: RunFolders, out: Path = Path("contam-report.html")) -> int:
    """Write one HTML page about the runs: claims, figures, and how they were made.

    Args:
        runs: folders of runs.
        out: the file to write.
    """
    from contam.run import reserved

    loaded = _load(runs)
    with reserved(out):
        write_page(loaded, out)
    print(f"open {out.resolve().as_uri()} in a browser")
    return 0


def print_claims(run: "Run") -> None:
    """Print each claim beside its verdict, with the measured number below it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from contam.experiment import number

    colors = {True: "green", False: "red", None: "dim"}
    table = Table.grid(padding=(0, 2))
    table.add_column(width=13)
    table.add_column()
    for claim in _judged(run):
        spread = f" ± {number(claim.spread)}" if claim.spread is not None else ""
        measured = f"{claim.quantity}: {number(claim.found)}{spread} (n {claim.n})"
        expected = claim.not_judged or f"expected {claim.expected_range}"
        sentence = f"{claim.says} ({claim.source})\n"
        table.add_row(
            Text(claim.verdict, colors[claim.holds]),
            Text.assemble(sentence, (f"{measured}; {expected}", "dim")),
        )
    console = Console(highlight=False)
    console.print(f"\n[bold]{run.experiment}[/]")
    console.print(table)


def write_page(runs: Sequence["Run"], path: Path) -> None:
    """Write the HTML page about runs."""
    from contam import experiments, report
    from contam.monitor.page import WATCHED
    from contam.sweep import SWEEP

    known = (*experiments.EXPERIMENTS, WATCHED, SWEEP)
    report.write(runs, path, {experiment.name: experiment for experiment in known})


def _load(folders: Sequence[Path]) -> list["Run"]:
    from contam.run import Run

    if not folders:
        raise ValueError("which run? give one or more folders that 'contam run' printed")
    return [Run.load(folder) for folder in folders]


def _judged(run: "Run") -> Sequence["Claim"]:
    from contam import experiments
    from contam.monitor.page import WATCHED
    from contam.sweep import SWEEP

    if not run.finished:
        raise ValueError(f"{run.folder}: is not finished; run the same command again to resume")
    if run.experiment in (WATCHED.name, SWEEP.name):
        return []
    return experiments.named(run.experiment).claims(run)
