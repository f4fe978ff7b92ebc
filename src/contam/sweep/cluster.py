"""The engine on Ray Core: one task for each run, on any number of machines."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from contam.atomic_files import write_atomically
from contam.sweep.member import Member, Outcome, compute_member, read_files, write_files

MARK = ".shared"
"""File in the folder of all runs, by whose content a task sees whether it shares this folder."""
ANSWER_SECONDS = 5.0
"""How long the cluster's address may take to answer."""
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The preface of HTTP/2 and an empty settings frame."""
HTTP2_SETTINGS = bytes([4])
"""The type of a settings frame, its fourth byte."""
AHEAD = 4
"""Tasks handed to the cluster for each that can run at once."""


def run_on_ray(
    members: Sequence[Member],
    *,
    address: str | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    retries: int = 3,
) -> Iterator[Outcome]:
    """Compute runs as tasks of a Ray cluster.

    A task whose worker or machine dies is tried again, and resumes its run where it can. Where the
    folder of all runs is on storage that machines share, tasks write into it; on other machines
    they write to a temporary folder, and send the finished run back.

    Args:
        members: the runs.
        address: HOST:PORT of the cluster's head, "auto" for the cluster that this machine belongs
            to, or None to start Ray on this machine alone.
        cpus: cores of one task.
        gpus: GPUs of one task; a fraction shares a GPU.
        retries: how often a task is tried again whose worker dies.

    Yields:
        The outcome of each run, as they end.

    Raises:
        ValueError: Ray is not installed, or the cluster does not answer or is lost.

    >>> list(run_on_ray([], address="head"))
    Traceback (most recent call last):
    ValueError: address 'head': write HOST:PORT of the head node, or auto
    """
    with _connected(address) as ray:
        if not members:
            return
        root = members[0].root.resolve()
        mark = mark_folder(root)
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=retries)(compute_anywhere)
        waiting = iter([replace(member, root=root) for member in members])
        slots = max(1, int(ray.cluster_resources().get("CPU", 1) / max(cpus, 0.01)))
        pending = {task.remote(m, mark): m for m in islice(waiting, AHEAD * slots)}
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            member = pending.pop(ready)
            yield _received(ray, ready, member)
            for following in islice(waiting, 1):
                pending[task.remote(following, mark)] = following


def mark_folder(root: Path) -> str:
    """Write `MARK` into the folder of all runs, if it is not there.

    Args:
        root: the folder.

    Returns:
        The content of the mark, which no other folder has.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> mark_folder(root) == mark_folder(root) != mark_folder(root / "other")
    True
    """
    path = root / MARK
    if not path.is_file():
        write_atomically(path, uuid4().hex.encode())
    return path.read_text()


def compute_anywhere(member: Member, mark: str) -> tuple[Outcome, Mapping[str, bytes]]:
    """Compute a run on any machine: what one task does.

    Args:
        member: the run.
        mark: content of `MARK` in the folder of all runs, on the machine that wants the run.

    Returns:
        The outcome; and the files of the run, if this machine does not share the folder.
    """
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    path = member.root / MARK
    if path.is_file() and path.read_text() == mark:
        return compute_member(member), {}
    with TemporaryDirectory(prefix="contam-") as scratch:
        elsewhere = replace(member, root=Path(scratch))
        outcome = compute_member(elsewhere)
        return outcome, {} if outcome.error else read_files(elsewhere.folder)


def _received(ray: Any, ready: Any, member: Member) -> Outcome:
    try:
        outcome, files = ray.get(ready)
    except ray.exceptions.RayError as failure:
        if not ray.is_initialized():
            raise ValueError(
                "the Ray cluster is lost; run the same command again: finished runs are kept"
            ) from None
        return Outcome(member.index, error=str(failure).strip().splitlines()[-1])
    if files:
        write_files(member.folder, files)
    return outcome


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster for as long as the context lasts."""
    try:
        import ray
    except ImportError:
        raise ValueError("Ray is not installed; pip install 'contam[scale]'") from None
    if address is not None and address != "auto":
        check_address(address)
    try:
        ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as failure:
        reason = " ".join(str(failure).split())
        if address is None:
            raise ValueError(f"Ray does not start on this machine: {reason}") from None
        raise ValueError(
            f"no Ray cluster at {address}: {reason}; a cluster with a token needs "
            "RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN here"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raise an error unless the head of a Ray cluster listens at an address.

    Ray itself would wait for minutes. The head speaks gRPC, so it answers the greeting of HTTP/2
    with its settings; other servers do not.

    Args:
        address: HOST:PORT.

    Raises:
        ValueError: the address is malformed, or no such server answers within `ANSWER_SECONDS`.

    >>> check_address("head")
    Traceback (most recent call last):
    ValueError: address 'head': write HOST:PORT of the head node, or auto
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise ValueError(f"address {address!r}: write HOST:PORT of the head node, or auto")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
            if "RAY_USE_TLS" not in os.environ:
                connection.sendall(HTTP2_GREETING)
                if connection.recv(4)[3:] != HTTP2_SETTINGS:
                    raise OSError("another kind of server")
    except (OSError, OverflowError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise ValueError(
            f"no Ray cluster answers at {address} ({reason}); 'ray start --head' prints the address"
        ) from None
