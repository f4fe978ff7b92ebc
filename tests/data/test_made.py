"""The embedded benchmark as a folder tree: what is read back is what was drawn."""

import inspect
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from contam import atomic_files, cli
from contam.batch import Batch, Domain
from contam.cli.data import MADE, make_data
from contam.data.backgrounds import ID, OOD
from contam.data.folders import images_in
from contam.data.layout import check
from contam.data.made import MASKS, class_folders, pictures
from contam.data.objects import CORES, Core
from contam.data.shapes import Scenes, shapes, splits
from contam.inputs import as_shift, from_folder, read_domains
from contam.inputs.lazy_files import LazyFolderDomain

SIZES = {"train": 80, "id_val": 40, "id_test": 40, "ood_test": 10}
FLAGS = [f"--{name.replace('_', '-')}={n}" for name, n in SIZES.items()]


def make(folder: Path, *flags: str) -> int:
    return cli.main(["data", "make", "shapes", str(folder), *FLAGS, *flags])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def by_class(batch: Batch) -> Batch:
    """In the order in which folders are read."""
    return batch.pick(batch.y.argsort(stable=True))


def same(read: Batch, drawn: Batch) -> None:
    """Up to eight bits, in the order of folders."""
    drawn = by_class(drawn)
    assert torch.equal(read.y, drawn.y)
    torch.testing.assert_close(read.x, drawn.x, rtol=0, atol=0.5 / 255 + 1e-6)


def files_of(domain: Domain) -> tuple[Path, ...]:
    assert isinstance(domain, LazyFolderDomain)
    return domain.decoder.files


@pytest.fixture(scope="module", params=CORES)
def core(request) -> Core:
    return request.param


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> dict[Core, Path]:
    root = tmp_path_factory.mktemp("made")
    for core in CORES:
        assert make(root / core, "--core", core) == 0
    return {core: root / core for core in CORES}


@pytest.fixture(scope="module")
def tree(core, trees) -> Path:
    return trees[core]


@pytest.fixture(scope="module")
def drawn(core) -> dict[str, Scenes]:
    return splits(0, **SIZES, core=core)


def test_a_written_shift_is_read_back_unchanged(core, tree):
    ood = {family: tree / "ood" / family for family in OOD}
    read = as_shift(tree / "train", tree / "id_test", ood, id_val=tree / "id_val")
    shift = shapes(0, train=80, id_val=40, id_test=40, ood_test=10, core=core)
    assert read.id_val is not None and shift.id_val is not None
    same(read.id_val.data, shift.id_val.data)
    same(read.id_test.data, shift.id_test.data)
    assert [d.name for d in read.ood_tests] == [d.name for d in shift.ood_tests]
    for one, other in zip(read.ood_tests, shift.ood_tests, strict=True):
        same(one.data, other.data)
    assert [name.split("_")[-1] for name in read.classes] == list(shift.classes)


def test_training_images_are_named_by_background_family(tree, drawn):
    read = from_folder(tree / "train")
    same(read.data, drawn["train"].batch)
    for family, domain in zip(
        ID, shapes(0, train=80, id_val=40, id_test=40, ood_test=10).train, strict=True
    ):
        named = [path.stem.endswith(f"-{family}") for path in files_of(read)]
        assert torch.equal(read.y[torch.tensor(named)], by_class(domain.data).y)


def test_the_training_set_can_be_split_by_family(trees, tmp_path):
    assert make(tmp_path / "parted", "--domains") == 0
    domains = read_domains(tmp_path / "parted" / "train")
    assert domains[0].classes == class_folders("shapes")
    shift = shapes(0, train=80, id_val=40, id_test=40, ood_test=10)
    assert [d.name for d in domains] == sorted(d.name for d in shift.train)
    for one, other in zip(domains, sorted(shift.train, key=lambda d: d.name), strict=True):
        same(one.data, other.data)
    apart = {name: held for name, held in contents(tmp_path / "parted").items() if "train" in name}
    whole = {name: held for name, held in contents(trees["shapes"]).items() if "train" in name}
    assert sorted(apart.values()) == sorted(whole.values())
    assert check("domains", tmp_path / "parted" / "train").complete


@pytest.mark.parametrize("split", ["train", "id_val", "id_test", "ood/plaid"])
def test_every_image_has_a_mask(tree, drawn, split):
    images, masks = (from_folder(root / split) for root in (tree, tree / MASKS))
    assert [path.name for path in files_of(images)] == [path.name for path in files_of(masks)]
    wanted = drawn[split].mask.expand(-1, 3, -1, -1)
    same(masks.data, Batch(wanted, drawn[split].y, drawn[split].domain))


def test_every_part_passes_the_layout_check(tree, capsys):
    for kind, part in [("folder", "train"), ("folder", "id_val"), ("folder", "id_test")]:
        assert cli.main(["data", "check", kind, str(tree / part)]) == 0
    assert cli.main(["data", "check", "domains", str(tree / "ood")]) == 0
    assert cli.main(["data", "check", "domains", str(tree / MASKS / "ood")]) == 0
    said = capsys.readouterr().out
    assert "train: 80 images" in said and "speckle: 10 images" in said


