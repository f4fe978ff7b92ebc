"""A whole audit: its results, what it leaves out, and that the network stays as it was."""

import html
import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

import contam
from contam.auditing import reliance
from contam.auditing.baseline import find_lines
from contam.auditing.causes import head
from contam.auditing.records import AuditRecord
from contam.auditing.result import TABLES, Audit
from contam.data.backgrounds import ID
from contam.data.shapes import scenes
from contam.inputs.image_conversion import Picture, read
from contam.inputs.lazy_files import AHEAD
from contam.measures.robustness import IMAGENET_LINES
from contam.models.torchvision_import import import_torchvision

SETTINGS = {"progress": False, "reference": None}


def network(classes: int = 3, *, width: int = 6, extra: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    inner = [] if extra is None else [extra]
    return nn.Sequential(
        *inner, nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
    )  # fmt: skip


def data(n: int = 45, *, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Each class has a color, and the shift moves all of them."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 3
    x = torch.rand(n, 3, 8, 8, generator=generator) / 2
    x[torch.arange(n), y] += 0.4
    return (x + shift).clamp(0, 1), y


@pytest.fixture(scope="module")
def audit() -> Audit:
    return contam.audit(network(), id=data(), ood={"dim": data(shift=-0.2)}, **SETTINGS)


def test_the_function_returns_an_audit(audit):
    assert isinstance(audit, contam.Audit)
    assert isinstance(audit.evidence, AuditRecord)


def test_an_audit_has_every_kind_of_evidence(audit):
    record = audit.evidence
    assert [(row.name, row.role) for row in record.sets] == [("ID", "id"), ("dim", "ood")]
    assert record.classes == ("0", "1", "2")
    assert record.verdict is audit.verdict
    assert audit.verdict.reasons
    (layer,) = record.layers
    assert layer.name == "2"
    assert "dim" in layer.attenuation or any("attenuation" in line for line in record.left_out)
    assert record.neurons is not None
    assert len(record.neurons.index) == 6
    causes = [row.cause for row in record.evidence]
    assert causes[:2] == ["background shortcut", "head"]
    assert record.examples
    assert {"torch", "seed", "device", "seconds", "model"} <= record.provenance.keys()
    assert all(line.endswith((".", ")")) and "\n" not in line for line in record.left_out)


def test_the_same_audit_gives_the_same_results(audit):
    again = contam.audit(network(), id=data(), ood={"dim": data(shift=-0.2)}, **SETTINGS)
    plain = {"provenance": {}}
    assert again.evidence.model_copy(update=plain) == audit.evidence.model_copy(update=plain)


def test_accuracy_equals_that_of_the_network(audit):
    model = network().eval()
    for (x, y), scores in zip((data(), data(shift=-0.2)), audit.evidence.sets, strict=True):
        assert scores.overall.correct == int((model(x).argmax(1) == y).sum())


def test_an_audit_round_trips_through_its_folder(audit, tmp_path):
    folder = audit.save(tmp_path / "kept")
    assert Audit.load(folder).evidence == audit.evidence
    schema = json.loads((folder / "audit.schema.json").read_text())
    assert set(schema["required"]) <= json.loads((folder / "audit.json").read_text()).keys()
    rows = (folder / TABLES["evidence"]).read_text().splitlines()
    assert len(rows) == 1 + len(audit.records())
    assert audit.evidence.neurons is not None
    neurons = (folder / TABLES["neurons"]).read_text().splitlines()
    assert len(neurons) == 1 + len(audit.evidence.neurons.index)
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]


def test_records_are_flat_and_hold_every_number(audit):
    rows = audit.records()
    assert all(set(row) == {"what", "on", "layer", "part", "value", "low", "high"} for row in rows)
    expected = {
        "accuracy", "selectivity", f"head: {head.GAIN}", f"background shortcut: {reliance.BITS}"
    }  # fmt: skip
    assert expected <= {row["what"] for row in rows}
    first = next(row for row in rows if row["what"] == "accuracy")
    assert first["value"] == audit.evidence.sets[0].overall.accuracy.value


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda folder: (folder / "audit.json").unlink(), "no audit.json in"),
        (lambda folder: (folder / "audit.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "audit.json").write_text('{"format": 4}'), "is damaged at"),
        (lambda folder: (folder / "audit.json").write_text('{"format": 99}'), "has format 99"),
        (lambda folder: (folder / "audit.json").write_text('{"format": 2}'), "run the audit again"),
    ],
    ids=["gone", "cut", "empty", "newer", "older"],
)
def test_a_damaged_audit_is_rejected_in_one_line(audit, tmp_path, change, line):
    folder = audit.save(tmp_path)
    change(folder)
    with pytest.raises(ValueError, match=line) as said:
        Audit.load(folder)
    assert "\n" not in str(said.value)


