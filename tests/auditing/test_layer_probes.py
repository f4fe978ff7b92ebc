"""Probes of layers on features made by hand, whose class and domain are known."""

import math

import pytest
import torch
from support.generators import result_of
from torch import Tensor

from contam.auditing.layer_probes import (
    ProbeExamples,
    domain_labels,
    majority_error,
    probe_classes,
    probe_domain,
    projection,
    split,
)

CLASSES = 4


def examples(seed: int, *, per_class: int = 30, late_is_right: bool = True) -> ProbeExamples:
    """Layer `early` is noise, `late` shows the class, and the logits follow it."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(CLASSES * per_class) % CLASSES
    shown = y if late_is_right else (y + 1) % CLASSES
    noise = torch.randn(len(y), 6, generator=draws)
    late = 5 * torch.eye(CLASSES)[shown] + 0.1 * noise[:, :CLASSES]
    return ProbeExamples({"early": noise, "late": late}, 3 * late, y, torch.arange(len(y)) % 2)


@pytest.fixture(scope="module")
def probes():
    fitted, same, shifted = examples(0), examples(1), examples(2, late_is_right=False)
    judged = {"ID": same, "OOD": shifted}
    return result_of(probe_classes(fitted, judged, classes=CLASSES, per_class=20))


def test_probes_recover_the_class_only_where_the_shift_kept_it(probes):
    assert probes.probe["late"]["ID"].value == 1
    assert probes.probe["late"]["OOD"].value == 0
    assert probes.probe["early"]["ID"].low < 1 / CLASSES < probes.probe["early"]["ID"].high


def test_predictions_are_decided_in_the_layer_that_encodes_the_class(probes):
    # Chance alone decides in noise.
    assert probes.decided["early"]["ID"] < 0.5
    assert probes.decided["late"]["ID"] == 1
    # What decides may be wrong: depth is about the network's answer.
    assert probes.decided["late"]["OOD"] == 1


def test_predictions_without_a_depth_are_not_counted_as_decided_late():
    fitted, judged = examples(0), examples(1)
    # The network confuses classes 0 and 1 on the neighbors alone, so they disagree at the output.
    swapped = torch.tensor([1, 0, *range(2, CLASSES)])
    fitted = fitted._replace(logits=fitted.logits[:, swapped])
    work = probe_classes(fitted, {"ID": judged}, classes=CLASSES, per_class=20)
    probes = result_of(work)
    assert probes.undefined["early"]["ID"] == float((judged.y < 2).double().mean())
    assert probes.decided["late"]["ID"] == 1


def test_information_is_at_most_the_entropy_of_the_class(probes):
    assert probes.information["early"]["ID"].value < 0.3
    late = probes.information["late"]
    # Each of 20 neighbors votes for the class, each other class has one vote beforehand.
    assert late["ID"].value == pytest.approx(math.log2(CLASSES * 21 / 24), abs=1e-6)
    assert late["OOD"].value == pytest.approx(math.log2(CLASSES * 1 / 24), abs=1e-6)


def test_classes_without_fitted_examples_are_not_judged():
    fitted = examples(0)
    less = fitted.pick(fitted.y > 0)
    probes = result_of(probe_classes(less, {"ID": examples(1)}, classes=CLASSES, per_class=20))
    assert probes.probe["late"]["ID"].value == 1


@pytest.mark.parametrize("keep", [lambda y: y == 0, lambda y: y < 0])
def test_fewer_than_two_classes_have_no_probes(keep):
    fitted = examples(0)
    probes = result_of(
        probe_classes(fitted.pick(keep(fitted.y)), {"ID": examples(1)}, classes=CLASSES)
    )
    assert not probes.probe
    assert len(probes.left_out) == 1


def test_a_class_with_one_example_gives_probes_but_no_decisions():
    fitted = examples(0)
    first = torch.arange(len(fitted.y))
    few = fitted.pick((fitted.y > 0) | (first == 0))
    probes = result_of(probe_classes(few, {"ID": examples(1)}, classes=CLASSES))
    assert probes.probe and not probes.decided and not probes.information
    assert any("two ID examples" in line for line in probes.left_out)


def test_halves_are_disjoint_and_complete():
    whole = examples(0)
    numbered = whole._replace(logits=torch.arange(120.0)[:, None])
    rest, some = split(numbered, 30)
    assert sorted(torch.bincount(some.y).tolist()) == [7, 7, 8, 8]
    both = torch.cat([rest.logits, some.logits])[:, 0].sort().values
    assert both.tolist() == list(range(120))
    assert len(split(whole, 1000)[1].y) == 40


def with_domains(parts: list[int]) -> ProbeExamples:
    domain = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(parts))
    return ProbeExamples({}, torch.empty(len(domain), 0), domain * 0, domain)


def test_domains_are_numbered_and_small_ones_are_left_out():
    labels = domain_labels({"ID": with_domains([10, 6]), "OOD": with_domains([3, 9])})
    assert labels is not None
    assert torch.bincount(labels + 1).tolist() == [3, 10, 6, 0, 9]
    assert majority_error(labels) == pytest.approx(1 - 10 / 25)
    many = domain_labels({"ID": with_domains([1] * 25), "OOD": with_domains([9])})
    assert many is not None and torch.bincount(many).tolist() == [25, 9]
    assert domain_labels({"ID": with_domains([40])}) is None


def test_a_domain_probe_recovers_an_encoded_domain():
    domain = torch.arange(200) % 4
    noise: Tensor = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    plain = probe_domain(4 * torch.eye(5)[domain] + 0.1 * noise, domain)
    assert plain.value == 0 and plain.high is not None and plain.high < 0.1
    hidden = probe_domain(noise, domain)
    assert hidden.value > 0.5
    shy = torch.where(torch.arange(200) < 100, domain, -1)
    assert probe_domain(4 * torch.eye(5)[domain] + 0.1 * noise, shy).value == 0


def test_a_projection_needs_two_directions():
    data = {"ID": examples(0), "OOD": examples(1)}
    plane = projection("late", data, tuple("abcd"), ("first",))
    assert plane is not None
    assert set(plane.domain) == {"first", "1"} and set(plane.label) == set("abcd")
    assert len(plane.x) == 240 and plane.shares[0] >= plane.shares[1]
    flat = data["ID"]._replace(features={"late": torch.ones(120, 3)})
    assert projection("late", {"ID": flat}, tuple("abcd"), ()) is None