@pytest.mark.parametrize("core", CORES)
def test_folder_order_is_label_order(core):
    folders = class_folders(core)
    assert list(folders) == sorted(folders)
    assert [name.split("_")[-1] for name in folders] == list(CORES[core])


def test_images_are_made_without_file_access(drawn, core, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = list(pictures("id_val", drawn["id_val"], core=core))
    assert len({path for path, _ in made}) == len(made) == 80
    assert not list(tmp_path.iterdir())


def test_the_flags_have_the_defaults_of_the_benchmark():
    here = inspect.signature(make_data).parameters
    for function in (shapes, splits):
        there = inspect.signature(function).parameters
        assert {name: here[name].default for name in there} == {
            name: parameter.default for name, parameter in there.items()
        }


def test_another_seed_gives_other_images_with_the_same_names(trees, tmp_path):
    assert make(tmp_path / "other", "--seed", "1") == 0
    one, other = contents(tmp_path / "other"), contents(trees["shapes"])
    assert set(one) == set(other)
    assert not any(one[name] == other[name] for name in one if name.startswith("train"))


@pytest.mark.parametrize("moment", [1, 150])
def test_an_interruption_leaves_complete_files_and_the_command_resumes(
    trees, tmp_path, capsys, monkeypatch, moment
):
    calls = iter(range(1, 1000))

    def stopped(_file: int) -> None:
        if next(calls) == moment:
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic_files.os, "fsync", stopped)
    assert make(tmp_path / "tree") == 130
    assert "run the same command again to resume" in capsys.readouterr().err
    whole, part = contents(trees["shapes"]), contents(tmp_path / "tree")
    assert part.items() < whole.items()
    assert len(part) == moment - 1
    # What a killed process leaves, which had no time to clean up.
    (tmp_path / "tree" / f"{atomic_files.UNFINISHED}1-made.json").write_bytes(b"half")
    assert make(tmp_path / "tree") == 0
    assert contents(tmp_path / "tree") == whole


def test_existing_files_are_not_rewritten(tree, core):
    def times() -> dict[Path, int]:
        held = [path for path in tree.rglob("*.png")]
        return {path: path.stat().st_mtime_ns for path in held}

    before = times()
    assert make(tree, "--core", core) == 0
    assert times() == before


def foreign(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.tex").write_text("all my work")


def other_seed(folder: Path) -> None:
    note = folder / MADE
    note.write_text(note.read_text().replace('"seed": 0', '"seed": 3'))


def other_note(folder: Path) -> None:
    (folder / MADE).write_text("{")


def changed_picture(folder: Path) -> None:
    first = images_in(folder / "id_test" / "3_triangle")[0]
    first.write_bytes(first.read_bytes()[:-1])


def picture_is_a_folder(folder: Path) -> None:
    first = images_in(folder / "ood" / "blobs" / "3_triangle")[0]
    first.unlink()
    first.mkdir()


@pytest.mark.parametrize(
    ("fill", "line"),
    [
        (foreign, "holds 'thesis.tex' and no made.json"),
        (other_seed, "was made with seed 3; choose another folder"),
        (other_note, "its made.json is not ours"),
        (changed_picture, "00003-gradient.png: is not the picture that belongs there"),
        (picture_is_a_folder, "is not the picture that belongs there"),
    ],
)
def test_a_folder_with_other_contents_is_rejected_and_unchanged(
    trees, tmp_path, capsys, fill, line
):
    folder = tmp_path / "tree"
    shutil.copytree(trees["shapes"], folder)
    fill(folder)
    before = contents(folder)
    capsys.readouterr()
    assert make(folder) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"contam: {folder}") and line in last
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["make", "shapes", "tree", "--train", "30"], "choose a multiple of 40, such as 40"),
        (["make", "shapes", "tree", "--core", "letters"], "letters"),
        (["make", "dominos", "tree"], "dominos"),
        (["make", "shapes"], "DIR"),
        (["make", "shapes", "file"], "file: is not a folder"),
        (["make", "shapes", "tree", "--sed", "1"], "did you mean --seed"),
        (["mkae", "shapes", "tree"], "no action 'mkae'; did you mean 'make'"),
        ([], "which action"),
    ],
)
def test_bad_input_gets_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, given, line):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    assert cli.main(["data", *given]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and line in err
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.slow
def test_a_stopped_process_resumes_with_the_same_bytes(tmp_path):
    """Ctrl-C after the first files, then a kill among the last ones."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert make(whole, "--train", "400") == 0
    command = [sys.executable, "-m", "contam", "data", "make", "shapes", str(stopped), *FLAGS]
    command += ["--train", "400"]
    for count, how in ((5, signal.SIGINT), (300, signal.SIGKILL)):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None and len(list(stopped.rglob("*.png"))) < count:
            time.sleep(0.01)
        process.send_signal(how)
        process.communicate(timeout=600)
        unfinished = list(stopped.rglob(f"{atomic_files.UNFINISHED}*"))
        assert not unfinished or how is signal.SIGKILL
    assert make(stopped, "--train", "400") == 0
    assert contents(stopped) == contents(whole)
