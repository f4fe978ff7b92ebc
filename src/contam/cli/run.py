"""`contam run`, `contam demo` and `contam list`: compute experiments."""

import os
import re
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import is_dataclass, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from contam.cli.claims import print_claims, write_page
from contam.cli.parsing import config_from_yaml, config_to_yaml, nearest, parse, value_of
from contam.cli.progress import columns, follow, stderr_console

if TYPE_CHECKING:
    from pydantic import BaseModel

    from contam.experiment import Experiment, Stage
    from contam.run import Run

RUNS = Path("runs")


def demo(
    out: Path = RUNS, page: Path = Path("contam-demo.html"), quick: bool = False
) -> int:  # fmt: skip
    """Run the theory and the image experiments on this machine, and write a page about them.

    Runs the laptop presets that are quick and smaller versions of others, in two or three minutes
    on two cores.

    Args:
        out: folder that holds the runs.
        page: the HTML file to write.
        quick: check an installation within a minute: run the smallest presets, whose networks are
            too small for most claims.
    """
    from contam.atomic_files import reserved
    from contam.experiments import EXPERIMENTS, IN_DEMO
    from contam.run import Run

    start = time.monotonic()
    presets = dict.fromkeys(IN_DEMO, "smoke") if quick else IN_DEMO
    with reserved(page):
        _compute_in_parallel(presets, out)
        runs = [
            Run.find(out, experiment.name, experiment.presets[presets[experiment.name]])
            for experiment in EXPERIMENTS
            if experiment.name in presets
        ]
        for run in runs:
            print_claims(run)
        write_page(runs, page)
    if quick:
        print("these networks are too small for most claims; 'contam demo' judges the claims")
    print(f"{time.monotonic() - start:.0f} s; open {page.resolve().as_uri()} in a browser")
    return 0


def list_experiments() -> int:
    """List the experiments, the figures and theorems that they reproduce, and their presets."""
    from contam.experiments import EXPERIMENTS

    for experiment in EXPERIMENTS:
        print(f"{experiment.name:24} {experiment.title}")
        items = f"{', '.join(experiment.reproduces)}; " if experiment.reproduces else ""
        print(f"{'':24} {items}presets {', '.join(experiment.presets)}")
    return 0


def run() -> int:
    """Reproduce a figure or theorem: contam run NAME|"Fig. 8" [PRESET] [--FIELD VALUE ...].

    Presets are laptop (the default), paper and smoke; 'contam run NAME --help' lists the fields.
    """
    raise ValueError(
        "which experiment? 'contam list' shows their names; then: contam run NAME [PRESET]"
    )


def run_experiment(name: str, arguments: Sequence[str]) -> int:
    """Compute one experiment, or resume it, and print its claims.

    Args:
        name: its name, or a figure or theorem that it reproduces.
        arguments: a preset and flags, as they stand on the command line.
    """
    from contam import experiments
    from contam.cli.weights import registry

    experiment = experiments.find(name)
    preset, *flags = arguments if arguments and not arguments[0].startswith("-") else [
        "laptop", *arguments,
    ]  # fmt: skip
    if preset not in experiment.presets:
        raise ValueError(
            f"{experiment.name} has no preset {preset!r}; {nearest(preset, experiment.presets)}"
        )
    config = experiment.presets[preset]
    file = value_of("--config", flags)
    if file is not None:
        config = config_from_yaml(Path(file), config)
    record = flags_of(experiment)
    parsed = parse(
        record,
        flags,
        prog=f"contam run {experiment.name} {preset}",
        default=record(config, RUNS, None, False, False),
        constructors=registry,
    )
    settings = experiment.null(parsed.settings) if parsed.null else parsed.settings
    if parsed.print_config:
        print(config_to_yaml(settings, f"contam run {experiment.name}"), end="")
        return 0
    run = compute_run(experiment, settings, parsed.out)
    if _is_main_process():
        print_claims(run)
        if parsed.null:
            about = [claim for claim in experiment.claims(run) if claim.about_learning]
            print(
                f"null run: {sum(claim.in_range is True for claim in about)} of {len(about)} "
                "claims about learning have a number in their range; none should"
            )
        for line in experiment.notes(run):
            print(line)
        print(f"CPU time: {_cpu_time(run)}")
        print(f"the run is in {run.folder}; its page: contam report {run.folder}")
    return 0


