"""Takeoff, fit and convergence against SGD on fresh examples, and against limits known by hand."""

import math
from dataclasses import replace

import pytest
import torch
from support.two_layer_sgd import FITS, LONG, end_of, fit_of, setting, trained

from contam.theory.intervention import Intervention, projection
from contam.theory.phases import critical_slope, law_of_slope, predict_phases
from contam.theory.trajectory import simulate

LIMITS = {
    "standard": LONG(),
    "slope": LONG(slope=0.5),
    "more core": LONG(core=48, background=16),
    "more background": LONG(core=24, background=40),
    "correlated": LONG(correlation=0.5),
    "more decay": LONG(weight_decay=3e-2),
}


@pytest.mark.parametrize("case", FITS)
def test_phases_predict_sgd_at_the_fit(case):
    """With 64 features, learned sums are off by up to 6 % and steps by up to 9 %."""
    predicted, simulated = predict_phases(FITS[case]).fit, fit_of(FITS[case], seed=0)
    assert predicted is not None
    assert predicted.step == pytest.approx(simulated["step"], rel=0.12)
    for name in ("U", "V"):
        assert getattr(predicted, name) == pytest.approx(simulated[name], rel=0.06), name
    assert predicted.spurious == pytest.approx(simulated["spurious"], abs=0.08)
    assert predicted.ood_hinge == pytest.approx(simulated["ood_hinge"], abs=0.04)


@pytest.mark.parametrize(
    "case",
    LIMITS,
)
@pytest.mark.slow
def test_phases_predict_where_sgd_converges(case):
    predicted, simulated = predict_phases(LIMITS[case]).limit, end_of(LIMITS[case], seed=0)
    for name in ("U", "V"):
        assert getattr(predicted, name) == pytest.approx(simulated[name], rel=0.03), name
    assert predicted.spurious == pytest.approx(simulated["spurious"], abs=0.08)
    assert predicted.ood_hinge == pytest.approx(simulated["ood_hinge"], abs=0.02)


@pytest.mark.parametrize(("core", "background"), [(32, 32), (40, 24)])
def test_the_limit_of_one_class_neurons_is_the_ratio_of_feature_numbers(core, background):
    """For ReLU without overlap of the classes V / U is background / core, at any weight decay."""
    wide = 64  # times as many features: pre-activations hardly vary around their means
    for decay in (1e-4, 1e-3):
        limit = predict_phases(
            setting(wide * core, wide * background, width=wide * 256, weight_decay=decay / wide)
        ).limit
        law = law_of_slope(core, background, 0.0)
        assert limit.contamination == pytest.approx(law, abs=0.05)
        assert limit.contamination < law + 1e-3


def test_linear_networks_have_no_contamination_in_any_phase():
    phases = predict_phases(replace(setting(), activation="identity"))
    assert phases.takeoff is None and phases.fit is not None
    assert pytest.approx(0, abs=1e-9) == phases.fit.V
    assert pytest.approx(0, abs=0.01) == phases.limit.V
    assert phases.fit.ood_hinge == pytest.approx(0, abs=1e-9)


def test_the_law_of_the_slope_has_its_kink_at_the_critical_slope():
    kink = (48 - 16) / (48 + 16)
    assert law_of_slope(16, 48, kink) == law_of_slope(16, 48, kink / 2) == 1
    assert law_of_slope(16, 48, kink + 0.1) < 1
    assert law_of_slope(48, 16, 0.0) == 1 / 3
    assert law_of_slope(48, 16, 1.0) == 0


def test_fit_and_takeoff_scale_as_the_theorems_say():
    """T0 falls with sqrt(d), T1 does not; both are proportional to m / step_size."""
    usual, wide, slow = (
        predict_phases(chosen)
        for chosen in (
            setting(weight_decay=0.0),
            setting(weight_decay=0.0, width=512),
            setting(weight_decay=0.0, step_size=0.5),
        )
    )
    assert usual.takeoff is not None and usual.fit is not None
    assert math.isinf(usual.limit.step)
    for other in (wide, slow):
        assert other.takeoff == pytest.approx(2 * usual.takeoff)
        assert other.fit is not None and other.fit.step == pytest.approx(2 * usual.fit.step)
    features = replace(setting().data.features, dimension=16 * 256)
    far = predict_phases(
        replace(setting(weight_decay=0.0), data=replace(setting().data, features=features))
    )
    assert far.takeoff == pytest.approx(usual.takeoff / 4)
    assert far.fit is not None and usual.fit.step / 2 < far.fit.step < usual.fit.step


