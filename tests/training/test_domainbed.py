"""DomainBed's splits and selections, by hand and against the splits of image folders."""

from itertools import product
from typing import Any

import pandas
import pytest
import torch
from support import trees

from contam.batch import Batch, Domain
from contam.data.domainnet import domainnet, listed
from contam.data.folders import merged
from contam.data.images import FolderDomain, domainbed_augmentation, pixels
from contam.inputs import read_domains
from contam.training.domainbed import (
    by_origin,
    check_training_domains,
    select,
    split_domain,
)


def domain(y: list[int], origin: list[int] | None = None, name: str = "photo") -> Domain:
    labels = torch.tensor(y)
    index = torch.zeros_like(labels) if origin is None else torch.tensor(origin)
    return Domain(name, Batch(torch.arange(len(y)).float()[:, None], labels, index))


def test_a_split_is_disjoint_and_complete_and_depends_on_seed_and_name():
    parts = [split_domain(domain([0] * 50, name=name), seed=seed)
             for seed, name in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))]  # fmt: skip
    inner = [part.inner.data.x.flatten().tolist() for part in parts]
    for part, own in zip(parts, inner, strict=True):
        held_out = part.held_out.data.x.flatten().tolist()
        assert len(own) == 40 and sorted(own + held_out) == list(range(50))
    assert inner[0] == inner[1] and inner[0] != inner[2] and inner[0] != inner[3]


def test_files_are_split_as_the_reader_of_domainnet_does(tmp_path):
    root = trees.domainnet(tmp_path)
    whole = merged("real", [listed(root, "real", part, pixels) for part in ("train", "test")])
    inner = split_domain(whole, seed=3).inner
    assert isinstance(inner, FolderDomain)
    own = next(d for d in domainnet(root, pixels, seed=3).train if d.name == "real")
    assert isinstance(own, FolderDomain) and sorted(inner.files) == sorted(own.files)


def test_neighbors_in_parts_of_files_have_several_classes(tmp_path):
    """ARM adapts to 8 neighbors, and files are listed class by class."""
    names = [f"photo/class{k}" for k in range(8)]
    trees.tree(tmp_path, names, images=25, suffix=".png")
    (whole,) = read_domains(tmp_path)
    assert whole.y.tolist() == sorted(whole.y.tolist())
    for part in split_domain(whole, seed=0):
        assert all(len(some.unique()) >= 3 for some in part.y.split(8))


def test_only_the_inner_part_is_augmented(tmp_path):
    whole = listed(trees.domainnet(tmp_path), "real", "test", pixels)
    split = split_domain(whole.augmented(domainbed_augmentation(8)), seed=0)
    assert split.inner.augments and not split.held_out.augments


def test_a_domain_of_one_example_cannot_be_split():
    with pytest.raises(ValueError, match="has 1 examples, too few"):
        split_domain(domain([0]), seed=0)


def test_origins_become_domains_and_too_many_are_put_together():
    whole = domain([0, 1, 2, 3, 4], origin=[7, 3, 7, 9, 5])
    assert [part.y.tolist() for part in by_origin(whole)] == [[1], [4], [0, 2], [3]]
    # Origins in order: 3, 5, 7, 9; in turn, 3 and 7 are put together, and 5 and 9.
    assert [part.y.tolist() for part in by_origin(whole, most=2)] == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("domains", "line"),
    [
        ([[0, 1]], "at least 2 training domains, got 1"),
        ([[0, 1], [1, 1]], "'photo' has no example of class 'cat'"),
    ],
)
def test_missing_domains_and_classes_are_named(domains, line):
    with pytest.raises(ValueError, match=line):
        check_training_domains([domain(y) for y in domains], ("cat", "dog"))


ROW = {"trial": 0, "left_out": ""}


def records(values: dict[tuple[int, int], dict[tuple[str, str, str], float]]) -> pandas.DataFrame:
    """Rows from (draw, step) to (domain, role, split) to accuracy."""
    return pandas.DataFrame(
        [
            ROW | {"draw": draw, "step": step, "domain": name, "role": role, "split": split}
            | {"accuracy": accuracy}
            for (draw, step), accuracies in values.items()
            for (name, role, split), accuracy in accuracies.items()
        ]
    )  # fmt: skip


def accuracies(train: float, oracle: float) -> dict[tuple[str, str, str], float]:
    return {("a", "train", "held out"): train + 0.1, ("b", "train", "held out"): train - 0.1,
            ("c", "ood", "held out"): oracle, ("c", "ood", "inner"): 1 - oracle}  # fmt: skip


TABLE = records(
    {(0, 1): accuracies(0.5, 0.9), (0, 2): accuracies(0.6, 0.3),
     (1, 1): accuracies(0.7, 0.1), (1, 2): accuracies(0.2, 0.4)}
)  # fmt: skip


def picked(table: Any, selection: Any) -> list[tuple[int, int]]:
    return [(row.draw, row.step) for row in select(table, selection).itertuples()]


def test_training_domain_validation_takes_any_checkpoint():
    assert picked(TABLE, "training-domain") == [(1, 1)]


def test_the_oracle_takes_last_checkpoints_alone():
    """Draw 0 is best after step 1, but only its last checkpoint counts."""
    assert picked(TABLE, "oracle") == [(1, 2)]


def test_accuracies_of_other_domains_and_splits_do_not_change_the_selection():
    changed = TABLE.copy()
    changed.loc[(changed.split == "inner"), "accuracy"] = 0.0
    changed.loc[(changed.role == "ood") & (changed.step == 1), "accuracy"] = 1.0
    for selection in ("training-domain", "oracle"):
        assert picked(changed, selection) == picked(TABLE, selection)


def test_leave_one_out_takes_the_mean_over_the_domains_that_were_left_out():
    rows = []
    for (draw, step), left_out in product(((0, 1), (1, 1)), "ab"):
        accuracy = {"0a": 0.9, "0b": 0.1, "1a": 0.6, "1b": 0.6}[f"{draw}{left_out}"]
        rows.append(ROW | {"draw": draw, "step": step, "left_out": left_out, "domain": left_out}
                    | {"role": "train", "split": "inner", "accuracy": accuracy})  # fmt: skip
    whole = TABLE[TABLE.step == 1]
    table = pandas.concat([whole, pandas.DataFrame(rows)], ignore_index=True)
    assert picked(table, "leave-one-out") == [(1, 1)]
    assert picked(table.iloc[:-1], "leave-one-out") == [(0, 1)]  # draw 1 lacks a training
    with pytest.raises(ValueError, match="needs a training without each of a, b"):
        select(table[table.left_out != "b"], "leave-one-out")


def test_each_trial_has_a_selection_and_the_first_of_equal_ones_is_taken():
    both = pandas.concat([TABLE, TABLE.assign(trial=1, accuracy=0.5)], ignore_index=True)
    assert picked(both, "training-domain") == [(1, 1), (0, 1)]


def test_an_unknown_selection_is_rejected():
    with pytest.raises(ValueError, match="choose from training-domain, oracle, leave-one-out"):
        select(TABLE, "best")  # type: ignore[arg-type]