def _cpu_time(run: "Run") -> str:
    """CPU time of all sessions of a run, and for each seed."""
    from contam.report.words import duration

    total = sum(session.processor_seconds for session in run.sessions)
    seeds = run.config.get("seeds", 1)
    return duration(total) + (f", {duration(total / seeds)} for each seed" if seeds > 1 else "")


def flags_of(experiment: "Experiment") -> Any:
    """The record of an experiment's flags: the fields of its config, and those of every run."""
    from pydantic import BaseModel

    config = experiment.presets["laptop"]
    settings: Any = Annotated[type(config), tyro.conf.arg(name="")]
    parts = [name for name, value in config if isinstance(value, BaseModel) or is_dataclass(value)]
    if parts == ["setting"]:
        # The parts of a setting have no field in common with each other; other parts do.
        settings = Annotated[settings, tyro.conf.OmitArgPrefixes]
    return make_dataclass(
        "Flags",
        [
            ("settings", settings),
            ("out", Annotated[Path, tyro.conf.arg(help="folder that holds the runs")]),
            ("config", Annotated[Path | None, tyro.conf.arg(help="YAML file of fields")]),
            ("null", Annotated[bool, tyro.conf.arg(help="step sizes of 1e-9: nothing is learned")]),
            ("print_config", Annotated[bool, tyro.conf.arg(help="print the fields as YAML; stop")]),
        ],
        namespace={"__doc__": f"{experiment.title}.\n\n{experiment.about}"},
    )


def compute_run(experiment: "Experiment", config: "BaseModel", out: Path) -> "Run":
    """Compute a run with its progress shown; a finished run is only loaded.

    Args:
        experiment: the experiment.
        config: its resolved config.
        out: the folder of all runs.
    """
    import torch

    from contam.run import Run

    if "OMP_NUM_THREADS" not in os.environ:
        # Networks this small are fastest on one thread, which also gives the same bits everywhere.
        torch.set_num_threads(1)
    silent = not _is_main_process()

    def stages(run: Run) -> "Generator[Stage, None, None]":
        yield from experiment.compute(config, run)

    with Run.start(out, experiment.name, config) as run:
        if run.finished:
            stderr_console(silent=silent).print(
                f"{experiment.name}: already finished, in {run.folder}"
            )
        else:
            follow(experiment.name, stages(run), silent=silent)
            run.finish()
        return Run.load(run.folder)


def _compute_in_parallel(presets: Mapping[str, str], out: Path) -> None:
    """Compute presets of experiments in a process each, as many at once as there are cores."""
    from concurrent.futures import ThreadPoolExecutor
    from subprocess import PIPE, Popen

    from rich.progress import Progress

    from contam.sweep.local import cores

    console = stderr_console()
    running: list[Popen[str]] = []

    def compute(name: str) -> None:
        command = [sys.executable, "-m", "contam", "run", name, presets[name], "--out", str(out)]
        process = Popen(command, stdout=PIPE, stderr=PIPE, text=True)
        running.append(process)
        line = ""
        for line in process.stderr or ():
            if progress := re.match(r"\w+: +(\d+) %(?: \([\d:]+ left\))? (.*)", line):
                percent, doing = int(progress[1]), progress[2]
                bars.update(tasks[name], completed=percent, description=f"{name}: {doing}")
                if not console.is_terminal:
                    console.print(line.strip())
        if process.wait() != 0:
            raise ValueError(line.strip().removeprefix("contam: "))
        bars.update(tasks[name], completed=100, description=name)

    with Progress(*columns(), console=console, disable=not console.is_terminal) as bars:
        tasks = {name: bars.add_task(name, total=100) for name in presets}
        with ThreadPoolExecutor(max_workers=cores()) as pool:
            try:
                for computed in [pool.submit(compute, name) for name in presets]:
                    computed.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in running:
                    process.terminate()
                raise


def _is_main_process() -> bool:
    """Whether this process prints, of those that compute a run together."""
    from contam.training.distributed import rank

    return rank() == 0