def test_an_unwritable_folder_is_rejected(audit, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="can't be written"):
        audit.save(tmp_path / "file")


def test_the_html_representation_begins_with_the_verdict(audit):
    text = repr(audit)
    assert audit.verdict.cause in text
    assert audit.verdict.sentence in text
    assert audit.verdict.reasons[0] in text
    assert "OOD dim: accuracy" in text
    page = audit._repr_html_()
    assert html.escape(audit.verdict.sentence) in page
    assert re.search(r"<table>.*</table>", page)


def test_markup_in_names_is_escaped():
    classes = ["<script>alert(1)</script>", "a & b", "<b>"]
    audit = contam.audit(
        network(), id=data(), ood={"<i>dim</i>": data()}, classes=classes, budget=30, **SETTINGS
    )
    page = audit._repr_html_()
    assert "<i>" not in page
    assert "<script>" not in page
    assert audit.evidence.classes == tuple(classes)


def test_the_page_is_one_file_without_live_markup(tmp_path):
    classes = ["<script>alert(1)</script>", "a & b", "<b>"]
    audit = contam.audit(
        network(), id=data(), ood={"<i>dim</i>": data()}, classes=classes, **SETTINGS
    )
    page = audit.report(tmp_path / "deep" / "page.html").read_text()
    assert "<script>alert(1)" not in page
    assert "<i>dim</i>" not in page
    assert html.escape(audit.verdict.heading) in page


def state_of(model: nn.Module) -> list:
    """Everything that an audit could have changed."""
    return [
        [module.training for module in model.modules()],
        [(value.requires_grad, id(value), value.grad) for value in model.parameters()],
        [(value.dtype, value.device) for value in model.state_dict().values()],
        [value.detach().clone().tolist() for value in model.state_dict().values()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        torch.get_rng_state().tolist(),
        random.getstate(),
        repr(np.random.get_state()),  # noqa: NPY002
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
    ]


class Breaking(nn.Module):
    """Does nothing, and raises at the call with this number."""

    def __init__(self, at: int, error: type[BaseException]) -> None:
        super().__init__()
        self.at, self.error, self.calls = at, error, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == self.at:
            raise self.error("stopped here")
        return x


class Random(nn.Module):
    """Draws from every global stream, as careless code does."""

    def forward(self, x):
        return x + 0 * (torch.rand(()) + random.random() + np.random.rand())  # noqa: NPY002


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("extra", [None, Random()], ids=["quiet", "drawing"])
def test_the_network_is_unchanged(training, extra):
    model = network(extra=extra).train(training)
    model[-1].requires_grad_(False)
    model[-3].eval()
    torch.stack([v.sum() for v in model.parameters() if v.requires_grad]).sum().backward()
    model[-1].register_forward_hook(lambda *_: None)
    before = state_of(model)
    contam.audit(model, id=data(), ood=data(shift=0.1), **SETTINGS)
    assert state_of(model) == before


@pytest.fixture(scope="module")
def calls() -> int:
    """How often an audit calls the network."""
    quiet = Breaking(-1, ValueError)
    contam.audit(network(extra=quiet), id=data(), untrained=False, **SETTINGS)
    return quiet.calls


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemError])
def test_the_network_is_unchanged_after_an_interruption(calls, share, error):
    model = network(extra=Breaking(1 + int(share * (calls - 1)), error)).train()
    before = state_of(model)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            contam.audit(model, id=data(), untrained=False, **SETTINGS)
    else:
        # An error of the network's own ends the audit, or only the part that can be left out.
        try:
            result = contam.audit(model, id=data(), untrained=False, **SETTINGS)
            assert result.evidence.sets
        except ValueError as message:
            assert "SystemError: stopped here" in str(message)
            assert share < 1
    assert state_of(model) == before


