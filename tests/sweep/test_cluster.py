"""Sweeps on Ray: the cluster's address, lost processes, and the files for clusters."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.command_line import run_contam
from support.ray_rounds import ENVIRONMENT
from support.toy_experiment import TOY, Config, Inner

from contam.sweep import Member, check_address
from contam.sweep.cluster import compute_anywhere, mark_folder
from contam.sweep.member import read_files, write_files

CLUSTER = Path(__file__).parents[2] / "examples" / "cluster"


@pytest.fixture
def server():
    """Starts a server that answers each connection with the same bytes; returns its address."""
    listeners = []

    def start(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer)
                connection.recv(100)
                time.sleep(0 if answer else 1)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def test_a_server_that_greets_as_grpc_is_accepted(server):
    check_address(server(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown\r\n"])
def test_any_other_server_is_refused(server, answer, monkeypatch):
    monkeypatch.setattr("contam.sweep.cluster.ANSWER_SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"no Ray cluster answers at 127.0.0.1:\d+ \("):
        check_address(server(answer))


@pytest.mark.parametrize("address", ["head", "ray://127.0.0.1:6379", ":6379", "127.0.0.1:port"])
def test_an_address_has_a_host_and_a_port(address):
    with pytest.raises(ValueError, match="write HOST:PORT of the head node, or auto"):
        check_address(address)


def test_an_address_that_does_not_answer_is_one_line_and_leaves_nothing(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    code, out, said = run_contam(
        capsys, "sweep", "simulation", "smoke", "--grid", "width=8,16", "--engine", "ray",
        "--address", f"127.0.0.1:{free}", "--out", tmp_path / "runs",
    )  # fmt: skip
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert said.startswith(f"contam: no Ray cluster answers at 127.0.0.1:{free} (")
    assert not (tmp_path / "runs").exists()


def test_a_task_writes_into_a_shared_folder_and_sends_files_from_elsewhere(tmp_path):
    here = Member.of(0, tmp_path / "here", TOY, Config())
    mark = mark_folder(here.root)
    outcome, files = compute_anywhere(here, mark)
    assert here.finished and not files
    # The same path on a machine with another disk: it has no mark, or that of another sweep.
    for other in (tmp_path / "none", tmp_path / "another"):
        if other.name == "another":
            mark_folder(other)
        there = replace(here, root=other)
        sent, files = compute_anywhere(there, mark)
        assert sent.numbers == outcome.numbers and not there.folder.exists()
        write_files(there.folder, files)
        assert there.finished
        tables = [read_files(run.folder)["tables/seed0.jsonl"] for run in (here, there)]
        assert tables[0] == tables[1]
    failing = Member.of(0, tmp_path / "none", TOY, Config(inner=Inner(rate=-1)))
    outcome, files = compute_anywhere(failing, mark)
    assert outcome.error == "the rate is negative" and not files


def test_the_kubernetes_job_is_a_rayjob_whose_pods_share_the_runs():
    job = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = job["spec"]["entrypoint"].split()
    assert words[:2] == ["contam", "sweep"] and words[-4:] == [
        "--engine",
        "ray",
        "--address",
        "auto",
    ]
    folder = words[words.index("--out") + 1]
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = set()
    for group in groups:
        pod = group["template"]["spec"]
        (container,), (volume,) = pod["containers"], pod["volumes"]
        images.add(container["image"])
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": folder}]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert volume["persistentVolumeClaim"] == {"claimName": "contam-runs"}
    assert len(images) == 1  # all pods have the same versions
    assert all(group["replicas"] >= group["minReplicas"] for group in cluster["workerGroupSpecs"])


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_slurm_script_starts_ray_on_all_nodes_and_the_sweep_on_the_first(nodes, tmp_path):
    """A dry run: the cluster's commands only note how they are called."""
    calls = tmp_path / "calls"
    hosts = [f"node{index}" for index in range(nodes)]
    tokens = tmp_path / "tokens"
    stub = (
        f'#!/bin/bash\necho "$(basename "$0") $*" >> {calls}\n'
        f'echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> {tokens}\n'
    )
    # The sweep ends when all nodes were started, as a real one does.
    until_started = f"until (($(grep -c ^srun {calls}) == {min(nodes, 2)})); do sleep 0.05; done\n"
    printed = f"printf '%s\\n' {' '.join(hosts)}\n"
    for name, first in (
        ("scontrol", printed), ("srun", ""), ("ray", ""), ("contam", until_started)
    ):  # fmt: skip
        (tmp_path / name).write_text(stub.replace("\n", f"\n{first}", 1))
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[0-2]",
        "SLURM_JOB_ID": "12345678", "SLURM_JOB_NUM_NODES": str(nodes), "SLURM_CPUS_PER_TASK": "16",
    }  # fmt: skip
    command = ["bash", str(CLUSTER / "sweep.sbatch"), "simulation", "laptop", "--grid", "a=1 2"]
    subprocess.run(command, env=environment, check=True, timeout=20)
    said = calls.read_text().splitlines()
    (head,) = [line for line in said if "ray start --head" in line]
    address = "node0:" + re.findall(r"--port=(\d+)", head)[0]
    assert "--nodelist=node0" in head and 1024 < int(address.partition(":")[2]) < 65536
    others = [line for line in said if f"ray start --address={address}" in line]
    assert [f"--nodes={nodes - 1} --ntasks={nodes - 1} --exclude=node0" in o for o in others] == (
        [True] * (nodes > 1)
    )
    # From Ray's first start on, all processes have one token, drawn for this job.
    assert re.fullmatch("token [0-9a-f]{64}", tokens.read_text().splitlines()[-1])
    assert len(set(tokens.read_text().splitlines()[1:])) == 1
    assert (
        said[-1] == f"contam sweep simulation laptop --grid a=1 2 --engine ray --address {address}"
    )


@pytest.mark.slow
def test_no_finished_run_is_lost_or_done_twice_when_processes_are_killed():
    """A worker is killed, then the driver, and so on; `support.ray_rounds` runs any number."""
    command = [sys.executable, "-m", "support.ray_rounds", "--rounds", "4"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    killed = re.findall(r"round (\d+): (worker|driver) killed", done.stdout)
    assert killed == [(str(k + 1), ("worker", "driver")[k % 2]) for k in range(4)]
