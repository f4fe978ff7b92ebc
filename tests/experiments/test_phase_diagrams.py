"""The cells of the phase diagrams, the deep networks, and what a config selects."""

import pytest
import torch

from contam.experiment import NotJudged
from contam.experiments.phase_diagrams.cells import SHIFTED, WEIGHTS, cells, in_smaller_steps
from contam.experiments.phase_diagrams.claims import (
    critical_slopes,
    errors_of_critical_slopes,
    fall_of_critical_slopes,
    prediction_errors,
    relu_over_time,
    spread_over_time,
    times,
)
from contam.experiments.phase_diagrams.config import FULL, LAPTOP, SMOKE, Config, null
from contam.experiments.phase_diagrams.depth import DeepNetwork
from contam.experiments.phase_diagrams.experiment import EXPERIMENT, deep
from contam.experiments.phase_diagrams.results import PhaseResults
from contam.experiments.phase_diagrams.two_layer import predicted_at_fit, trained_to_fit
from contam.measures.attenuation import class_profile_attenuation
from contam.measures.class_means import ClassMeans
from contam.run import Run
from contam.theory.coverage import uncovered
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.network import hidden_gradient
from contam.theory.setting import Setting

SMALL = DataModel(FeatureModel(4, 4, 16))


@pytest.mark.parametrize("config", [FULL, LAPTOP, SMOKE], ids=["full", "laptop", "smoke"])
def test_every_cell_has_a_part_of_its_own_and_a_stable_step(config):
    made = list(cells(config))
    assert len({cell.part for cell in made}) == len(made)
    for cell in made:
        stable = cell.setting.stable_step
        assert stable is None or cell.setting.step_size <= stable


def test_only_selects_diagrams():
    config = SMOKE.model_copy(update={"only": ("batch",)})
    assert {cell.diagram for cell in cells(config)} == {"batch"}
    assert not list(deep(config))
    assert list(deep(SMOKE.model_copy(update={"only": ("depth",)})))


def test_a_setting_that_a_diagram_sets_is_rejected():
    with pytest.raises(ValueError, match="depth of the setting must keep the default"):
        Config(setting=Setting(depth=2))


@pytest.mark.parametrize("curvature", [0.5, 3.0, 40.0])
def test_smaller_steps_take_the_same_time(curvature):
    setting = Setting(step_size=4.0, steps=50)
    smaller = in_smaller_steps(setting, curvature)
    assert smaller.step_size * smaller.steps == pytest.approx(setting.step_size * setting.steps)
    assert smaller.step_size * curvature <= (setting.stable_step or 0) * (1 + 1e-12)


@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_exchanging_the_labels_reverses_the_correlation_and_keeps_the_background_gradient(
    activation,
):
    """With the core and the head reversed, too, every step is the same step.

    Initial weights are symmetric, so the correlations rho and -rho contaminate alike.
    """
    draws = torch.Generator().manual_seed(0)
    W, a = torch.randn(6, 8, generator=draws), torch.randn(6, generator=draws)
    f, y = torch.randn(50, 8, generator=draws), torch.randint(0, 2, (50,), generator=draws) * 2 - 1
    mirror = torch.tensor([-1.0] * 4 + [1.0] * 4)
    gradient = hidden_gradient(W, a, f, y, activation)
    mirrored = hidden_gradient(W * mirror, -a, f * mirror, -y, activation)
    torch.testing.assert_close(mirrored, gradient * mirror)


def paired_attenuation(kind):
    """Attenuation of the last layer when every background appears once with each label."""
    draws = torch.Generator().manual_seed(1)
    core, background = (torch.rand(100, 4, generator=draws) for _ in range(2))
    y = torch.arange(200) // 100
    signs = (2 * y - 1)[:, None]
    own = torch.cat([signs * core.repeat(2, 1), background.repeat(2, 1)], dim=1)
    shifted = torch.cat([own[:, :4], -background.repeat(2, 1)], dim=1)
    network = DeepNetwork(SMALL, depth=3, width=32, kind=kind, seed=0)
    with torch.no_grad():
        means = [ClassMeans(2, 32).update(network.layers(f)[-1], y) for f in (own, shifted)]
    return class_profile_attenuation(*means, paired=True).value


def test_a_linear_network_keeps_its_class_profile_under_any_shift_of_the_background():
    assert paired_attenuation("linear") == pytest.approx(0.0, abs=1e-4)
    assert paired_attenuation("plain") > 0.1


def test_a_residual_layer_adds_to_its_input():
    first, second = DeepNetwork(SMALL, depth=2, width=8, kind="residual", seed=0).layers(
        torch.rand(20, 8)
    )
    assert (second >= first).all()
    assert (second > first).any()


COVERED = {"slope", "batch", "decay", "correlation", "coherence", "width", "share", "weights"}


def test_the_population_model_covers_every_cell_that_it_is_drawn_for():
    for config in (FULL, LAPTOP, SMOKE):
        for cell in cells(config):
            if cell.diagram in COVERED | {"critical"}:
                assert uncovered(cell.setting) is None, cell.part


def test_shifted_weights_are_the_weights_with_the_opposite_sign():
    assert WEIGHTS.keys() == SHIFTED.keys()
    p = (torch.arange(98).double().numpy() + 0.5) / 98
    for name, weights in WEIGHTS.items():
        # None of these is the jump of a two-point distribution.
        assert -SHIFTED[name].quantile(1 - p) == pytest.approx(weights.quantile(p), abs=1e-9)
        assert 0 <= weights.low < weights.high <= 1


