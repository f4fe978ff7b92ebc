"""Each formula of the page on the theory's predictions, against SGD or against a second derivation.

The order is that of the page. Times, learned sums and risks of whole trainings are compared in
`test_phases.py`.
"""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from support.two_layer_sgd import FITS, LONG, end_of, fit_of, setting, trained

from contam.rng import bit_generator_for, generator_for
from contam.theory.features import FeatureModel
from contam.theory.intervention import Intervention, projection
from contam.theory.phases import Flow, law_at_convergence, law_of_slope, predict_phases
from contam.theory.population import predict_contamination
from contam.theory.trajectory import simulate

MEAN, DEVIATION = 0.5, 12**-0.5
"""Of uniform weights."""


def with_dimension(chosen, dimension):
    """A setting with the same features in more dimensions."""
    features = chosen.data.features
    wider = FeatureModel(features.core, features.background, dimension)
    return replace(chosen, data=replace(chosen.data, features=wider))


def ratio(slope):
    """The q of the page."""
    return (1 - slope) / (1 + slope)


@pytest.mark.parametrize("slope", [0.0, 0.4])
def test_the_flow_is_the_mean_gradient_of_a_neuron(slope):
    """Growth of core and background sums, from 20 000 examples for each of 100 neurons."""
    core, background, dimension = 160, 96, 1024
    data = with_dimension(setting(core, background), dimension).data
    draws = generator_for(0, "flow")
    u = torch.randn(100, core + background, generator=draws) / math.sqrt(dimension)
    u[:, :core] += 1.5 * torch.rand(100, 1, generator=draws) / core
    u[:, core:] += (2 * torch.rand(100, 1, generator=draws) - 1) / background
    sample = data.sample(20_000, bit_generator_for(0, "flow"))
    active = (sample.f @ u.T > 0).float()
    pull = (slope + (1 - slope) * active).T @ (sample.f * sample.y[:, None]) / len(sample.y)
    unit = DEVIATION * math.sqrt((core + background) / dimension)
    x, w = (MEAN / unit * part.sum(dim=1) for part in (u[:, :core], u[:, core:]))
    own, other = (slope + (1 - slope) * torch.special.ndtr(z) for z in (w + x, w - x))
    for part, formula in (
        (pull[:, :core], MEAN * core * (own + other) / 2),
        (pull[:, core:], MEAN * background * (own - other) / 2),
    ):
        error = (part.sum(dim=1) - formula).square().mean().sqrt()
        assert float(error / formula.square().mean().sqrt()) < 0.05


def test_the_flow_starts_from_the_initial_weights():
    """Variances of x and w, from drawn networks: both are those of the flow's nodes."""
    flow = Flow.of(setting(core=48, background=16), 1.0)
    x, w = flow.start()
    u = torch.randn(50_000, 64, generator=generator_for(0, "start")) / 16
    scale = MEAN / (DEVIATION * math.sqrt(64 / 256))
    for nodes, part, expected in ((x[0], u[:, :48], 48), (w[0], u[:, 48:], 16)):
        variance = float(nodes.square() @ flow.weights)
        assert variance == pytest.approx((MEAN / DEVIATION) ** 2 * expected / 64, rel=1e-9)
        assert variance == pytest.approx(float((scale * part.sum(dim=1)).var()), rel=0.03)


def test_takeoff_and_fit_scale_with_the_number_of_features():
    """At one d0 / d, both times are proportional to 1 / d0, as m / (step_size sqrt(d d0)) is."""
    few, many = (
        predict_phases(setting(size, size, weight_decay=0.0, step_size=0.5)) for size in (32, 64)
    )
    assert few.takeoff is not None and many.takeoff is not None
    assert few.takeoff == pytest.approx(2 * many.takeoff, rel=1e-6)
    assert few.fit is not None and many.fit is not None
    # Fewer features make the gate less sharp, which is no part of this law.
    assert few.fit.step == pytest.approx(2 * many.fit.step, rel=0.02)


GROWTH = {(0.0, 40, 24): 0.02, (0.3, 40, 24): 0.02, (0.5, 32, 32): 0.02, (0.7, 16, 48): 0.02}
"""Slope, core and background features, with the relative error that is allowed."""


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow if c[0] else ()) for c in GROWTH], ids=str
)
def test_background_of_one_class_neurons_grows_at_the_ratio_of_the_page(case):
    """SGD between takeoff and fit, where initial weights are small: dV / dU = q d_b / d_c."""
    slope, core, background = case
    chosen = with_dimension(setting(core, background, slope=slope, batch_size=500), 2**14)
    phases = predict_phases(chosen)
    assert phases.fit is not None
    steps = [round(share * phases.fit.step) for share in (0.35, 0.75)]
    first, last = (trained(state) for state in simulate(chosen, 0, steps))
    growth = (last["V"] - first["V"]) / (last["U"] - first["U"])
    assert growth == pytest.approx(ratio(slope) * background / core, rel=GROWTH[case])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slope", "allowed"), [(0.0, 0.06), (0.25, 0.06), (0.65, 0.02), (0.8, 0.02)]
)
def test_contamination_is_saturated_up_to_the_critical_slope(slope, allowed):
    """The population model on 1024 core and 3072 background features, whose kink is at 0.5."""
    chosen = setting(1024, 3072, slope=slope, width=4096, step_size=0.5)
    chosen = with_dimension(chosen, 2**22)
    final = predict_contamination(chosen, neurons=128, nodes=4, report_at=[]).final
    fit, law = predict_phases(chosen).fit, law_of_slope(1024, 3072, slope)
    assert fit is not None
    assert fit.contamination == pytest.approx(law, abs=0.03)
    assert pytest.approx(law, abs=allowed) == final.V / final.U


