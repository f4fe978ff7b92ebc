"""Accuracy and its exact interval, against SciPy's own test and against its definition."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, multinomial
from sklearn.metrics import accuracy_score
from torch import nn

from contam.batch import Batch, Domain
from contam.measures.accuracy import (
    Accuracy,
    Hits,
    accuracy,
    clopper_pearson,
    mean_change,
    paired_change,
    unpaired_change,
)
from contam.rng import generator_for

COUNTS = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_accuracy_by_hand():
    hits = Hits().update(
        torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0]]), torch.tensor([0, 1, 1])
    )
    assert hits.compute() == Accuracy(correct=2, count=3)
    assert hits.compute().share == pytest.approx(2 / 3)


def test_all_wrong_and_all_correct_reach_the_ends():
    # With none right in n, (1 - high)^n = .025 by definition.
    assert clopper_pearson(0, 10) == (0.0, pytest.approx(1 - 0.025**0.1))
    assert clopper_pearson(10, 10) == (pytest.approx(0.025**0.1), 1.0)


@given(COUNTS, st.sampled_from([0.68, 0.95, 0.999]))
def test_interval_agrees_with_scipy(counts, confidence):
    correct, count = counts
    expected = binomtest(correct, count).proportion_ci(confidence, method="exact")
    assert clopper_pearson(correct, count, confidence) == pytest.approx(
        (expected.low, expected.high)
    )


@given(COUNTS)
def test_the_observed_count_has_tail_probability_at_each_end(counts):
    correct, count = counts
    low, high = Accuracy(correct, count).interval
    assert low <= correct / count <= high
    if correct > 0:
        assert binom.sf(correct - 1, count, low) == pytest.approx(0.025)
    if correct < count:
        assert binom.cdf(correct, count, high) == pytest.approx(0.025)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1), st.data())
def test_results_do_not_depend_on_batches_or_processes(pairs, data):
    predicted, y = torch.tensor(pairs).T
    logits = nn.functional.one_hot(predicted, 4).float()
    at = data.draw(st.integers(0, len(y)))
    parts = [Hits().update(logits[part], y[part]) for part in (slice(at), slice(at, None))]
    merged = parts[0].merge(parts[1]).compute()
    assert merged == Hits().update(logits, y).compute()
    assert merged.share == pytest.approx(accuracy_score(y, predicted))


def test_a_model_is_evaluated_in_evaluation_mode():
    x = torch.eye(4).repeat(5, 1)
    y = x.argmax(dim=1)
    y[:5] = 3
    domain = Domain("d", Batch(x, y, torch.zeros_like(y)))
    model = nn.Sequential(nn.Dropout(0.9), nn.Identity()).train()
    expected = Accuracy(int((x.argmax(dim=1) == y).sum()), 20)
    assert accuracy(model, domain, batch_size=3) == expected
    assert model.training


class Returning(nn.Module):
    """Returns the results of several modules."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(part(x) for part in self.parts)


X, Y = torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4)
FEATURES = nn.Linear(3, 16)
REFUSED = {
    "labels above the logits": (nn.Identity(), Y + 5, "labels 5..7 don't fit 3 logits"),
    "labels below 0": (nn.Identity(), Y - 1, "labels -1..1 don't fit 3 logits"),
    "features before the logits": (
        Returning(FEATURES, nn.Identity()), Y, "tensors of 16, 3 columns, and there are 3 classes",
    ),
    "no network": (None, Y, "the model is a NoneType; expected a torch.nn.Module"),
    "a function": (lambda x: x, Y, "the model is a function"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_labels_and_logits_that_do_not_fit_are_refused(case):
    model, y, line = REFUSED[case]
    with pytest.raises(ValueError, match=line):
        accuracy(model, (X, y), batch_size=5)


def test_logits_before_features_are_accepted():
    assert accuracy(Returning(nn.Identity(), FEATURES), (X, Y)) == Accuracy(12, 12)


def test_a_result_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Accuracy(1, 2).correct = 2  # pyright: ignore[reportAttributeAccessIssue]


def test_accuracy_without_examples_is_rejected():
    with pytest.raises(ValueError, match="at least one example"):
        Hits().compute()


@pytest.mark.parametrize("asked", [(3, 2, 0.95), (-1, 2, 0.95), (0, 0, 0.95), (1, 2, 95.0)])
def test_invalid_counts_and_confidences_are_rejected(asked):
    with pytest.raises(ValueError, match="expected 0 <= correct <= count"):
        clopper_pearson(*asked)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.7), (0.97, 0.4), (0.99, 0.99)])
