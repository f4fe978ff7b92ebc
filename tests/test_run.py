"""Runs: what is written comes back, nothing is half written, and every damage gets one line."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, PositiveInt
from safetensors.torch import save_file

from contam.atomic_files import WriteError
from contam.run import Run, RunError, digest


class Config(BaseModel, frozen=True, extra="forbid"):
    steps: PositiveInt = 3
    rates: tuple[float, ...] = (0.1, 0.5)


def one_part(root: Path, config: Config | None = None) -> Path:
    with Run.start(root, "toy", config or Config()) as run:
        run.write("curve/seed0", [{"step": 1, "loss": 0.5}], {"W": torch.arange(6.0).view(2, 3)})
        return run.folder


def test_read_returns_what_was_written(tmp_path):
    run = Run.load(one_part(tmp_path))
    assert run.read("curve/seed0") == [{"step": 1, "loss": 0.5}]
    torch.testing.assert_close(run.arrays("curve/seed0")["W"], torch.arange(6.0).view(2, 3))
    assert run.config == {"steps": 3, "rates": [0.1, 0.5]}
    assert run.parts() == ["curve/seed0"]
    assert run.parts("other") == []


def test_the_folder_is_named_by_the_resolved_config(tmp_path):
    assert one_part(tmp_path).name == f"toy-{digest('toy', Config().model_dump(mode='json'))}"
    assert one_part(tmp_path, Config(steps=4)) != one_part(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_start_resumes_and_keeps_finished_parts(tmp_path):
    one_part(tmp_path)
    with Run.start(tmp_path, "toy", Config()) as run:
        assert run.has("curve/seed0")
        assert not run.finished
        run.write("curve/seed1", [])
        run.finish()
    with Run.start(tmp_path, "toy", Config()) as run:
        assert run.finished
        assert run.parts() == ["curve/seed0", "curve/seed1"]
        assert len(run.sessions) == 2


def test_a_run_records_versions_and_hardware(tmp_path):
    (session,) = Run.load(one_part(tmp_path)).sessions
    assert session.versions["torch"] == torch.__version__
    assert int(session.hardware["cores"]) >= 1
    assert session.process == os.getpid()


@pytest.mark.parametrize("error", [KeyError("ood"), AttributeError("no 'ood'"), IndexError("0")])
def test_a_run_of_another_version_that_can_not_be_read_is_one_line(tmp_path, monkeypatch, error):
    run = Run.load(one_part(tmp_path))
    with pytest.raises(type(error)), run.reading():
        raise error
    monkeypatch.setattr("contam.run.current_commit", lambda: "0123456789")
    with (
        pytest.raises(RunError, match=r"in a form that this version can't read \(.*; run the same"),
        run.reading(),
    ):
        raise error
    with pytest.raises(ZeroDivisionError), run.reading():
        raise ZeroDivisionError


def test_writing_a_part_deletes_its_checkpoint(tmp_path):
    with Run.start(tmp_path, "toy", Config()) as run:
        assert run.checkpoint("part") is None
        run.save_checkpoint("part", {"W": torch.ones(2)}, [{"step": 1}])
        state, records = run.checkpoint("part") or ({}, [])
        assert state["W"].tolist() == [1, 1]
        assert records == [{"step": 1}]
        assert not run.has("part")
        run.write("part", records)
        assert run.checkpoint("part") is None


def test_numbers_that_are_not_finite_become_null(tmp_path):
    with Run.start(tmp_path, "toy", Config()) as run:
        run.write("part", [{"a": float("nan"), "b": [float("inf"), torch.tensor(2.0)]}])
        assert run.read("part") == [{"a": None, "b": [None, 2.0]}]


def test_a_table_holds_the_records_of_all_parts_under_a_prefix(tmp_path):
    with Run.start(tmp_path, "toy", Config()) as run:
        run.write("net/b", [{"n": 3, "risk": 0.5, "name": "b"}])
        run.write("net/a", [{"n": 1, "risk": None, "name": "a"}, {"n": 2, "risk": 1.5}])
        run.write("other", [{"n": 9}])
        table = run.table("net/")
    assert table.part.tolist() == ["net/a", "net/a", "net/b"]
    assert table.n.tolist() == [1, 2, 3]
    assert table.risk.isna().tolist() == [True, False, False]
    assert table.name.tolist() == ["a", None, "b"]
    assert list(table.columns) == ["part", "n", "risk", "name"]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], "int64"),
        ([1, None], "Int64"),
        ([0.5, 2.0], "float64"),
        ([1, 0.5], "float64"),
        ([0.5, None], "float64"),
        ([None, None], "float64"),
        ([True, False], "bool"),
        ([True, None], "boolean"),
        (["a", None], "object"),
        ([[1, 2], None], "object"),
    ],
)
def test_the_type_of_a_column_follows_from_its_values(tmp_path, values, dtype):
    with Run.start(tmp_path, "toy", Config()) as run:
        run.write("part", [{"value": value} for value in values])
        assert run.table("part").value.dtype == dtype


def test_a_table_without_parts_is_empty(tmp_path):
    with Run.start(tmp_path, "toy", Config()) as run:
        assert len(run.table("net/")) == 0


def test_import_does_not_import_pandas():
    code = "import sys, contam.run; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_loaded_run_is_read_only(tmp_path):
    with pytest.raises(RunError, match="for reading only"):
        Run.load(one_part(tmp_path)).finish()


@pytest.mark.parametrize("name", ["../out", "a b", "", "/etc/passwd", "a//b"])
def test_an_invalid_part_name_is_rejected(tmp_path, name):
    with Run.start(tmp_path, "toy", Config()) as run, pytest.raises(ValueError, match="part name"):
        run.write(name, [])


def test_a_run_is_locked_while_a_process_writes_it(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from contam.run import Run\n"
        "from pydantic import BaseModel\n"
        "class Config(BaseModel):\n    steps: int = 3\n    rates: list = [.1, .5]\n"
        f"run = Run.start(Path({str(tmp_path)!r}), 'toy', Config()); print('has it', flush=True)\n"
        "time.sleep(600)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        with pytest.raises(RunError, match="another process"):
            Run.start(tmp_path, "toy", Config())
    finally:
        other.kill()
        other.communicate()
    with Run.start(tmp_path, "toy", Config()) as run:  # a killed process leaves no lock behind
        assert not run.finished


@pytest.mark.parametrize("when", ["part", "manifest"])
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, when):
    folder = one_part(tmp_path)
    before = (folder / "run.json").read_bytes()
    with Run.start(tmp_path, "toy", Config()) as run:
        begun = (folder / "run.json").read_bytes()
        calls = []

        def full(descriptor: int) -> None:
            calls.append(descriptor)
            if when == "part" or len(calls) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(WriteError, match=r"No space left on device.*free some space"):
                run.write("curve/seed1", [{"step": 1}])
        assert (folder / "run.json").read_bytes() == begun != before
    assert not list(folder.rglob(".writing-*"))
    assert Run.load(folder).read("curve/seed0") == [{"step": 1, "loss": 0.5}]
    with Run.start(tmp_path, "toy", Config()) as run:
        assert not run.has("curve/seed1")
        run.write("curve/seed1", [{"step": 1}])
    assert Run.load(folder).read("curve/seed1") == [{"step": 1}]


def test_a_folder_with_other_files_is_not_changed(tmp_path):
    folder = tmp_path / f"toy-{digest('toy', Config().model_dump(mode='json'))}"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"no run\.json but holds 'thesis\.tex'"):
        Run.start(tmp_path, "toy", Config())
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_temporary_files_of_a_killed_process_are_deleted(tmp_path):
    folder = tmp_path / f"toy-{digest('toy', Config().model_dump(mode='json'))}"
    folder.mkdir()
    (folder / ".writing-1-run.json").write_text("{")
    assert one_part(tmp_path) == folder
    (folder / "tables" / ".writing-1-a.jsonl").write_text("{")
    one_part(tmp_path)
    assert not list(folder.rglob(".writing-*"))


def test_files_have_the_default_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    path = one_part(tmp_path) / "run.json"
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "not a run folder"),
        ("{}", "field 'format'"),
        ('{"format": 99}', "use the version of contam"),
        ('{"format": 1, "experiment": "toy", "config": {}, "surprise": 1}', "field 'surprise'"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_damaged_manifest_is_rejected(tmp_path, content, line):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=line) as caught:
        Run.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert "run.json" in str(caught.value)


def test_a_folder_without_a_run_is_rejected(tmp_path):
    with pytest.raises(RunError, match=r"has no run\.json"):
        Run.load(tmp_path)
    with pytest.raises(RunError, match="is not a folder"):
        Run.load(tmp_path / "nowhere")


EDITS = {
    "its config": {"config": {"steps": 4, "rates": [0.1, 0.5]}},
    "its state": {"finished": True},
    "its experiment": {"experiment": "other"},
    "the digest of a table": {"files": {}},
    "its own digest": {"sha256": "0" * 64},
}


@pytest.mark.parametrize("case", EDITS)
def test_an_edited_manifest_is_rejected(tmp_path, case):
    path = one_part(tmp_path) / "run.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | EDITS[case]))
    for read in (lambda: Run.load(path.parent), lambda: Run.start(tmp_path, "toy", Config())):
        with pytest.raises(RunError, match=r"run\.json: does not match its digest.*edited"):
            read()


def test_a_manifest_with_other_white_space_or_without_a_digest_is_read(tmp_path):
    path = one_part(tmp_path) / "run.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content, indent=4, sort_keys=True))
    assert Run.load(path.parent).has("curve/seed0")
    del content["sha256"]  # as earlier versions wrote it
    path.write_text(json.dumps(content))
    assert Run.load(path.parent).has("curve/seed0")


def test_a_manifest_without_a_digest_must_fit_its_folder(tmp_path):
    path = one_part(tmp_path) / "run.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    content["config"]["steps"] = 4
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="does not match the folder"):
        Run.start(tmp_path, "toy", Config())


FOREIGN = {
    "of another program": (None, "is not the checkpoint"),
    "of another part": ({"records": "[]", "part": "toy-0/other"}, "is not the checkpoint"),
    "with records that are not JSON": ({"records": "["}, "is not the checkpoint"),
    "with records that are a number": ({"records": "3"}, "is not the checkpoint"),
    "with records nested too deeply": ({"records": "[" * 100_000}, "is not the checkpoint"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_checkpoint_is_rejected(tmp_path, case):
    metadata, line = FOREIGN[case]
    with Run.start(tmp_path, "toy", Config()) as run:
        run.save_checkpoint("part", {"W": torch.ones(2)})
        path = run.folder / "checkpoints" / "part.safetensors"
        save_file({"W": torch.ones(2)}, path, metadata)
        with pytest.raises(
            RunError, match=rf"part\.safetensors: {line}.*delete this file"
        ) as caught:
            run.checkpoint("part")
        assert "\n" not in str(caught.value)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(
    which=st.integers(0, 2),
    where=st.floats(0, 1, exclude_max=True),
    flip=st.integers(1, 255),
    harm=st.sampled_from(["cut", "change"]),
)
def test_damage_of_any_file_is_detected(tmp_path, which, where, flip, harm):
    """Cut or change any file anywhere: reading gives what was written, or one line."""
    folder = one_part(tmp_path)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    path = files[which]
    whole = path.read_bytes()
    at = int(where * len(whole))
    other = bytes([whole[at] ^ flip])
    path.write_bytes(whole[:at] if harm == "cut" else whole[:at] + other + whole[at + 1 :])
    try:
        run = Run.load(folder)
        records, arrays = run.read("curve/seed0"), run.arrays("curve/seed0")
    except RunError as error:
        assert "\n" not in str(error)
    else:
        assert records == [{"step": 1, "loss": 0.5}]
        torch.testing.assert_close(arrays["W"], torch.arange(6.0).view(2, 3))
    finally:
        path.write_bytes(whole)


def test_a_damaged_checkpoint_is_reported_with_the_file_to_delete(tmp_path):
    with Run.start(tmp_path, "toy", Config()) as run:
        run.save_checkpoint("part", {"W": torch.ones(200)})
        path = run.folder / "checkpoints" / "part.safetensors"
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(RunError, match=r"part\.safetensors: can't be read.*delete this file"):
            run.checkpoint("part")


@pytest.mark.slow
def test_a_killed_process_leaves_a_valid_run(tmp_path):
    """Each part is there whole or not at all, whenever the writer dies."""
    code = (
        "from pathlib import Path; import itertools, torch; from contam.run import Run\n"
        "from pydantic import BaseModel\n"
        "class Config(BaseModel):\n    steps: int = 3\n    rates: list = [.1, .5]\n"
        f"run = Run.start(Path({str(tmp_path)!r}), 'toy', Config()); print('has it', flush=True)\n"
        "for i in itertools.count():\n"
        "    if not run.has(f'p{i}'):\n"
        "        run.save_checkpoint(f'p{i}', {'x': torch.full((1000,), float(i))})\n"
        "        run.write(f'p{i}', [{'i': i}] * 100, {'x': torch.full((1000,), float(i))})\n"
    )
    for written in (0, 1, 5, 20):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "has it\n"
        while len(list(tmp_path.rglob("tables/*.jsonl"))) < written:
            time.sleep(0.001)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        (folder,) = tmp_path.iterdir()
        run = Run.load(folder)
        for part in run.parts():
            number = int(part.removeprefix("p"))
            assert run.read(part) == [{"i": number}] * 100
            assert run.arrays(part)["x"].tolist() == [number] * 1000
    assert run.parts()
