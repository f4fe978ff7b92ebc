"""Class-profile attenuation: by hand, its properties, its noise correction and its intervals."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress
from support.noise import noise64
from torch import Tensor

from contam.measures.attenuation import (
    attenuation_across_domains,
    class_profile_attenuation,
    neuron_attenuation,
)
from contam.measures.class_means import ClassMeans

SEEDS = st.integers(0, 1000)
CLASSES, NEURONS = 5, 30


def table(means: Tensor) -> ClassMeans:
    """One example for each class, so that the class means are these."""
    return ClassMeans(*means.shape).update(means, torch.arange(len(means)))


def accumulated(values: Tensor, y: Tensor, domain: Tensor | None = None) -> ClassMeans:
    domains = 1 if domain is None else int(domain.max()) + 1
    means = ClassMeans(CLASSES, values.shape[1], parts=10, domains=domains)
    return means.update(values, y, domain=domain)


def plain(id_means: Tensor, new_means: Tensor) -> float:
    """The uncorrected attenuation of two tables of class means."""
    return class_profile_attenuation(table(id_means), table(new_means), noise_corrected=False).value


def by_neuron(id_means: Tensor, new_means: Tensor) -> Tensor:
    return neuron_attenuation(table(id_means), table(new_means), paired=True).attenuation


def sampled(seed: int, *, per_class: int, gain: float, spread: float = 1.0) -> tuple[Tensor, ...]:
    """Examples of five classes whose means are a fixed profile times a gain."""
    profile = torch.rand(CLASSES, NEURONS, generator=torch.Generator().manual_seed(99))
    y = torch.arange(CLASSES * per_class) % CLASSES
    return 10 + gain * profile[y] + spread * noise64(len(y), NEURONS, seed=seed), y


def hidden(activation, core: float, background: float) -> Tensor:
    """Class means of one neuron when the background is added to the core features."""
    return activation(torch.tensor([[core], [-core]], dtype=torch.float64) + background)


def test_attenuation_by_hand():
    id_means = torch.tensor([[3.0, 0.0], [1.0, 2.0]])  # profiles (1, -1) and (-1, 1)
    new_means = torch.tensor([[6.0, 1.0], [5.0, 1.0]])  # profiles (1/2, -1/2) and (0, 0)
    assert plain(id_means, new_means) == 0.75
    assert by_neuron(id_means, new_means).tolist() == [0.5, 1.0]


@given(SEEDS)
def test_a_background_that_adds_a_constant_attenuates_nothing(seed):
    means, added = noise64(5, 7, seed=seed), noise64(7, seed=seed + 1)
    assert plain(means, means + added) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(
        by_neuron(means, means + added), torch.zeros(7).double(), rtol=0, atol=1e-10
    )


@given(SEEDS, st.floats(-1, 2))
def test_attenuation_is_one_minus_the_gain_and_exceeds_one_for_swapped_classes(seed, gain):
    means = noise64(5, 7, seed=seed)
    attenuation = plain(means, gain * means + 3)
    assert attenuation == pytest.approx(1 - gain)
    assert (attenuation > 1) == (gain < 0) or abs(gain) < 1e-9


def test_a_shifted_background_lowers_the_response_of_a_relu_and_not_of_a_linear_neuron():
    """The theory's neuron: core +-2 by class, background 1 in and -1 out of distribution."""
    relu = plain(hidden(torch.relu, 2, 1), hidden(torch.relu, 2, -1))
    linear = plain(hidden(lambda z: z, 2, 1), hidden(lambda z: z, 2, -1))
    assert relu == pytest.approx(1 - 1 / 3)  # (3, 0) becomes (1, 0)
    assert linear == 0


@given(SEEDS)
def test_the_slope_of_a_neuron_agrees_with_scipy(seed):
    id_means, new_means = noise64(6, 4, seed=seed), noise64(6, 4, seed=seed + 1)
    attenuation = by_neuron(id_means, new_means)
    for j in range(4):
        line: Any = linregress(id_means[:, j].numpy(), new_means[:, j].numpy())
        assert attenuation[j].item() == pytest.approx(1 - line.slope)