def test_a_progress_function_follows_the_audit_and_can_stop_it():
    model = network().train()
    before = state_of(model)
    shares = []

    def stop(stage):
        shares.append(stage.done)
        if len(shares) == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        contam.audit(model, id=data(), reference=None, progress=stop)
    assert shares == sorted(shares)
    assert state_of(model) == before
    stages = []
    contam.audit(model, id=data(), ood=data(), reference=None, progress=stages.append)
    assert stages[0].done == 0 and stages[-1].done == 1
    assert [stage.done for stage in stages] == sorted(stage.done for stage in stages)


def test_a_bad_model_is_rejected_before_progress_starts():
    stages = []
    with pytest.raises(ValueError, match="the model is a int"):
        contam.audit(7, id=data(), progress=stages.append)
    assert not stages


def test_the_name_of_a_model_can_be_set():
    result = contam.audit(network(), id=data(9), name="my network", **SETTINGS)
    assert result.evidence.model == result.evidence.provenance["model"] == "my network"


class Counting(nn.Module):
    """Counts the examples that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = 0

    def forward(self, x):
        self.shown += len(x)
        return x


@pytest.mark.parametrize("n", [24, 45, 150])
def test_an_audit_costs_one_pass_and_a_few_more_examples(n):
    plain = 2 * n
    few, everything = Counting(), Counting()
    contam.audit(network(extra=few), id=data(n), ood=data(n, shift=-0.2), quick=True, **SETTINGS)
    # The first images to try the network on, and the heat maps of at most eight examples.
    assert few.shown <= plain + 2 * 4 + 8 + 1
    contam.audit(
        network(extra=everything), id=data(n), ood=data(n, shift=-0.2), **SETTINGS
    )  # the untrained copy counts for itself: its examples are limited in the same way
    # In sets this small, the tests of causes and the repairs edit as many images as there are.
    assert everything.shown <= 5 * plain


def folder_of_images(root: Path, n: int, *, shift: float = 0.0) -> Path:
    """Images as files, in one folder for each class."""
    for k, (x, y) in enumerate(zip(*data(n, shift=shift), strict=True)):
        file = root / f"class {int(y)}" / f"{k:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * x.permute(1, 2, 0)).byte().numpy()).save(file)
    return root


@pytest.fixture
def decoded(monkeypatch) -> Counter[str]:
    """How often each image file is decoded, where no image stays in memory."""
    counts: Counter[str] = Counter()

    def counting(file: Path) -> Picture:
        counts[str(file)] += 1
        return read(file)

    monkeypatch.setattr("contam.inputs.lazy_files.read", counting)
    monkeypatch.setattr("contam.inputs.lazy_files.MAX_BYTES", 1)
    return counts


def test_image_files_are_decoded_once_except_for_displayed_examples(tmp_path, decoded):
    own = folder_of_images(tmp_path / "own", 60)
    new = folder_of_images(tmp_path / "new", 60, shift=-0.2)
    result = contam.audit(network(), id=own, ood={"new": new}, **SETTINGS)
    assert [scores.overall.count for scores in result.evidence.sets] == [60, 60]
    assert len(decoded) == 120
    shown = len({(e.data, e.index) for e in result.evidence.examples})
    # Beside the shown examples, the network is tried on the first images: at most two of each set,
    # with two batches that threads decode ahead and whatever they have begun by then.
    tried = 2 * ((1 + AHEAD) * 2 + 1)
    again = [file for file, count in decoded.items() if count > 1]
    assert len(again) <= shown + tried
    assert sum(decoded.values()) <= 120 + len(result.evidence.examples) + 2 * tried


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "again"),
    [
        pytest.param(5000, 0, id="the images fit in memory"),
        pytest.param(500, 22, id="a tenth fits in memory"),
    ],
)
def test_5000_images_are_decoded_once(tmp_path, decoded, monkeypatch, kept, again):
    """Beyond the memory that is reserved for images, those on the page are decoded again."""
    one = 3 * 8 * 8 * torch.empty(0).element_size()
    monkeypatch.setattr("contam.inputs.lazy_files.MAX_BYTES", kept * one)
    own = folder_of_images(tmp_path / "own", 5000)
    result = contam.audit(
        network(), id=own, ood={"new": data(45, shift=-0.2)}, untrained=False, **SETTINGS
    )
    assert result.evidence.sets[0].overall.count == len(decoded) == 5000
    # A batch that threads decode ahead may be decoded once more when a pass begins.
    assert sum(decoded.values()) <= 5000 + again + (0 if kept == 5000 else 2 * AHEAD)


def test_an_unreadable_file_is_left_out_of_all_evidence(tmp_path, decoded):
    own = folder_of_images(tmp_path / "own", 60)
    new = folder_of_images(tmp_path / "new", 60, shift=-0.2)
    expected = contam.audit(network(), id=own, ood={"new": new}, **SETTINGS).evidence
    for file in ("class 1/007.png", "class 2/059.png"):
        (own / file).with_name(f"{Path(file).stem}b.png").write_bytes(b"no image")
    decoded.clear()
    evidence = contam.audit(network(), id=own, ood={"new": new}, **SETTINGS).evidence
    assert any("2 of 62 examples" in line for line in evidence.left_out)
    assert evidence.sets[0].overall.correct == expected.sets[0].overall.correct
    assert evidence.sets[0].overall.count == 60
    for layer, plain in zip(evidence.layers, expected.layers, strict=True):
        assert layer.selectivity["own"] == pytest.approx(plain.selectivity["own"])
    assert max(decoded.values()) <= 4


class Small(nn.Module):
    """Runs out of memory for more than this number of examples."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.largest = most, 0

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.largest = max(self.largest, len(x))
        return x


