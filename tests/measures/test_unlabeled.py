"""Estimates of the accuracy without labels, against brute force and on simulated networks."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from contam.measures.unlabeled import (
    average_thresholded_confidence,
    difference_of_confidences,
    log_odds,
    sample_to_label,
)


def calibrated(n: int, low: float, high: float, seed: int) -> tuple[Tensor, Tensor]:
    """Confidences of a calibrated network, and which of its predictions are correct."""
    draws = torch.Generator().manual_seed(seed)
    confidence = low + (high - low) * torch.rand(n, generator=draws, dtype=torch.float64)
    return confidence, torch.rand(n, generator=draws, dtype=torch.float64) < confidence


def test_the_sigmoid_of_the_log_odds_is_the_largest_softmax_probability():
    logits = torch.randn(50, 7, dtype=torch.float64)
    confidence = (logits / 2.5).softmax(dim=1).amax(dim=1)
    torch.testing.assert_close(log_odds(logits, 2.5).sigmoid(), confidence)


def test_log_odds_order_examples_whose_confidences_round_to_one():
    logits = torch.tensor([[0.0, 60.0, 1.0], [0.0, 80.0, 1.0]])
    assert logits.softmax(1).amax(1).unique().numel() == 1
    first, second = log_odds(logits).tolist()
    assert first < second


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6))
def test_the_threshold_leaves_as_many_labeled_examples_below_as_there_are_errors(n, m, seed):
    draws = torch.Generator().manual_seed(seed)
    score, new = torch.rand(n, generator=draws), torch.rand(m, generator=draws)
    correct = torch.rand(n, generator=draws) < 0.6
    errors = int((~correct).sum())
    # Brute force: every score is tried as the threshold, and one above all of them.
    candidates = [*score.tolist(), 2.0]
    fitting = [t for t in candidates if int((score < t).sum()) == errors]
    expected = (new >= min(fitting)).double().mean() if errors < n else torch.tensor(0.0)
    assert average_thresholded_confidence(score, correct, new).item() == float(expected)
    own = average_thresholded_confidence(score, correct, score).item()
    assert own == pytest.approx(correct.double().mean().item())


def test_an_increasing_function_of_the_scores_changes_nothing():
    score, correct = calibrated(300, 0.2, 1.0, 0)
    new, _ = calibrated(200, 0.1, 0.9, 1)
    plain = average_thresholded_confidence(score, correct, new)
    assert average_thresholded_confidence(score.logit(), correct, new.logit()) == plain


def test_both_are_right_on_calibrated_networks_under_a_shift_of_the_confidence():
    score, correct = calibrated(20_000, 0.5, 1.0, 0)
    new, truth = calibrated(20_000, 0.5, 1.0, 1)
    hard = new < 0.85  # a shift to harder examples, on which the network stays calibrated
    true = truth[hard].double().mean().item()
    difference = difference_of_confidences(score, correct, new[hard]).item()
    assert difference == pytest.approx(true, abs=0.02)
    # A threshold takes confidence for certainty, so it is right only without a shift here.
    assert average_thresholded_confidence(score, correct, new).item() == pytest.approx(
        truth.double().mean().item(), abs=0.02
    )


def test_thresholded_confidence_is_exact_where_correctness_is_a_step_in_the_confidence():
    draws = torch.Generator().manual_seed(0)
    score, new = (torch.rand(5000, generator=draws) ** power for power in (1, 3))
    estimate = average_thresholded_confidence(score, score > 0.3, new).item()
    assert estimate == pytest.approx((new > 0.3).double().mean().item(), abs=1e-3)


def test_both_are_wrong_where_a_network_is_confident_and_wrong():
    score, correct = calibrated(5000, 0.5, 1.0, 0)
    new = torch.full((100,), 0.99, dtype=torch.float64)  # none of them is correct
    assert average_thresholded_confidence(score, correct, new) == 1.0
    assert difference_of_confidences(score, correct, new).item() > 0.95


@pytest.mark.parametrize("method", [average_thresholded_confidence, difference_of_confidences])
def test_missing_numbers_are_rejected(method):
    right = torch.tensor([True])
    for known, new in (([0.5], []), ([], [0.5]), ([float("nan")], [0.5])):
        with pytest.raises(ValueError, match="expected numbers"):
            method(torch.tensor(known), right[: len(known)], torch.tensor(new))


def test_difference_of_confidences_stays_an_accuracy():
    right = torch.tensor([True, True, False, False])
    assert difference_of_confidences(torch.full((4,), 0.9), right, torch.tensor([0.1])) == 0
    assert difference_of_confidences(torch.full((4,), 0.1), right, torch.tensor([0.9])) == 1


def test_every_example_is_drawn_equally_often():
    predicted = torch.tensor([0] * 13 + [1] * 5 + [2] * 2)
    times = torch.zeros(20)
    for seed in range(1000):
        times[sample_to_label(predicted, 7, seed=seed)] += 1
    # Each with probability 0.35; five standard deviations of a binomial share.
    assert (times / 1000 - 0.35).abs().max() < 5 * (0.35 * 0.65 / 1000) ** 0.5


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 60))
def test_each_predicted_class_has_its_share_of_the_sample(predicted, count):
    classes = torch.tensor(predicted)
    drawn = sample_to_label(classes, count)
    assert len(drawn) == len(drawn.unique()) == min(count, len(classes))
    whole, some = (x.bincount(minlength=5) for x in (classes, classes[drawn]))
    assert ((some - whole * len(drawn) / len(classes)).abs() < 2).all()


def test_the_first_drawn_examples_are_a_random_sample_too():
    predicted = torch.arange(10) // 5
    firsts = [sample_to_label(predicted, 4, seed=seed)[0].item() for seed in range(600)]
    assert set(firsts) == set(range(10))
    counts = [len(list(group)) for _, group in itertools.groupby(sorted(firsts))]
    assert max(abs(count - 60) for count in counts) < 5 * (600 * 0.1 * 0.9) ** 0.5