@given(SEEDS, st.floats(0.1, 10))
def test_a_layer_is_the_mean_of_its_neurons_weighted_by_their_profiles(seed, factor):
    id_means, new_means = noise64(6, 4, seed=seed), noise64(6, 4, seed=seed + 1)
    weights = id_means.var(dim=0)
    expected = float((weights * by_neuron(id_means, new_means)).sum() / weights.sum())
    assert plain(id_means, new_means) == pytest.approx(expected)
    assert plain(factor * id_means, factor * new_means) == pytest.approx(expected)
    assert plain(id_means.flip(0), new_means.flip(0)) == pytest.approx(expected)


def test_a_neuron_without_a_profile_has_no_attenuation():
    means = torch.full((6, 2), 0.1, dtype=torch.float64)
    means[0, 0] = 1
    attenuation = by_neuron(means, means)
    assert attenuation[0].item() == pytest.approx(0, abs=1e-12) and attenuation[1].isnan()
    assert torch.tensor(plain(means[:, 1:], means[:, 1:])).isnan()


def test_attenuation_and_loss_of_each_neuron_by_hand():
    own = ClassMeans(2, 3).update(
        torch.tensor([[2.0, 0.5, 1.0]] * 2 + [[0.0, 0.5, 0.0]] * 2), torch.tensor([0, 0, 1, 1])
    )
    new = ClassMeans(2, 3).update(
        torch.tensor([[0.75, 1.25, 0.0]] * 4 + [[-0.25, 0.0, 1.0]]), torch.tensor([0] * 4 + [1])
    )
    estimate = neuron_attenuation(own, new)
    assert estimate.attenuation[[0, 2]].tolist() == pytest.approx([0.5, 2.0])
    assert estimate.attenuation[1].isnan()
    # Squared profiles are 2, 0 and 1/2; half of the first and twice the last are lost.
    assert estimate.loss[[0, 2]].tolist() == pytest.approx([1 / (2.5 / 3), 1 / (2.5 / 3)])


def test_noise_is_removed_from_the_profile_of_a_neuron_and_of_a_layer():
    # Two examples of each class, at distance 1 from their mean: the variance within classes is 2.
    values = torch.tensor([[3.0], [1.0], [1.0], [-1.0]])
    means = ClassMeans(2, 1).update(values, torch.tensor([0, 0, 1, 1]))
    # The squared profile is 2; noise adds (1 - 1/2) * (1/2 + 1/2) * 2 = 1.
    assert class_profile_attenuation(means, means, noise_corrected=False).value == 0
    assert class_profile_attenuation(means, means).value == pytest.approx(1 - 2 / 1)
    assert neuron_attenuation(means, means).attenuation.isnan()  # not more than half is signal
    wider = ClassMeans(2, 1).update(
        values * torch.tensor([[1.5], [1.5], [1], [1]]), torch.tensor([0, 0, 1, 1])
    )
    assert neuron_attenuation(wider, wider).attenuation.isfinite().all()


def test_without_noise_the_value_and_its_ends_are_exact():
    own, new = (
        sampled(0, per_class=4, gain=1, spread=0),
        sampled(1, per_class=4, gain=0.3, spread=0),
    )
    estimate = class_profile_attenuation(accumulated(*own), accumulated(*new))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.7,) * 3, abs=1e-6)


def test_noise_does_not_bias_the_value_and_intervals_cover_it():
    uncorrected, estimates = [], []
    for seed in range(60):
        own = accumulated(*sampled(2 * seed, per_class=60, gain=1))
        new = accumulated(*sampled(2 * seed + 1, per_class=60, gain=0.6))
        estimates.append(class_profile_attenuation(own, new))
        uncorrected.append(class_profile_attenuation(own, new, noise_corrected=False).value)
    values = np.array([one.value for one in estimates])
    # Four standard errors of the mean, and the bias of a quotient, which is its variance or less.
    margin = 4 * values.std() / 60**0.5 + values.var()
    assert values.mean() == pytest.approx(0.4, abs=margin)
    profile = sampled(0, per_class=1, gain=1, spread=0)[0]
    signal = float((profile - profile.mean(dim=0)).square().sum())
    noise_share = (1 - 1 / CLASSES) * CLASSES / 60 * NEURONS / signal
    expected = 1 - 0.6 / (1 + noise_share)
    assert np.mean(uncorrected) == pytest.approx(expected, abs=margin)
    assert expected - 0.4 > 2 * margin
    # 95 % of 60, less four standard errors.
    assert np.mean([one.low < 0.4 < one.high for one in estimates]) > 0.84


