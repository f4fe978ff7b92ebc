"""Any data and any network are understood, or refused in one line that says what to try."""

import dataclasses
import re
import sys
import types
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from contam.auditing.prepare import prepare
from contam.batch import Batch, Domain, Shift
from contam.inputs.forms import named_sets
from contam.inputs.indexed import DatasetDomain
from contam.inputs.pixel_range import PixelRange, pixel_range_of
from contam.models.find_network import find_network
from contam.models.logits_adapter import LogitsAdapter
from contam.models.observe import observe
from contam.models.preparation import Preparation
from contam.models.small import resnet8, small_cnn
from contam.models.sources import Source
from contam.models.untrained import untrained

CLASSES = 3
SIDE = 8


def inputs(n: int = 12, *, side: int = SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures as a network wants them, with values beyond [0, 1]; and labels."""
    generator = torch.Generator().manual_seed(n)
    x = 4 * torch.rand(n, 3, side, side, generator=generator) - 2
    return x, torch.arange(n) % CLASSES


def network(classes: int = CLASSES) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(), head=nn.Linear(4, classes),
        )
    ).eval()  # fmt: skip


class Pairs(Dataset):
    """A dataset whose examples are made by a function of their number."""

    def __init__(self, make, n: int = 12) -> None:
        self.make, self.n = make, n

    def __getitem__(self, number: int):
        return self.make(number)

    def __len__(self) -> int:
        return self.n


class Stream(IterableDataset):
    def __init__(self, items) -> None:
        self.items = items

    def __iter__(self):
        yield from self.items


class Column(Pairs):
    """What a Hugging Face dataset looks like from outside."""

    column_names = ("image", "label")
    classes: list[str]
    features = {"label": SimpleNamespace(names=["cat", "dog", "fox"])}  # noqa: RUF012


X, Y = inputs()
ARRAYS = X.numpy(), Y.numpy()
IMAGES = [Image.fromarray(np.full((SIDE, SIDE, 3), 20 * k, dtype=np.uint8)) for k in range(12)]


def raising(number: int):
    if number == 5:
        raise OSError("the disk is gone")
    return X[number], int(Y[number])


def batches(*, then: Exception | None = None):
    yield X[:4], Y[:4]
    yield X[4:8], Y[4:8]
    if then is not None:
        raise then
    yield X[8:], Y[8:]


FORMS = {
    "tensors": lambda: (X, Y),
    "arrays": lambda: ARRAYS,
    "tensors with domains": lambda: (X, Y, torch.arange(12) // 6),
    "labels as a list": lambda: (X, Y.tolist()),
    "labels of another whole kind": lambda: (X, Y.to(torch.int16)),
    "labels as whole floats": lambda: (X, Y.double()),
    "labels in a column": lambda: (X, Y[:, None]),
    "one-hot labels": lambda: (X, nn.functional.one_hot(Y)),
    "inputs in double precision": lambda: (X.double(), Y),
    "a Domain": lambda: Domain("mine", Batch(X, Y, torch.zeros(12).long())),
    "a Dataset": lambda: TensorDataset(X, Y),
    "a part of a Dataset": lambda: Subset(TensorDataset(X, Y), range(12)),
    "a Dataset of dicts": lambda: Pairs(lambda i: {"image": X[i], "label": int(Y[i])}),
    "a Dataset with metadata": lambda: Pairs(lambda i: (X[i], Y[i], torch.tensor([i // 6, 3]))),
    "a Dataset with a dict beside": lambda: Pairs(lambda i: (X[i], Y[i], {"group": i // 6})),
    "a DataLoader": lambda: DataLoader(TensorDataset(X, Y), batch_size=5),
    "a DataLoader that shuffles": lambda: DataLoader(TensorDataset(X, Y), 5, shuffle=True),
    "a DataLoader that drops the last": lambda: DataLoader(
        TensorDataset(X, Y), 5, shuffle=True, drop_last=True
    ),
    "a DataLoader with processes": lambda: DataLoader(TensorDataset(X, Y), 5, num_workers=1),
    "a DataLoader with its own collation": lambda: DataLoader(
        TensorDataset(X, Y), 5,
        collate_fn=lambda rows: {"x": torch.stack([r[0] for r in rows]), "y": [r[1] for r in rows]},
    ),
    "a DataLoader without batches": lambda: DataLoader(TensorDataset(X, Y), batch_size=None),
    "a stream": lambda: DataLoader(Stream([(X[i], Y[i]) for i in range(12)]), batch_size=4),
    "batches in a list": lambda: list(batches()),
    "batches that come once": batches,
    "examples that come once": lambda: ((X[i], int(Y[i])) for i in range(12)),
    "batches of dicts": lambda: [{"pixel_values": X, "labels": Y}],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_data_is_the_same(form):
    found = prepare(network(), id=FORMS[form](), reference=None).subject
    for _ in range(2):
        seen = list(observe(found.model, found.id.domain.batches(5), []))
        assert torch.cat([each.batch.y for each in seen]).tolist() == Y.tolist()
        torch.testing.assert_close(
            torch.cat([each.logits for each in seen]), network()(X).detach(), rtol=0, atol=1e-5
        )
    shown = found.id.domain.data.x
    assert 0 <= shown.min() < 0.1
    assert 0.9 < shown.max() <= 1


@pytest.mark.parametrize("form", ["tensors with domains", "a Dataset with metadata",
                                  "a Dataset with a dict beside"])  # fmt: skip
def test_domains_are_found(form):
    found = prepare(network(), id=FORMS[form](), reference=None).subject
    assert found.id.domain.data.domain.tolist() == [0] * 6 + [1] * 6


def test_images_are_shown_as_a_transform_makes_them():
    data = Column(lambda i: {"image": IMAGES[i], "label": i % 3})
    found = prepare(network(), id=data, reference=None).subject
    assert found.classes == ("cat", "dog", "fox")
    assert found.id.domain.data.x[3].unique().tolist() == pytest.approx([60 / 255])
    normal = Preparation(SIDE, SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    same = prepare(network(), id=data, transform=normal, reference=None).subject
    (seen,) = observe(same.model, same.id.domain.batches(12), [])
    wanted = network()(torch.stack([normal(image) for image in IMAGES]))
    torch.testing.assert_close(seen.logits, wanted.detach(), rtol=0, atol=1e-5)


def test_what_is_too_large_for_memory_is_read_again(monkeypatch):
    monkeypatch.setattr("contam.inputs.tables.MAX_BYTES", 1)
    loader = DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True)
    domain = prepare(network(), id=loader, reference=None).subject.id.domain
    assert isinstance(domain, DatasetDomain)
    assert torch.equal(domain.data.y, Y)
    once, again = (torch.cat([b.x for b in domain.batches(5)]) for _ in range(2))
    assert torch.equal(once, again)
    order = torch.cat([b.y for b in domain.batches(5, torch.Generator().manual_seed(1))])
    assert order.tolist() != Y.tolist()
    assert sorted(order.tolist()) == sorted(Y.tolist())
    assert torch.equal(domain.pick(torch.tensor([3, 1])).data.y, Y[[3, 1]])
    (fetched,) = domain.fetch([(torch.tensor([7]), torch.tensor([0]))])
    assert torch.equal(fetched.x, once[7:8])


def test_what_augments_at_random_is_the_same_in_every_pass(monkeypatch):
    monkeypatch.setattr("contam.inputs.tables.MAX_BYTES", 1)
    data = Pairs(lambda i: (X[i] + torch.randn(()) + np.random.rand(), Y[i]))  # noqa: NPY002
    before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    domain = prepare(network(), id=data, reference=None).subject.id.domain
    assert torch.equal(domain.data.x, torch.cat([b.x for b in domain.batches(3)]))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == repr(np.random.get_state())  # noqa: NPY002


@pytest.mark.parametrize(
    ("sampler", "count"),
    [
        (SubsetRandomSampler([1, 3, 5, 7]), 4),
        (WeightedRandomSampler([1.0] * 6 + [0.0] * 6, 12), 6),
    ],
    ids=["a part", "weights"],
)
def test_a_sampler_of_its_own_kind_says_which_examples(sampler, count):
    loader = DataLoader(TensorDataset(X, Y), batch_size=2, sampler=sampler)
    y = prepare(network(), id=loader, reference=None).subject.id.domain.y
    assert len(y) <= count
    assert set(y.tolist()) <= {0, 1, 2}


NARROWER = {
    "an example that can't be read": (Pairs(raising), 11, "number 5, gives OSError: the disk"),
    "a loader over one": (DataLoader(Pairs(raising), 4), 11, "number 5, gives OSError"),
    "batches that end in an error": (lambda: batches(then=OSError("no")), 8, "Only the first 8"),
    "inputs that are not finite": (
        (torch.where(Y[:, None, None, None] == 2, torch.nan, X), Y), 8, "not finite"
    ),
    "infinite inputs in a dataset": (
        Pairs(lambda i: (X[i] / (i != 3), Y[i])), 11, "number 3, holds values"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NARROWER)
def test_what_can_t_be_read_is_left_out_and_told(case):
    data, count, told = NARROWER[case]
    found = prepare(network(), id=data() if callable(data) else data, reference=None)
    assert len(found.subject.id) == count
    assert any(told in note for note in found.notes)


def images(root, classes=("cat", "dog", "fox"), n: int = 4, size: int = SIDE):
    """A tree of small images, a color for each class."""
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for k in range(n):
            color = (40 * place, 20 * k, 100)
            Image.new("RGB", (size, size), color).save(root / name / f"{k}.png")
    return root


def test_a_folder_of_images(tmp_path):
    tree = images(tmp_path / "id")
    found = prepare(network(), id=tree, ood=images(tmp_path / "ood"), reference=None).subject
    assert found.classes == ("cat", "dog", "fox")
    assert (found.id.name, [each.name for each in found.ood]) == ("id", ["ood"])
    assert found.id.domain.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert found.id.domain.data.x[0, :, 0, 0].tolist() == pytest.approx([0, 0, 100 / 255])


def test_a_folder_of_domains(tmp_path):
    for name in ("sketch", "photo"):
        images(tmp_path / "id" / name)
    found = prepare(network(), id=tmp_path / "id", reference=None).subject
    assert found.domains == ("photo", "sketch")
    assert len(found.id) == 24
    assert found.id.domain.data.domain.bincount().tolist() == [12, 12]


def test_a_corrupt_image_is_left_out(tmp_path):
    tree = images(tmp_path / "id")
    (tree / "dog" / "1.png").write_bytes(b"not an image")
    found = prepare(network(), id=tree, reference=None)
    assert len(found.subject.id) == 11
    assert any("1.png, can't be read" in note for note in found.notes)


def test_a_large_folder_is_read_again_in_the_same_range(tmp_path, monkeypatch):
    tree = images(tmp_path / "id")
    normal = Preparation(SIDE, SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    held = prepare(network(), id=tree, transform=normal, reference=None).subject
    monkeypatch.setattr("contam.inputs.tables.MAX_BYTES", 1)
    anew = prepare(network(), id=tree, transform=normal, reference=None).subject
    torch.testing.assert_close(held.id.domain.data.x, anew.id.domain.data.x)
    assert anew.id.domain.data.x.min() >= 0


def test_a_class_that_an_ood_folder_lacks_keeps_the_numbers(tmp_path):
    found = prepare(
        network(), id=images(tmp_path / "a"), ood=images(tmp_path / "b", ("cat", "fox")),
        reference=None,
    ).subject  # fmt: skip
    assert found.ood[0].domain.y.unique().tolist() == [0, 2]


def test_classes_are_told_by_their_names(tmp_path):
    turned = Column(lambda i: (X[i], i % 3))
    turned.classes = ["fox", "cat", "dog"]
    plain = Column(lambda i: (X[i], i % 3))
    found = prepare(network(), id=plain, ood=turned, reference=None).subject
    assert found.ood[0].domain.y.tolist()[:3] == [2, 0, 1]
    named = prepare(network(), id=plain, classes=["a", "b", "c"], reference=None).subject
    assert named.classes == ("a", "b", "c")
    assert named.id.domain.y.tolist()[:3] == [0, 1, 2]
    turned.classes = ["fox", "cat", "owl"]
    with pytest.raises(ValueError, match="'owl', which is none of the 3 classes 'cat'"):
        prepare(network(), id=plain, ood=turned, reference=None)
    with pytest.raises(ValueError, match="'owl', which is none of"):
        prepare(network(), id=plain, ood=images(tmp_path, ("cat", "owl")), reference=None)


def test_masks_from_a_folder_go_the_way_of_their_images(tmp_path):
    tree = images(tmp_path / "id", size=16)
    for file in tree.rglob("*.png"):
        mask = Image.new("L", (16, 16))
        mask.paste(255, (0, 0, 8, 16))
        place = tmp_path / "masks" / file.relative_to(tree)
        place.parent.mkdir(parents=True, exist_ok=True)
        mask.save(place)
    normal = Preparation(SIDE, SIDE, mean=(0.4,) * 3, std=(0.2,) * 3, interpolation="bilinear")
    found = prepare(
        network(), id=tree, masks=tmp_path / "masks", transform=normal, reference=None
    ).subject
    assert found.id.masks is not None
    assert found.id.masks.shape == (12, 1, SIDE, SIDE)
    assert found.id.masks[:, :, :, 0].eq(1).all()
    assert found.id.masks[:, :, :, -1].eq(0).all()
    (tmp_path / "masks" / "cat" / "2.png").unlink()
    lacks = prepare(network(), id=tree, masks=tmp_path / "masks", reference=None)
    assert lacks.subject.id.masks is None
    assert any("2.png" in note for note in lacks.notes)


def test_masks_and_backgrounds_follow_what_is_left_out():
    kept = [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    masks = torch.rand(12, SIDE, SIDE)
    kinds = [f"kind {k % 4}" for k in range(12)]
    found = prepare(
        network(), id=Pairs(raising), masks=masks, background=kinds, reference=None
    ).subject
    assert found.id.masks is not None
    assert torch.equal(found.id.masks[:, 0], masks[kept])
    assert found.id.background is not None
    assert found.id.background.tolist() == [k % 4 for k in kept]


def test_backgrounds_are_numbered_alike_in_all_sets():
    found = prepare(
        network(), id=(X, Y), ood=(X, Y), reference=None,
        background={"ID": ["sea"] * 6 + ["land"] * 6, "OOD": ["sky"] * 6 + ["sea"] * 6},
    ).subject  # fmt: skip
    assert found.id.background is not None
    assert found.ood[0].background is not None
    assert found.id.background[0] == found.ood[0].background[-1]
    assert set(found.id.background.tolist()) | set(found.ood[0].background.tolist()) == {0, 1, 2}


def test_a_budget_draws_the_same_examples_again():
    told = [prepare(network(), id=(X, Y), budget=5, reference=None) for _ in range(2)]
    shown = [each.subject.id.domain.data for each in told]
    assert len(shown[0].y) == 5
    assert torch.equal(shown[0].x, shown[1].x)
    assert any("budget" in note for note in told[0].notes)
    files = prepare(network(), id=TensorDataset(X, Y), budget=5, reference=None).subject
    assert len(files.id) == 5


def test_masks_follow_a_budget(tmp_path):
    masks = torch.arange(12.0)[:, None, None].expand(12, SIDE, SIDE) / 12
    for data in (images(tmp_path / "id"), (X, Y), TensorDataset(X, Y)):
        found = prepare(network(), id=data, masks=masks, budget=5, reference=None).subject.id
        whole = prepare(network(), id=data, masks=masks, reference=None).subject.id
        assert found.masks is not None
        places = (12 * found.masks[:, 0, 0, 0]).round().long()
        assert len(places) == 5
        assert torch.equal(found.domain.y, whole.domain.y[places])


def test_several_ood_sets_have_names_of_their_own():
    domain = Domain("fog", Batch(X, Y, torch.zeros(12).long()))
    shift = Shift("s", ("a", "b", "c"), (domain,), domain, (domain, domain))
    sets = {
        "list": [(X, Y), domain], "dict": {"rain": (X, Y)}, "one": (X, Y), "shift": shift,
        "batches": [(X[:6], Y[:6]), (X[6:], Y[6:])], "none": None,
    }  # fmt: skip
    names = {
        key: [
            each.name for each in prepare(network(), id=(X, Y), ood=ood, reference=None).subject.ood
        ]
        for key, ood in sets.items()
    }
    assert names == {
        "list": ["OOD 1", "fog"], "dict": ["rain"], "one": ["OOD"],
        "shift": ["fog", "OOD 2: fog"], "batches": ["OOD 1", "OOD 2"], "none": [],
    }  # fmt: skip
    found = prepare(network(), id=shift, reference=None).subject
    assert found.classes == ("a", "b", "c")
    assert len(found.ood) == 2
    assert named_sets(None) == []


BAD: dict[str, tuple[dict, str]] = {
    "an empty set": ({"id": (X[:0], Y[:0])}, "'ID' has no examples: it is empty"),
    "an empty dataset": ({"id": TensorDataset(X[:0], Y[:0])}, "no examples"),
    "an empty loader": ({"id": DataLoader(TensorDataset(X[:0], Y[:0]))}, "no examples"),
    "no batches": ({"id": []}, "no examples"),
    "an empty domain": ({"id": Domain("d", Batch(X[:0], Y[:0], Y[:0]))}, "'d' has no examples"),
    "an empty OOD set": ({"ood": (X[:0], Y[:0])}, "'OOD' has no examples"),
    "a label too large": ({"id": (X, Y + 1)}, r"labels 1\.\.3, and there are 3 classes"),
    "a negative label": ({"id": (X, Y - 1)}, r"labels -1\.\.1"),
    "an OOD label too large": ({"ood": (X, Y + 7)}, r"'OOD' has labels 7\.\.9"),
    "labels that are no classes": ({"id": (X, Y / 2)}, "want whole ones"),
    "soft labels": ({"id": (X, torch.full((12, 3), 1 / 3))}, "not one-hot"),
    "fewer labels than inputs": ({"id": (X, Y[:5])}, "12 inputs and 5 labels"),
    "no labels at all": ({"id": [(X,)]}, r"want \(x, y\)"),
    "dicts without labels": ({"id": [{"image": X}]}, "no label among"),
    "dicts without inputs": ({"id": [{"label": Y}]}, "no input among"),
    "labels of no kind": ({"id": [(X, object())]}, "want whole numbers or names"),
    "inputs of words": ({"id": [(["a", "b"], [0, 1])]}, "inputs are"),
    "inputs of truth values": ({"id": (X > 0, Y)}, "real numbers"),
    "complex inputs": ({"id": (X.to(torch.complex64), Y)}, "real numbers"),
    "a number": ({"id": 7}, "'ID' is a int; want a folder"),
    "nothing": ({"id": None}, "'ID' is a NoneType; want"),
    "a folder that is not there": ({"id": "/no/such/folder"}, "no folder /no/such/folder"),
    "all examples lost": ({"id": Pairs(lambda i: 1 / 0)}, "gives ZeroDivisionError"),
    "a loader that raises at once": ({"id": Stream([])}, "no examples"),
    "images of two sizes": (
        {"id": Pairs(lambda i: (X[i, :, : 4 + i % 2], Y[i]))}, "want one shape"
    ),
    "OOD images of another size": ({"ood": inputs(side=10)}, "want one shape"),
    "batches of two shapes": ({"id": [(X, Y), inputs(side=10)]}, "and then"),
    "a split dataset": (
        {"id": type("Splits", (dict,), {"column_names": []})(train=1, test=2)}, "give one of them"
    ),
    "class names for too few logits": ({"classes": ["a", "b"]}, "2 classes .* gives 3 logits"),
    "a class name twice": ({"classes": ["a", "b", "a"]}, "'a' is there twice"),
    "names that are no classes": (
        {"id": (X, [f"k{k}" for k in Y]), "classes": ["k0", "k1", "k9"]}, "'k2' is none"
    ),
    "OOD names that are no classes": (
        {"id": (X, [f"k{k}" for k in Y]), "ood": (X, ["k0"] * 11 + ["new"])}, "'new' is none"
    ),
    "a layer that is not there": ({"layers": ["rellu"]}, r"did you mean one of \['relu'\]"),
    "a layer as a word": ({"layers": "rlu"}, r"did you mean one of \['relu'\]"),
    "masks of another size": ({"masks": torch.zeros(12, 1, 5, 5)}, r"want \(12, 1, 8, 8\)"),
    "masks for other examples": ({"masks": torch.zeros(3, 1, 8, 8)}, "3 masks for the 12"),
    "masks beyond shares": ({"masks": torch.full((12, 8, 8), 7.0)}, "want shares"),
    "masks from nowhere": ({"masks": "/no/masks"}, "no folder /no/masks"),
    "masks for no set": ({"masks": {"nix": torch.zeros(12, 8, 8)}}, "none of the sets"),
    "too few backgrounds": ({"background": [0, 1]}, "2 background labels for the 12"),
    "a budget of nothing": ({"budget": 0}, "not 0"),
    "no model": ({"model": 3}, "the model is a int"),
    "a model of no kind": ({"model": "resnet"}, "no encoder 'resnet'"),
    "a model without weights": ({"model": "timm:resnet18"}, "no weights for timm:resnet18"),
    "weights beside a module": ({"weights": "w.pt"}, "weights= belongs to a network by name"),
    "weights that are not there": (
        {"model": "timm:resnet18", "weights": "/no/w.pt"}, "no file of weights"
    ),
    "a device beside a module": ({"device": "cpu"}, "model.to"),
    "a model that can't be run": ({"model": nn.Linear(5, 3)}, "can't be run on inputs of shape"),
    "a model of other classes": (
        {"model": network(7), "classes": ["a", "b", "c"]}, "3 classes .* 7 logits"
    ),
    "a model that returns maps": ({"model": nn.Conv2d(3, 3, 1)}, r"want logits \(batch, classes\)"),
    "a model that returns words": ({"model": "word"}, "returned a str"),
    "a model that returns NaN": ({"model": "nan"}, "holds NaN"),
    "a model that changes its shape": ({"model": "changing"}, "3 logits .* and then 4"),
    "a model that is not filled": (
        {"model": nn.Sequential(nn.Flatten(), nn.LazyLinear(3))}, "no values yet"
    ),
    "a model on no device": ({"model": nn.Linear(8, 3, device="meta")}, "no values yet"),
    "a reference of no kind": ({"reference": "clip"}, "no encoder 'clip'"),
    "no network and no features": ({"model": None}, "inputs are features"),
    "too few features": ({"model": None, "id": (X.flatten(1)[:1], Y[:1])}, "too few|two classes"),
}  # fmt: skip


class Odd(nn.Module):
    """Networks that answer in ways that they should not."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.calls = kind, 0

    def forward(self, x):
        self.calls += 1
        width = 3 + (self.kind == "changing" and self.calls > 1)
        answers = {"word": "cat", "nan": torch.full((len(x), 3), torch.nan)}
        return answers.get(self.kind, torch.zeros(len(x), width))


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_bad_input_is_told_in_one_line(case):
    changed, line = BAD[case]
    asked = {"id": (X, Y), "model": network(), "reference": None} | changed
    if asked["model"] in ("word", "nan", "changing"):
        asked["model"] = Odd(asked["model"])
    with pytest.raises(ValueError) as said:
        found = prepare(asked.pop("model"), **asked)
        list(observe(found.subject.model, found.subject.id.domain.batches(5), []))
    told = str(said.value)
    assert re.search(line, told), told
    assert "\n" not in told
    assert len(told) < 500


def test_no_cuda_is_told(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    monkeypatch.setattr(
        "contam.auditing.prepare.find_network", lambda *_: SimpleNamespace(model=network())
    )
    with pytest.raises(ValueError, match="no device 'cuda'"):
        prepare("mine:net", id=(X, Y), device="cuda")


@dataclasses.dataclass
class Output:
    logits: torch.Tensor


class Wrapped(nn.Module):
    """The same network with another way to answer."""

    def __init__(self, how) -> None:
        super().__init__()
        self.inner, self.how = network(), how

    def forward(self, x):
        return self.how(self.inner(x))


ANSWERS = {
    "an object": Output,
    "a tuple": lambda z: (z, "more"),
    "a dict": lambda z: {"loss": 0, "logits": z},
    "maps of a pixel": lambda z: z[:, :, None, None],
}


@pytest.mark.parametrize("how", ANSWERS)
def test_logits_are_found_in_whatever_is_returned(how):
    model = Wrapped(ANSWERS[how])
    found = prepare(model, id=(X, Y), reference=None).subject
    (seen,) = observe(found.model, found.id.domain.batches(12), [])
    torch.testing.assert_close(seen.logits, network()(X).detach(), rtol=0, atol=1e-5)
    assert found.layers == ("inner.relu",)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_number_is_the_logit_of_the_second_of_two_classes(shape):
    model = Wrapped(lambda z: z[:, 0].reshape(shape))
    found = prepare(model, id=(X, Y % 2), reference=None).subject
    (seen,) = observe(found.model, found.id.domain.batches(12), [])
    assert torch.equal(seen.logits.argmax(1) == 1, seen.logits[:, 1] > 0)
    assert len(found.classes) == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_stay_as_they_are(dtype):
    model = network().to(dtype)
    found = prepare(model, id=(X, Y), reference=None).subject
    (seen,) = observe(found.model, found.id.domain.batches(12), found.layers)
    assert seen.logits.dtype == torch.float32
    assert {value.dtype for value in model.parameters()} == {dtype}


@pytest.mark.parametrize("kind", ["compiled", "parallel"])
def test_wrappers_are_taken_off(kind):
    model = network()
    wrapped = (
        torch.compile(model, backend="eager") if kind == "compiled" else nn.DataParallel(model)
    )
    found = prepare(wrapped, id=(X, Y), reference=None).subject
    assert found.layers == ("relu",)
    assert found.name == "Sequential"


def test_an_exported_program_is_audited_as_it_is():
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(network(), (X,), dynamic_shapes=({0: batch},)).module()
    found = prepare(program, id=(X, Y), reference=None).subject
    assert found.layers == ("relu()",)
    (seen,) = observe(found.model, found.id.domain.batches(12), [])
    torch.testing.assert_close(seen.logits, network()(X).detach(), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused_in_one_line():
    with pytest.raises(ValueError, match="TorchScript network can't be looked into"):
        prepare(torch.jit.script(network()), id=(X, Y), reference=None)


def test_layers_keep_their_names_and_their_order():
    model = resnet8(CLASSES, width=4)
    found = prepare(model, id=inputs(side=16), reference=None).subject
    assert found.layers[0] == "encoder.relu"
    wanted = ["encoder.stage2.relu1", "encoder.relu"]
    chosen = prepare(model, id=inputs(side=16), layers=wanted, reference=None).subject
    assert chosen.layers == ("encoder.relu", "encoder.stage2.relu1")


def test_a_linear_network_has_its_maps_looked_at():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Linear(5, 3))
    assert prepare(model, id=(X, Y), reference=None).subject.layers == ("1", "2")


def test_the_untrained_control_is_another_network_of_the_same_kind():
    model = LogitsAdapter(network())
    drawn, said = untrained(model, 0)
    assert said == ""
    assert drawn is not None
    before, after = model.state_dict(), drawn.state_dict()
    assert before.keys() == after.keys()
    assert not torch.equal(before["conv.weight"], after["conv.weight"])
    again, _ = untrained(model, 0)
    assert again is not None
    assert torch.equal(again.state_dict()["head.weight"], after["head.weight"])
    torch.testing.assert_close(model(X), network()(X))


def test_what_can_t_be_drawn_anew_is_told():
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.head = nn.Parameter(torch.ones(192)), nn.Linear(192, 3)

        def forward(self, x):
            return self.head(x.flatten(1) + self.token)

    drawn, said = untrained(LogitsAdapter(Token()), 0)
    assert drawn is not None
    assert "keeps token" in said
    assert untrained(LogitsAdapter(nn.ReLU()), 0)[0] is None

    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("no copies")

    assert "no copies" in untrained(LogitsAdapter(Stubborn(3, 3)), 0)[1]


def test_features_without_a_network_get_a_head_on_half_of_them():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    features = nn.functional.one_hot(y).float() + 0.1 * torch.randn(90, 3, generator=generator)
    found = prepare(None, id=(features, y), ood=(-features, y), reference=None)
    subject = found.subject
    assert len(subject.id) == 45
    (seen,) = observe(subject.model, subject.id.domain.batches(90), [])
    assert (seen.logits.argmax(1) == seen.batch.y).all()
    (shifted,) = observe(subject.model, subject.ood[0].domain.batches(90), [])
    assert (shifted.logits.argmax(1) != shifted.batch.y).float().mean() > 0.9
    assert any("linear head" in note for note in found.notes)


def test_a_reference_from_torch_s_cache_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert prepare(network(), id=(X, Y)).subject.reference is None
    encoder = network()
    encoder[-1] = nn.Identity()
    found = prepare(network(), id=(X, Y), reference=encoder).subject
    assert found.reference is not None
    (seen,) = observe(found.reference, found.id.domain.batches(12), [])
    torch.testing.assert_close(seen.logits, encoder(X).detach(), rtol=0, atol=1e-5)


@given(
    low=st.floats(-5, 0),
    width=st.floats(0.1, 5),
    values=st.lists(st.floats(0, 1), min_size=3, max_size=3),
)
def test_pictures_and_inputs_are_each_other_s_inverse(low, width, values):
    span = PixelRange(torch.full((3,), low), torch.full((3,), low + width))
    x = torch.tensor(values)[:, None, None].expand(3, 2, 2)
    torch.testing.assert_close(span.pictures(span.inputs(x)), x, rtol=0, atol=1e-4)


def test_the_span_of_a_transform_is_black_and_white():
    normal = Preparation(SIDE, SIDE, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    span = pixel_range_of(normal)
    assert span is not None
    torch.testing.assert_close(span.low, torch.tensor([-5.0, -2.0, -1.0]))
    torch.testing.assert_close(span.high, torch.tensor([5.0, 3.0, 7 / 3]))
    assert pixel_range_of(lambda image: torch.zeros(3, 4, 4)) is None
    assert pixel_range_of(lambda image: torch.rand(3, 4, 4)) is None


@settings(max_examples=40)
@given(data=st.data(), n=st.integers(1, 9), side=st.integers(1, 6))
def test_shapes_kinds_and_labels_of_any_sort_are_read_or_refused(data, n, side):
    channels = data.draw(st.sampled_from([1, 2, 3, 4]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.uint8]))
    labels = data.draw(st.sampled_from([torch.int64, torch.int32, torch.uint8, torch.float32]))
    y = torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    x = (torch.arange(n * channels * side * side) % 7).reshape(n, channels, side, side).to(dtype)
    model = nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, 3))
    if int(y.max()) > 2:
        with pytest.raises(ValueError, match="labels"):
            prepare(model, id=(x, y.to(labels)), reference=None)
        return
    found = prepare(model, id=(x, y.to(labels)), reference=None).subject
    shown = found.id.domain.data
    assert shown.y.tolist() == y.tolist()
    assert shown.x.shape == x.shape
    if channels in (1, 3):
        assert float(shown.x.min()) >= 0
        assert float(shown.x.max()) <= 1
    (seen,) = observe(found.model, found.id.domain.batches(n), [])
    plain = x.float() / 255 if dtype == torch.uint8 else x.float()
    torch.testing.assert_close(seen.logits, model(plain).detach(), rtol=1e-4, atol=1e-4)


def test_a_function_may_return_the_whole_classifier(tmp_path, monkeypatch):
    """Its weights then have the names that the classifier has, `encoder.*` and `head.*`."""
    whole = small_cnn(10, width=4, seed=1)
    state = {name: tensor.contiguous() for name, tensor in whole.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    about = Preparation(resize=16, crop=16, mean=(0.0,) * 3, std=(1.0,) * 3)
    module = types.ModuleType("own_network")
    module.made = lambda: Source("own", small_cnn(10, width=4), 10, about)  # pyright: ignore
    monkeypatch.setitem(sys.modules, "own_network", module)
    found = find_network("own_network:made", tmp_path / "w.safetensors")
    x = torch.rand(3, 3, 16, 16)
    assert torch.equal(found.model(x), whole.eval()(x))


def test_a_name_without_weights_says_how_to_give_them():
    with pytest.raises(ValueError, match=r"fetch its state dict .* after --weights"):
        find_network("timm:resnet18")
