"""`contam audit` as its users meet it: folders and weights in, a verdict, files and a page out."""

import csv
import json
import re
import sys
from xml.etree import ElementTree

import pytest
from PIL import Image
from safetensors.torch import save_file
from support.command_line import run_contam
from support.small_audits import small_audit

from contam import cli
from contam.auditing import reliance
from contam.auditing.fail_rules import FailRules
from contam.auditing.records import AuditRecord
from contam.auditing.result import Audit
from contam.cli.audit_ci import fail_rules, log_result
from contam.models.small import resnet8

MODULE = """
from contam.data.images import pixels
from contam.models.small import resnet8
from contam.models.sources import Source

def network():
    model = resnet8(10, width=4)
    return Source("a small one", model.encoder, 16, pixels, model.head)

def bare():
    return Source("bare", network().encoder, 16, pixels)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The embedded benchmark in folders, a network of one's own, and its weights."""
    root = tmp_path_factory.mktemp("audit")
    sizes = ["--train", "40", "--id-val", "40", "--id-test", "80", "--ood-test", "20"]
    assert cli.main(["data", "make", "shapes", str(root / "data"), *sizes]) == 0
    (root / "a_network.py").write_text(MODULE)
    model = resnet8(10, width=4, seed=1)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, root / "w.safetensors")
    return root


MODEL = ("--model", "a_network:network", "--weights", "w.safetensors")
ID = ("--id", "data/id_test")
FAMILIES = ("--ood", "data/ood/checker", "--ood", "data/ood/plaid")


def test_folders_and_weights_give_a_verdict_files_and_a_page(capsys, monkeypatch, place):
    monkeypatch.chdir(place)
    masks = ("--masks", "data/masks/id_test", "--reference", "none")
    layers = ("--layer", "encoder.relu", "--layer", "encoder.stage3.relu2")
    code, out, err = run_contam(
        capsys, "audit", *MODEL, *ID, *FAMILIES, *masks, *layers, "--out", "found"
    )
    assert code == 0, err
    assert "audit.html" in out
    audit = Audit.load(place / "found")
    assert audit.verdict.sentence in out
    assert [row.name for row in audit.evidence.sets] == ["id_test", "checker", "plaid"]
    numbers = [number for row in audit.evidence.evidence for number in row.numbers]
    assert {"masks"} <= {number.part for number in numbers if number.what == reliance.WITHOUT}
    assert (place / "found" / "audit.html").read_text().lower().startswith("<!doctype html>")
    with (place / "found" / "evidence.csv").open() as file:
        rows = list(csv.DictReader(file))
    whole = [row for row in rows if row["what"] == "accuracy" and not row["part"]]
    assert [row["on"] for row in whole] == ["id_test", "checker", "plaid"]
    schema = json.loads((place / "found" / "audit.schema.json").read_text())
    assert schema["properties"].keys() == AuditRecord.model_fields.keys()


