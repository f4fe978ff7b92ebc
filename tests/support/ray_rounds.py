"""A Ray cluster of two nodes on this machine, and sweeps on it whose processes are killed.

`python -m support.ray_rounds --rounds 20` (with `src` and `tests` on PYTHONPATH) runs many rounds.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from contam.run import Run
from contam.sweep import Space, run_on_ray, space, sweep
from support.toy_experiment import TOY, Config

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Else a token that `ray.init` left in the home folder locks the second node out.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a-token-of-the-tests-alone",
    "RAY_worker_niceness": "0",
}
RUNS = 8


@contextlib.contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a cluster of two nodes with a core each; all of its processes are stopped."""
    ray = str(Path(sys.executable).with_name("ray"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(mkdtemp(prefix="ray-", dir="/tmp"))  # sockets need a short path
    sizes = ("--num-cpus", "1", "--object-store-memory", "100000000", "--block")
    head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
    nodes: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        log = (folder / f"node{len(nodes)}.log").open("wb")
        nodes.append(
            subprocess.Popen(
                [ray, "start", *words, "--node-ip-address=127.0.0.1", *sizes],
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=ENVIRONMENT,
            )
        )  # fmt: skip

        def started() -> bool:
            said = Path(log.name).read_text()
            assert nodes[-1].poll() is None, f"a node did not start: {said}"
            return "Ray runtime started" in said

        wait_for(started, 300)

    try:
        start(*head)
        start(f"--address=127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"
    finally:
        for node in reversed(nodes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGTERM)
        end = time.monotonic() + 2  # most nodes do not stop at a signal
        for node in reversed(nodes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(max(0.0, end - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(condition, seconds: float) -> None:
    """Wait until a condition holds; raises after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the cluster takes too long"
        time.sleep(0.05)


def configs(folder: Path) -> Space:
    """Runs of the toy experiment that note in a file what they compute."""
    return space(
        "toy", Config(log=str(folder / "log"), seconds=0.15), {"width": range(1, RUNS + 1)}
    )


def drive(folder: Path, address: str) -> Any:
    """A sweep of the toy experiment in a process of its own, without new imports."""

    def sweep_all() -> None:
        engine = partial(run_on_ray, address=address)
        for _ in sweep(TOY, configs(folder), out=folder / "runs", engine=engine):
            pass

    driver = multiprocessing.get_context("fork").Process(target=sweep_all)
    driver.start()
    return driver


def manifests(folder: Path) -> dict[Path, bytes]:
    """The run.json of every run of the toy experiment."""
    return {path: path.read_bytes() for path in sorted(folder.glob("runs/toy-*/run.json"))}


def finished(folder: Path) -> dict[Path, bytes]:
    return {
        path: content
        for path, content in manifests(folder).items()
        if json.loads(content)["finished"]
    }


def failure_round(folder: Path, address: str, *, kill: str, after: int) -> dict[str, int]:
    """Kill a worker or the driver of a sweep when so many runs are finished, and end the sweep.

    Args:
        folder: an empty folder.
        address: the cluster.
        kill: "worker" or "driver".
        after: number of finished runs at which the process is killed.

    Returns:
        Counts: runs finished before the kill, at the end, and computed by two processes.
    """
    driver = drive(folder, address)
    wait_for(lambda: len(finished(folder)) >= after or not driver.is_alive(), 300)
    before = finished(folder)
    if kill == "driver":
        driver.kill()
        driver.join()
        driver = drive(folder, address)
    else:
        # The process of an unfinished run stands in its own record.
        wait_for(
            lambda: set(manifests(folder)) - set(finished(folder)) or not driver.is_alive(), 60
        )
        for path in set(manifests(folder)) - set(finished(folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(json.loads(path.read_bytes())["sessions"][-1]["process"], signal.SIGKILL)
            break
    driver.join(300)
    assert driver.exitcode == 0, "the sweep failed"
    at_end = finished(folder)
    assert len(at_end) == RUNS, "a run is lost"
    assert all(at_end[path] == content for path, content in before.items()), "a run is done twice"
    lines = (folder / "log").read_text().split()
    assert len(lines) == len(set(lines)) and len(lines) <= 2 * RUNS, "a part is done twice"
    rows = Run.find(folder / "runs", "sweep", configs(folder)).read("runs")
    assert len(rows) == RUNS and not any(row["error"] for row in rows)
    shared = [len(json.loads(content)["sessions"]) > 1 for content in at_end.values()]
    return {"before": len(before), "at the end": len(at_end), "resumed": sum(shared)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--address", help="a cluster that runs already")
    args = parser.parse_args(arguments)
    os.environ.update(ENVIRONMENT)
    running = two_nodes() if args.address is None else contextlib.nullcontext(args.address)
    with running as address:
        for index in range(args.rounds):
            kill, after = ("worker", "driver")[index % 2], 1 + index % (RUNS - 2)
            begin = time.monotonic()
            with TemporaryDirectory() as folder:
                counts = failure_round(Path(folder), address, kill=kill, after=after)
            seconds = time.monotonic() - begin
            print(f"round {index + 1}: {kill} killed, {counts}, {seconds:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