def test_altered_copies_share_their_noise_which_needs_no_correction():
    values, y = sampled(0, per_class=4, gain=1, spread=3.0)
    own, new = accumulated(values, y), accumulated(0.5 * values, y)
    estimate = class_profile_attenuation(own, new, paired=True)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.5,) * 3)


def test_only_classes_in_both_tables_are_compared():
    own, y = sampled(0, per_class=4, gain=1, spread=0)
    new, _ = sampled(1, per_class=4, gain=0.3, spread=0)
    rest, one = y > 0, y == 0
    less = class_profile_attenuation(accumulated(own, y), accumulated(new[rest], y[rest]))
    both = class_profile_attenuation(
        accumulated(own[rest], y[rest]), accumulated(new[rest], y[rest])
    )
    assert less.value == pytest.approx(both.value)
    single = class_profile_attenuation(accumulated(own, y), accumulated(new[one], y[one]))
    assert torch.tensor([single.value, single.low, single.high]).isnan().all()


def test_a_profile_of_noise_alone_has_no_value():
    values, y = sampled(0, per_class=3, gain=0)
    estimate = class_profile_attenuation(
        accumulated(values, y), accumulated(values.flip(0), y.flip(0))
    )
    assert torch.tensor(estimate.value).isnan()


def test_one_part_gives_a_value_without_an_interval():
    y = torch.arange(2)
    means = ClassMeans(2, 1).update(torch.tensor([[1.0], [0.0]]), y)
    estimate = class_profile_attenuation(means, means, paired=True)
    assert estimate.value == 0 and torch.tensor([estimate.low, estimate.high]).isnan().all()


@given(st.lists(st.floats(0.1, 2), min_size=2, max_size=4))
def test_across_domains_by_hand_where_domains_differ_in_gain(gains):
    values, y = sampled(0, per_class=12, gain=1, spread=0)
    domain = torch.arange(60) // (60 // len(gains) // 5 * 5)
    inside = domain < len(gains)
    values, y, domain = values[inside], y[inside], domain[inside]
    estimate = attenuation_across_domains(
        accumulated(10 + torch.tensor(gains)[domain][:, None] * (values - 10), y, domain)
    )
    others = [(sum(gains) - gain) / (len(gains) - 1) for gain in gains]
    kept = sum(g * o for g, o in zip(gains, others, strict=True)) / sum(g * g for g in gains)
    assert estimate.value == pytest.approx(1 - kept, abs=1e-5)
    assert estimate.low <= estimate.value <= estimate.high


def test_across_domains_needs_two_domains_and_is_not_biased_by_noise():
    assert torch.tensor(
        attenuation_across_domains(accumulated(*sampled(0, per_class=4, gain=1))).value
    ).isnan()
    values = np.zeros(40)
    for seed in range(40):
        activations, y = sampled(seed, per_class=60, gain=1)
        domain = torch.arange(len(y)) // 150
        values[seed] = attenuation_across_domains(accumulated(activations, y, domain)).value
    # Four standard errors, and the bias of a quotient.
    assert values.mean() == pytest.approx(0, abs=4 * values.std() / 40**0.5 + values.var())


def test_mismatched_tables_are_rejected():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(1, 2\)"):
        class_profile_attenuation(table(noise64(3, 2)), table(noise64(1, 2)))
    with pytest.raises(ValueError, match="same examples"):
        class_profile_attenuation(ClassMeans(3, 2), table(noise64(3, 2)), paired=True)
