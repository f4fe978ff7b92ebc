"""The flags of `contam audit`, and that they reach everything that `contam.audit` takes."""

import inspect
import json
import re
import sys
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from support.command_line import run_contam
from torch import nn

from contam import audit
from contam.auditing.result import Audit
from contam.cli.audit import audit as command
from contam.cli.audit_options import (
    as_flags,
    by_set,
    columns_of,
    keys_of,
    listed,
    named_data,
    with_transform,
)
from contam.data.images import pixels
from contam.models.find_network import FoundNetwork
from contam.models.preparation import Preparation

SAME = {"layers": "layer", "untrained": "control", "progress": "quiet"}
"""Parameters of `contam.audit` whose flags have other names."""


def test_every_parameter_of_an_audit_has_a_flag():
    flags = inspect.signature(command).parameters
    parameters = [name for name in inspect.signature(audit).parameters]
    assert [name for name in parameters if SAME.get(name, name) not in flags] == []


LISTS = {
    "a list": ("cat,dog", None, ["cat", "dog"]),
    "a list with spaces": ("cat, dog ,", None, ["cat", "dog"]),
    "a file of lines": ("c.txt", "cat\n\ndog\n", ["cat", "dog"]),
    "a file with a byte order mark": ("c.txt", "\ufeffcat\ndog\n", ["cat", "dog"]),
    "names with commas in a file": ("c.txt", "great white shark, jaws\ndog", [
        "great white shark, jaws", "dog",
    ]),
    "a JSON list": ("c.json", '["cat", "dog"]', ["cat", "dog"]),
    "Hugging Face's id2label": ("c.json", '{"1": "dog", "0": "cat"}', ["cat", "dog"]),
    "Hugging Face's label2id": ("c.json", '{"dog": 1, "cat": 0}', ["cat", "dog"]),
    "ten or more by index": (
        "c.json", json.dumps({str(k): f"c{k}" for k in range(11)}), [f"c{k}" for k in range(11)],
    ),
    "ImageNet's class index": ("c.json", '{"0": ["n01", "tench"], "1": ["n02", "fish"]}', [
        "n01", "n02",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTS)
def test_lists_and_files_of_names(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, content, names = LISTS[case]
    if content is not None:
        (tmp_path / text).write_text(content, "utf-8")
    assert listed(text, "--classes") == names


BAD_LISTS = {
    "a file that is not there": ("c.txt", None, "c.txt: can't be read"),
    "an empty file": ("c.txt", "\n", "holds no entry"),
    "an empty list": (" , ", None, "holds no entry"),
    "broken JSON": ("c.json", "[", "c.json: is not JSON"),
    "deep JSON": ("c.json", "[" * 9999, "nested too deeply"),
    "a JSON text": ("c.json", '"cat"', "expected a list of names"),
    "names by name": ("c.json", '{"cat": "Katze"}', "expected names by index"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_what_is_no_list_is_refused(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, content, line = BAD_LISTS[case]
    if content is not None:
        (tmp_path / text).write_text(content, "utf-8")
    with pytest.raises(ValueError, match=line):
        listed(text, "--classes")


COLUMNS = [
    (None, None),
    ("labeled", "labeled"),
    ("3,7", [3, 7]),
    ("0-2,9", [0, 1, 2, 9]),
    ("cat,dog", ["cat", "dog"]),
    ("n01440764,n01443537", ["n01440764", "n01443537"]),
]


@pytest.mark.parametrize(("text", "columns"), COLUMNS)
def test_columns(text, columns):
    assert columns_of(text) == columns


@pytest.mark.parametrize("text", ["9-2", "0-999999999", ","])
def test_columns_that_can_not_be(text):
    with pytest.raises(ValueError, match="--columns"):
        columns_of(text)


def test_keys_name_parts():
    assert keys_of(["x=scan", "y=a=b"]) == {"x": "scan", "y": "a=b"}
    with pytest.raises(ValueError, match="expected PART=COLUMN"):
        keys_of(["scan"])


def test_data_are_paths_with_or_without_names_and_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("ood/fog", "ood/night", "a=b"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ood" / "notes.txt").touch()
    assert named_data(["x", "night=y", "a=b"]) == [(None, "x"), ("night", "y"), (None, "a=b")]
    assert named_data(["ood/*"]) == [("fog", "ood/fog"), ("night", "ood/night")]
    assert named_data([f"{tmp_path}/ood/*"])[0] == ("fog", f"{tmp_path}/ood/fog")
    with pytest.raises(ValueError, match="no folder matches nix"):
        named_data(["nix/*"])
    [(name, table)] = named_data(["test=t.csv:split=test"], root=tmp_path)
    assert (name, table.where, table.root) == ("test", {"split": "test"}, tmp_path)


def test_a_path_for_each_set():
    assert by_set(["id=a", "night=b"]) == {"id": "a", "night": "b"}


def found_network(transform: Any = None, channels: int = 3) -> FoundNetwork:
    return FoundNetwork("net", nn.Conv2d(channels, 4, 1), transform)


OWN = Preparation(resize=256, crop=224)
TRANSFORMS: dict[str, tuple[FoundNetwork, dict[str, Any], Preparation]] = {
    "the network's own": (found_network(OWN), {}, OWN),
    "another size keeps the share of the crop": (
        found_network(OWN),
        {"image_size": 112},
        Preparation(resize=128, crop=112),
    ),
    "other colors": (
        found_network(OWN),
        {"mean": (0.5,), "std": (0.25, 0.5, 1.0)},
        Preparation(256, 224, mean=(0.5,) * 3, std=(0.25, 0.5, 1.0)),
    ),
    "a size for a network without one": (
        found_network(),
        {"image_size": 32},
        Preparation(32, 32, mean=(0.0,) * 3, std=(1.0,) * 3),
    ),
    "gray, by the first weight": (found_network(OWN, 1), {}, OWN.for_channels(1)),
    "gray, by the flag": (found_network(OWN), {"in_chans": 1}, OWN.for_channels(1)),
}


@pytest.mark.parametrize("case", TRANSFORMS)
def test_preprocessing_by_flags(case):
    network, flags, transform = TRANSFORMS[case]
    assert with_transform(network, **flags).transform == transform


@pytest.mark.parametrize("transform", [None, pixels])
def test_images_become_gray_for_a_network_of_one_channel(transform):
    made = with_transform(found_network(transform, 1)).transform
    assert made is not None
    assert made(Image.new("RGB", (4, 2), (255, 0, 0))).shape == (1, 2, 4)


BAD_TRANSFORMS: dict[str, tuple[FoundNetwork, dict[str, Any], str]] = {
    "two ways": (found_network(), {"transform": "m:f", "image_size": 32}, "--transform replaces"),
    "no function": (found_network(), {"transform": "math"}, "expected package.module:function"),
    "no such function": (found_network(), {"transform": "math:nix"}, "can't find math:nix"),
    "a number": (found_network(), {"transform": "math:pi"}, "is a float, not a function"),
    "colors without a size": (found_network(), {"mean": (0.5,)}, "need --image-size"),
    "two means": (found_network(OWN), {"mean": (0.5, 0.5)}, "--mean takes 1 or 3 numbers"),
    "a mean of bytes": (found_network(OWN), {"mean": (127.5,)}, "divide those of bytes by 255"),
    "no number": (found_network(OWN), {"std": (float("nan"),)}, "finite numbers"),
    "a deviation of zero": (found_network(OWN), {"std": (0.0,)}, "--std takes positive"),
    "no pixels": (found_network(OWN), {"image_size": 0}, "from 1 to 10000"),
    "too many pixels": (found_network(OWN), {"image_size": 10**12}, "from 1 to 10000"),
    "six channels": (found_network(channels=6), {}, "takes 6 channels, and images have 1 or 3"),
}


@pytest.mark.parametrize("case", BAD_TRANSFORMS)
def test_preprocessing_that_can_not_be(case):
    network, flags, line = BAD_TRANSFORMS[case]
    with pytest.raises(ValueError, match=line):
        with_transform(network, **flags)


MODULE = """
import torch
from torch import nn
from contam.data.images import pixels

def color(): return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
def gray(): return nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
def six(): return nn.Sequential(nn.Flatten(), nn.Linear(48, 6))
def predict(x): return x.mean((2, 3))
def resize(image): return pixels(image.resize((4, 4)))
"""
CLASSES = ("ant", "cat", "dog")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders of plain images, tables of them, and a module with models."""
    root = tmp_path_factory.mktemp("options")
    (root / "option_models.py").write_text(MODULE)
    rows = []
    for split in ("val", "fog", "night"):
        for number, label in enumerate(CLASSES):
            for k in range(4):
                path = root / "data" / split / label / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                color = [40 * k] * 3
                color[number] = 250
                Image.new("RGB", (4, 4), tuple(color)).save(path)
                rows.append({"path": f"{split}/{label}/{k}.png", "label": label, "split": split})
    table = pd.DataFrame(rows)
    table.to_csv(root / "data" / "images.csv", index=False)
    table.rename(columns={"path": "scan", "label": "finding"}).to_json(
        root / "scans.jsonl", orient="records", lines=True
    )
    table.assign(background=table.index % 2).to_csv(root / "backgrounds.csv", index=False)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    yield root
    sys.modules.pop("option_models", None)


CALLS = {
    "a predict function on folders": "option_models:predict --id data/val --ood data/fog",
    "a pattern of folders": "option_models:predict --id data/val --ood data/[fn]*",
    "folders that a shell found for a pattern": (
        "option_models:predict --id data/val --ood data/fog data/night"
    ),
    "names for sets": "option_models:predict --id data/val --ood mist=data/fog",
    "a table with splits": (
        "option_models:predict --id data/images.csv:split=val --ood data/images.csv:split=fog"
    ),
    "a table with other columns, elsewhere": (
        "option_models:predict --id scans.jsonl:split=val --ood scans.jsonl:split=night "
        "--keys x=scan y=finding --root data"
    ),
    "a transform of one's own": (
        "option_models:predict --id data/val --ood data/fog --transform option_models:resize"
    ),
    "a size and colors": (
        "option_models:predict --id data/val --ood data/fog --image-size 4 --mean 0.5 --std 0.25"
    ),
    "a gray network": "option_models:gray --id data/val --ood data/fog --no-control",
    "names of classes in a file": (
        "option_models:color --id data/val --ood data/fog --classes classes.txt --no-altered"
    ),
    "some logits": (
        "option_models:six --id data/val --ood data/fog --columns 1,3,5 --batch-size 5 --workers 0"
    ),
}
NAMES = {
    "folders that a shell found for a pattern": ["val", "fog", "night"],
    "a pattern of folders": ["val", "fog", "night"],
    "names for sets": ["val", "mist"],
    "a table with other columns, elsewhere": ["val", "night"],
}


@pytest.mark.parametrize("case", CALLS)
def test_calls_as_users_make_them(case, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    code, out, err = run_contam(
        capsys, "audit", "--reference", "none", "--out", "made", "--model", *CALLS[case].split()
    )
    assert code == 0, err
    record = Audit.load(place / "made").evidence
    assert [s.name for s in record.sets] == NAMES.get(case, ["val", "fog"])
    assert record.classes == CLASSES
    if "predict" in CALLS[case]:
        assert record.sets[0].overall.accuracy.value == 1
    assert all(f"note: {as_flags(line)}" in out for line in record.left_out)


def test_backgrounds_come_from_a_table(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    call = "--model option_models:color --id data/val --background backgrounds.csv"
    (place / "backgrounds.csv").write_text(
        "path,background\n" + "".join(f"{c}/{k}.png,{k % 2}\n" for c in CLASSES for k in range(4))
    )
    code, _, err = run_contam(
        capsys, "audit", *call.split(), "--reference", "none", "--out", "made"
    )
    assert code == 0, err


def test_a_quiet_audit_prints_nothing(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    call = "audit --model option_models:predict --id data/val --quiet --reference none --out q"
    assert run_contam(capsys, *call.split()) == (0, "", "")
    assert (place / "q" / "audit.html").is_file()


def test_weights_fit_a_network_of_a_user(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    sys.modules.pop("option_models", None)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    torch.save(network.state_dict(), place / "w.pt")
    call = "--model option_models:color --weights w.pt --id data/val --reference none --out w"
    code, _, err = run_contam(capsys, "audit", *call.split())
    assert code == 0, err
    assert Audit.load(place / "w").evidence.provenance["weights"] == "w.pt"


MESSAGES = {
    "give classes= or layers=.": "give --classes or --layer.",
    "Give masks= to change backgrounds.": "Give --masks to change backgrounds.",
    "keys= has a part": "--keys has a part",
    "batch_size=; n=3, seed=0": "--batch-size; n=3, seed=0",
    "no untrained= here": "no untrained= here",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_name_flags_instead_of_parameters(message):
    assert as_flags(message) == MESSAGES[message]


def test_a_call_without_arguments_says_what_it_needs(capsys):
    line = "contam: contam audit needs --model and --id (contam audit --help lists all)\n"
    assert run_contam(capsys, "audit") == (2, "", line)


BAD_CALLS = {
    "two ID folders": ("--id data/*", "--id data/\\*: matches 3 folders; give one"),
    "two sets of one name": (
        "--id data/val --ood a=data/fog --ood a=data/night",
        "two sets 'a'; name one",
    ),
    "a wrong column": ("--id data/images.csv --keys y=race", "no column 'race'"),
    "a wrong split": ("--id data/images.csv:split=test", "it has 'fog', 'night', 'val'"),
    "a logit too many": (
        "--id data/val --columns 0-3",
        "--columns has 3, and the logits are 0 to 2",
    ),
    "no pixels": ("--id data/val --image-size 0", "from 1 to 10000"),
    "no batch": ("--id data/val --batch-size 0", "got 0"),
    "a wrong label": ("--id data/val --ood data/images.csv --classes ant,cat", "--classes|'dog'"),
    "no such backgrounds": ("--id data/val --background nix.csv", "no table at nix.csv"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_get_one_line(case, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    words, line = BAD_CALLS[case]
    code, out, err = run_contam(
        capsys, "audit", "--model", "option_models:predict", *words.split(), "--out", "never"
    )
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(line, err), err
    assert not (place / "never").exists()