def test_weights_keep_the_strength_of_the_penalty():
    """Decay over the squared mean weight, and decay times training time, are the same in all."""
    for cell in cells(LAPTOP.model_copy(update={"only": ("weights",)})):
        setting, mean = cell.setting, cell.setting.data.means[0]
        assert float(setting.weight_decay / mean**2) == pytest.approx(4e-3)
        time = setting.step_size * setting.steps * setting.weight_decay
        assert time == pytest.approx(0.2, rel=1e-6)


def test_a_network_is_measured_where_its_mean_margin_is_one():
    config = SMOKE.model_copy(update={"only": ("critical",)})
    cell = next(c for c in cells(config) if c.x == 0.3 and c.series == 0.5)
    row, (formula,) = trained_to_fit(cell, seed=0, examples=2000), predicted_at_fit(cell)
    assert row["margin"] == pytest.approx(1.0, abs=1e-9)
    assert 0 < row["time"] < cell.setting.steps * cell.setting.time_per_step
    assert row["ood_risk"] == pytest.approx(formula["ood_risk"], abs=0.1)


def test_a_network_that_never_fits_is_measured_when_training_ends():
    config = null(SMOKE).model_copy(update={"only": ("critical",)})
    row = trained_to_fit(next(cells(config)), seed=0, examples=200)
    assert row["remaining"] == pytest.approx(1.0, abs=0.1) and row["margin"] < 0.1
    assert row["time"] == pytest.approx(4 * SMOKE.setting.steps * config.setting.step_size)


def made_up(root, *, shares=(0.25, 0.5), off=0.0, remaining=0.1) -> PhaseResults:
    """Risks that fall linearly with the slope, and with the training time."""
    config = SMOKE.model_copy(
        update={"only": ("slope", "critical"), "critical_shares": shares, "seeds": 2}
    )
    with Run.start(root, EXPERIMENT.name, config) as run:
        for cell in cells(config):
            rows = []
            for time in (50.0, 100.0) if cell.diagram == "slope" else (60.0,):
                slope = float(cell.x)
                if cell.diagram == "slope":
                    risk = max(0.0, 0.8 - time / 50 * slope)
                else:
                    risk = max(0.0, 1.1 - 2 * float(cell.series) * slope - float(cell.series))
                row = {"x": slope, "series": cell.series, "time": time, "contamination": 0.5}
                rows += [
                    row | {"kind": "trained", "seed": seed, "gap": risk, "ood_risk": risk,
                           "remaining": remaining}
                    for seed in range(config.seeds)
                ]  # fmt: skip
                rows.append(row | {"kind": "predicted", "gap": risk + off, "ood_risk": risk + off})
            run.write(cell.part, rows)
        run.finish()
    return PhaseResults(run)


def test_critical_slopes_are_interpolated_and_compared_with_the_formula(tmp_path):
    results = made_up(tmp_path / "a")
    # 1.1 - share - 2 share slope = 1/2 at a slope of 0.7 (beyond the last one) and 0.1.
    assert critical_slopes(results, 0.5) == ([pytest.approx(0.1)] * 2, pytest.approx(0.1))
    results = made_up(tmp_path / "b", shares=(0.3, 0.5), off=0.03)
    # The formula's risk is higher by 0.03, and falls by 0.6 and by 1 for each unit of the slope.
    assert errors_of_critical_slopes(results) == pytest.approx([0.05, 0.05])
    assert fall_of_critical_slopes(results) == pytest.approx([0.4, 0.4])
    assert prediction_errors("gap")(results) == pytest.approx([0.03])
    with pytest.raises(NotJudged, match="did not learn"):
        critical_slopes(made_up(tmp_path / "c", remaining=0.9), 0.5)


def test_the_slope_that_halves_the_risk_is_compared_over_time(tmp_path):
    results = made_up(tmp_path / "a")
    assert times(results, 0.1) == [50.0, 100.0]
    # Between the slopes 0, 0.3 and 1 the risk is 0.4 at 0.44 first, and at 0.2 later.
    assert spread_over_time(results) == pytest.approx([0.24, 0.24])
    assert relu_over_time(results) == pytest.approx([0.0, 0.0])
    with pytest.raises(NotJudged, match="fewer than two"):
        spread_over_time(made_up(tmp_path / "b", remaining=0.2))


def test_figures_draw_predictions_beside_heat_maps_and_over_time(tmp_path):
    slope, critical = EXPERIMENT.draw(made_up(tmp_path, shares=(0.3, 0.5), off=0.03).run)
    assert "off by at most 0 in V / U and 0.03 in the risk" in slope.caption
    over_time = {row["what"] for row in slope.rows if "over time" in row["of"]}
    assert over_time == {"0", "0, predicted", "0.3", "0.3, predicted", "1", "1, predicted"}
    assert [panel.title for panel in critical.panels] == [
        "OOD risk at the fit", "OOD risk at the fit, predicted", "Critical slope",
    ]  # fmt: skip


def test_the_standard_cell_is_the_same_in_every_diagram():
    standard = [
        cell.setting
        for cell in cells(LAPTOP)
        if (cell.diagram, cell.x, cell.series)
        in {("batch", 256, "ReLU"), ("decay", 1e-3, "ReLU"), ("correlation", 0.0, "ReLU"),
            ("share", 0.5, "ReLU"), ("weights", "uniform", "ReLU"), ("activation", "ReLU", "hinge")}
    ]  # fmt: skip
    assert len(standard) == 6
    assert set(standard) == {LAPTOP.setting}
