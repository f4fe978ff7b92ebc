"""Loaders and streams: every example once, within the budget, and one clear line otherwise."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    get_worker_info,
)

import contam
from contam.auditing.prepare import prepare
from contam.batch import Batch, Domain
from contam.inputs import as_batches, as_domain, read_set
from contam.inputs.forms import named_sets
from contam.inputs.tables import ClassRuns

N = 24
Y = torch.arange(N) % 3
X = torch.arange(N)[:, None] + torch.tensor([0.0, 0.5])
PAIRS = TensorDataset(X, Y)


def firsts(x: torch.Tensor) -> list[int]:
    """The number of each example."""
    return x[:, 0].int().tolist()


class Numbers(Dataset):
    """Examples by number; some are unusual."""

    def __init__(self, make=None, length=lambda: N) -> None:
        self.make, self.length = make or (lambda i: (X[i], int(Y[i]))), length

    def __getitem__(self, number):
        return self.make(number)

    def __len__(self) -> int:
        return self.length()


class Stream(IterableDataset):
    """All examples, whichever worker asks."""

    def __iter__(self):
        return zip(X, Y.tolist(), strict=True)


class Shards(Stream):
    """Workers divide the examples, as WebDataset and Hugging Face do."""

    def __iter__(self):
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return itertools.islice(super().__iter__(), first, None, step)


class Endless(IterableDataset):
    """Examples without end; `period` of one class come one after another."""

    def __init__(self, period: int = 1) -> None:
        self.period, self.read = period, 0

    def __iter__(self):
        for number in itertools.count():
            self.read += 1
            yield torch.tensor([float(number), 0.0]), number // self.period % 3


# Every example once


@pytest.mark.parametrize("dataset", [Stream, Shards])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_streams_with_workers_give_every_example_once(dataset, workers):
    loader = DataLoader(dataset(), batch_size=5, num_workers=workers)
    some = read_set(loader, name="mine")
    assert firsts(some.domain.data.x) == list(range(N))
    assert [note for note in some.notes] == (
        ["'mine' is a stream, which 2 workers can each read whole; it was read by one."]
        if workers == 2 else []
    )  # fmt: skip
    if workers == 2:
        assert sorted(firsts(torch.cat([b.x for b in as_batches(loader)]))) == list(range(N))


LOADERS = {
    "batches of numbers as the sampler": DataLoader(
        PAIRS, sampler=BatchSampler(SequentialSampler(PAIRS), 5, False), batch_size=None
    ),
    "a batch sampler": DataLoader(
        PAIRS, batch_sampler=BatchSampler(SequentialSampler(PAIRS), 5, False)
    ),
    "without batches": DataLoader(PAIRS, batch_size=None),
    "parts joined again": DataLoader(
        ConcatDataset([Subset(PAIRS, range(10)), Subset(PAIRS, range(10, N))]), batch_size=7
    ),
    "a dict of columns": {"x": X, "y": Y},
    "a dict of arrays": {"image": X.numpy(), "target": Y.numpy()},
    "a dict of lists": {"x": X, "y": Y.tolist()},
    "batches of dicts": [{"x": X[:9], "y": Y[:9]}, {"x": X[9:], "y": Y[9:]}],
    "batches": [(X[:9], Y[:9]), (X[9:], Y[9:])],
    "batches with labels in lists": [(X[:9], Y[:9].tolist()), (X[9:], Y[9:].tolist())],
    "examples": list(zip(X, Y.tolist(), strict=True)),
}  # fmt: skip


@pytest.mark.parametrize("case", LOADERS)
def test_one_form_means_the_same_for_id_and_ood(case):
    data = LOADERS[case]
    assert firsts(as_domain(data).data.x) == list(range(N))
    assert len(named_sets(data)) == 1
    model = nn.Linear(2, 3)
    ready = prepare(model, id=(X, Y), ood=data, reference=None, control=False)
    (ood,) = ready.inputs.ood
    assert ood.name == "OOD" and firsts(ood.domain.data.x) == list(range(N))


SEVERAL = {
    "a list of loaders": [DataLoader(PAIRS, 5), DataLoader(PAIRS, 5)],
    "a list of datasets": [PAIRS, PAIRS],
    "a dict of pairs": {"rain": (X, Y), "fog": (X, Y)},
    "a dict of batches": {"rain": [(X, Y)], "fog": [(X, Y)]},
    "a dict of dicts": {"rain": {"x": X, "y": Y}, "fog": {"x": X, "y": Y}},
    "a list of a domain and a pair": [Domain("d", Batch(X, Y, Y)), (X, Y)],
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_sets_stay_several(case):
    assert len(named_sets(SEVERAL[case])) == 2


# Budgets of streams


@pytest.mark.parametrize("period", [1, 500])
def test_an_endless_stream_stops_with_the_budget(period):
    data = Endless(period)
    some = read_set(data, name="mine", budget=30)
    assert len(some) == 30
    assert data.read <= 20 * 30 * 50
    # Also where classes come one after another, all are drawn.
    assert set(some.domain.y.tolist()) == {0, 1, 2}
    assert "30 of them were drawn (budget)" in some.notes[0]
    numbers = firsts(some.domain.data.x)
    assert numbers == sorted(numbers) and len(set(numbers)) == 30
    assert max(numbers) > 100  # not only the first examples


def test_an_endless_stream_without_a_budget_ends(monkeypatch):
    monkeypatch.setattr("contam.inputs.tables.MAX_EXAMPLES", 100)
    some = read_set(Endless(), name="mine")
    assert len(some) == 100
    assert "Only the first 100 examples of 'mine'" in some.notes[0]
    assert "Give budget=" in some.notes[0]


def test_a_stream_sorted_by_class_is_read_to_its_end():
    def examples():
        for label in range(3):
            for number in range(1000):
                yield torch.tensor([float(number)]), label

    some = read_set(examples(), budget=30)
    counts = some.domain.y.bincount(minlength=3)
    assert counts.min() >= 3 and counts.sum() == 30


def test_the_draw_of_a_stream_is_uniform_and_reproducible():
    draws = [read_set(iter(LOADERS["examples"]), budget=6, seed=seed) for seed in range(200)]
    again = read_set(iter(LOADERS["examples"]), budget=6, seed=0)
    assert torch.equal(again.domain.data.x, draws[0].domain.data.x)
    counts = torch.cat([some.domain.data.x[:, 0] for some in draws]).long().bincount(minlength=N)
    # 200 draws of a quarter: 50 each, with a standard deviation of 6.
    assert counts.min() > 25 and counts.max() < 75


def test_a_stream_within_the_budget_is_read_whole():
    some = read_set(iter(LOADERS["examples"]), budget=N)
    assert len(some) == N and not some.notes


def test_a_monitor_reads_a_part_of_an_endless_stream():
    data = Endless()
    contam.watch(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)), data, show=False)
    assert data.read <= 2001


@pytest.mark.parametrize(
    ("labels", "expected"), [("aabbc", True), ("aab", True), ("aba", False), ("", True)]
)
def test_labels_sorted_by_class_are_recognized(labels, expected):
    runs = ClassRuns()
    for label in labels:
        runs.add([label])
    assert runs.sorted == expected


# Examples that are dropped


def without_none(rows):
    rows = [row for row in rows if row is not None]
    return torch.utils.data.default_collate(rows) if rows else None


def every_second(rows):
    kept = [row for row in rows if int(row[0][0]) % 2 == 0]
    return torch.utils.data.default_collate(kept) if kept else None


def odd_is_none(number: int):
    return None if number % 2 else (X[number], int(Y[number]))


def no_second_batch(number: int):
    return None if 5 <= number < 20 else (X[number], int(Y[number]))


DROPPED = {
    "examples that are None": (
        DataLoader(Numbers(odd_is_none), 5, collate_fn=without_none), "is None"
    ),
    "a dataset of None": (Numbers(odd_is_none), "is None"),
    "a collate function that selects": (
        DataLoader(Numbers(), 5, collate_fn=every_second), "dropped by the collate function"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DROPPED)
def test_dropped_examples_are_counted(case):
    data, reason = DROPPED[case]
    some = read_set(data, name="mine")
    assert firsts(some.domain.data.x) == list(range(0, N, 2))
    assert some.domain.y.tolist() == Y[::2].tolist()
    assert "12 of 24 examples of 'mine' were left out; the first, number 1" in some.notes[0]
    assert reason in some.notes[0]


def test_whole_batches_can_be_dropped():
    loader = DataLoader(Numbers(no_second_batch), 5, collate_fn=without_none)
    expected = [*range(5), *range(20, 24)]
    assert firsts(read_set(loader).domain.data.x) == expected
    assert firsts(torch.cat([batch.x for batch in as_batches(loader)])) == expected


# Lengths and other faults


def unknown() -> int:
    raise NotImplementedError("count the shards first")


REJECTED = {
    "several loaders": ([DataLoader(PAIRS, 5)] * 2, "'ID' is 2 sets; give one"),
    "several pairs by name": ({"a": (X, Y), "b": (X, Y)}, "'ID' is 2 sets; give one"),
    "a length that raises": (Numbers(length=unknown), "is a Numbers without a length"),
    "a loader over it": (DataLoader(Numbers(length=unknown), 4), "can't be read; it raised Not"),
    "a collate function that doubles": (
        DataLoader(Numbers(), 4, collate_fn=lambda rows: without_none(rows * 2)),
        "48 examples of 24",
    ),
    "an iterator that raises at once": (map(int, ["x"]), "can't be read; it raised ValueError"),
    "examples of different sizes": (
        Numbers(lambda i: (torch.zeros(2 + i % 2), 0)), "expected one shape"
    ),
    "examples without labels": (Numbers(lambda i: X[i]), "expected \\(x, y\\)|expected whole"),
    "unlabeled examples": (Numbers(lambda i: (X[i], -1)), "-1 often marks examples without"),
}  # fmt: skip


@pytest.mark.parametrize("case", REJECTED)
def test_faults_are_rejected_in_one_line(case):
    data, message = REJECTED[case]
    with pytest.raises(ValueError, match=message) as error:
        prepare(nn.Linear(2, 3), id=data, reference=None)
    assert "\n" not in str(error.value)


def test_a_stream_with_a_length_that_raises_is_read():
    class Both(Stream):
        def __len__(self) -> int:
            raise TypeError("unknown")

    assert firsts(as_domain(Both()).data.x) == list(range(N))


# Bytes


@pytest.mark.parametrize("form", ["pair", "dataset", "domain", "loader"])
def test_bytes_are_shares_in_every_function(form):
    images = (torch.arange(N)[:, None, None, None] * 10 + torch.zeros(N, 3, 4, 4)).byte()
    data = {
        "pair": (images, Y), "dataset": TensorDataset(images, Y),
        "domain": Domain("bytes", Batch(images, Y, Y * 0)),
        "loader": DataLoader(TensorDataset(images, Y), 5),
    }[form]  # fmt: skip
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.ReLU(), nn.Linear(4, 3))
    expected = contam.accuracy(model, (images.float() / 255, Y))
    assert contam.accuracy(model, data) == expected
    monitor = contam.watch(model, data, show=False, per_class=2)
    assert not monitor.snapshots[0].left_out
    ready = prepare(model, id=data, reference=None)
    torch.testing.assert_close(ready.inputs.id.domain.data.x, images.float() / 255)


def test_readers_survive_a_spawned_worker():
    """Python 3.14 starts workers from a server, which needs readers that pickle."""
    loader = DataLoader(PAIRS, 6, num_workers=1, multiprocessing_context="spawn")
    assert loader.num_workers == 1
    import pickle

    from contam.inputs.indexed import reader_of

    again = pickle.loads(pickle.dumps(reader_of(loader, {}, None)))
    assert again[3][0] == 3
    assert np.allclose(again[3][1].x, X[3])
