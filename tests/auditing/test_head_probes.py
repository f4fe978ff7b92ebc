"""The budget of probes: which are exact, which are in closed form, and which are not fitted."""

import pytest
import torch
import torch.nn.functional as F
from support.generators import returned
from torch import Tensor, nn

from contam.auditing.api import accuracies
from contam.auditing.audit_inputs import AuditInputs
from contam.auditing.causes.head import Head, head_evidence, head_on_id
from contam.auditing.causes.undertrained import Undertrained
from contam.auditing.head_probes import (
    CLOSED_FORM,
    PROBE,
    correct_by_other_half,
    correct_with_fresh_head,
    linear_classifier,
    probe_recipe,
    too_few_per_class,
)
from contam.auditing.passes import Budget, Passes, run_passes
from contam.auditing.records import SetScores
from contam.batch import Batch, Domain
from contam.inputs.input_set import InputSet
from contam.training.probe import Discriminant, fit_probe


def sized(*shapes: tuple[int, int]) -> list[Tensor]:
    """Features of these shapes that take no memory."""
    return [torch.zeros(1, 1).expand(*shape) for shape in shapes]


@pytest.mark.parametrize(
    ("shapes", "classes", "exact"),
    [
        pytest.param([(300, 192)], 10, True, id="a small set"),
        pytest.param([(300, 192)], 50, True, id="50 classes"),
        pytest.param([(300, 192)], 51, False, id="51 classes"),
        pytest.param([(300, 192)], 1000, False, id="ImageNet"),
        pytest.param([(300, 192)], 21_841, False, id="ImageNet-21k"),
        pytest.param([(50_000, 2048)], 10, False, id="many examples"),
        pytest.param([(1200, 100_000)], 10, True, id="more neurons than examples"),
        pytest.param([(300, 192), (50_000, 2048)], 10, False, id="one large set of two"),
        pytest.param([], 10, True, id="no set"),
    ],
)
def test_probes_are_exact_within_a_budget(shapes, classes, exact):
    recipe = probe_recipe(sized(*shapes), PROBE, classes=classes)
    assert recipe == (PROBE if exact else Discriminant())


@pytest.mark.parametrize(
    ("n", "classes", "few"),
    [
        pytest.param(12, 6, False, id="few classes may have few examples"),
        pytest.param(300, 300, True, id="one of each of 300 classes"),
        pytest.param(300, 60, False, id="five of each of 60 classes"),
        pytest.param(239, 60, True, id="a little fewer than four of each"),
        pytest.param(240, 60, False, id="four of each"),
    ],
)
def test_a_head_needs_some_examples_of_each_of_many_classes(n, classes, few):
    assert too_few_per_class(torch.arange(n) % classes) == few


def noisy(y: Tensor, seed: int = 0) -> Tensor:
    """One feature for each class, under noise."""
    draws = torch.Generator().manual_seed(seed)
    return F.one_hot(y).float() + 0.4 * torch.randn(len(y), 1 + int(y.max()), generator=draws)


def test_small_sets_have_the_probes_that_they_had():
    y = torch.arange(60) % 3
    x = noisy(y)
    probe = fit_probe(x, y, PROBE, classes=3)
    predicted = linear_classifier(x, y, probe_recipe([x], PROBE, classes=3), classes=3)(x)
    assert torch.equal(predicted, probe(x).argmax(dim=1))


def test_both_recipes_agree_on_separable_classes():
    y = torch.arange(120) % 6
    x = noisy(y)
    exact, closed = (
        float(correct_by_other_half(x, y, recipe, classes=6).double().mean())
        for recipe in (PROBE, Discriminant())
    )
    assert exact == pytest.approx(closed, abs=0.1) and closed > 0.7


def test_a_single_class_is_always_predicted():
    x, y = torch.ones(4, 3), torch.full((4,), 9)
    assert linear_classifier(x, y, Discriminant(), classes=100)(x).tolist() == [9] * 4


def results_of(classes: int, n: int, head: Tensor) -> tuple[Passes, SetScores]:
    """The passes and the ID scores of a linear network on noisy features of each class."""
    y = torch.arange(n) % classes
    network = nn.Sequential(nn.Identity(), nn.Linear(classes, classes, bias=False))
    network[1].weight = nn.Parameter(head)
    sets = [
        InputSet(s, Domain(s, Batch(noisy(y, k), y, y * 0))) for k, s in enumerate(("ID", "OOD"))
    ]
    names = tuple(map(str, range(classes)))
    inputs = AuditInputs("linear", network, names, sets[0], (sets[1],))
    passes = returned(run_passes(inputs, (), Budget(without_object=0, changed=0, control=0)))
    return passes, accuracies(passes, {})[0]


def test_a_good_network_is_not_undertrained_for_lack_of_examples():
    """One example of each of 80 classes: a fresh head can't know the classes that judge it."""
    passes, scores = results_of(80, 80, torch.eye(80))
    assert scores.overall.accuracy.value > 0.5
    assert Undertrained().on_id(passes, scores).step.answer != "yes"
    assert head_on_id(Head(), passes) is None
    (line,) = (n for n in head_evidence(passes).left_out if "fresh" in n)
    assert "80 ID examples of 80 classes are too few to fit a fresh head" in line
    assert "at least 4 of each class" in line


def test_a_bad_head_of_many_classes_is_found_in_closed_form():
    passes, _ = results_of(60, 480, torch.eye(60).roll(1, 0))
    step = head_on_id(Head(), passes)
    assert step is not None and step.answer == "yes"
    assert CLOSED_FORM in head_evidence(passes).left_out


def test_a_fresh_head_is_judged_on_other_content():
    """OOD features are copies of ID features without any information about their labels."""
    generator = torch.Generator().manual_seed(0)
    features, y = torch.randn(120, 400, generator=generator), torch.arange(120) % 3
    pairs = torch.arange(120)[:, None].expand(-1, 2)
    known, sets = (features, y), {"copy": (features, y)}
    _, leaked = correct_with_fresh_head(known, sets, classes=3)
    own, judged = correct_with_fresh_head(known, sets, classes=3, same={"copy": pairs})
    assert leaked["copy"].all()
    assert judged["copy"].equal(own)
    assert judged["copy"].double().mean() < 0.5
