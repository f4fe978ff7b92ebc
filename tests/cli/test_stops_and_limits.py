"""How commands stop (signals, memory, unwritable output) and what they refuse at once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.command_line import run_contam
from torch import nn

from contam import cli
from contam.atomic_files import WriteError, reserved
from contam.models.find_network import find_network
from contam.models.sources import Source, imported, load
from contam.theory.features import FeatureModel
from contam.theory.setting import Setting

RESUMES = "; run the same command again to resume"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("words", "advice"),
    [(["run", "x"], RESUMES), (["data", "make"], RESUMES), (["data", "check"], "")],
)
def test_signals_stop_a_command_in_one_line(monkeypatch, capsys, number, words, advice):
    def work(*_: object) -> int:
        signal.raise_signal(number)
        raise AssertionError("goes on after the signal")

    def work_of_an_action() -> int:
        return work()

    before = signal.getsignal(number)
    monkeypatch.setattr(cli, "run_experiment", work)
    for action in ("make", "check"):
        monkeypatch.setitem(cli.ACTIONS, action, work_of_an_action)
    assert run_contam(capsys, *words) == (
        128 + number, "", f"contam: stopped{advice}\n",
    )  # fmt: skip
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored(monkeypatch, capsys):
    def work(*_: object) -> int:
        signal.raise_signal(signal.SIGHUP)
        return 0

    monkeypatch.setattr(cli, "run_experiment", work)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert run_contam(capsys, "run", "x")[0] == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_during_the_first_imports_prints_no_traceback():
    code = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "tyro":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from contam.__main__ import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stdout + done.stderr == ""


def test_interrupts_are_quiet_before_anything_large_is_imported():
    """Python itself prints a traceback until `main` runs, so nothing may be imported before."""
    code = """