def test_batches_are_halved_when_memory_runs_out():
    plain = contam.audit(network(), id=data(), ood=data(shift=0.1), untrained=False, **SETTINGS)
    small = Small(5)
    audit = contam.audit(
        network(extra=small), id=data(), ood=data(shift=0.1), untrained=False, **SETTINGS
    )
    assert small.largest <= 5
    assert audit.evidence.sets == plain.evidence.sets
    assert audit.verdict == plain.verdict


def test_one_example_that_does_not_fit_in_memory_is_an_error():
    with pytest.raises(ValueError, match="memory runs out"):
        contam.audit(network(extra=Small(0)), id=data(), **SETTINGS)


def test_without_ood_data_the_missing_evidence_is_listed():
    audit = contam.audit(network(), id=data(), **SETTINGS)
    assert [row.role for row in audit.evidence.sets] == ["id"]
    assert audit.verdict.missing
    assert audit.evidence.layers[0].counterfactual


@pytest.mark.parametrize("n", [2, 3])
def test_few_examples_give_a_partial_audit(n):
    audit = contam.audit(network(), id=data(n), ood=data(n), **SETTINGS)
    assert audit.evidence.sets[0].overall.count == n
    assert audit.evidence.left_out


def test_a_class_without_examples_gives_a_partial_audit():
    x, y = data()
    few = x[y < 2], y[y < 2]
    audit = contam.audit(network(), id=(x, y), ood=few, **SETTINGS)
    assert any("no example of" in line for line in audit.evidence.left_out)
    assert set(audit.evidence.sets[1].by_class) == {"0", "1"}
    contam.audit(network(), id=few, ood=(x, y), **SETTINGS)


class NotFinite(nn.Module):
    """Maps with a NaN in them, which the layers after it hide."""

    def forward(self, x):
        return torch.where(torch.arange(len(x))[:, None, None, None] == 0, torch.nan, x)


