"""Effective robustness: by hand, against SciPy's regression, and its doubt against known limits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import linregress, norm, t

from contam.measures.accuracy import Accuracy
from contam.measures.robustness import (
    IMAGENET_LINES,
    Line,
    effective_robustness,
    fit_line,
    robustness_interval,
    scale,
)

AXES = ("logit", "probit")
EVEN = Line(slope=1.0, intercept=0.0, r_squared=1.0, count=2)


def models(seed: int, n: int = 30, noise: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """Models around a line on logit axes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=generator, dtype=torch.float64) + 1
    y = 1.2 * x - 2 + noise * torch.randn(n, generator=generator, dtype=torch.float64)
    return torch.sigmoid(x), torch.sigmoid(y)


def test_effective_robustness_by_hand():
    # On logit axes 1/2 is 0 and 3/4 is ln 3, so the line through both pairs is y = 2 x - ln 3.
    line = fit_line(torch.tensor([0.5, 0.75]), torch.tensor([0.25, 0.75]))
    assert line.slope == pytest.approx(2)
    assert line.intercept == pytest.approx(-np.log(3))
    assert (line.r_squared, line.count, line.dropped) == (pytest.approx(1), 2, ())
    # At ID accuracy 1/4 it expects 3^-3 to 1: one in 28.
    robustness = effective_robustness(torch.tensor([0.25]), torch.tensor([0.5]), line)
    assert robustness.item() == pytest.approx(50 - 100 / 28)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("seed", range(3))
