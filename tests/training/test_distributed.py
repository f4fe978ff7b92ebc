"""Several processes come to the network that one process comes to, and one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.in_process_group import on_disk, trainings
from torch import Tensor

from contam.cli import main
from contam.run import Run
from contam.training.distributed import ProcessGroup, processes, rank

TESTS = Path(__file__).parents[1]
PATHS = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PATHS}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> list[dict[str, Tensor]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("group")
    (folder / "files").mkdir()
    on_disk(folder / "files")
    done = subprocess.run(
        [*TORCHRUN, "-m", "support.in_process_group", str(folder)],
        check=False, capture_output=True, text=True, env=ONE_THREAD, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # A group that Python's end finds may abort its process.
    assert {(folder / f"{number} at the end").read_text() for number in range(2)} == {"False"}
    return [load_file(folder / f"{number}.safetensors") for number in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, Tensor]:
    """What one process found; the parts of a minibatch are as many as the processes are."""
    return trainings(tmp_path_factory.mktemp("alone"), parts=2)


@pytest.fixture(scope="module")
def at_once(tmp_path_factory) -> dict[str, Tensor]:
    return trainings(tmp_path_factory.mktemp("at once"))


def assert_near(ours: dict[str, Tensor], theirs: dict[str, Tensor], name: str) -> None:
    keys = [key for key in theirs if key.startswith(f"{name}/")]
    assert len(keys) > 3
    for key in keys:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_all_processes_end_with_the_same_network(together):
    one, other = together
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fit", "dropout", "distill", "files"])
def test_two_processes_equal_one_process(together, alone, name):
    """Also dropout and the images' augmentation are those of the same part."""
    assert_near(together[0], alone, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fit", "distill", "files"])
def test_two_processes_equal_a_whole_minibatch(together, at_once, name):
    assert_near(together[0], at_once, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fit", "distill", "files"])
def test_two_processes_with_two_micro_batches_equal_a_whole_minibatch(together, at_once, name):
    halved = {key.removeprefix("halved "): tensor for key, tensor in together[0].items()}
    assert_near(halved, at_once, name)


def test_a_single_process_needs_no_process_group():
    group = ProcessGroup()
    network, values = torch.nn.Linear(2, 2), torch.ones(3)
    assert (processes(), rank(), group.size, group.rank) == (1, 0, 1, 0)
    assert group.join(network) is network
    assert group.all_reduce(values) is values
    code = (
        "import sys, torch; from contam.training.distributed import ProcessGroup, together\n"
        "with together(): ProcessGroup().join(torch.nn.Linear(2, 2))\n"
        "assert 'accelerate' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_several_processes_without_accelerate_are_rejected_with_the_install_command(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(
        ValueError, match=r"2 processes needs accelerate: run pip install -e '\.\[sc"
    ):
        ProcessGroup()


# The command's other subcommands load timm, which fails beside a torchvision that does not fit.
ACCELERATE = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"),
    *("--num_processes", "2", "--main_process_port", "0"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_a_run_in_two_processes_has_the_claims_of_one_process(launcher, tmp_path, capsys):
    """The networks have batch norm, of which each process sees its share: near, not the same."""
    command = ["run", "fig13_padded_digits", "smoke", "--epochs", "2", "--seeds", "1", "--out"]
    for _ in range(1 + (launcher is TORCHRUN)):  # the second time, it is finished
        done = subprocess.run(
            [*launcher, "-m", "contam", *command, str(tmp_path / "two")],
            check=False, capture_output=True, text=True, env=ONE_THREAD, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("the run is in") == 1
    assert done.stderr.count("already finished") == (launcher is TORCHRUN)
    assert main([*command, str(tmp_path / "one")]) == 0
    (one,), (two,) = (list((tmp_path / which).iterdir()) for which in ("one", "two"))
    assert one.name == two.name
    (session,) = Run.load(two).sessions
    assert session.hardware["processes"] == 2
    capsys.readouterr()
    main(["claims", str(one), str(two), "--format", "json"])
    claims = json.loads(capsys.readouterr().out)
    first, second = claims[: len(claims) // 2], claims[len(claims) // 2 :]
    assert len(first) > 8
    for a, b in zip(first, second, strict=True):
        assert a["says"] == b["says"]
        assert b["observed"] == pytest.approx(a["observed"], abs=0.2)


@pytest.mark.slow
def test_a_run_locked_by_another_process_stops_all_processes(tmp_path):
    command = ["run", "fig13_padded_digits", "smoke", "--out", str(tmp_path)]
    from contam.experiments.fig13_padded_digits import SMOKE

    with Run.start(tmp_path, "fig13_padded_digits", SMOKE):
        done = subprocess.run(
            [*TORCHRUN, "-m", "contam", *command],
            check=False, capture_output=True, text=True, env=ONE_THREAD, timeout=900,
        )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("another process is writing this run") == 1
    # The other process ends by itself, or at the signal that the launcher sends first.
    assert "SIGKILL" not in done.stderr


@pytest.mark.slow
def test_a_part_that_can_not_be_written_stops_all_processes(tmp_path):
    """The disk of the first process is full when it writes the first part."""
    code = (
        "import sys; from contam import run; from contam.cli import main\n"
        "def full(path, content, **_):\n"
        "    if 'tables' in str(path): raise OSError(28, 'No space left on device')\n"
        "    whole(path, content, **_)\n"
        "whole, run.write_atomically = run.write_atomically, full\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    (tmp_path / "full.py").write_text(code)
    command = ["run", "simulation", "smoke", "--out", str(tmp_path / "runs")]
    done = subprocess.run(
        [*TORCHRUN, str(tmp_path / "full.py"), *command],
        check=False, capture_output=True, text=True, env=ONE_THREAD, timeout=900,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("No space left on device") == 1
    assert "SIGKILL" not in done.stderr