def test_non_finite_activations_are_left_out():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), NotFinite(), nn.SiLU(), nn.AdaptiveMaxPool2d(1),
        nn.Flatten(), nn.ReLU(), nn.Hardtanh(), nn.Linear(4, 3),
    )  # fmt: skip

    class Clean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner(x).nan_to_num()

    audit = contam.audit(Clean(), id=data(), ood=data(), untrained=False, **SETTINGS)
    assert any("inner.3" in line and "finite" in line for line in audit.evidence.left_out)
    assert "inner.1" in {layer.name for layer in audit.evidence.layers}


def test_features_without_a_network_get_a_partial_audit():
    x, y = data(90)
    features = x.mean((2, 3))
    audit = contam.audit(None, id=(features, y), ood=(features.flip(1), y), **SETTINGS)
    assert audit.evidence.sets[0].overall.accuracy.value > 0.9
    assert not audit.evidence.examples
    assert any("only features" in line for line in audit.evidence.left_out)


def test_background_labels_and_masks_reach_the_evidence():
    shown = scenes([ID[0]], 60)
    kinds = [("sea", "land")[int(k) % 2] for k in shown.y]
    audit = contam.audit(
        network(10), id=(shown.x, shown.y), masks=shown.mask, background=kinds, **SETTINGS
    )
    [evidence] = [e for e in audit.evidence.evidence if e.cause == "background shortcut"]
    bits, alone = evidence.find(reliance.BITS), evidence.find(reliance.WITHOUT)
    assert bits is not None and alone is not None
    assert (bits.part, alone.part) == ("labels", "masks")
    assert bits.value.value > 0.5


def test_progress_can_be_silent(capsys):
    contam.audit(network(), id=data(), **SETTINGS)
    said = capsys.readouterr()
    assert said.out == said.err == ""
    contam.audit(network(), id=data(), reference=None)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_networks_of_model_libraries_are_audited():
    import_torchvision()
    timm = pytest.importorskip("timm")
    for name, kind in (("resnet18", "resnet"), ("vit_tiny_patch16_224", "vit")):
        options = {"img_size": 32, "patch_size": 8} if kind == "vit" else {}
        model = timm.create_model(name, pretrained=False, num_classes=3, **options)
        x, y = data(30)
        big = nn.functional.interpolate(x, 32)
        audit = contam.audit(model, id=TensorDataset(big, y), ood=(big, y), **SETTINGS)
        assert len(audit.evidence.layers) > 5
        assert audit.evidence.evidence[-1].effect is not None


def lines_in(text: str, tmp_path):
    file = tmp_path / "baseline.csv"
    file.write_text(text)
    return find_lines(file, ["fog"], id_name="clean", classes=3)


def test_a_baseline_gives_effective_robustness(tmp_path):
    table = "model,clean,fog\na,0.5,0.4\nb,0.7,0.55\nc,0.9,0.8\n"
    lines, said = lines_in(table, tmp_path)
    assert said == []
    assert lines["fog"].count == 3
    file = tmp_path / "models.csv"
    file.write_text(table.replace("clean", "id"))
    audit = contam.audit(
        network(), id=data(), ood={"fog": data(shift=0.2)}, baseline=file, **SETTINGS
    )
    assert audit.evidence.sets[1].effective_robustness is not None
    named, _ = find_lines(None, ["imagenet-r", "mine"], id_name="x", classes=1000)
    assert named == {"imagenet-r": IMAGENET_LINES["ImageNet-R"]}
    assert find_lines(None, ["ImageNet-R"], id_name="x", classes=10) == ({}, [])
    _, said = find_lines({"a": lines["fog"]}, ["b"], id_name="x", classes=10)
    assert said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "has the columns"),
        ("model,fog\na,0.5\n", "needs 'clean' or 'id'"),
        ("clean,fog\n0.5,much\n", "not numbers"),
        ("clean,fog\n0.5,0.4\n", "a line needs two"),
        ("clean,fog\n50,0.4\n60,0.5\n", "divide percent"),
    ],
    ids=["empty", "no ID column", "words", "one model", "percent"],
)
def test_an_invalid_baseline_is_rejected(tmp_path, text, line):
    with pytest.raises(ValueError, match=line):
        lines_in(text, tmp_path)
