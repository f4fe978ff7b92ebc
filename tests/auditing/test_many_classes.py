"""Audits of networks with hundreds to thousands of classes, of which few occur in the data."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import contam
from contam.auditing import passes
from contam.auditing.result import Audit

WIDTH = 24


def audit_of(classes: int, present: int, per_class: int = 6, *, first: int = 0) -> Audit:
    """The audit of a linear network on examples around the center of their class.

    The centers are single neurons, in which the OOD examples are shifted.
    """
    draws = torch.Generator().manual_seed(0)
    y = first + torch.arange(present * per_class) % present
    centers = 3 * F.one_hot(y % WIDTH, WIDTH) + F.one_hot((y // WIDTH) % WIDTH, WIDTH)
    x = centers + 0.1 * torch.rand(len(y), WIDTH, generator=draws)
    network = nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, classes))
    return contam.audit(
        network, id=(x, y), ood=(0.5 * x, y), reference=None, untrained=False, progress=False,
        classes=[f"class {k}" for k in range(classes)],
    )  # fmt: skip


@pytest.fixture(scope="module")
def imagenet() -> Audit:
    return audit_of(1000, 60, first=500)


def test_neurons_prefer_classes_by_their_own_name(imagenet):
    table = imagenet.evidence.neurons
    assert table is not None
    for neuron, favorite in zip(table.index, table.favorite, strict=True):
        k = int(favorite.removeprefix("class "))
        assert 500 <= k < 560 and neuron in (k % WIDTH, (k // WIDTH) % WIDTH)


def test_halved_activations_are_half_attenuated_with_many_classes(imagenet):
    (layer,) = imagenet.evidence.layers
    assert layer.attenuation["OOD"].value == pytest.approx(0.5, abs=0.02)
    assert layer.probe["ID"].value > 0.9
    assert layer.information
    # The head is drawn at random, so no prediction agrees with the last probe.
    assert layer.undefined["ID"] > 0.95


def test_the_closed_form_is_noted_once(imagenet):
    assert sum("closed form" in line for line in imagenet.evidence.left_out) == 1


def test_rates_by_class_are_recorded_up_to_100_classes(imagenet):
    assert all(not layer.class_rates for layer in imagenet.evidence.layers)
    (layer,) = audit_of(100, 30).evidence.layers
    assert {len(rates) for rates in layer.class_rates.values()} == {100}


def test_scores_are_of_the_classes_that_occur(imagenet):
    for scores in imagenet.evidence.sets:
        assert list(scores.by_class) == [f"class {k}" for k in range(500, 560)]


def test_tables_of_too_many_classes_hold_the_most_frequent(monkeypatch):
    monkeypatch.setattr(passes, "MOST_CLASS_MEANS", 10 * WIDTH)
    record = audit_of(200, 60).evidence
    (note,) = (line for line in record.left_out if "Class means" in line)
    assert note.startswith("Class means are of 10 of the 60 classes that occur")
    assert record.neurons is not None
    assert set(record.neurons.favorite) <= {f"class {k}" for k in range(10)}


@pytest.mark.slow
def test_most_logits_may_have_no_examples():
    record = audit_of(21_841, 4, per_class=20, first=20_000).evidence
    assert record.sets[0].overall.count == 80
    assert record.neurons is not None
    assert set(record.neurons.favorite) <= {f"class {20_000 + k}" for k in range(4)}
    (layer,) = record.layers
    assert layer.information["ID"].value > 1


@pytest.mark.parametrize(
    ("first", "shared"),
    [(0, 120), (60, 60), (119, 1), (120, 0)],
    ids=["all shared", "half shared", "one shared", "none shared"],
)
def test_sets_may_hold_different_classes(first, shared):
    y = torch.arange(240) % 120
    x = F.one_hot(y % WIDTH, WIDTH) + 0.1 * torch.rand(240, WIDTH)
    network = nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, 250))
    record = contam.audit(
        network, id=(x, y), ood=(x, y + first), reference=None, progress=False, seed=0
    ).evidence
    assert [len(scores.by_class) for scores in record.sets] == [120, 120]
    (layer,) = record.layers
    assert ("OOD" in layer.probe) == (shared > 0)
    assert not any("incomplete" in line for line in record.left_out)


def test_accuracy_needs_no_table_of_pairs_of_classes():
    """A million classes squared would take terabytes."""
    logits = torch.zeros(2, 1_000_000)
    logits[0, 999_999] = logits[1, 7] = 1.0
    score = contam.accuracy(nn.Identity(), (logits, torch.tensor([999_999, 8])))
    assert (score.correct, score.count) == (1, 2)


def test_features_of_many_classes_have_a_head_in_closed_form():
    y = torch.arange(480) % 120
    x = F.one_hot(y % WIDTH, WIDTH) + 0.7 * F.one_hot(y // WIDTH, WIDTH).roll(3, 1)
    x = x + 0.05 * torch.rand(480, WIDTH, generator=torch.Generator().manual_seed(0))
    record = contam.audit(
        None, id=(x, y), ood=(x, y), classes=[str(k) for k in range(1000)], progress=False
    ).evidence
    assert record.sets[0].overall.accuracy.value > 0.9
    assert record.sets[1].overall.accuracy.value > 0.9