def test_the_line_agrees_with_scipy(axis, seed):
    x, y = models(seed)
    transform = {"logit": logit, "probit": norm.ppf}[axis]
    expected: Any = linregress(transform(x.numpy()), transform(y.numpy()))
    line = fit_line(x, y, axis=axis)
    assert line.slope == pytest.approx(expected.slope)
    assert line.intercept == pytest.approx(expected.intercept)
    assert line.r_squared == pytest.approx(expected.rvalue**2)
    back = {"logit": expit, "probit": norm.cdf}[axis]
    on_line = back(expected.intercept + expected.slope * transform(x.numpy()))
    points = 100 * (y.numpy() - on_line)
    np.testing.assert_allclose(effective_robustness(x, y, line), points, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("axis", AXES)
@given(st.floats(0.2, 3), st.floats(-3, 1))
def test_a_model_on_the_line_has_zero_effective_robustness(axis, slope, intercept):
    x = torch.tensor([0.2, 0.5, 0.6, 0.9])
    on_it = Line(slope, intercept, 1.0, 4, axis)
    y = on_it.expected(x)
    line = fit_line(x, y, axis=axis)
    assert (line.slope, line.intercept) == (pytest.approx(slope), pytest.approx(intercept))
    torch.testing.assert_close(
        effective_robustness(x, y, line), torch.zeros(4).double(), rtol=0, atol=1e-6
    )


@given(st.integers(0, 1000))
def test_least_squares_residuals_are_orthogonal_to_the_line(seed):
    x, y = models(seed)
    line = fit_line(x, y)
    left = scale(y) - scale(line.expected(x))
    assert float(left.sum()) == pytest.approx(0, abs=1e-9)
    assert float((left * scale(x)).sum()) == pytest.approx(0, abs=1e-9)


def test_accuracies_of_zero_or_one_are_dropped_and_reported():
    x, y = models(0, n=6)
    alone = fit_line(x, y)
    with_odd = fit_line(
        torch.cat([torch.tensor([0.8]), x, torch.tensor([1.0])]),
        torch.cat([torch.tensor([0.0]), y, torch.tensor([0.7])]),
    )
    assert with_odd.dropped == (0, 7)
    assert (with_odd.count, with_odd.slope) == (6, pytest.approx(alone.slope, rel=1e-6))


def test_an_accuracy_of_zero_or_one_has_finite_effective_robustness():
    x, y = torch.tensor([0.5, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.2])
    assert effective_robustness(x, y, EVEN).tolist() == pytest.approx([-50, 0, 20])
    level = Line(slope=0.0, intercept=0.0, r_squared=1.0, count=2)
    assert effective_robustness(x, y, level).tolist() == pytest.approx([-50, 50, -30])


def test_the_interval_by_hand():
    # None right in 40 and all right in 40 have their inner ends where a tail of 1/40 is.
    end = (1 / 40) ** (1 / 40)
    low, high = robustness_interval(Accuracy(40, 40), Accuracy(0, 40), EVEN)
    assert low == pytest.approx(-100)
    assert high == pytest.approx(100 * (-1 + np.hypot(1 - end, 1 - end)))


@given(st.integers(1, 400), st.integers(0, 400), st.integers(0, 400), st.sampled_from([0.5, 0.99]))
def test_the_interval_contains_the_estimate_and_narrows_with_examples(n, right, ood, confidence):
    line = IMAGENET_LINES["ObjectNet"]
    first, second = min(right, n), min(ood, n)
    shares = [torch.tensor([k / n], dtype=torch.float64) for k in (first, second)]
    point = effective_robustness(shares[0], shares[1], line).item()
    low, high = robustness_interval(
        Accuracy(first, n), Accuracy(second, n), line, confidence=confidence
    )
    many = Accuracy(100 * first, 100 * n), Accuracy(100 * second, 100 * n)
    inner = robustness_interval(many[0], many[1], line, confidence=confidence)
    assert low <= inner[0] <= point + 1e-9 and point - 1e-9 <= inner[1] <= high


def test_the_interval_covers_the_true_value_at_its_confidence():
    generator = np.random.default_rng(0)
    truth = 100 * (0.6 - 0.8)
    draws = generator.binomial(200, [0.8, 0.6], size=(2000, 2))
    held = 0
    for id_right, ood_right in draws:
        low, high = robustness_interval(
            Accuracy(int(id_right), 200), Accuracy(int(ood_right), 200), EVEN, confidence=0.8
        )
        held += low <= truth <= high
    assert held / 2000 > 0.8


@pytest.mark.parametrize("models_of_line", [4, 8, 30])
def test_the_interval_covers_with_the_uncertainty_of_the_line(models_of_line):
    """Close to its level, also when few standard models determine the line."""
    generator = np.random.default_rng(models_of_line)
    truth = 100 * (0.6 - expit(1.2 * logit(0.8) - 2))
    held, known = 0, 0
    for seed in range(600):
        line = fit_line(*models(seed, n=models_of_line, noise=0.3))
        id_right, ood_right = generator.binomial(400, [0.8, 0.6]).tolist()
        for used in (line, replace(line, residual=None)):
            low, high = robustness_interval(Accuracy(id_right, 400), Accuracy(ood_right, 400), used)
            covers = low <= truth <= high
            held, known = (held + covers, known) if used is line else (held, known + covers)
    assert held / 600 >= 0.94
    assert models_of_line > 8 or known < held


def test_the_interval_of_a_line_covers_it_exactly():
    at = torch.tensor([0.55, 0.75, 0.95]).double()
    truth = torch.sigmoid(1.2 * scale(at) - 2)
    held = torch.zeros(3)
    for seed in range(1000):
        low, high = fit_line(*models(seed, n=6)).interval(at)
        held += (low <= truth) & (truth <= high)
    assert (held / 1000 - 0.95).abs().max() < 0.025


def test_the_interval_of_a_line_by_hand():
    """For three models on the logits -1, 0, 1 whose OOD logits are 0, 1, 0."""
    x, y = (torch.sigmoid(torch.tensor(v).double()) for v in ([-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]))
    line = fit_line(x, y)
    assert line.residual == pytest.approx(np.sqrt(2 / 3))
    assert (line.center, line.width) == (pytest.approx(0), pytest.approx(np.sqrt(2)))
    low, high = line.interval(torch.tensor([0.5]))
    half = t.ppf(0.975, 1) * np.sqrt(2 / 3) / np.sqrt(3)
    assert logit(float(low)) == pytest.approx(1 / 3 - half)
    assert logit(float(high)) == pytest.approx(1 / 3 + half)


@pytest.mark.parametrize("axis", AXES)
def test_percentages_are_rejected(axis):
    with pytest.raises(ValueError, match="divide percent by 100"):
        fit_line(torch.tensor([70.0, 60.0]), torch.tensor([0.3, 0.2]), axis=axis)
    with pytest.raises(ValueError, match="divide percent by 100"):
        effective_robustness(torch.tensor([0.5]), torch.tensor([50.0]), EVEN)


def test_models_that_determine_no_line_are_rejected():
    with pytest.raises(ValueError, match="1 of 3 models are strictly between"):
        fit_line(torch.tensor([0.5, 0.7, 1.0]), torch.tensor([0.3, 0.0, 0.9]))
    with pytest.raises(ValueError, match="'logit' or 'probit'"):
        scale(torch.tensor([0.5]), "log")  # pyright: ignore[reportArgumentType]
