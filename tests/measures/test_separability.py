"""Domains in a plane and as an error, on features whose separability is known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from support.noise import noise
from torch import Tensor

from contam.measures.separability import domain_error, held_out, principal_plane
from contam.training.probe import WIDE


def two_clouds(distance: float, n: int = 4000) -> tuple[Tensor, Tensor]:
    """Round clouds whose centers lie this many standard deviations apart."""
    domain = torch.arange(n) % 2
    features = noise(n, 5)
    features[:, 2] += distance * domain
    return features, domain


def test_a_plane_by_hand():
    features = torch.tensor([[3.0, 0.0, 7.0], [-3.0, 0.0, 7.0], [0.0, 1.0, 7.0], [0.0, -1.0, 7.0]])
    points, shares = principal_plane(features)
    assert points.abs().tolist() == pytest.approx(np.array([[3, 0], [3, 0], [0, 1], [0, 1]]))
    assert shares == pytest.approx((0.9, 0.1))


@given(st.integers(0, 1000))
def test_the_plane_agrees_with_the_singular_value_decomposition(seed):
    features = noise(20, 6, seed=seed) * torch.tensor([5.0, 3.0, 1.0, 0.5, 0.2, 0.1])
    points, shares = principal_plane(features)
    left, values, _ = torch.linalg.svd(features.double() - features.double().mean(dim=0))
    expected = left[:, :2] * values[:2]
    torch.testing.assert_close(points.abs(), expected.abs(), rtol=1e-6, atol=1e-8)
    energy = values.square() / values.square().sum()
    assert shares == pytest.approx((energy[0].item(), energy[1].item()))


def test_the_plane_is_deterministic_and_translation_invariant():
    features = noise(600, 80)
    first, again = principal_plane(features), principal_plane(features)
    assert torch.equal(first.points, again.points)
    torch.testing.assert_close(
        principal_plane(features + 3).points, first.points, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("distance", [1.0, 2.0, 3.0])
def test_the_error_between_two_clouds_is_the_normal_tail(distance):
    features, domain = two_clouds(distance)
    error = domain_error(features, domain, held_out(domain, share=0.5))
    assert error == pytest.approx(norm.cdf(-distance / 2), abs=0.025)


def test_distant_domains_have_zero_error_and_equal_ones_chance_error():
    domain = torch.arange(1200) % 4
    features = noise(1200, 6)
    assert domain_error(features, domain, held_out(domain)) == pytest.approx(0.75, abs=0.08)
    features[:, :4] += 20 * torch.nn.functional.one_hot(domain, 4)
    assert domain_error(features, domain, held_out(domain)) == 0


def test_domains_with_a_nonlinear_boundary_are_not_linearly_separable():
    domain = torch.arange(2000) % 2
    features = torch.nn.functional.normalize(noise(2000, 2)) * (1 + 2 * domain[:, None])
    assert domain_error(features, domain, held_out(domain)) > 0.35


def test_results_do_not_depend_on_names_units_or_held_out_labels():
    features, domain = two_clouds(1.0, n=400)
    test = held_out(domain)
    error = domain_error(features, domain, test)
    # A penalty on weights in the features' own units would forbid the large ones needed here.
    assert domain_error(features * 1e-4 - 7, domain, test) == pytest.approx(error, abs=0.02)
    assert domain_error(features, 5 - 3 * domain, test) == pytest.approx(error)
    swapped = torch.where(test, 1 - domain, domain)
    assert domain_error(features, swapped, test) == pytest.approx(1 - error)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=5), st.floats(0.05, 0.95))
def test_every_domain_is_split_in_proportion(sizes, share):
    domain = torch.cat([torch.full((n,), 3 * d) for d, n in enumerate(sizes)])
    mask = held_out(domain, share=share, seed=1)
    for d, n in enumerate(sizes):
        count = int(mask[domain == 3 * d].sum())
        assert 1 <= count < n and abs(count - share * n) <= 1
    assert torch.equal(mask, held_out(domain, share=share, seed=1))


def test_other_seeds_hold_out_other_examples():
    domain = torch.arange(100) % 2
    assert not torch.equal(held_out(domain, seed=0), held_out(domain, seed=1))


def test_invalid_arguments_are_rejected():
    features, domain = two_clouds(1.0, n=10)
    with pytest.raises(ValueError, match="two domains to fit"):
        domain_error(features, domain, domain == 1)
    with pytest.raises(ValueError, match="expected test examples"):
        domain_error(features, domain, domain == 2)
    with pytest.raises(ValueError, match="domain 7 has one example"):
        held_out(torch.tensor([0, 0, 7]))
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\)"):
        held_out(domain, share=1.0)
    with pytest.raises(ValueError, match="3 examples of 2 neurons"):
        principal_plane(noise(5, 1))
    with pytest.raises(ValueError, match="no principal components"):
        principal_plane(torch.ones(5, 3))


@pytest.mark.parametrize(
    ("examples", "neurons"), [(40, 1025), (60, 20_000)], ids=["just wide", "a wide layer"]
)
def test_the_plane_of_many_neurons_is_the_plane_of_their_products(examples, neurons):
    features = noise(examples, neurons) + 3 * noise(examples, 2, seed=1) @ noise(2, neurons, seed=2)
    points, shares = principal_plane(features)
    centered = features.double() - features.double().mean(dim=0)
    values, vectors = torch.linalg.eigh(centered @ centered.T)
    expected = (vectors * values.clamp(min=0).sqrt()).flip(1)[:, :2]
    torch.testing.assert_close(points.abs(), expected.abs(), rtol=1e-6, atol=1e-6)
    assert shares == pytest.approx((values.flip(0)[:2] / values.sum()).tolist())


def test_the_plane_of_many_neurons_has_the_signs_of_few():
    few = noise(40, 30) * torch.linspace(3, 1, 30)
    # Constant neurons make the layer wide, but change neither directions nor signs.
    many = torch.cat([few, torch.ones(40, 2000)], dim=1)
    for values, expected in zip(principal_plane(many), principal_plane(few), strict=True):
        torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-6)


def test_examples_of_a_wide_layer_on_a_line_have_a_flat_plane():
    line = torch.arange(10.0)[:, None] * noise(1, 3000)
    points, shares = principal_plane(line)
    assert points.shape == (10, 2) and shares == pytest.approx((1, 0))
    assert points[:, 1].abs().max() == pytest.approx(0, abs=1e-6)


def test_the_error_on_many_neurons_is_that_without_the_constant_ones():
    domain = torch.arange(120) % 3
    few = noise(120, 90) + 0.6 * torch.nn.functional.one_hot(domain, 90)
    test = held_out(domain, share=0.5)
    # Constant neurons carry no information, but make the layer wide.
    many = torch.cat([few, torch.ones(120, 120 * WIDE)], dim=1)
    assert 0 < domain_error(few, domain, test) == domain_error(many, domain, test)