def test_unpaired_intervals_hold_the_true_difference_as_often_as_they_say(shares):
    n, held = 25, 0.0
    for before in range(n + 1):
        for after in range(n + 1):
            low, high = unpaired_change(Accuracy(before, n), Accuracy(after, n))
            chance = binom.pmf(before, n, shares[0]) * binom.pmf(after, n, shares[1])
            held += chance * (low <= shares[1] - shares[0] <= high)
    assert 0.93 <= held <= 1


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.3, 0.05), (0.5, 0.02), (0.01, 0.01), (0.05, 0)])
def test_paired_intervals_hold_the_true_difference_as_often_as_they_say(shares):
    n, held = 25, 0.0
    of_counts = multinomial(n, [*shares, 1 - sum(shares)])
    for gained in range(n + 1):
        for lost in range(n + 1 - gained):
            low, high = paired_change(gained, lost, n)
            chance = float(of_counts.pmf([gained, lost, n - gained - lost]))
            held += chance * (low <= shares[0] - shares[1] <= high)
    assert 0.93 <= held <= 1


@given(COUNTS)
def test_the_mean_change_of_one_set_is_the_paired_change(counts):
    gained, n = counts
    changes = torch.tensor([1.0] * gained + [0.0] * (n - gained) + [-1.0] * 3)
    change = mean_change([changes])
    assert change.value == pytest.approx((gained - 3) / (n + 3))
    assert (change.low, change.high) == pytest.approx(paired_change(gained, 3, n + 3))


def test_unchanged_examples_have_an_interval_wider_than_0():
    for sets in ([20], [20, 20], [20, 50]):
        change = mean_change([torch.zeros(n) for n in sets])
        assert change.low < 0 == change.value < change.high
    with pytest.raises(ValueError, match=r"sets of \[3, 0\]"):
        mean_change([torch.zeros(3), torch.zeros(0)])


@pytest.mark.parametrize("rates", [(0.01, 0.01), (0.05, 0.0), (0.2, 0.05)])
@pytest.mark.parametrize(("sets", "networks", "common"), [(3, 1, 0), (1, 3, 0), (1, 3, 0.5)])
def test_mean_changes_hold_the_true_change_as_often_as_they_say(rates, sets, networks, common):
    """Over sets, and over networks that have some of the changes in common."""
    n, repetitions = 40, 400
    shape, generator = (repetitions, sets, networks, n), generator_for(0, "test/changes")
    own, kept = torch.rand(2, *shape, generator=generator)
    drawn = torch.where(kept < common, own[:, :, :1], own)
    gained, lost = drawn < rates[0], drawn > 1 - rates[1]
    held = 0
    for changes in (gained.double() - lost.double()).mean(2):
        change = mean_change(list(changes))
        held += change.low <= rates[0] - rates[1] <= change.high
    # Three standard errors below 95 %.
    assert held / repetitions > 0.95 - 3 * (0.95 * 0.05 / repetitions) ** 0.5


@given(COUNTS)
def test_intervals_of_no_change_contain_zero(counts):
    one = Accuracy(*counts)
    for low, high in (paired_change(0, 0, one.count), unpaired_change(one, one)):
        assert -1 <= low < 0 < high <= 1


@given(COUNTS, st.floats(0, 1))
def test_the_score_at_both_ends_of_a_paired_interval_is_that_of_the_level(counts, part):
    """The score by its definition, with the rates that are most likely under each end."""
    changed, n = counts
    gained = round(part * changed)
    lost = changed - gained
    low, high = paired_change(gained, lost, n)
    assert (low, high) == pytest.approx([-end for end in paired_change(lost, gained, n)[::-1]])
    for end in (low, high):
        if abs(end) < 1:
            # The most likely rate of lost examples solves 2 n q^2 + b q + c = 0.
            b, c = (2 * n - gained + lost) * end - gained - lost, -lost * end * (1 - end)
            rate = max(np.roots([2 * n, b, c]).real)
            score = (gained - lost - n * end) / (n * (2 * rate + end * (1 - end))) ** 0.5
            assert abs(score) == pytest.approx(1.959964, rel=1e-3)


def test_more_changes_than_examples_are_refused():
    with pytest.raises(ValueError, match="3 gained and 2 lost examples of 4"):
        paired_change(3, 2, 4)
