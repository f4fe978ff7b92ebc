"""Readers of layers on features that are made by hand: where the class and the domain are."""

import math

import pytest
import torch
from support.generators import result_of
from torch import Tensor

from contam.auditing.layer_probes import (
    Points,
    domains_of,
    guessing,
    plane,
    read_classes,
    read_domains,
    split,
)

CLASSES = 4


def points(seed: int, *, each: int = 30, late_is_right: bool = True) -> Points:
    """Layer `early` is noise, `late` tells the class, and the network answers from it."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(CLASSES * each) % CLASSES
    told = y if late_is_right else (y + 1) % CLASSES
    noise = torch.randn(len(y), 6, generator=draws)
    late = 5 * torch.eye(CLASSES)[told] + 0.1 * noise[:, :CLASSES]
    return Points({"early": noise, "late": late}, 3 * late, y, torch.arange(len(y)) % 2)


@pytest.fixture(scope="module")
def readings():
    fitted, same, shifted = points(0), points(1), points(2, late_is_right=False)
    asked = {"ID": same, "OOD": shifted}
    return result_of(read_classes(fitted, asked, classes=CLASSES, per_class=20))


def test_probes_find_the_class_where_it_is_and_not_where_the_shift_took_it(readings):
    assert readings.probe["late"]["ID"].value == 1
    assert readings.probe["late"]["OOD"].value == 0
    assert readings.probe["early"]["ID"].low < 1 / CLASSES < readings.probe["early"]["ID"].high


def test_predictions_are_decided_in_the_layer_that_has_the_class(readings):
    # Chance alone decides in noise.
    assert readings.decided["early"]["ID"] < 0.5
    assert readings.decided["late"]["ID"] == 1
    # What decides may be wrong: depth is about the network's answer.
    assert readings.decided["late"]["OOD"] == 1


def test_information_is_what_there_is_to_know_or_less(readings):
    assert readings.information["early"]["ID"].value < 0.3
    late = readings.information["late"]
    # Each of 20 neighbors votes for the class, each other class has one vote beforehand.
    assert late["ID"].value == pytest.approx(math.log2(CLASSES * 21 / 24), abs=1e-6)
    assert late["OOD"].value == pytest.approx(math.log2(CLASSES * 1 / 24), abs=1e-6)


def test_classes_that_were_not_fitted_are_not_judged():
    fitted = points(0)
    less = fitted.pick(fitted.y > 0)
    found = result_of(read_classes(less, {"ID": points(1)}, classes=CLASSES, per_class=20))
    assert found.probe["late"]["ID"].value == 1


@pytest.mark.parametrize("keep", [lambda y: y == 0, lambda y: y < 0])
def test_fewer_than_two_classes_are_said(keep):
    fitted = points(0)
    found = result_of(read_classes(fitted.pick(keep(fitted.y)), {"ID": points(1)}, classes=CLASSES))
    assert not found.probe
    assert len(found.left_out) == 1


def test_one_example_of_a_class_leaves_probes_alone():
    fitted = points(0)
    first = torch.arange(len(fitted.y))
    few = fitted.pick((fitted.y > 0) | (first == 0))
    found = result_of(read_classes(few, {"ID": points(1)}, classes=CLASSES))
    assert found.probe and not found.decided and not found.information
    assert any("two ID examples" in line for line in found.left_out)


def test_halves_share_no_example_and_lose_none():
    whole = points(0)
    numbered = whole._replace(logits=torch.arange(120.0)[:, None])
    rest, some = split(numbered, 30)
    assert sorted(torch.bincount(some.y).tolist()) == [7, 7, 8, 8]
    both = torch.cat([rest.logits, some.logits])[:, 0].sort().values
    assert both.tolist() == list(range(120))
    assert len(split(whole, 1000)[1].y) == 40


def with_domains(parts: list[int]) -> Points:
    domain = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(parts))
    return Points({}, torch.empty(len(domain), 0), domain * 0, domain)


def test_domains_of_data_sets_are_told_apart_and_tiny_ones_left_out():
    found = domains_of({"ID": with_domains([10, 6]), "OOD": with_domains([3, 9])})
    assert found is not None
    assert torch.bincount(found + 1).tolist() == [3, 10, 6, 0, 9]
    assert guessing(found) == pytest.approx(1 - 10 / 25)
    many = domains_of({"ID": with_domains([1] * 25), "OOD": with_domains([9])})
    assert many is not None and torch.bincount(many).tolist() == [25, 9]
    assert domains_of({"ID": with_domains([40])}) is None


def test_the_domain_is_read_where_it_is():
    domain = torch.arange(200) % 4
    noise: Tensor = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    plain = read_domains(4 * torch.eye(5)[domain] + 0.1 * noise, domain)
    assert plain.value == 0 and plain.high is not None and plain.high < 0.1
    hidden = read_domains(noise, domain)
    assert hidden.value > 0.5
    shy = torch.where(torch.arange(200) < 100, domain, -1)
    assert read_domains(4 * torch.eye(5)[domain] + 0.1 * noise, shy).value == 0


def test_a_plane_needs_two_directions():
    data = {"ID": points(0), "OOD": points(1)}
    found = plane("late", data, tuple("abcd"), ("first",))
    assert found is not None
    assert set(found.domain) == {"first", "1"} and set(found.label) == set("abcd")
    assert len(found.x) == 240 and found.shares[0] >= found.shares[1]
    flat = data["ID"]._replace(features={"late": torch.ones(120, 3)})
    assert plane("late", {"ID": flat}, tuple("abcd"), ()) is None