@cache
def fitted(case):
    return fit_of(FITS[case], seed=1)


@pytest.mark.parametrize("case", FITS)
def test_the_risk_at_the_fit_follows_from_the_learned_sums(case):
    """SGD's own U and V: the risk is 2 R / (1 + R) with R = q V / U."""
    chosen, fit = FITS[case], fitted(case)
    R = ratio(chosen.slope if chosen.activation == "leaky_relu" else 0.0) * fit["V"] / fit["U"]
    assert fit["ood_hinge"] == pytest.approx(2 * R / (1 + R), abs=0.04)


def pressure(chosen, U, V):
    """The kappa of the page: the pressure of the hinge loss against variance."""
    slope, features = chosen.slope, chosen.data.features
    M = MEAN * ((1 + slope) * U + (1 - slope) * V) / 2
    squares = ((1 + slope) * U) ** 2 / features.core + ((1 - slope) * V) ** 2 / features.background
    S = DEVIATION * math.sqrt(squares) / 2
    density = math.exp(-(((1 - M) / S) ** 2) / 2) / math.sqrt(2 * math.pi)
    return DEVIATION**2 * density / (4 * S)


@pytest.mark.parametrize(
    "decay", [1e-3, *(pytest.param(d, marks=pytest.mark.slow) for d in (1e-5, 1e-2, 3e-2))]
)
def test_leaky_networks_converge_to_the_ratio_of_the_page(decay):
    """The numerical minimum of the risk, without Gaussian outputs, from weak to strong decay."""
    chosen = setting(slope=0.5, weight_decay=decay)
    limit = predict_phases(chosen).limit
    kappa = pressure(chosen, limit.U, limit.V)
    law = law_at_convergence(32, 32, 0.5, decay * chosen.width, kappa)
    assert limit.contamination == pytest.approx(law, rel=0.05)
    # Decay alone would give q, and the pressure alone 1 / q.
    assert 1 / 3 - 1e-4 <= law < 0.55


@pytest.mark.slow
@pytest.mark.parametrize(("slope", "decay"), [(0.5, 1e-2), (0.5, 3e-2), (0.2, 1e-2)])
def test_leaky_sgd_converges_to_the_ratio_of_the_page(slope, decay):
    chosen = LONG(slope=slope, weight_decay=decay)
    end = end_of(chosen, seed=1)
    law = law_at_convergence(
        32, 32, slope, decay * chosen.width, pressure(chosen, end["U"], end["V"])
    )
    assert end["V"] / end["U"] == pytest.approx(law, rel=0.03)


def test_without_a_slope_or_without_variance_the_ratio_is_known():
    assert law_at_convergence(16, 32, 0.0, decay=0.3, pressure=0.7) == pytest.approx(2)
    assert law_at_convergence(32, 32, 0.5, decay=1.0, pressure=0.0) == pytest.approx(1 / 3)
    assert law_at_convergence(32, 32, 0.5, decay=0.0, pressure=1.0) == pytest.approx(3)


@pytest.mark.parametrize(
    ("correlation", "core", "background"), [(0.25, 32, 32), (0.5, 32, 32), (0.5, 40, 24)]
)
def test_use_of_a_correlation_first_grows_at_the_ratio_of_the_page(correlation, core, background):
    """SGD's first 8 steps: delta d_b / d_c of the core, with delta half of the correlation.

    Half of the difference of opposite correlations, since the few signs of the head add a part that
    does not depend on the correlation.
    """
    differences = []
    for seed in range(3):
        growth = []
        for sign in (1, -1):
            chosen = setting(core, background, correlation=sign * correlation, batch_size=500)
            first, last = (trained(state) for state in simulate(chosen, seed, (0, 8)))
            growth.append((last["spurious"] - first["spurious"]) / (last["U"] - first["U"]))
        differences.append((growth[0] - growth[1]) / 2)
    expected = correlation / 2 * background / core
    assert sum(differences) / 3 == pytest.approx(expected, rel=0.12)


def test_the_flow_needs_a_gate_for_each_class(monkeypatch):
    """One gate for both classes overestimates the use of a correlation at the fit."""
    chosen = FITS["correlated"]
    usual, trained = predict_phases(chosen).fit, fitted("correlated")
    gate = Flow.gate
    monkeypatch.setattr(Flow, "gate", lambda *a: gate(*a).mean(0, keepdim=True).expand(2, 1))
    common = predict_phases(chosen).fit
    assert usual is not None and common is not None
    assert usual.spurious == pytest.approx(trained["spurious"], abs=0.08)
    assert common.spurious > 2 * trained["spurious"] + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [8, 16])
def test_pairs_leave_their_share_of_the_background(pairs):
    """The mean over draws of pairs, their spread, and V / U at convergence."""
    change = Intervention(project="pairs", directions=pairs)
    shares = []
    for seed in range(60):
        P = projection(change, setting().data, seed, torch.float64)
        assert P is not None
        shares.append(float(P[32:, 32:].sum()) / 32)
    mean, deviation = torch.tensor(shares).mean(), torch.tensor(shares).std()
    assert float(mean) == pytest.approx(1 - pairs / 32, abs=4 * float(deviation) / 60**0.5)
    assert float(deviation) <= 1.25 / math.sqrt(2 * 32)
    limit = predict_phases(setting(weight_decay=1e-2), learnable=1 - pairs / 32).limit
    assert limit.contamination == pytest.approx((32 - pairs) / 32, abs=0.04)
