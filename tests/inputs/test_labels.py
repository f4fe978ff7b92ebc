"""Labels and metadata of every kind are read as meant, or rejected in one line."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contam.inputs import as_domain, from_tensors, read_set
from contam.inputs.forms import Options, read_raw
from contam.inputs.parts import as_labels

NAMES = ["dog", "cat", "dog"]
INDICES = [1, 0, 1]

LABELS = {
    "a list of names": NAMES,
    "a tuple of names": tuple(NAMES),
    "an array of names": np.array(NAMES),
    "an array of bytes": np.array(NAMES).astype(bytes),
    "a list of bytes": [name.encode() for name in NAMES],
    "an array of objects": np.array(NAMES, dtype=object),
    "NumPy scalars of text": [np.str_(name) for name in NAMES],
    "a column of pandas": pd.Series(NAMES, index=[7, 7, 2]),
    "a categorical column": pd.Series(NAMES, dtype="category"),
    "a column of strings": pd.Series(NAMES, dtype="string"),
    "a column of indices": pd.Series(INDICES),
    "a column of nullable integers": pd.Series(INDICES, dtype="Int64"),
    "an array of indices as objects": np.array(INDICES, dtype=object),
    "NumPy scalars": [np.int16(k) for k in INDICES],
    "whole floats": np.array(INDICES, dtype=float),
    "truth values": [True, False, True],
    "a list of tensors": [torch.tensor(k) for k in INDICES],
    "one-hot rows of an array": np.eye(2)[INDICES],
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_every_kind(name):
    x = torch.rand(3, 4)
    assert from_tensors(x, LABELS[name]).y.tolist() == INDICES
    assert as_domain({"x": x.numpy(), "y": LABELS[name]}).y.tolist() == INDICES
    singles = [(x[i], list(LABELS[name])[i]) for i in range(3)]
    if name != "one-hot rows of an array":
        assert as_domain(iter(singles)).y.tolist() == INDICES


BAD_LABELS = {
    "a missing name": (["dog", None, "cat"], "lack a value at position 1"),
    "a missing number": ([1.0, float("nan"), 0.0], "expected whole numbers|lack a value"),
    "a missing value of pandas": (pd.Series([1, None, 0], dtype="Int64"), "position 1"),
    "names and numbers": (["dog", 1, "cat"], "mix numbers and str"),
    "an infinite number": ([0.0, float("inf"), 1.0], "expected whole numbers"),
    "fractions": ([0.5, 0.0, 1.0], "expected whole numbers"),
    "a number beyond all classes": ([10**30, 0, 1], "whole numbers of more than 64 bits"),
    "a number of many digits": ([10**5000, 0, 1], "whole numbers of more than 64 bits"),
    "dates": (np.array(["2020-01-01"] * 3, dtype="datetime64[D]"), "expected whole numbers"),
    "complex numbers": ([1j, 0j, 1j], "expected whole numbers"),
    "unlabeled examples": ([-1, 0, 1], "-1 often marks examples without a label"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_labels_that_are_no_classes_are_rejected_in_one_line(name):
    y, message = BAD_LABELS[name]
    with pytest.raises(ValueError, match=message) as error:
        from_tensors(torch.rand(3, 4), y)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@settings(max_examples=30)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.sampled_from(
    ["int8", "uint8", "int32", "uint64", "float32", "object", "bool"]))  # fmt: skip
def test_whole_numbers_of_every_type_are_indices(labels, dtype):
    column = np.array(labels).astype(dtype)
    labels_read = as_labels(column)
    assert isinstance(labels_read, torch.Tensor)
    assert labels_read.tolist() == [int(k) for k in column.tolist()]
    assert torch.equal(labels_read, torch.as_tensor(as_labels(column.tolist())))


@settings(max_examples=30)
@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=8))
def test_names_of_any_characters_are_names(names):
    assert as_labels(names) == as_labels(np.array(names, dtype=object)) == names


# Metadata

N = 12
X, Y = torch.rand(N, 2), torch.arange(N) % 2
HALVES = torch.arange(N) // 6
PATHS = [f"images/{k}.png" for k in range(N)]


# Name -> metadata, domain=, the domains that are read (None for one domain), what is said
METADATA = {
    "a column of groups": (HALVES, None, HALVES, ""),
    "paths": (PATHS, None, None, "another value for almost every example"),
    "positions": (torch.arange(N), None, None, "another value for almost every example"),
    "nearly unique numbers": (torch.arange(N) * 3 // 4, None, None, "another value"),
    "pairs of examples": (torch.arange(N) // 2, None, torch.arange(N) // 2, ""),
    "a constant": (HALVES * 0 + 3, None, HALVES * 0 + 3, ""),
    "two columns": (torch.stack([HALVES, Y * 0], 1), None, HALVES, "'0' is the domain"),
    "a position, then a group": (
        torch.stack([torch.arange(N), HALVES], 1), None, HALVES, "'1' is the domain"
    ),
    "the labels, then a group": (torch.stack([Y, HALVES], 1), None, HALVES, "'1' is the domain"),
    "a chosen column": (torch.stack([HALVES, torch.arange(N)], 1), 1, torch.arange(N), ""),
    "a chosen column that is unique": (torch.arange(N), 0, torch.arange(N), ""),
    "arrays": (np.stack([HALVES, Y * 0], 1), None, HALVES, "'0' is the domain"),
    "fractions": (torch.rand(N), None, None, ""),
    "a dict": ([{"group": int(k)} for k in HALVES], None, HALVES, ""),
    "a named entry of a dict": (
        [{"hospital": int(k), "group": 0} for k in HALVES], "hospital", HALVES, ""
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("form", ["dataset", "stream", "set"])
def test_metadata_are_domains_only_if_they_group_examples(name, form):
    metadata, chosen, expected, said = METADATA[name]
    examples = [(X[i], int(Y[i]), metadata[i]) for i in range(N)]
    dicts = isinstance(metadata, list) and isinstance(metadata[0], dict)
    if form == "set" and dicts:
        return
    data = {"dataset": Listed(examples), "stream": iter(examples), "set": (X, Y, metadata)}[form]
    some = read_set(data, domain=chosen)
    wanted = torch.zeros(N) if expected is None else expected
    assert torch.equal(some.domain.data.domain, wanted.long())
    assert bool(some.notes) == bool(said)
    assert said in " ".join(some.notes)


class Listed(torch.utils.data.Dataset):
    def __init__(self, examples) -> None:
        self.examples = examples

    def __getitem__(self, number: int):
        return self.examples[number]

    def __len__(self) -> int:
        return len(self.examples)


class Named(Listed):
    metadata_fields = ("hospital", "slide")


def test_a_column_is_chosen_by_the_name_that_the_dataset_gives_it():
    data = Named([(X[i], int(Y[i]), torch.tensor([0, HALVES[i]])) for i in range(N)])
    for chosen in ("slide", 1):
        assert torch.equal(read_set(data, domain=chosen).domain.data.domain, HALVES)
    with pytest.raises(ValueError, match=r"no metadata column 'city' .*'hospital', 'slide'"):
        read_set(data, domain="city")


MANY = torch.arange(240)
# Name -> columns, labels, the columns with groups besides the domain
GROUPS = {
    "one column": ([HALVES], Y, []),
    "two columns": ([HALVES, torch.arange(N) % 3], Y, ["column 1"]),
    "a constant column": ([HALVES, HALVES * 0], Y, []),
    "the labels": ([HALVES, Y], Y, []),
    "the labels under other numbers": ([HALVES, 7 - Y], Y, []),
    "the domain again": ([HALVES, 5 + HALVES], Y, []),
    "another column twice": ([HALVES, torch.arange(N) % 3, torch.arange(N) % 3], Y, ["column 1"]),
    "a unique column": ([HALVES, torch.arange(N)], Y, []),
    "fifty values": ([MANY // 120, MANY % 50], MANY % 2, ["column 1"]),
    "more than fifty values": ([MANY // 120, MANY % 51], MANY % 2, []),
}


@pytest.mark.parametrize("name", GROUPS)
def test_columns_that_group_examples_are_kept(name):
    columns, y, expected = GROUPS[name]
    data = read_set((torch.rand(len(y), 2), y, torch.stack(columns, 1)))
    assert list(data.groups) == expected
    noted = any("no accuracies by their values" in note for note in data.notes)
    assert noted is (name == "more than fifty values")
    for column, values in data.groups.items():
        assert values == [str(v) for v in columns[int(column[-1])].tolist()]


@pytest.mark.parametrize("budget", [None, 7])
def test_groups_follow_the_examples(budget):
    columns = torch.stack([HALVES, torch.arange(N) % 3], 1)
    data = read_set((torch.arange(float(N))[:, None], Y, columns), budget=budget)
    some = data.pick(torch.tensor([3, 1]))
    for some_data in (data, some):
        numbers = some_data.domain.data.x[:, 0].int() % 3
        assert some_data.groups == {"column 1": [str(k) for k in numbers.tolist()]}


def test_domains_that_are_declared_are_kept_even_if_they_are_unique():
    domain = from_tensors(X, Y, torch.arange(N))
    assert domain.data.domain.tolist() == list(range(N))
    raw = read_raw(None, domain, "ID", Options())
    assert isinstance(raw.origin, torch.Tensor) and raw.origin.tolist() == list(range(N))


def test_unknown_keys_are_rejected():
    with pytest.raises(ValueError, match=r"keys= has 'image'; expected some of \['x', 'y'"):
        read_set((X, Y), keys={"image": "scan"})
