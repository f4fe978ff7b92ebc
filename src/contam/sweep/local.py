"""The local engine: worker processes with one thread each."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from contam.sweep.member import Member, Outcome, compute_member

ATTEMPTS = 3
"""How often a run is tried whose worker process dies."""


def run_locally(members: Sequence[Member], *, jobs: int | None = None) -> Iterator[Outcome]:
    """Compute runs on this machine.

    Each worker process imports torch once, and has one thread. One job needs no worker: the runs
    are computed in this process.

    Args:
        members: the runs.
        jobs: number of runs at a time, by default the number of cores.

    Yields:
        The outcome of each run, as they end.

    Raises:
        ValueError: `jobs` is not positive.
        RuntimeError: worker processes can't start.

    >>> list(run_locally([], jobs=1))
    []
    """
    jobs = min(cores() if jobs is None else jobs, max(len(members), 1))
    if jobs < 1:
        raise ValueError(f"jobs={jobs} must be at least 1")
    return _in_this_process(members) if jobs == 1 else _in_workers(members, jobs)


def cores() -> int:
    """Number of cores that this process may use.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_this_process(members: Sequence[Member]) -> Iterator[Outcome]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from map(compute_member, members)
    finally:
        torch.set_num_threads(threads)


class _Worker:
    """A process that computes one run after the other, and this process's end of the pipe."""

    def __init__(self, context: Any) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        # With this copy closed, the connection ends when the worker does.
        theirs.close()
        self.member: Member | None = None
        self.started = False

    def give(self, member: Member) -> None:
        self.member = member
        self.connection.send(member)

    def receive(self) -> Outcome:
        """The outcome of the worker's run; raises `EOFError` if the process has died."""
        if not self.started:
            try:
                self.connection.recv()
            except (EOFError, OSError):
                raise RuntimeError(
                    "a worker process can't start; call sweep in a script under "
                    "if __name__ == '__main__', or take jobs=1"
                ) from None
            self.started = True
        return self.connection.recv()

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


def _in_workers(members: Sequence[Member], jobs: int) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    waiting, attempts = deque(members), dict.fromkeys((member.index for member in members), 0)
    workers = [_Worker(context) for _ in range(jobs)]
    try:
        for worker in workers:
            worker.give(waiting.popleft())
        while busy := [worker for worker in workers if worker.member is not None]:
            ready = wait([worker.connection for worker in busy])
            for worker in [worker for worker in busy if worker.connection in ready]:
                member, worker.member = worker.member, None
                assert member is not None, "a busy worker has a run"
                try:
                    yield worker.receive()
                except (EOFError, OSError):
                    worker.stop()
                    workers[workers.index(worker)] = worker = _Worker(context)  # noqa: PLW2901
                    attempts[member.index] += 1
                    if attempts[member.index] < ATTEMPTS:
                        waiting.appendleft(member)
                    else:
                        yield Outcome(member.index, error=f"its process died {ATTEMPTS} times")
                if waiting:
                    worker.give(waiting.popleft())
    finally:
        for worker in workers:
            worker.stop()


def _serve(connection: Connection) -> None:
    """Compute the runs that arrive, until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the process that started us
    torch.set_num_threads(1)
    connection.send(None)  # It has started: this module could be imported.
    while True:
        try:
            member = connection.recv()
        except EOFError:
            return
        outcome = compute_member(member)
        try:
            connection.send(outcome)
        except BrokenPipeError:
            return