def test_background_takes_off_when_it_grows_at_half_of_its_final_rate():
    """Growth of V over growth of U in SGD, around the predicted step."""
    takeoff = predict_phases(setting()).takeoff
    assert takeoff is not None
    report_at = round(takeoff) - 6, round(takeoff) + 6
    rates = []
    for seed in range(3):
        start, end = (trained(s) for s in simulate(setting(), seed, (0, *report_at)) if s.step)
        rates.append((end["V"] - start["V"]) / (end["U"] - start["U"]))
    assert sum(rates) / len(rates) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("pairs", [16, 31])
def test_pairs_reduce_the_background_that_can_be_learned(pairs):
    """The share that this draw of pairs leaves, and SGD with gradients orthogonal to them."""
    change, seed = Intervention(project="pairs", directions=pairs), 0
    chosen = setting(intervention=change)
    P = projection(change, chosen.data, seed, torch.float64)
    assert P is not None
    share = float(P[32:, 32:].sum()) / 32
    predicted, simulated = predict_phases(setting(), learnable=share).fit, fit_of(chosen, seed)
    assert predicted is not None
    assert pytest.approx(simulated["U"], rel=0.06) == predicted.U
    assert pytest.approx(simulated["V"], abs=0.1) == predicted.V
    assert predicted.ood_hinge == pytest.approx(simulated["ood_hinge"], abs=0.06)


def test_the_critical_slope_halves_the_risk():
    slope = critical_slope(setting(), risk=0.5)
    assert slope == pytest.approx(0.22, abs=0.01)  # at which SGD is compared above
    fit = predict_phases(setting(slope=slope)).fit
    assert fit is not None and fit.ood_hinge == pytest.approx(0.5, abs=0.02)
    # The law of large numbers of features gives R = q^2 = 1 / 3, and a takeoff later than 0 less.
    q = (1 - slope) / (1 + slope)
    assert 1 / 3 < q**2 < 1 / 2
    assert critical_slope(setting(core=60, background=4), risk=0.5) == 0


@pytest.mark.slow
def test_summaries_name_the_phases():
    text = predict_phases(setting()).summary()
    assert "take off after 13" in text and "time constant of 1,000 steps" in text
    assert "never fitted" in predict_phases(setting(weight_decay=0.2)).summary()
    assert "never gets there" in predict_phases(setting(weight_decay=0.0)).summary()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: predict_phases(setting(loss="logistic")), "loss must be 'hinge'"),
        (lambda: predict_phases(setting(), learnable=1.5), "learnable must lie between"),
        (lambda: critical_slope(setting(), risk=1.0), "risk must lie between"),
        pytest.param(
            lambda: critical_slope(setting(weight_decay=0.2)), "never fits", marks=pytest.mark.slow
        ),
    ],
)
def test_what_is_not_covered_is_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_share_that_pairs_leave_follows_from_the_setting():
    chosen = setting(intervention=Intervention(project="pairs", directions=24))
    assert predict_phases(chosen) == predict_phases(setting(), learnable=0.25)
    for none in (Intervention(project="core"), Intervention(project="pairs", directions=40)):
        phases = predict_phases(setting(intervention=none))
        assert phases == predict_phases(setting(), learnable=0.0)
        assert phases.takeoff is None and phases.limit.V == 0
    with pytest.raises(ValueError, match="project=mean is not modeled"):
        predict_phases(setting(intervention=Intervention(project="mean")))


def test_phases_cover_a_million_features():
    """The fit depends on d0 / d alone; at convergence V / U tends to background / core."""
    many = predict_phases(setting(500_000, 500_000, width=10**6))
    usual = predict_phases(setting())
    assert many.fit is not None and usual.fit is not None
    assert many.fit.contamination == pytest.approx(usual.fit.contamination, abs=0.01)
    assert usual.limit.contamination < many.limit.contamination < 1.01
