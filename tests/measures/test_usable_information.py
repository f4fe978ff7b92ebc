"""Usable information: bits by hand, the known limits, and scikit-learn's readers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from support.noise import noise
from torch import Tensor, nn

from contam.measures.layerwise import Layer
from contam.measures.usable_information import (
    neighbor_probability,
    pointwise_information,
    usable_information,
)
from contam.training.probe import FullBatch


def clouds(n: int, distance: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two round clouds with centers this far apart, and which one each point is from."""
    y = torch.arange(n) % 2
    x = noise(n, 3, seed=seed)
    x[:, 0] += distance * (y - 0.5)
    return x, y


def layer(distance: float, fit: int = 600, score: int = 400) -> tuple[Layer, Tensor, Tensor]:
    (support, fitted), (queries, scored) = clouds(fit, distance), clouds(score, distance, seed=1)
    return Layer("clouds", support, queries), fitted, scored


def test_bits_by_hand():
    said = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.125, 0.5, 0.375]]).log()
    prior = torch.tensor([0.25, 0.5, 0.25])
    bits = pointwise_information(said, torch.tensor([0, 1, 0]), prior)
    assert bits.tolist() == pytest.approx([1, -1, -1])


@given(st.integers(0, 1000), st.integers(2, 6))
def test_information_is_zero_for_the_prior_and_at_most_the_entropy(seed, classes):
    prior = torch.rand(classes, generator=torch.Generator().manual_seed(seed)).double() + 0.05
    prior /= prior.sum()
    y = torch.arange(20) % classes
    null = pointwise_information(prior.log().expand(20, classes), y, prior)
    torch.testing.assert_close(null, torch.zeros(20).double(), atol=1e-12, rtol=0)
    any_reader = noise(20, classes, seed=seed).log_softmax(dim=1)
    assert torch.all(pointwise_information(any_reader, y, prior) <= -prior[y].log2() + 1e-9)


def test_votes_by_hand():
    shares = neighbor_probability(torch.tensor([[3, 0, 1]]), smoothing=1.0)
    assert shares.tolist() == [[4 / 7, 1 / 7, 2 / 7]]
    with pytest.raises(ValueError, match="smoothing must be positive"):
        neighbor_probability(torch.tensor([[3, 0]]), smoothing=0.0)


def test_neighbors_agree_with_scikit_learn():
    data, fitted, scored = layer(1.5)
    information = usable_information([data], fitted, scored, k=15, smoothing=0.5)
    reader = KNeighborsClassifier(15, algorithm="brute")
    reader.fit(data.support.numpy(), fitted.numpy())
    shares = reader.predict_proba(data.queries.numpy())
    said = (15 * np.asarray(shares) + 0.5) / 16
    expected = 1 - log_loss(scored.numpy(), said) / math.log(2)
    assert information.of(0).value == pytest.approx(expected, abs=1e-9)
    assert information.right[0] == pytest.approx(reader.score(data.queries.numpy(), scored.numpy()))


def test_linear_probes_agree_with_scikit_learn():
    data, fitted, scored = layer(1.5)
    recipe = FullBatch(penalties=(1e-2,), standardize=False)
    information = usable_information([data], fitted, scored, family="linear", recipe=recipe)
    # A softmax of two rows shares a difference of weights between both, at half the penalty.
    reader = LogisticRegression(C=2 / (600 * 1e-2), max_iter=10_000, tol=1e-8)
    reader.fit(data.support.numpy(), fitted.numpy())
    said = reader.predict_proba(data.queries.numpy())
    expected = 1 - log_loss(scored.numpy(), said) / math.log(2)
    assert information.of("clouds").value == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", ["neighbors", "linear"])
def test_information_of_gaussian_clouds_is_their_mutual_information(family):
    """Of two Gaussian clouds, the mutual information is an integral; readers come near it."""
    data, fitted, scored = layer(2.0, fit=4000, score=4000)
    information = usable_information([data], fitted, scored, family=family, k=60).of(0)
    t = np.linspace(-12, 12, 4001)
    density = np.exp(-((t - 1) ** 2) / 2) / math.sqrt(2 * math.pi)
    surprise = np.log2(1 + np.exp(-2 * t))  # of the class, at a point t along the axis
    mutual = 1 - float((density * surprise).sum() * (t[1] - t[0]))
    assert information.low - 0.02 < mutual < information.high + 0.03
    assert information.high - information.low < 0.06


@pytest.mark.parametrize("family", ["neighbors", "linear"])
def test_limits_of_usable_information(family):
    far, fitted, scored = layer(40.0)
    one = usable_information([far], fitted, scored, family=family)
    assert one.entropy == 1 and one.right.tolist() == [1]
    assert one.of(0).value > 0.9
    none, fitted, scored = layer(0.0)
    zero = usable_information([none], fitted, scored, family=family).of(0)
    assert -0.1 < zero.value < 0.02 and zero.low < 0.01


def test_a_nonlinear_boundary_is_usable_by_neighbors_but_not_by_linear_probes():
    y = torch.arange(1000) % 2
    x = nn.functional.normalize(noise(1000, 2)) * (1 + 2 * y[:, None])
    ring = Layer("ring", x[:600], x[600:])
    near = usable_information([ring], y[:600], y[600:]).of(0)
    straight = usable_information([ring], y[:600], y[600:], family="linear").of(0)
    assert near.low > 0.8 and straight.high < 0.05


def test_misleading_features_have_negative_information():
    data, fitted, scored = layer(4.0)
    information = usable_information([data], fitted, 1 - scored)
    assert information.of(0).high < -1 and information.right[0] < 0.1


def test_results_do_not_depend_on_class_order_and_layers_form_columns():
    (plain, fitted, scored), (easy, *_) = layer(1.0), layer(3.0)
    both = [plain, Layer("easy", easy.support, easy.queries)]
    information = usable_information(iter(both), fitted, scored)
    turned = usable_information(both, 4 - 3 * fitted, 4 - 3 * scored, smoothing=1.0)
    assert information.probes == ("clouds", "easy")
    assert information.of("easy").low > information.of("clouds").high
    # Five classes share the smoothing among more, and lose a little.
    assert 0 < information.of(0).value - turned.of(0).value < 0.15
    assert torch.equal(information.right, turned.right)


def test_invalid_arguments_are_rejected():
    data, fitted, scored = layer(1.0)
    with pytest.raises(ValueError, match="split them"):
        usable_information([Layer("a", data.support, data.support)], fitted, fitted)
    with pytest.raises(ValueError, match=r"classes \[2\] are scored"):
        usable_information([data], fitted, scored + 1)
    with pytest.raises(ValueError, match="'neighbors' or 'linear'"):
        usable_information([data], fitted, scored, family="tree")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at least one layer"):
        usable_information([], fitted, scored)
    information = usable_information([data], fitted, scored)
    for probe in ("cloud", 1, -1):
        with pytest.raises(ValueError, match=r"choose from \['clouds'\]"):
            information.of(probe)
