"""Every accepted form of one data set gives the same numbers in every function that takes data."""

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import contam
from contam.auditing.prepare import prepare
from contam.batch import Batch, Domain, Shift
from contam.inputs import (
    ImageTable,
    as_batches,
    as_domain,
    as_shift,
    from_folder,
    from_loader,
    from_tensors,
    read_domains,
    read_set,
)  # fmt: skip
from contam.inputs.lazy_files import LazyFolderDomain
from contam.measures.depth import model_depths
from contam.measures.layerwise import layerwise, predictions
from contam.measures.neighbor_heat import neighbor_heat
from contam.models.observe import observe
from contam.monitor.examples import read_sources
from contam.training.probe import extract
from contam.trials.data import read_data

SIDE, CLASSES, N = 8, 3, 48
NAMES = ("cat", "dog", "fox")
Y = torch.arange(N) // (N // CLASSES)
BYTES = torch.randint(256, (N, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0)).byte()
X = BYTES.float() / 255


class Pairs(Dataset):
    """A dataset whose examples are made by a function of their number."""

    def __init__(self, make) -> None:
        self.make = make

    def __getitem__(self, number: int):
        return self.make(number)

    def __len__(self) -> int:
        return N


class Stream(IterableDataset):
    """Single examples without a length."""

    def __iter__(self):
        yield from zip(X, Y.tolist(), strict=True)


class HuggingFace(Pairs):
    """A Hugging Face dataset, as far as it is used."""

    column_names = ("image", "label")
    features = {"label": SimpleNamespace(names=list(NAMES))}  # noqa: RUF012


def image(number: int) -> Image.Image:
    return Image.fromarray(BYTES[number].permute(1, 2, 0).numpy())


def domain() -> Domain:
    return Domain("mine", Batch(X, Y, torch.zeros_like(Y)))


