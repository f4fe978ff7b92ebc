"""A local sweep of two-layer networks: its cost over the bare runs, and runs a minute.

A bare run computes a config in its own run folder, in this process, and nothing else. The sweep of
the same configs adds the judged claims, the table and its own run; both are compared in CPU seconds
and alternate. Then all cores compute a sweep of a thousand configs of the smoke preset (one network
and one seed each), worker processes and their imports included.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from outcome import conclude, machine

from contam.experiments.simulation import EXPERIMENT, SMOKE, Config
from contam.run import Run
from contam.sweep import Space, run_locally, space, sweep
from contam.sweep.local import cores

SECONDS = 180
"""Longest time that a thousand runs may take on two cores."""


def configs(runs: int) -> Space:
    """Different weight decays, which take the same time."""
    base = SMOKE.model_copy(update={"seeds": 1})
    return space("simulation", base, {"weight_decay": f"log:1e-4:1e-1:{runs}"})


def bare(chosen: Space, root: Path) -> float:
    """CPU seconds of the runs alone."""
    begin = time.process_time()
    for _, config in chosen.configs(Config):
        with Run.start(root, EXPERIMENT.name, config) as run:
            for _ in EXPERIMENT.compute(config, run):
                pass
            run.finish()
    return time.process_time() - begin


def swept(chosen: Space, root: Path, jobs: int) -> tuple[float, float, Run]:
    """CPU seconds of this process, wall seconds, and the finished sweep."""
    begin, clock = time.process_time(), time.perf_counter()
    for _ in sweep(EXPERIMENT, chosen, out=root, engine=partial(run_locally, jobs=jobs)):
        pass
    seconds = time.process_time() - begin, time.perf_counter() - clock
    return *seconds, Run.find(root, "sweep", chosen)


def folders(rounds: int) -> Iterator[tuple[Path, Path]]:
    for _ in range(rounds):
        with TemporaryDirectory() as one, TemporaryDirectory() as other:
            yield Path(one), Path(other)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="runs of the sweep on all cores")
    parser.add_argument(
        "--compared", type=int, default=25, help="runs of a round of the comparison"
    )
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    few, wrong, ratios, alone = configs(args.compared), [], [], []
    for index, (one, other) in enumerate(folders(args.rounds + 1)):
        run_alone, (run_swept, _, run) = bare(few, one), swept(few, other, jobs=1)
        if index:  # the first round loads libraries
            alone.append(run_alone / args.compared)
            ratios.append(run_swept / run_alone)
        if [row["error"] for row in run.read("runs")] != [""] * args.compared:
            wrong.append("some runs failed")
        if read_all(one) != read_all(other):
            wrong.append("the sweep's runs differ from the bare ones")
    with TemporaryDirectory() as root:
        _, seconds, run = swept(configs(args.runs), Path(root), jobs=cores())
        if sum(not row["error"] for row in run.read("runs")) != args.runs:
            wrong.append("some runs of the large sweep failed")
    print(machine())
    print(f"a bare run {1e3 * statistics.median(alone):.0f} ms of CPU time")
    print(
        f"{args.runs} runs on {cores()} cores in {seconds:.0f} s: "
        f"{60 * args.runs / seconds:.0f} runs a minute"
    )
    if 1000 * seconds / args.runs * cores() / 2 > SECONDS:
        wrong.append(f"1000 runs on two cores take more than {SECONDS} s")
    return conclude(statistics.median(ratios), at_most=1.1, wrong=wrong)


def read_all(root: Path) -> dict[str, bytes]:
    """The tables of all runs below a folder, without the sweep's own."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.glob("simulation-*/tables/**/*.jsonl")
    }


if __name__ == "__main__":
    sys.exit(main())