import sys
before = set(sys.modules)
import contam.__main__
print(*sorted(set(sys.modules) - before))
"""
    source = str(Path(cli.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": source},
    )  # fmt: skip
    light = {"importlib", "importlib._bootstrap", "importlib._bootstrap_external", "warnings"}
    assert set(done.stdout.split()) - light == {"contam", "contam.__main__"}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_runs_out_is_one_line(monkeypatch, capsys, error):
    def work(*_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "run_experiment", work)
    code, _, said = run_contam(capsys, "run", "x")
    assert (code, said) == (2, "contam: memory runs out; choose smaller sizes or batches\n")


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    def work(*_: object) -> int:
        raise RuntimeError("a fault")

    monkeypatch.setattr(cli, "run_experiment", work)
    with pytest.raises(RuntimeError, match="a fault"):
        cli.main(["run", "x"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["report", "caf\udce9"], r"caf\udce9: is not a folder"),
        (["claims", "\ud83d"], r"\ud83d: is not a folder"),
        (["caf\udce9"], r"no command 'caf\udce9'"),
        (["run", "caf\udce9"], r"no experiment 'caf\udce9'"),
        (["audit", "--model", "\udce9:x", "--id", "."], r"expected package.module:object"),
    ],
    ids=ascii,
)
def test_names_that_are_not_utf8_are_escaped(capsys, words, line):
    code, out, said = run_contam(capsys, *words)
    assert (code, out) == (2, "")
    assert line in said
    assert said.count("\n") == 1


OUTPUTS = {
    "a folder": ("folder", "it is a folder"),
    "below a file": ("file/page.html", "Not a directory"),
    "with a name that is too long": ("x" * 300, "File name too long"),
    "in a folder with a name that is too long": ("x" * 300 + "/page.html", "File name too long"),
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("case", OUTPUTS)
@pytest.mark.parametrize("command", ["demo", "report", "audit"])
def test_output_is_checked_before_the_work(here, monkeypatch, capsys, command, case):
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    path, line = OUTPUTS[case]
    # The functions `run` and `claims` hide the modules of the same name.
    monkeypatch.setattr(sys.modules["contam.cli.run"], "print_claims", work)
    monkeypatch.setattr("contam.run.Run.start", work)
    monkeypatch.setattr("contam.run.Run.load", lambda _: None)
    monkeypatch.setattr(sys.modules["contam.cli.claims"], "write_page", work)
    monkeypatch.setattr("contam.auditing.api.audit", work)
    (here / "net.py").write_text("from torch import nn\nnetwork = nn.Flatten()\n")
    if command == "audit":
        (here / "folder" / "audit.html").mkdir()
    words = {
        "demo": ["demo", "--page", path],
        "report": ["report", "run", "--out", path],
        "audit": ["audit", "--model", "net:network", "--id", ".", "--out", path],
    }[command]
    code, _, said = run_contam(capsys, *words)
    sys.modules.pop("net", None)
    assert code == 2
    assert line in said
    assert said.count("\n") == 1
    assert "finished parts are kept" not in said, "nothing was finished"


def test_new_folders_of_work_that_fails_are_removed(here):
    with pytest.raises(KeyboardInterrupt), reserved(Path("new/deep/page.html")):
        assert Path("new/deep").is_dir()
        raise KeyboardInterrupt
    assert not Path("new").exists()
    with pytest.raises(WriteError, match="it is a folder"), reserved(Path("folder")):
        pass
    with pytest.raises(ValueError, match="late"), reserved(Path("kept/page.html")):
        Path("kept/other").touch()
        raise ValueError("late")
    assert [path.name for path in Path("kept").iterdir()] == ["other"]


HUGE = ("1000000001", "100000000000", "1" + "0" * 30, "9" * 400)
NUMBERS = {
    "width": ["predict", "--width"],
    "steps": ["predict", "--steps"],
    "batch_size": ["predict", "--batch-size"],
    "examples": ["predict", "--examples"],
    "dimension": ["predict", "--dimension"],
    "core": ["predict", "--core"],
    "settings.setting: width": ["run", "fig03_two_layer", "smoke", "--width"],
    "settings.setting: steps": ["run", "fig03_two_layer", "smoke", "--steps"],
    "'seeds'": ["run", "fig03_two_layer", "smoke", "--seeds"],
    "'test_examples'": ["run", "fig03_two_layer", "smoke", "--test-examples"],
    "'points'": ["run", "fig03_two_layer", "smoke", "--points"],
}


@pytest.mark.parametrize("number", HUGE, ids=lambda number: f"{len(number)} digits")
@pytest.mark.parametrize("field", NUMBERS)
def test_numbers_that_no_computation_can_use_are_refused_at_once(here, capsys, field, number):
    code, out, said = run_contam(capsys, *NUMBERS[field], number)
    assert (code, out) == (2, "")
    assert f"{field} must be at most 1,000,000,000" in said
    assert said.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "words",
    [["predict", "--steps"], ["run", "fig03_two_layer", "--seeds"]],
)
def test_a_number_of_five_thousand_digits_is_one_line(here, capsys, words):
    code, _, said = run_contam(capsys, *words, "9" * 5000)
    assert code == 2
    assert said.count("\n") == 1
    assert len(said) < 400


def test_huge_numbers_are_refused_in_python_too():
    for make in (
        lambda: Setting(width=10**12),
        lambda: Setting(steps=10**30),
        lambda: FeatureModel(core=10**11, background=1, dimension=10**12),
    ):
        with pytest.raises(ValueError, match="must be at most 1,000,000,000"):
            make()
    assert Setting(width=10**9).width == 10**9


MODULES = {
    "an object that is missing": ("", "mine:network", "can't find mine:network"),
    "a module that is missing": ("", "nomodule:network", "can't find nomodule:network"),
    "a relative name": ("", "..:x", "can't find '..:x'; expected package.module:object"),
    "a relative module": ("", ".mine:x", "can't find '.mine:x'"),
    "no module": ("", ":x", "can't find ':x'"),
    "no object": ("", "mine:", "can't find 'mine:'"),
    "an attribute of an object": ("", "os:path.join", "can't find 'os:path.join'"),
    "a path": ("", "/etc/passwd:x", "can't find '/etc/passwd:x'"),
    "a syntax error": ("def network(:", "mine:network", "importing mine raised SyntaxError"),
    "an error on import": ("1 / 0", "mine:network", "importing mine raised ZeroDivisionError"),
    "a script that exits": (
        "import sys; sys.exit(3)", "mine:network", "importing mine raised SystemExit: 3"
    ),
    "an error of the function": (
        "def network():\n    raise KeyError('k')", "mine:network", "mine:network() raised KeyError"
    ),
    "a function that exits": (
        "def network():\n    raise SystemExit", "mine:network", "mine:network() raised SystemExit"
    ),
    "a function that needs two arguments": (
        "def network(a, b): ...", "mine:network", "mine:network() raised TypeError"
    ),
    "a function that returns nothing": ("def network(): ...", "mine:network", "NoneType"),
    "a number": ("network = 3", "mine:network", "the model is a int"),
    "an endless chain of names": (
        "def network(): return 'mine:network'", "mine:network", "mine:network gives the text"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MODULES)
def test_a_model_that_can_not_be_made_is_one_line(here, case):
    content, name, line = MODULES[case]
    Path("mine.py").write_text(content)
    try:
        with pytest.raises(ValueError) as refused:
            find_network(name)
        assert line in str(refused.value)
        assert "\n" not in str(refused.value)
    finally:
        sys.modules.pop("mine", None)


def test_the_source_of_a_function_is_refused_likewise(here):
    Path("mine.py").write_text("def network():\n    raise KeyError('k')\n")
    with pytest.raises(ValueError, match=r"mine:network\(\) raised KeyError: 'k'"):
        load("mine:network")
    sys.modules.pop("mine", None)
    assert imported("torch.nn:Identity") is nn.Identity
    assert imported("contam.models.sources:Source") is Source
