"""The benchmark of the audit: its parts, its shifts, and what counts as right."""

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def zoo() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("audit_zoo")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("audit_zoo", "zoo_cases", "zoo_networks", "decision_table", "outcome"):
            sys.modules.pop(name, None)


def test_the_judged_groups_are_not_those_that_thresholds_are_chosen_on(zoo: ModuleType) -> None:
    first, *others = zoo.PARTS
    judged = [group for part in others for group in zoo.PARTS[part]]
    assert not set(judged) & set(zoo.PARTS[first])
    assert len(set(judged)) == len(judged)
    assert len({group.architecture for group in judged}) >= 5
    assert len({group.content for group in judged}) >= 4


def test_every_cause_has_shifts_or_cases_of_its_own(zoo: ModuleType) -> None:
    cases = sys.modules["zoo_cases"]
    made = {kind.cause for kind in cases.SHIFTS.values()}
    assert made <= {*cases.CAUSES, "", "none"}
    assert set(cases.COUNTS) <= made
    by_hand = {"healthy", "measurement", "undertrained", "head"}
    assert made - {"", "none"} | by_hand | {"background shortcut", "color shortcut"} == set(
        cases.CAUSES
    )
    assert {name for pair in cases.MIXED for name in pair} <= set(cases.SHIFTS)


@pytest.mark.parametrize("name", ["noise", "low contrast", "rotated", "covered", "new families"])
def test_shifts_keep_the_objects_and_change_the_images(zoo: ModuleType, name: str) -> None:
    cases, networks = sys.modules["zoo_cases"], sys.modules["zoo_networks"]
    group, spec = networks.Group("shapes", "resnet8", 4, 0), cases.PLAIN
    plain = cases.images(group, spec, (), 40)
    level = cases.SHIFTS[name].levels[-1]
    shifted = cases.images(group, spec, ((name, level),), 40)
    assert plain.y.equal(shifted.y)
    assert not plain.x.equal(shifted.x)
    assert plain.x.equal(cases.images(group, spec, (), 40).x)


def test_a_pair_of_shifts_makes_the_draws_that_each_makes_alone(zoo: ModuleType) -> None:
    cases, networks = sys.modules["zoo_cases"], sys.modules["zoo_networks"]
    group, spec = networks.Group("shapes", "resnet8", 4, 0), cases.PLAIN
    noise, wrong = ("noise", 0.2), ("wrong labels", 0.4)
    both = cases.images(group, spec, (noise, wrong), 40)
    assert both.x.equal(cases.images(group, spec, (noise,), 40).x)
    assert both.y.equal(cases.images(group, spec, (wrong,), 40).y)


def test_objects_rotate_and_shift_as_asked(zoo: ModuleType) -> None:
    moved = sys.modules["zoo_networks"].moved
    x = torch.zeros(1, 1, 32, 32)
    x[0, 0, 15:17, 4:6] = 1
    center = torch.zeros(1, 2)
    torch.testing.assert_close(moved(x, about=center), x)
    quarter = moved(x, angle=math.pi / 2, about=center)
    torch.testing.assert_close(quarter.sum(), x.sum())
    assert quarter[0, 0, :, 15:17].sum() > 3.9
    right = moved(x, shift=torch.tensor([3.0, 0.0]), about=center)
    torch.testing.assert_close(right[0, 0, 15:17, 7:9], torch.ones(2, 2))


def test_swapped_labels_are_swapped_back_by_the_same_swap(zoo: ModuleType) -> None:
    apply = sys.modules["zoo_cases"].SHIFTS["swapped classes"].apply
    y, draws = torch.arange(10), torch.Generator()
    assert apply(y, 4, draws).tolist() == [1, 0, 3, 2, 4, 5, 6, 7, 8, 9]
    assert apply(apply(y, 6, draws), 6, draws).equal(y)


def test_close_shares_and_the_old_names_count_as_right(zoo: ModuleType) -> None:
    plan = sys.modules["zoo_cases"].Plan("a", "geometry", "mixed", "all", accepted=("corruption",))
    common = {"part": "", "group": "", "id_accuracy": 1.0, "ood_accuracy": 0.5, "seconds": 1.0,
              "forward": 1.0}  # fmt: skip
    results = [
        zoo.Result(plan=plan, answer=answer, old="contaminated", **common)
        for answer in ("geometry", "corruption", "healthy")
    ]
    assert [result.right for result in results] == [True, True, False]
    assert not zoo.old_right(results[0])
    backgrounds = sys.modules["zoo_cases"].Plan("b", "new backgrounds", "mild", "plain")
    old = zoo.Result(plan=backgrounds, answer="", old="contaminated", **common)
    assert zoo.old_right(old)
