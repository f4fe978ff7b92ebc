"""Coupling: zero where backgrounds add, the gain lost where they gate, by hand and exactly."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress
from torch import Tensor

from contam.measures.coupling import (
    _profiles,
    attenuation,
    counterfactual_attenuation,
    neuron_attenuation,
    variance_shares,
)
from contam.measures.variance import explained_share

SEEDS = st.integers(0, 1000)


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def hidden(activation, core: float, background: float) -> Tensor:
    """Means of one neuron for both classes, when the background adds to what the core gives."""
    before = torch.tensor([[core], [-core]], dtype=torch.float64) + background
    return activation(before)


def test_by_hand():
    id_means = torch.tensor([[3.0, 0.0], [1.0, 2.0]])  # profiles (1, -1) and (-1, 1)
    new_means = torch.tensor([[6.0, 1.0], [5.0, 1.0]])  # profiles (1/2, -1/2) and (0, 0)
    assert attenuation(id_means, new_means).item() == 0.75
    assert neuron_attenuation(id_means, new_means).tolist() == [0.5, 1.0]


@given(SEEDS)
def test_a_background_that_adds_a_constant_attenuates_nothing(seed):
    means, added = noise(5, 7, seed=seed), noise(7, seed=seed + 1)
    assert attenuation(means, means + added).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(
        neuron_attenuation(means, means + added), torch.zeros(7).double(), rtol=0, atol=1e-10
    )


@given(SEEDS, st.floats(-1, 2))
def test_a_background_that_changes_the_gain_attenuates_by_what_is_lost(seed, gain):
    means = noise(5, 7, seed=seed)
    assert attenuation(means, gain * means + 3).item() == pytest.approx(1 - gain)


def test_half_the_gain_is_exactly_half():
    means = torch.tensor([[4.0, 0.0], [0.0, 8.0]])
    assert attenuation(means, means / 2).item() == 0.5


def test_a_shifted_background_lowers_the_response_of_a_relu_and_not_of_a_linear_neuron():
    """The theory's neuron: core +-2 by class, background 1 in and -1 out of distribution."""
    relu = attenuation(hidden(torch.relu, 2, 1), hidden(torch.relu, 2, -1))
    linear = attenuation(hidden(lambda z: z, 2, 1), hidden(lambda z: z, 2, -1))
    assert relu.item() == pytest.approx(1 - 1 / 3)  # (3, 0) becomes (1, 0)
    assert linear.item() == 0


@given(SEEDS)
def test_a_neuron_s_slope_agrees_with_scipy(seed):
    id_means, new_means = noise(6, 4, seed=seed), noise(6, 4, seed=seed + 1)
    found = neuron_attenuation(id_means, new_means)
    for j in range(4):
        line: Any = linregress(id_means[:, j].numpy(), new_means[:, j].numpy())
        assert found[j].item() == pytest.approx(1 - line.slope)


@given(SEEDS, st.floats(0.1, 10))
def test_a_layer_is_the_mean_of_its_neurons_weighted_by_their_profiles(seed, factor):
    id_means, new_means = noise(6, 4, seed=seed), noise(6, 4, seed=seed + 1)
    weights = id_means.var(dim=0)
    expected = (weights * neuron_attenuation(id_means, new_means)).sum() / weights.sum()
    found = attenuation(id_means, new_means)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(attenuation(factor * id_means, factor * new_means), found)
    torch.testing.assert_close(attenuation(id_means.flip(0), new_means.flip(0)), found)


@given(SEEDS)
def test_counterfactual_attenuation_is_the_mean_over_the_changes(seed):
    means = noise(5, 7, seed=seed)
    altered = [means, means / 2, means + 1, noise(1, 7, seed=seed).expand(5, 7)]
    assert counterfactual_attenuation(means, altered).item() == pytest.approx(1.5 / 4)


def test_a_neuron_that_tells_no_class_has_none():
    means = torch.full((6, 2), 0.1, dtype=torch.float64)
    means[0, 0] = 1
    found = neuron_attenuation(means, means)
    assert found[0].item() == pytest.approx(0, abs=1e-12) and found[1].isnan()
    with pytest.raises(ValueError, match="nothing to lose"):
        attenuation(means[:, 1:], means[:, 1:])


def test_variance_shares_by_hand():
    # Rows are two classes of one object, columns two backgrounds: class +-2, background +-1,
    # interaction +-1/2 around zero.
    values = torch.tensor([[[3.5], [0.5]], [[-1.5], [-2.5]]])
    shares = variance_shares(values, torch.tensor([0, 1]))
    assert shares == pytest.approx((4 / 5.25, 1 / 5.25, 0.25 / 5.25, 0))


@given(SEEDS)
def test_shares_agree_with_regression_on_dummies(seed):
    values, y = noise(6, 4, 3, seed=seed), torch.tensor([0, 1, 2, 0, 1, 2])
    c = np.repeat(np.asarray(y), 4)
    b = np.tile(np.arange(4), 6)
    flat = values.reshape(24, 3).numpy()

    def explained(columns: np.ndarray) -> float:
        fitted = columns @ np.linalg.lstsq(columns, flat, rcond=None)[0]
        return float(np.square(fitted - flat.mean(0)).sum() / np.square(flat - flat.mean(0)).sum())

    by_class, by_background = np.eye(3)[c], np.eye(4)[b]
    both = np.hstack([by_class, by_background])
    cells = np.eye(12)[4 * c + b]
    shares = variance_shares(values, y)
    assert shares.of_class == pytest.approx(explained(by_class))
    assert shares.of_background == pytest.approx(explained(both) - explained(by_class))
    assert shares.of_interaction == pytest.approx(explained(cells) - explained(both))
    assert sum(shares) == pytest.approx(1)


@given(SEEDS)
def test_the_share_of_the_class_is_eta_squared(seed):
    values, y = noise(6, 4, 1, seed=seed), torch.tensor([5, 5, 9, 9, 9, 5])
    eta = explained_share(values.reshape(24, 1), y.repeat_interleave(4))
    assert variance_shares(values, y).of_class == pytest.approx(eta.item())


@pytest.mark.parametrize(("gated", "interaction"), [(False, 0), (True, 1 / 3)])
def test_interaction_is_what_a_gate_adds(gated, interaction):
    """Class and background say the same; a neuron that needs both is a third interaction."""
    core = torch.tensor([0.0, 1.0])[:, None, None]
    background = torch.tensor([0.0, 1.0])[None, :, None]
    values = core * background if gated else core + background
    found = variance_shares(values.expand(2, 2, 5), torch.tensor([0, 1]))
    assert found.of_interaction == pytest.approx(interaction)
    assert found.of_class == pytest.approx(found.of_background)


def test_noise_gives_every_part_its_degrees_of_freedom():
    values, y = noise(40, 4, 500), torch.arange(40) % 5
    found = variance_shares(values, y)
    expected = [4 / 159, 3 / 159, 12 / 159, 140 / 159]
    assert list(found) == pytest.approx(expected, rel=0.1)


def test_what_can_not_be_compared_is_refused():
    # In tests, shapes are checked before the public functions see them.
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(1, 2\)"):
        _profiles(noise(3, 2), noise(1, 2))
    with pytest.raises(ValueError, match="at least one altered background"):
        counterfactual_attenuation(noise(3, 2), [])
    with pytest.raises(ValueError, match=r"got \[2, 1\] objects on 4"):
        variance_shares(noise(3, 4, 2), torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match="no variance to split"):
        variance_shares(torch.zeros(2, 4, 2), torch.tensor([0, 1]))
