"""Data and a network become the inputs of an audit, or are rejected in one line."""

import re
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
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
from contam.models.observe import observe
from contam.models.preparation import Preparation
from contam.models.small import resnet8

CLASSES = 3
SIDE = 8


def inputs(n: int = 12, *, side: int = SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of a network, with values beyond [0, 1]; and labels."""
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
    """A Hugging Face dataset, as far as it is used."""

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
def test_every_form_of_the_same_data_gives_the_same_logits(form):
    inputs = prepare(network(), id=FORMS[form](), reference=None).inputs
    for _ in range(2):
        observations = list(observe(inputs.model, inputs.id.domain.batches(5), []))
        assert torch.cat([one.batch.y for one in observations]).tolist() == Y.tolist()
        torch.testing.assert_close(
            torch.cat([one.logits for one in observations]),
            network()(X).detach(),
            rtol=0,
            atol=1e-5,
        )
    shown = inputs.id.domain.data.x
    assert 0 <= shown.min() < 0.1
    assert 0.9 < shown.max() <= 1


@pytest.mark.parametrize("form", ["tensors with domains", "a Dataset with metadata",
                                  "a Dataset with a dict beside"])  # fmt: skip
def test_domains_are_read_from_metadata(form):
    inputs = prepare(network(), id=FORMS[form](), reference=None).inputs
    assert inputs.id.domain.data.domain.tolist() == [0] * 6 + [1] * 6


def test_images_go_through_the_transform():
    data = Column(lambda i: {"image": IMAGES[i], "label": i % 3})
    inputs = prepare(network(), id=data, reference=None).inputs
    assert inputs.classes == ("cat", "dog", "fox")
    assert inputs.id.domain.data.x[3].unique().tolist() == pytest.approx([60 / 255])
    normal = Preparation(SIDE, SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    same = prepare(network(), id=data, transform=normal, reference=None).inputs
    (observation,) = observe(same.model, same.id.domain.batches(12), [])
    wanted = network()(torch.stack([normal(image) for image in IMAGES]))
    torch.testing.assert_close(observation.logits, wanted.detach(), rtol=0, atol=1e-5)


def test_a_set_too_large_for_memory_is_read_again(monkeypatch):
    monkeypatch.setattr("contam.inputs.tables.MAX_BYTES", 1)
    loader = DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True)
    domain = prepare(network(), id=loader, reference=None).inputs.id.domain
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


def test_random_augmentation_is_the_same_in_every_pass(monkeypatch):
    monkeypatch.setattr("contam.inputs.tables.MAX_BYTES", 1)
    data = Pairs(lambda i: (X[i] + torch.randn(()) + np.random.rand(), Y[i]))  # noqa: NPY002
    before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    domain = prepare(network(), id=data, reference=None).inputs.id.domain
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
def test_a_sampler_of_another_kind_selects_the_examples(sampler, count):
    loader = DataLoader(TensorDataset(X, Y), batch_size=2, sampler=sampler)
    y = prepare(network(), id=loader, reference=None).inputs.id.domain.y
    assert len(y) <= count
    assert set(y.tolist()) <= {0, 1, 2}


UNREADABLE = {
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


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_examples_are_left_out_and_noted(case):
    data, count, message = UNREADABLE[case]
    prepared = prepare(network(), id=data() if callable(data) else data, reference=None)
    assert len(prepared.inputs.id) == count
    assert any(message in note for note in prepared.notes)


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
    inputs = prepare(network(), id=tree, ood=images(tmp_path / "ood"), reference=None).inputs
    assert inputs.classes == ("cat", "dog", "fox")
    assert (inputs.id.name, [sample.name for sample in inputs.ood]) == ("id", ["ood"])
    assert inputs.id.domain.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert inputs.id.domain.data.x[0, :, 0, 0].tolist() == pytest.approx([0, 0, 100 / 255])


def test_a_folder_of_domains(tmp_path):
    for name in ("sketch", "photo"):
        images(tmp_path / "id" / name)
    inputs = prepare(network(), id=tmp_path / "id", reference=None).inputs
    assert inputs.domains == ("photo", "sketch")
    assert len(inputs.id) == 24
    assert inputs.id.domain.data.domain.bincount().tolist() == [12, 12]


def test_a_corrupt_image_is_left_out(tmp_path):
    tree = images(tmp_path / "id")
    (tree / "dog" / "1.png").write_bytes(b"not an image")
    prepared = prepare(network(), id=tree, reference=None)
    assert sum(len(batch.y) for batch in prepared.inputs.id.domain.batches(5)) == 11
    assert len(prepared.inputs.id) == 11
    assert any("(1.png), can't be read" in note for note in prepared.notes)


def test_a_large_folder_has_the_same_pixel_range(tmp_path, monkeypatch):
    tree = images(tmp_path / "id")
    normal = Preparation(SIDE, SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    held = prepare(network(), id=tree, transform=normal, reference=None).inputs
    monkeypatch.setattr("contam.inputs.tables.MAX_BYTES", 1)
    anew = prepare(network(), id=tree, transform=normal, reference=None).inputs
    torch.testing.assert_close(held.id.domain.data.x, anew.id.domain.data.x)
    assert anew.id.domain.data.x.min() >= 0


def test_an_ood_folder_can_lack_a_class(tmp_path):
    inputs = prepare(
        network(), id=images(tmp_path / "a"), ood=images(tmp_path / "b", ("cat", "fox")),
        reference=None,
    ).inputs  # fmt: skip
    assert inputs.ood[0].domain.y.unique().tolist() == [0, 2]


def test_classes_are_matched_by_name(tmp_path):
    turned = Column(lambda i: (X[i], i % 3))
    turned.classes = ["fox", "cat", "dog"]
    plain = Column(lambda i: (X[i], i % 3))
    inputs = prepare(network(), id=plain, ood=turned, reference=None).inputs
    assert inputs.ood[0].domain.y.tolist()[:3] == [2, 0, 1]
    named = prepare(network(), id=plain, classes=["a", "b", "c"], reference=None).inputs
    assert named.classes == ("a", "b", "c")
    assert named.id.domain.y.tolist()[:3] == [0, 1, 2]
    turned.classes = ["fox", "cat", "owl"]
    with pytest.raises(ValueError, match="'owl', which is none of the 3 classes 'cat'"):
        prepare(network(), id=plain, ood=turned, reference=None)
    with pytest.raises(ValueError, match="'owl', which is none of"):
        prepare(network(), id=plain, ood=images(tmp_path, ("cat", "owl")), reference=None)


def test_masks_from_a_folder_are_transformed_as_images(tmp_path):
    tree = images(tmp_path / "id", size=16)
    for file in tree.rglob("*.png"):
        mask = Image.new("L", (16, 16))
        mask.paste(255, (0, 0, 8, 16))
        place = tmp_path / "masks" / file.relative_to(tree)
        place.parent.mkdir(parents=True, exist_ok=True)
        mask.save(place)
    normal = Preparation(SIDE, SIDE, mean=(0.4,) * 3, std=(0.2,) * 3, interpolation="bilinear")
    inputs = prepare(
        network(), id=tree, masks=tmp_path / "masks", transform=normal, reference=None
    ).inputs
    assert inputs.id.masks is not None
    assert inputs.id.masks.shape == (12, 1, SIDE, SIDE)
    assert inputs.id.masks[:, :, :, 0].eq(1).all()
    assert inputs.id.masks[:, :, :, -1].eq(0).all()
    (tmp_path / "masks" / "cat" / "2.png").unlink()
    lacks = prepare(network(), id=tree, masks=tmp_path / "masks", reference=None)
    assert lacks.inputs.id.masks is None
    assert any("2.png" in note for note in lacks.notes)


def test_masks_and_backgrounds_match_the_readable_examples():
    kept = [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    masks = torch.rand(12, SIDE, SIDE)
    kinds = [f"kind {k % 4}" for k in range(12)]
    inputs = prepare(
        network(), id=Pairs(raising), masks=masks, background=kinds, reference=None
    ).inputs
    assert inputs.id.masks is not None
    assert torch.equal(inputs.id.masks[:, 0], masks[kept])
    assert inputs.id.background is not None
    assert inputs.id.background.tolist() == [k % 4 for k in kept]


def test_background_indices_are_the_same_in_all_sets():
    inputs = prepare(
        network(), id=(X, Y), ood=(X, Y), reference=None,
        background={"ID": ["sea"] * 6 + ["land"] * 6, "OOD": ["sky"] * 6 + ["sea"] * 6},
    ).inputs  # fmt: skip
    assert inputs.id.background is not None
    assert inputs.ood[0].background is not None
    assert inputs.id.background[0] == inputs.ood[0].background[-1]
    assert set(inputs.id.background.tolist()) | set(inputs.ood[0].background.tolist()) == {0, 1, 2}


def test_a_budget_draws_the_same_examples_again():
    both = [prepare(network(), id=(X, Y), budget=5, reference=None) for _ in range(2)]
    shown = [ready.inputs.id.domain.data for ready in both]
    assert len(shown[0].y) == 5
    assert torch.equal(shown[0].x, shown[1].x)
    assert any("budget" in note for note in both[0].notes)
    files = prepare(network(), id=TensorDataset(X, Y), budget=5, reference=None).inputs
    assert len(files.id) == 5


def test_masks_follow_a_budget(tmp_path):
    masks = torch.arange(12.0)[:, None, None].expand(12, SIDE, SIDE) / 12
    for data in (images(tmp_path / "id"), (X, Y), TensorDataset(X, Y)):
        some = prepare(network(), id=data, masks=masks, budget=5, reference=None).inputs.id
        whole = prepare(network(), id=data, masks=masks, reference=None).inputs.id
        assert some.masks is not None
        places = (12 * some.masks[:, 0, 0, 0]).round().long()
        assert len(places) == 5
        assert torch.equal(some.domain.y, whole.domain.y[places])


def test_several_ood_sets_have_different_names():
    domain = Domain("fog", Batch(X, Y, torch.zeros(12).long()))
    shift = Shift("s", ("a", "b", "c"), (domain,), domain, (domain, domain))
    sets = {
        "list": [(X, Y), domain], "dict": {"rain": (X, Y)}, "one": (X, Y), "shift": shift,
        "batches": [(X[:6], Y[:6]), (X[6:], Y[6:])], "none": None,
    }  # fmt: skip
    names = {
        key: [
            sample.name
            for sample in prepare(network(), id=(X, Y), ood=ood, reference=None).inputs.ood
        ]
        for key, ood in sets.items()
    }
    assert names == {
        "list": ["OOD 1", "fog"], "dict": ["rain"], "one": ["OOD"],
        "shift": ["fog", "OOD 2: fog"], "batches": ["OOD"], "none": [],
    }  # fmt: skip
    inputs = prepare(network(), id=shift, reference=None).inputs
    assert inputs.classes == ("a", "b", "c")
    assert len(inputs.ood) == 2
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
    "labels that are no classes": ({"id": (X, Y / 2)}, "expected whole numbers"),
    "soft labels": ({"id": (X, torch.full((12, 3), 1 / 3))}, "not one-hot"),
    "fewer labels than inputs": ({"id": (X, Y[:5])}, "12 inputs and 5 labels"),
    "one class alone": ({"id": (X, Y * 0)}, "one class only, '0'; an audit compares classes"),
    "one example": ({"id": (X[:1], Y[:1])}, "one class only"),
    "no labels at all": ({"id": [(X,)]}, r"expected \(x, y\)"),
    "dicts without labels": ({"id": [{"image": X}]}, "no label among"),
    "dicts without inputs": ({"id": [{"label": Y}]}, "no input among"),
    "names of parts as a number": ({"keys": 3}, "keys= is a int; expected a dict"),
    "labels of no kind": ({"id": [(X, object())]}, "expected whole numbers or names"),
    "inputs of words": ({"id": [(["a", "b"], [0, 1])]}, "inputs are"),
    "inputs of truth values": ({"id": (X > 0, Y)}, "real numbers"),
    "complex inputs": ({"id": (X.to(torch.complex64), Y)}, "real numbers"),
    "a number": ({"id": 7}, "'ID' is a int; expected a folder"),
    "nothing": ({"id": None}, "'ID' is a NoneType; expected"),
    "a folder that is not there": ({"id": "/no/such/folder"}, "no folder /no/such/folder"),
    "all examples lost": ({"id": Pairs(lambda i: 1 / 0)}, "gives ZeroDivisionError"),
    "a loader that raises at once": ({"id": Stream([])}, "no examples"),
    "images of two sizes": (
        {"id": Pairs(lambda i: (X[i, :, : 4 + i % 2], Y[i]))}, "expected one shape"
    ),
    "OOD images of another size": ({"ood": inputs(side=10)}, "expected one shape"),
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
    "masks of another size": ({"masks": torch.zeros(12, 1, 5, 5)}, r"expected \(12, 1, 8, 8\)"),
    "masks for other examples": ({"masks": torch.zeros(3, 1, 8, 8)}, "3 masks for the 12"),
    "masks beyond shares": ({"masks": torch.full((12, 8, 8), 7.0)}, "expected shares"),
    "masks from nowhere": ({"masks": "/no/masks"}, "no folder /no/masks"),
    "masks for no set": ({"masks": {"nix": torch.zeros(12, 8, 8)}}, "none of the sets"),
    "too few backgrounds": ({"background": [0, 1]}, "2 background labels for the 12"),
    "a budget of nothing": ({"budget": 0}, "got 0"),
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
    "a model that returns maps": (
        {"model": nn.Conv2d(3, 3, 1)},
        r"expected logits \(batch, classes\)",
    ),
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
    """Networks with outputs that are no logits."""

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
def test_bad_input_is_rejected_in_one_line(case):
    changed, line = BAD[case]
    arguments = {"id": (X, Y), "model": network(), "reference": None} | changed
    if arguments["model"] in ("word", "nan", "changing"):
        arguments["model"] = Odd(arguments["model"])
    with pytest.raises(ValueError) as error:
        prepared = prepare(arguments.pop("model"), **arguments)
        list(observe(prepared.inputs.model, prepared.inputs.id.domain.batches(5), []))
    message = str(error.value)
    assert re.search(line, message), message
    assert "\n" not in message
    assert len(message) < 500


def test_a_missing_device_is_rejected(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    monkeypatch.setattr(
        "contam.auditing.prepare.find_network", lambda *_: SimpleNamespace(model=network())
    )
    with pytest.raises(ValueError, match="no device 'cuda'"):
        prepare("mine:net", id=(X, Y), device="cuda")


def test_layers_keep_their_names_and_their_order():
    model = resnet8(CLASSES, width=4)
    prepared_inputs = prepare(model, id=inputs(side=16), reference=None).inputs
    assert prepared_inputs.layers[0] == "encoder.relu"
    wanted = ["encoder.stage2.relu1", "encoder.relu"]
    chosen = prepare(model, id=inputs(side=16), layers=wanted, reference=None).inputs
    assert chosen.layers == ("encoder.relu", "encoder.stage2.relu1")


def test_a_linear_network_has_its_linear_layers_observed():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Linear(5, 3))
    assert prepare(model, id=(X, Y), reference=None).inputs.layers == ("1", "2")


def test_features_without_a_network_get_a_head_on_half_of_them():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    features = nn.functional.one_hot(y).float() + 0.1 * torch.randn(90, 3, generator=generator)
    prepared = prepare(None, id=(features, y), ood=(-features, y), reference=None)
    model, ood = prepared.inputs.model, prepared.inputs.ood
    assert len(prepared.inputs.id) == 45
    (observation,) = observe(model, prepared.inputs.id.domain.batches(90), [])
    assert (observation.logits.argmax(1) == observation.batch.y).all()
    (shifted,) = observe(model, ood[0].domain.batches(90), [])
    assert (shifted.logits.argmax(1) != shifted.batch.y).float().mean() > 0.9
    assert any("linear head" in note for note in prepared.notes)


def test_a_reference_is_a_module_or_comes_from_the_torch_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("contam.models.efficientnet_lite.PACKAGE", "not-installed")
    assert prepare(network(), id=(X, Y)).inputs.reference is None
    encoder = network()
    encoder[-1] = nn.Identity()
    inputs = prepare(network(), id=(X, Y), reference=encoder).inputs
    assert inputs.reference is not None
    (observation,) = observe(inputs.reference, inputs.id.domain.batches(12), [])
    torch.testing.assert_close(observation.logits, encoder(X).detach(), rtol=0, atol=1e-5)


@settings(max_examples=40)
@given(data=st.data(), n=st.integers(1, 9), side=st.integers(1, 6))
def test_shapes_and_types_are_read_or_rejected(data, n, side):
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
    if len(y.unique()) < 2:
        with pytest.raises(ValueError, match="one class only"):
            prepare(model, id=(x, y.to(labels)), reference=None)
        return
    inputs = prepare(model, id=(x, y.to(labels)), reference=None).inputs
    shown = inputs.id.domain.data
    assert shown.y.tolist() == y.tolist()
    assert shown.x.shape == x.shape
    if channels in (1, 3):
        assert float(shown.x.min()) >= 0
        assert float(shown.x.max()) <= 1
    (observation,) = observe(inputs.model, inputs.id.domain.batches(n), [])
    plain = x.float() / 255 if dtype == torch.uint8 else x.float()
    torch.testing.assert_close(observation.logits, model(plain).detach(), rtol=1e-4, atol=1e-4)
