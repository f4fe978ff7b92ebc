"""Between-class variance, and variance shares against regression on dummy variables."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.noise import noise64

from contam.measures.class_means import ClassMeans
from contam.measures.variance import between_class_variance, variance_shares


@given(st.integers(0, 1000))
def test_between_class_variance_is_the_mean_squared_distance_from_the_center(seed):
    values, group = noise64(80, 3, seed=seed), torch.arange(80) % 4
    means = ClassMeans(4, 3).update(values, group).compute()
    by_numpy = np.stack([np.asarray(values)[np.asarray(group) == c].mean(0) for c in range(4)])
    np.testing.assert_allclose(between_class_variance(means), by_numpy.var(axis=0))
    torch.testing.assert_close(between_class_variance(3 * means), 9 * between_class_variance(means))
    # The sum over neurons does not depend on the basis of the feature space.
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    torch.testing.assert_close(
        between_class_variance(means @ rotation).sum(), between_class_variance(means).sum()
    )


def test_variance_shares_by_hand():
    # Rows are two classes of one object, columns two backgrounds: class +-2, background +-1,
    # interaction +-1/2 around zero.
    values = torch.tensor([[[3.5], [0.5]], [[-1.5], [-2.5]]])
    shares = variance_shares(values, torch.tensor([0, 1]))
    assert shares == pytest.approx((4 / 5.25, 1 / 5.25, 0.25 / 5.25, 0))


@given(st.integers(0, 1000))
def test_shares_agree_with_regression_on_dummies(seed):
    values, y = noise64(6, 4, 3, seed=seed), torch.tensor([0, 1, 2, 0, 1, 2])
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


@pytest.mark.parametrize(("gated", "interaction"), [(False, 0), (True, 1 / 3)])
def test_interaction_is_what_a_gate_adds(gated, interaction):
    """Class and background say the same; a neuron that needs both is a third interaction."""
    core = torch.tensor([0.0, 1.0])[:, None, None]
    background = torch.tensor([0.0, 1.0])[None, :, None]
    values = core * background if gated else core + background
    shares = variance_shares(values.expand(2, 2, 5), torch.tensor([0, 1]))
    assert shares.of_interaction == pytest.approx(interaction)
    assert shares.of_class == pytest.approx(shares.of_background)


def test_noise_gives_every_part_its_degrees_of_freedom():
    values, y = noise64(40, 4, 500), torch.arange(40) % 5
    shares = variance_shares(values, y)
    expected = [4 / 159, 3 / 159, 12 / 159, 140 / 159]
    assert list(shares) == pytest.approx(expected, rel=0.1)


def test_data_without_variance_to_split_are_rejected():
    with pytest.raises(ValueError, match=r"got \[2, 1\] objects on 4"):
        variance_shares(noise64(3, 4, 2), torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match="no variance to split"):
        variance_shares(torch.zeros(2, 4, 2), torch.tensor([0, 1]))