@pytest.mark.slow
def test_labels_of_the_listed_images_make_an_ood_set(capsys, monkeypatch, place):
    monkeypatch.chdir(place)
    quick = ("--quick", "--reference", "none", "--no-remedies")
    new = ("--unlabeled", "new=data/ood/checker")
    code, out, err = run_contam(capsys, "audit", *MODEL, *ID, *new, *quick, "--out", "first")
    assert code == 0, err
    assert "UNLABELED new: accuracy about" in out and "give it as --ood" in out
    with (place / "first" / "to_label.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20  # all of them: there are fewer than 50
    for row in rows:
        row["label"] = row["path"].split("/")[0]
    with (place / "labeled.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    ood = ("--ood", "labeled.csv:set=new", "--root", "data/ood/checker")
    code, _, err = run_contam(capsys, "audit", *MODEL, *ID, *ood, *quick, "--out", "second")
    assert code == 0, err
    scores = Audit.load(place / "second").evidence.sets[1]
    assert (scores.name, scores.overall.count, len(scores.by_class)) == ("new", 20, 10)


@pytest.mark.slow
def test_fail_on_sets_the_exit_code(capsys, monkeypatch, place):
    monkeypatch.chdir(place)
    few = ("--budget", "60", "--reference", "none", "--layer", "encoder.stage3.relu2", "--json")
    code, out, _ = run_contam(capsys, "audit", *MODEL, *ID, *few, "--out", "a")
    record = AuditRecord.model_validate_json(out)
    assert code == 0
    assert [layer.name for layer in record.layers] == ["encoder.stage3.relu2"]
    cause = record.verdict.cause
    rules = ("--fail-on", f"head,{cause}", "--fail-below", "0.99", "checker=0")
    written = ("--junit", "ci/junit.xml", "--markdown", "ci/summary.md")
    again, _, _ = run_contam(
        capsys, "audit", *MODEL, *ID, *few, "--quick", *FAMILIES, *rules, *written, "--out", "a"
    )
    assert again == 1
    suites = ElementTree.parse(place / "ci" / "junit.xml").getroot()
    failed = {case.attrib["name"]: case.find("failure") for case in suites.iter("testcase")}
    assert list(failed)[:2] == ["accuracy on checker", "accuracy on plaid"]
    assert failed["accuracy on checker"] is None
    assert failed["accuracy on plaid"] is not None
    assert "OOD checker" in (place / "ci" / "summary.md").read_text()


SEVERAL = """
import torch
from torch import nn

class Colors(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.head.weight = nn.Parameter(torch.eye(3)[:2])
        self.head.bias = nn.Parameter(torch.full((2,), -0.5))

    def forward(self, x):
        return self.head(x.mean((2, 3)))
"""
LABELED = {
    "every column": (("--labels", "red,green"), ["red", "green"]),
    "one of the logits": (("--classes", "red,green", "--labels", "green"), ["green"]),
}


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """Plain images, a table of two labels of each, and a network that knows them."""
    root = tmp_path_factory.mktemp("colors")
    (root / "two_labels.py").write_text(SEVERAL)
    rows = ["path,red,green"]
    for number in range(12):
        red, green = number % 2, number // 2 % 2
        Image.new("RGB", (8, 8), (200 * red, 200 * green, 9 * number)).save(root / f"{number}.png")
        rows.append(f"{number}.png,{red},{green}")
    (root / "t.csv").write_text("\n".join(rows))
    return root


TWO = ("--model", "two_labels:Colors", "--id", "t.csv", "--no-altered", "--no-control")


@pytest.mark.parametrize("case", LABELED)
def test_several_labels_give_a_summary_and_a_page_for_each(
    capsys, monkeypatch, tmp_path, colors, case
):
    monkeypatch.chdir(colors)
    flags, labels = LABELED[case]
    more = ("--reference", "none", "--ood", "night=t.csv", "--out", tmp_path)
    code, out, err = run_contam(capsys, "audit", *TWO, *more, *flags)
    assert code == 0, err
    with (tmp_path / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    sets = [(label, data) for label in labels for data in ("t", "night")]
    assert [(row["label"], row["data"]) for row in rows] == sets
    assert {row["accuracy"] for row in rows} == {"1.0"}
    for number, label in enumerate(labels):
        assert label in out
        assert (tmp_path / f"{number:02}-{label}" / "audit.html").is_file()


BAD_LABELS = {
    "no such column": (("--labels", "red,blue"), "t.csv has no column 'blue'"),
    "a logit too many": (("--labels", "red"), "2 logits, and there are 1 labels"),
    "logits to compare": (("--labels", "red,green", "--columns", "0"), "leave out --columns"),
    "a label that is no logit": (
        ("--labels", "blue", "--classes", "red,green"),
        "--labels has 'blue'",
    ),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels_get_one_line(capsys, monkeypatch, colors, case):
    monkeypatch.chdir(colors)
    flags, line = BAD_LABELS[case]
    code, out, err = run_contam(
        capsys, "audit", *TWO, "--reference", "none", *flags, "--out", "never"
    )
    assert (code, out) == (2, "")
    assert line in err.splitlines()[-1]
    assert not (colors / "never").exists()


def test_fail_on_accepts_abbreviated_verdicts():
    rules = fail_rules("corruption,missing,any", [])
    assert rules.causes("missing") == {"information missing"}
    assert "healthy" not in rules.causes("any")
    assert fail_rules(None, []) == FailRules()


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Two saved audits, of which the second lost accuracy on fog."""
    monkeypatch.chdir(tmp_path)
    answers = {"ID": [True] * 40, "fog": [True] * 40}
    small_audit(answers, cause="healthy").save("before")
    small_audit(answers | {"fog": [True, False] * 20}, cause="head").save("after")
    return tmp_path


EXITS = {
    "no rule": ("", 0),
    "a loss": ("--fail-on loss", 1),
    "any failure": ("--fail-on any", 1),
    "another verdict": ("--fail-on corruption", 0),
    "a floor": ("--fail-below 0.6", 1),
    "a floor that is met": ("--fail-below fog=0.4", 0),
}


@pytest.mark.parametrize("case", EXITS)
def test_rules_decide_the_exit_code_of_a_comparison(capsys, saved, case):
    flags, expected = EXITS[case]
    written = ("--junit", "ci/junit.xml", "--markdown", "ci/summary.md")
    code, out, err = run_contam(
        capsys, "audit", "--compare", "before", "after", *flags.split(), *written
    )
    assert (code, err) == (expected, "")
    assert "verdict: healthy -> head" in out
    assert "50.0" in out
    assert ("failed: " in out) == bool(expected)
    failures = ElementTree.parse(saved / "ci" / "junit.xml").getroot().iter("failure")
    assert bool(list(failures)) == bool(expected)
    assert "healthy -> head" in (saved / "ci" / "summary.md").read_text()


def test_a_comparison_as_json(capsys, saved):
    code, out, _ = run_contam(capsys, "audit", "--compare", "before", "after", "--json")
    content = json.loads(out)
    assert code == 0
    assert content["after"]["verdict"] == "head"
    assert [row["change"] for row in content["changes"]] == [0.0, -0.5]
    quiet = run_contam(capsys, "audit", "--compare", "before", "after", "--quiet")
    assert quiet == (0, "", "")


BAD_COMPARISONS = {
    "no audit": ("--compare before nix", "no audit.json in nix"),
    "a network": ("--compare before after --model timm:x", "leave out --model"),
    "other flags": (
        "--compare before after --unlabeled new --no-remedies --out a --budget 9",
        "leave out --unlabeled, --out, --no-remedies, --budget",
    ),
    "several labels": ("--compare before labels", "give the folder of one label"),
    "other data": ("--compare before other", "different data sets, ID, fog before and ID after"),
    "an older format": ("--compare before old", "has format 1"),
    "no such set": ("--compare before after --fail-below night=0.5", "no data set 'night'"),
    "no share": ("--compare before after --fail-below 80", "in [0, 1] such as 0.8, not 80"),
    "no number": ("--compare before after --fail-below fog", "expected ACCURACY or SET=ACCURACY"),
    "one folder": ("--compare before", "--compare"),
}


@pytest.mark.parametrize("case", BAD_COMPARISONS)
def test_bad_comparisons_get_one_line(capsys, saved, case):
    flags, line = BAD_COMPARISONS[case]
    small_audit({"ID": [True] * 4}).save("other")
    for name, file, text in (("labels", "summary.csv", ""), ("old", "audit.json", '{"format": 1}')):
        (saved / name).mkdir()
        (saved / name / file).write_text(text)
    code, out, err = run_contam(capsys, "audit", *flags.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert line in err


TRACKER = """
import contextlib, pathlib

@contextlib.contextmanager
def start_run():
    yield

def log_metrics(metrics, step=None, run_id=None):
    if not metrics:
        raise RuntimeError("nothing to log\\nat all")
    pathlib.Path("metrics").write_text(repr(metrics))

def log_text(text, artifact_file, run_id=None):
    pathlib.Path("page").write_text(text)

def set_tag(key, value):
    pathlib.Path("tag").write_text(value)
"""


def test_log_starts_a_run_of_mlflow(saved, monkeypatch):
    (saved / "mlflow.py").write_text(TRACKER)
    monkeypatch.syspath_prepend(saved)
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    log_result(Audit.load("after"), "mlflow")
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    assert "'contam/accuracy/fog': 0.5" in (saved / "metrics").read_text()
    assert (saved / "tag").read_text() == "head"
    assert (saved / "page").read_text().startswith("<!doctype html>")


BAD = {
    "no such folder": (("--id", "nowhere"), "no folder nowhere"),
    "no weights": (("--model", "timm:resnet18"), "no weights for timm:resnet18"),
    "weights of another network": (("--model", "torchvision:resnet18"), "don't fit"),
    "no head": (("--model", "a_network:bare"), "bare came without a head"),
    "no such function": (("--model", "a_network:nix"), "can't find a_network:nix"),
    "no such verdict": (("--fail-on", "corruptions"), "did you mean 'corruption'"),
    "no such layer": (("--layer", "encoder.stage3.relu"), "did you mean one of"),
    "a loss without a comparison": (("--fail-on", "loss"), "give --compare"),
    "a floor of no set": (("--fail-below", "nix=0.5"), "no data set 'nix'"),
    "a floor that is no share": (("--fail-below", "80"), "such as 0.8, not 80"),
    "no such flag": (("--oodd", "x"), "Unrecognized options: --oodd"),
    "no such masks": (("--masks", "nix"), "no folder nix"),
    "no such baseline": (("--baseline", "no.csv"), "no.csv: can't be read"),
    "no such reference": (("--reference", "nix"), "no encoder 'nix'"),
    "no such device": (("--device", "abacus"), "no device 'abacus'"),
    "a folder of no classes": (("--ood", "data"), "has a folder"),
    "a file to write into": (("--out", "w.safetensors"), "is not a folder"),
}


@pytest.mark.parametrize(("log", "package"), [("mlflow", "mlflow-skinny"), ("wandb", "wandb")])
def test_a_tracker_that_is_not_installed_is_named_before_the_audit(
    capsys, monkeypatch, place, log, package
):
    monkeypatch.chdir(place)
    monkeypatch.setattr("contam.cli.audit_ci.find_spec", lambda name: None)
    code, out, err = run_contam(capsys, "audit", *MODEL, *ID, "--log", log, "--out", "never")
    assert (code, out) == (2, "")
    assert err == f"contam: --log {log}: is not installed; run pip install {package}\n"
    assert not (place / "never").exists()


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line(capsys, monkeypatch, place, case):
    monkeypatch.chdir(place)
    changed, line = BAD[case]
    asked = dict(zip(MODEL[::2] + ID[::2], MODEL[1::2] + ID[1::2], strict=True))
    asked |= {"--out": "never", "--reference": "none", changed[0]: changed[1]}
    if case in ("no weights", "no head"):
        del asked["--weights"]
    code, out, err = run_contam(capsys, "audit", *(word for pair in asked.items() for word in pair))
    assert code == 2
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("contam: ")
    assert re.search(line, last), last
    assert not (place / "never").exists()
