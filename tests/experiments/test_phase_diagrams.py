"""The cells of the phase diagrams, the deep networks, and what a config selects."""

import pytest
import torch

from contam.experiments.phase_diagrams.cells import cells, in_smaller_steps
from contam.experiments.phase_diagrams.config import FULL, LAPTOP, SMOKE, Config
from contam.experiments.phase_diagrams.depth import DeepNetwork
from contam.experiments.phase_diagrams.experiment import deep
from contam.measures.attenuation import class_profile_attenuation
from contam.measures.class_means import ClassMeans
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
