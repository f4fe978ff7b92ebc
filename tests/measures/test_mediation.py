"""Mediation: exact on data of a known path, and against another way to compute it."""

import math

import numpy as np
import pytest
import torch

from contam.measures.mediation import mediation

GENERATOR = torch.Generator().manual_seed(0)
DOSE = torch.tensor([0.0, 1.0, 2.0, 3.0]).repeat(6)
CLUSTER = torch.arange(6).repeat_interleave(4)


def noise() -> torch.Tensor:
    return torch.randn(24, generator=GENERATOR).double()


def test_the_path_of_exact_data_is_recovered():
    """The outcome is 2 dose + 3 mediator; the dose moves the mediator by 4 on average."""
    wiggle = torch.tensor([1.0, -1.0, -1.0, 1.0]).repeat(6)  # Orthogonal to the dose.
    mediator = 4 * DOSE + wiggle
    outcome = 2 * DOSE + 3 * mediator + 10.0 * CLUSTER
    result = mediation(DOSE, mediator, outcome, groups=CLUSTER, clusters=CLUSTER)
    for name, value in {"total": 14, "direct": 2, "indirect": 12, "share": 12 / 14}.items():
        estimate = getattr(result, name)
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value,) * 3)


def test_a_mediator_without_effect_mediates_nothing():
    mediator = DOSE + noise()
    result = mediation(DOSE, mediator, 2 * DOSE, groups=CLUSTER, clusters=CLUSTER)
    assert result.share.value == pytest.approx(0, abs=1e-12)
    assert result.direct.value == pytest.approx(2)


def test_no_effect_has_no_share():
    zero = torch.zeros_like(DOSE)
    result = mediation(DOSE, noise(), zero, groups=CLUSTER, clusters=CLUSTER, resamples=10)
    assert result.total.value == result.indirect.value == 0 and math.isnan(result.share.value)


def test_the_indirect_effect_is_the_product_of_both_paths():
    """The identity of linear regression, with a covariate and with an intercept per group."""
    given = noise()
    mediator = 0.7 * DOSE + given + noise()
    outcome = 0.3 * DOSE + mediator - given + noise() + CLUSTER
    result = mediation(
        DOSE, mediator, outcome, groups=CLUSTER, clusters=CLUSTER, given=given, resamples=50
    )
    intercepts = torch.nn.functional.one_hot(CLUSTER).double().numpy()

    def coefficients(y: torch.Tensor, *x: torch.Tensor) -> np.ndarray:
        columns = np.column_stack([*(column.double().numpy() for column in x), intercepts])
        return np.linalg.lstsq(columns, y.double().numpy())[0]

    (to_mediator, *_), (direct, from_mediator, *_) = (
        coefficients(mediator, DOSE, given), coefficients(outcome, DOSE, mediator, given)
    )  # fmt: skip
    assert result.indirect.value == pytest.approx(to_mediator * from_mediator)
    assert result.direct.value == pytest.approx(direct)
    assert result.total.value == pytest.approx(result.direct.value + result.indirect.value)
    assert result.indirect.low < result.indirect.value < result.indirect.high


def test_intervals_cover_the_true_effect_about_as_often_as_they_say():
    """With 20 clusters; 95 % would be exact for many."""
    covered = 0
    dose, clusters = DOSE[:4].repeat(20).double(), torch.arange(20).repeat_interleave(4)
    for trial in range(60):
        draws = torch.Generator().manual_seed(trial)
        mediator = dose + torch.randn(80, generator=draws).double()
        outcome = 0.5 * mediator + torch.randn(80, generator=draws).double()
        result = mediation(
            dose, mediator, outcome, groups=clusters, clusters=clusters, resamples=100, seed=trial
        )
        covered += result.indirect.low <= 0.5 <= result.indirect.high
    assert 48 <= covered <= 60


def test_data_without_an_estimate_are_rejected():
    one = torch.zeros_like(CLUSTER)
    with pytest.raises(ValueError, match="one cluster"):
        mediation(DOSE, noise(), noise(), groups=one, clusters=one)
    with pytest.raises(ValueError, match="can't be separated"):
        mediation(DOSE, 2 * DOSE, noise(), groups=CLUSTER, clusters=CLUSTER)
    with pytest.raises(ValueError, match="not finite"):
        mediation(DOSE, DOSE * math.nan, noise(), groups=CLUSTER, clusters=CLUSTER)
    with pytest.raises(ValueError, match="confidence"):
        mediation(DOSE, noise(), noise(), groups=CLUSTER, clusters=CLUSTER, confidence=95)
