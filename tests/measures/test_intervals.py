"""Resampling intervals: those of known samples, and as wide as theory says."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from contam.measures.intervals import Estimate, bootstrap


def test_the_interval_of_a_constant_has_zero_width():
    values = torch.full((7,), 3.0)
    assert bootstrap(lambda rows: values[rows].mean(), (7,)) == Estimate(3.0, 3.0, 3.0)


def test_the_interval_of_a_mean_approaches_the_normal_interval():
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0)).double()
    estimate = bootstrap(lambda rows: values[rows].mean(), (4000,), confidence=0.9)
    mean, half = values.mean().item(), float(norm.ppf(0.95)) * values.std().item() / math.sqrt(4000)
    assert estimate.value == pytest.approx(mean)
    assert estimate.low == pytest.approx(mean - half, abs=0.1 * half)
    assert estimate.high == pytest.approx(mean + half, abs=0.1 * half)


@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))
def test_intervals_scale_with_the_unit_and_depend_only_on_the_seed(seed, scale, shift):
    values = torch.randn(30, generator=torch.Generator().manual_seed(seed)).double()

    def of(sample):
        return bootstrap(lambda rows: sample[rows].mean(), (30,), seed=seed, resamples=50)

    first, other = of(values), of(scale * values + shift)
    assert first == of(values) and first.low <= first.value <= first.high
    assert other.low == pytest.approx(scale * first.low + shift)
    assert other.high == pytest.approx(scale * first.high + shift)


def test_samples_are_resampled_independently():
    one, two = torch.randn(2, 500, generator=torch.Generator().manual_seed(1)).double()

    def width(estimate):
        return estimate.high - estimate.low

    alone = [bootstrap(lambda r, v=v: v[r].mean(), (500,)) for v in (one, two)]
    both = bootstrap(lambda r, s: one[r].mean() - two[s].mean(), (500, 500))
    assert width(both) == pytest.approx(math.hypot(*map(width, alone)), rel=0.15)


def test_resamples_without_a_value_are_left_out():
    values = torch.tensor([1.0, torch.nan, torch.nan])
    assert bootstrap(lambda rows: values[rows].nanmean(), (3,)) == Estimate(1.0, 1.0, 1.0)


def test_invalid_samples_are_rejected():
    with pytest.raises(ValueError, match="expected at least 1 resample"):
        bootstrap(lambda rows: rows.double().mean(), (3,), resamples=0)
    with pytest.raises(ValueError, match="expected at least 1 resample"):
        bootstrap(lambda rows: rows.double().mean(), (3,), confidence=1.0)
    with pytest.raises(ValueError, match="units in every sample"):
        bootstrap(lambda rows: rows.double().mean(), (0,))
