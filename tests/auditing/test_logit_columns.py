"""Which logits an audit compares: of ImageNet's subsets, and of heads with many more classes."""

from typing import Any

import pytest
import torch
from torch import nn

from contam import audit
from contam.auditing.logit_columns import find_labels
from contam.inputs.forms import Options, read_raw

WIDTH = 10


def table(labels, name="ID"):
    return read_raw(name, (torch.zeros(len(labels), 2), labels), name, Options())


NAMES = [f"c{k}" for k in range(WIDTH)]
CASES = {
    "all logits": ([0, 9, 3], None, None, [*"0123456789"], [0, 9, 3]),
    "the classes of the data": ([7, 2, 7], None, "labeled", ["2", "7"], [1, 0, 1]),
    "the classes of the data, by name": (
        ["c7", "c2", "c7"], NAMES, "labeled", ["c2", "c7"], [1, 0, 1],
    ),
    "indices, and names of the chosen": (
        ["dog", "cat", "dog"], ["cat", "dog"], [8, 3], ["cat", "dog"], [1, 0, 1],
    ),
    "indices, and names of all": (["c8", "c3", "c8"], NAMES, [8, 3], ["c8", "c3"], [0, 1, 0]),
    "names": (["c8", "c3", "c8"], NAMES, ["c3", "c8"], ["c3", "c8"], [1, 0, 1]),
    "indices, and numbers as labels": ([0, 1, 0], None, [8, 3], ["0", "1"], [0, 1, 0]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_classes_and_labels_of_chosen_logits(case):
    y, classes, columns, names, labels = CASES[case]
    matched = find_labels([table(y)], classes, WIDTH, columns)
    assert matched.names == names
    assert matched.y[0].tolist() == labels
    assert bool(matched.notes) == (columns is not None)


def test_examples_of_other_classes_are_left_out_and_counted():
    matched = find_labels([table([1, 2, 3, 4]), table([4, 2, 2], "R")], None, WIDTH, "labeled")
    assert matched.columns == [2, 4]
    assert [y.tolist() for y in matched.y] == [[-1, 0, -1, 1], [1, 0, 0]]
    assert matched.notes[1].startswith("2 of 4 examples of 'ID' are left out")


REFUSED: dict[str, tuple[Any, str]] = {
    "a word": ("labelled", "columns= is 'labeled', or at least two indices"),
    "one logit": ([3], "at least two indices"),
    "a number": (3, "at least two indices or names of logits; got 3"),
    "a logit that does not exist": ([0, 10], "columns= has 10, and the logits are 0 to 9"),
    "a negative logit": ([0, -1], "columns= has -1"),
    "a truth value": ([True, 0], "columns= has True"),
    "a logit twice": ([3, 3], "columns= has 3 twice"),
    "a name without names": (["cat", "dog"], "give classes= with a name for each of the 10"),
    "more classes than logits": ([0, 1, 2], "the data have 2 classes .* gives 3 logits"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_columns_are_refused(case):
    columns, line = REFUSED[case]
    data = ["cat", "dog"] if "more" in case else [0, 1]
    with pytest.raises(ValueError, match=line):
        find_labels([table(data)], None, WIDTH, columns)


def test_sets_that_share_no_class_are_refused():
    with pytest.raises(ValueError, match="there are 0 classes that have examples in every set"):
        find_labels([table([1, 2]), table([3, 4], "R")], None, WIDTH, "labeled")


def network(width: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, width)).eval()


def data(labels):
    y = torch.tensor(labels).repeat(15)
    x = torch.rand(len(y), 3, 2, 2, generator=torch.Generator().manual_seed(0))
    return x, y


def test_an_audit_of_some_logits_equals_that_of_a_network_with_only_these():
    wide, narrow = network(WIDTH), network(WIDTH)
    chosen = [1, 4, 6]
    head = nn.Linear(8, 3)
    head.weight, head.bias = (nn.Parameter(p[chosen]) for p in wide[-1].parameters())
    narrow[3] = head
    x, y = data([0, 1, 2])
    settings: dict[str, Any] = {"ood": {"R": (x.flip(2), y)}, "reference": None, "untrained": False}
    some, all_of = (
        audit(model, id=(x, y), columns=columns, progress=False, **settings).evidence
        for model, columns in ((wide, chosen), (narrow, None))
    )
    assert some.sets == all_of.sets
    assert some.evidence == all_of.evidence  # the head's, too
    assert any(line.startswith("Only the 3 of 10 logits") for line in some.left_out)


def test_an_audit_of_the_labeled_classes_leaves_out_the_examples_of_others():
    (x, y), (rx, ry) = data([0, 1, 2, 5]), data([5, 2])
    record = audit(
        network(WIDTH), id=(x, y), ood={"R": (rx, ry)}, columns="labeled",
        reference=None, untrained=False, progress=False,
    ).evidence  # fmt: skip
    assert record.classes == ("2", "5")
    assert [s.overall.count for s in record.sets] == [30, 30]
    assert any("30 of 60 examples of 'ID' are left out" in line for line in record.left_out)


COUNTS = [("budget", 0), ("budget", 1.5), ("batch_size", 0), ("batch_size", True), ("workers", -1)]


@pytest.mark.parametrize(("name", "value"), COUNTS)
def test_numbers_that_can_not_be_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is the (maximum )?number of .*; got {value}"):
        audit(network(3), id=data([0, 1, 2]), progress=False, **{name: value})


def test_numbers_do_not_depend_on_the_batch_size():
    first, second = (
        audit(
            network(3), id=data([0, 1, 2]), batch_size=size, reference=None, progress=False
        ).evidence.sets
        for size in (None, 7)
    )
    assert first == second