FORMS = {
    "tensors": lambda: (X, Y),
    "a list of two tensors": lambda: [X, Y],
    "arrays": lambda: (X.numpy(), Y.numpy()),
    "bytes": lambda: (BYTES, Y),
    "one-hot labels": lambda: (X, nn.functional.one_hot(Y)),
    "labels as whole floats": lambda: (X, Y.double()),
    "names of classes": lambda: (X, [NAMES[k] for k in Y]),
    "metadata": lambda: (X, Y, torch.stack([Y * 0, Y], dim=1)),
    "a dict of parts": lambda: {"pixel_values": X, "labels": Y},
    "batches in a list": lambda: [(X[:20], Y[:20]), (X[20:], Y[20:])],
    "batches of dicts": lambda: [{"image": X, "label": Y}],
    "batches of the package": lambda: list(domain().batches(20)),
    "a Dataset": lambda: TensorDataset(X, Y),
    "a part of a Dataset": lambda: Subset(TensorDataset(X, Y), range(N)),
    "a Dataset of images": lambda: Pairs(lambda i: (image(i), int(Y[i]))),
    "a Dataset with a dict beside": lambda: Pairs(lambda i: (X[i], Y[i], {"group": 0})),
    "a Hugging Face set": lambda: HuggingFace(lambda i: {"image": image(i), "label": int(Y[i])}),
    "an IterableDataset": Stream,
    "a DataLoader": lambda: DataLoader(TensorDataset(X, Y), batch_size=20),
    "a DataLoader of a stream": lambda: DataLoader(Stream(), batch_size=20),
    "a DataLoader of dicts": lambda: DataLoader(
        Pairs(lambda i: {"pixel_values": X[i], "labels": Y[i]}), batch_size=20
    ),
    "a Domain": domain,
    "a Shift": lambda: Shift("s", NAMES, (domain(),), domain(), (domain(),)),
}  # fmt: skip


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `tree/class/image` and the table `labels.csv` of the same images."""
    root = tmp_path_factory.mktemp("files")
    rows = []
    for number, label in enumerate(Y.tolist()):
        path = root / "tree" / NAMES[label] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image(number).save(path)
        rows.append({"path": path.relative_to(root), "label": NAMES[label]})
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return root


def observed(data) -> dict[str, torch.Tensor]:
    observations = list(observe(network(), data, ["1"], "moments", batch_size=20))
    logits = torch.cat([observation.logits for observation in observations])
    layers = torch.cat([observation.layers["1"] for observation in observations])
    return {"logits": logits, "layers": layers}


def profiled(data) -> dict[str, torch.Tensor]:
    profiles = contam.class_profiles(network(), data, ["1"], classes=CLASSES)
    assert profiles.accuracy is not None
    return {"means": profiles.layers["1"].means, "correct": torch.tensor(profiles.accuracy.correct)}


def probed(data) -> dict[str, torch.Tensor]:
    return {layer.name: layer.queries for layer in layerwise(network(), data, data, ["1"])}


def watched(data) -> dict[str, torch.Tensor]:
    monitor = contam.watch(network(), data, per_class=4, show=False)
    return {name: torch.tensor(value) for name, value in monitor.snapshots[0].scalars().items()}


def audited(data) -> dict[str, torch.Tensor]:
    result = contam.audit(
        network(), id=data, progress=False, untrained=False, reference=None, layers=["1"]
    )
    return {"correct": torch.tensor(result.evidence.sets[0].overall.correct)}


def heated(data) -> dict[str, torch.Tensor]:
    return {"": neighbor_heat(network(), data, data, "1", torch.zeros(N).long(), scale=10.0)}


def tried(data) -> dict[str, torch.Tensor]:
    train = list(data.train) if isinstance(data, Shift) else data
    read = read_data(train, id=data, ood={"other": data})
    return tensors_of((*read.train, *read.tests.values()))


def made_a_shift(data) -> dict[str, torch.Tensor]:
    shift = as_shift(data, data, data, id_val=data)
    return tensors_of((*shift.train, shift.id_test, *shift.ood_tests))


def in_order(domains) -> dict[str, torch.Tensor]:
    """The examples of all domains in the order of `X`; a form with metadata has three domains."""
    columns = tensors_of(domains)
    order = columns["y"].argsort(stable=True)
    return {name: column[order] for name, column in columns.items()}


def tensors_of(domains) -> dict[str, torch.Tensor]:
    y = torch.cat([domain.data.y for domain in domains])
    return {"x": torch.cat([domain.data.x for domain in domains]), "y": y}


FUNCTIONS = {
    "observe": observed,
    "accuracy": lambda data: {"": torch.tensor(contam.accuracy(network(), data).correct)},
    "class_profiles": profiled,
    "layerwise": probed,
    "model_depths": lambda data: {"": model_depths(network(), data, data, per_class=12).depth},
    "extract": lambda data: {"": extract(network()[:4], data)},  # pyright: ignore[reportIndexIssue]
    "predictions": lambda data: {"": predictions(network(), data)},
    "neighbor_heat": heated,
    "as_shift": made_a_shift,
    "read_domains": lambda data: in_order(read_domains(data)),
    "trial": tried,
    "watch": watched,
    "audit": audited,
}
DATA = ("data", "id", "queries", "train")
"""Names of parameters for data of any form."""
EXPECTED: dict[str, dict[str, torch.Tensor]] = {}


def assert_same(function: str, data) -> None:
    if function not in EXPECTED:
        EXPECTED[function] = FUNCTIONS[function](domain())
    actual, expected = FUNCTIONS[function](data), EXPECTED[function]
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-5, atol=1e-5, equal_nan=True)


QUICK = [function for function in FUNCTIONS if function not in ("watch", "audit")]
FAST = ("tensors", "a Hugging Face set", "a DataLoader", "an IterableDataset", "a dict of parts",
        "one-hot labels", "bytes")  # fmt: skip
"""Forms that the fast suite gives to a watch and an audit; the slow suite gives them all."""
CASES = [
    *((form, function) for form in FORMS for function in QUICK),
    *(
        pytest.param(form, function, marks=[] if form in FAST else pytest.mark.slow)
        for form in FORMS for function in ("audit", "watch")
        # The queries of a watched Shift are its own ID test set.
        if (form, function) != ("a Shift", "watch")
    ),
]  # fmt: skip
FILES = {
    "a folder": lambda root: root / "tree",
    "a folder as text": lambda root: str(root / "tree"),
    "a table": lambda root: root / "labels.csv",
    "a pattern of tables": lambda root: str(root / "lab*.csv"),
    "an ImageTable": lambda root: ImageTable(root / "labels.csv", label="label"),
    "a data frame": lambda root: pd.read_csv(root / "labels.csv").assign(
        path=lambda rows: [str(root / path) for path in rows.path]
    ),
}


@pytest.mark.parametrize(("form", "function"), CASES)
def test_every_form_gives_the_same_numbers(form, function):
    assert_same(function, FORMS[form]())


CASES_OF_FILES = [
    pytest.param(form, function, marks=[pytest.mark.slow] if late else [])
    for form in FILES for function in FUNCTIONS
    for late in [function in ("audit", "watch") and form not in ("a folder", "a table")]
]  # fmt: skip


@pytest.mark.parametrize(("form", "function"), CASES_OF_FILES)
def test_files_give_the_same_numbers(folder, form, function):
    assert_same(function, FILES[form](folder))


def public_functions() -> set[str]:
    """Public functions with a parameter for data of any form."""
    functions = set()
    for name in contam.__all__:
        function = getattr(contam, name)
        if inspect.isfunction(function):
            hints = inspect.signature(function).parameters.values()
            if any(p.annotation in (Any, "Any") and p.name in DATA for p in hints):
                functions.add(name)
    return functions


def test_the_table_has_every_public_function_that_takes_data():
    others = {"audit_multilabel"}  # several labels for each example: forms of its own
    assert public_functions() == (set(FUNCTIONS) | others) & set(contam.__all__)


@pytest.mark.parametrize("form", FORMS)
def test_the_ood_set_of_an_audit_takes_every_form(form):
    prepared = prepare(
        network(), id=domain(), ood=FORMS[form](), reference=None, control=False, classes=NAMES
    )
    (shifted,) = prepared.inputs.ood
    torch.testing.assert_close(shifted.domain.data.x, X)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "a Shift"])
def test_the_queries_of_a_watch_take_every_form(form):
    (queries,) = read_sources(domain(), FORMS[form](), {}, seed=0).queries
    torch.testing.assert_close(queries.data.x, X)


def test_the_queries_of_a_watched_shift_are_its_own_id_test_set():
    own = Domain("held out", Batch(X[:5], Y[:5], torch.zeros(5).long()))
    (queries,) = read_sources(Shift("s", NAMES, (domain(),), own, ()), None, {}, seed=0).queries
    assert queries.data.x is own.data.x


@pytest.mark.parametrize("form", FORMS)
def test_a_domain_of_any_form_holds_the_same_examples(form):
    batch = as_domain(FORMS[form]()).data
    assert torch.equal(batch.y, Y)
    torch.testing.assert_close(batch.x, X)
    streamed = list(as_batches(FORMS[form](), 7))
    assert torch.equal(torch.cat([part.y for part in streamed]), Y)
    torch.testing.assert_close(torch.cat([part.x for part in streamed]), X)


def test_typed_functions_agree_with_as_domain(folder):
    for made in (
        from_folder(folder / "tree"), from_tensors(X, Y),
        from_loader(DataLoader(TensorDataset(X, Y), 5)),
    ):  # fmt: skip
        assert torch.equal(made.y, Y)
        torch.testing.assert_close(made.data.x, X)


def test_a_domain_is_returned_unchanged():
    same = domain()
    assert as_domain(same) is same


def test_a_loader_keeps_its_own_order_and_batches():
    loader = DataLoader(TensorDataset(X, Y), batch_size=20, sampler=list(range(N))[::-1])
    observations = list(observe(network(), loader, ()))
    assert [len(observation.batch.y) for observation in observations] == [20, 20, 8]
    assert torch.equal(torch.cat([observation.batch.y for observation in observations]), Y.flip(0))


def test_a_shuffled_loader_preserves_the_random_state():
    loader = DataLoader(TensorDataset(X, Y), batch_size=20, shuffle=True)
    before = torch.get_rng_state()
    contam.accuracy(network(), loader)
    assert torch.equal(torch.get_rng_state(), before)


BROKEN = {
    "inputs that are not finite": lambda: (X / (Y[:, None, None, None] < 2), Y),
    "an example that raises": lambda: Pairs(lambda i: (X[i], Y[i]) if i != 5 else 1 / 0),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_domain_is_strict_and_a_set_notes_what_it_leaves_out(case):
    with pytest.raises(ValueError, match=r"left out|not finite|ZeroDivisionError"):
        as_domain(BROKEN[case]())
    some = read_set(BROKEN[case](), name="mine")
    assert len(some) < N
    assert "of 'mine' were left out" in some.notes[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "is a int; expected a folder"),
        (None, "is a NoneType; expected a folder"),
        ("/no/such/folder", "no folder /no/such/folder"),
        ((X, Y[:5]), "48 inputs and 5 labels"),
        ((X, Y / 2), "expected whole numbers"),
        ([(X,)], r"expected \(x, y\)"),
        ([{"image": X}], "no label among"),
        ((X[:0], Y[:0]), "it is empty"),
        ((X, Y - 1), r"labels -1\.\.1"),
        (type("Splits", (dict,), {"column_names": []})(train=1, test=2), "give one of them"),
    ],
)
def test_unsupported_data_are_rejected_in_one_line(data, message):
    with pytest.raises(ValueError, match=message) as error:
        as_domain(data)
    assert "\n" not in str(error.value)


# Folders are decoded when they are shown, once


def counted(root, monkeypatch, **options):
    """A folder, and a list of the files that were decoded."""
    from contam.inputs import lazy_files

    decoded: list[str] = []
    plain = lazy_files.read

    def read(path):
        decoded.append(path.name)
        return plain(path)

    monkeypatch.setattr(lazy_files, "read", read)
    return read_set(root, **options), decoded


def test_labels_of_a_folder_are_known_without_decoding(folder, monkeypatch):
    some, decoded = counted(folder / "tree", monkeypatch)
    assert torch.equal(some.domain.y, Y) and some.classes == NAMES
    assert len(decoded) <= 3
    for _ in range(2):
        for _ in some.domain.batches(10):
            pass
    assert sorted(decoded) == sorted(set(decoded)) and len(decoded) == N


def test_beyond_the_memory_limit_each_pass_decodes_each_file_once(folder, monkeypatch):
    some, decoded = counted(folder / "tree", monkeypatch)
    assert isinstance(some.domain, LazyFolderDomain)
    some.domain.decoder.max_bytes = 10 * X[0].numel() * 4
    first = torch.cat([batch.x for batch in some.domain.batches(7)])
    assert len(decoded) - len(set(decoded)) <= 3
    decoded.clear()
    again = torch.cat([batch.x for batch in some.domain.batches(7)])
    assert len(decoded) == len(set(decoded)) == N - 10
    assert torch.equal(first, again)


def test_unreadable_files_are_left_out_in_the_first_pass(folder, tmp_path):
    for number in range(6):
        (tmp_path / NAMES[number % 3]).mkdir(exist_ok=True)
        image(number).save(tmp_path / NAMES[number % 3] / f"{number}.png")
    (tmp_path / "dog" / "4.png").write_bytes(b"no image")
    some = read_set(tmp_path, name="mine")
    assert len(some) == 6 and not some.notes
    batches = list(some.domain.batches(2))
    assert torch.cat([batch.y for batch in batches]).tolist() == [0, 0, 1, 2, 2]
    assert some.domain.y.tolist() == [0, 0, 1, 2, 2] and len(some) == 5
    assert some.notes == (
        "1 of 6 examples of 'mine' were left out; the first, number 3 (4.png), can't be read.",
    )
    picked = some.pick(torch.tensor([3, 0]))
    assert picked.domain.y.tolist() == [2, 0]
    torch.testing.assert_close(picked.domain.data.x, torch.stack([X[2], X[0]]))
    with pytest.raises(ValueError, match=r"4\.png"):
        list(as_batches(tmp_path))


def test_a_folder_of_damaged_files_has_no_examples(tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match=r"none could be read; the first, number 0 \(1.png\), can't be read$"
    ):
        read_set(tmp_path)


def test_a_picked_set_keeps_masks_and_backgrounds():
    some = read_set((X, Y))
    masks = torch.arange(N)[:, None, None, None].float().expand(N, 1, SIDE, SIDE) / N
    from dataclasses import replace

    which = torch.tensor([5, 2])
    part = replace(some, masks=masks, background=Y).pick(which)
    assert part.masks is not None and part.background is not None
    assert torch.equal(part.masks, masks[which]) and torch.equal(part.background, Y[which])
    assert np.allclose(part.domain.data.x, X[which])
