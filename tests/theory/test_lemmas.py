"""The lemmas on gradients, initialization and activation, on networks drawn as the lemmas say.

The standard weights here are uniform on [0, 1]; two-point weights where exact values are wanted.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from contam.rng import generator_for
from contam.theory.bounds import (
    activation_probability,
    gradient_gap,
    initial_correlation_tail,
    initial_output,
    initial_set_size,
    largest_initial_correlation,
)

CORE, FEATURES, DIMENSION, WIDTH = 32, 64, 256, 256


def initial(draws: torch.Generator, *, width=WIDTH, features=FEATURES, dimension=DIMENSION):
    """Feature coordinates and output weights of a network at initialization."""
    u = torch.randn(width, features, generator=draws) / math.sqrt(dimension)
    return u, (torch.randint(2, (width,), generator=draws) * 2.0 - 1) / width


def examples(draws: torch.Generator, count: int, *, features=FEATURES, core=CORE):
    """Inputs in feature coordinates, and their labels."""
    y = torch.randint(2, (count,), generator=draws) * 2.0 - 1
    f = torch.rand(count, features, generator=draws)
    f[:, :core] *= y[:, None]
    return f, y


def half_trained(draws: torch.Generator, *, width=WIDTH, features=FEATURES, core=CORE):
    """A network as Theorem 4.2 describes it: core by the neuron's sign, background up."""
    u, a = initial(draws, width=width, features=features, dimension=4 * features)
    u[:, :core] += a.sign()[:, None] * 1.2 / core
    u[:, core:] += 0.9 / (features - core)
    return u, a


def gradients(u, a, f, y, activation):
    """Mean gradient of the hinge loss in the hidden weights."""
    preactivations = f @ u.T
    slopes = (preactivations >= 0).float() if activation == "relu" else torch.ones(len(f), len(u))
    pushes = y * (y * ((preactivations * slopes) @ a) <= 1)
    return -a[:, None] * ((slopes * pushes[:, None]).T @ f) / len(f)


@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_lemma_a2_and_c2_batch_gradients_converge_at_rate_one_over_root_n(activation):
    draws = generator_for(0, f"gradient gap {activation}")
    u, a = half_trained(draws)
    parts = [gradients(u, a, *examples(draws, 20_000), activation) for _ in range(20)]
    population = torch.stack(parts).mean(dim=0)
    sizes, gaps = [32, 128, 512, 2048], []
    for size in sizes:
        batches = [gradients(u, a, *examples(draws, size), activation) for _ in range(20)]
        distances = torch.stack([(batch - population).norm(dim=1) for batch in batches])
        gaps.append(float(distances.mean()))
        bound = gradient_gap(FEATURES, WIDTH, size, failure=0.01)
        assert float(distances.max()) <= bound < 12 * float(distances.max())
    slope = np.polyfit(np.log(sizes), np.log(gaps), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.03)


@pytest.mark.parametrize("y", [1, -1])
@pytest.mark.parametrize("level", [0.5, 1.0, 1.5])
def test_lemma_a6_probability_of_a_given_correlation_at_initialization(level, y):
    draws = generator_for(0, f"correlations {level} {y}")
    mean = torch.rand(FEATURES, generator=draws) / 2 + 0.25
    u, _ = initial(draws, width=100_000)
    signed = torch.cat([y * mean[:CORE], mean[CORE:]])
    frequency = float((u @ signed >= level * math.sqrt(FEATURES / DIMENSION)).float().mean())
    lower, upper = initial_correlation_tail(level, mean)
    noise = 4 * math.sqrt(upper / 100_000)
    assert lower - noise <= frequency <= upper + noise
    assert upper < 5 * lower


@pytest.mark.parametrize("width", [256, 4096])
def test_lemma_a7_each_set_starts_with_a_constant_share_of_neurons(width):
    mean, level, failure, networks = torch.full((FEATURES,), 0.5), 0.25, 0.1, 200
    promised = initial_set_size(width, level, mean, failure=failure)
    sizes = []
    for network in range(networks):
        u, a = initial(generator_for(network, f"sets {width}"), width=width)
        correlation = -(u[:, :CORE] @ mean[:CORE]) + u[:, CORE:] @ mean[CORE:]
        chosen = (correlation >= level * math.sqrt(FEATURES / DIMENSION)) & (a < 0)
        sizes.append(int(chosen.sum()))
    assert np.mean(np.array(sizes) < promised) <= failure
    assert np.mean(sizes) / width == pytest.approx(stats.norm.sf(0.5) / 2, abs=0.01)
    assert promised > 0.5 * np.mean(sizes)


def test_lemma_a8_no_neuron_starts_with_a_large_correlation():
    mean, failure = torch.full((FEATURES,), 0.5), 0.2
    level = largest_initial_correlation(WIDTH, DIMENSION, mean, failure=failure)
    largest = []
    for network in range(300):
        u, _ = initial(generator_for(network, "largest"))
        core, background = u[:, :CORE] @ mean[:CORE], u[:, CORE:] @ mean[CORE:]
        largest.append(float(torch.stack([background + core, background - core]).abs().max()))
    assert np.mean(np.array(largest) > level) <= failure
    assert level < 1.3 * np.mean(largest)


def test_lemma_a9_the_output_starts_small():
    failure = 0.2
    x, _ = examples(generator_for(0, "one input"), 1)
    outputs = []
    for network in range(300):
        u, a = initial(generator_for(network, "outputs"))
        outputs.append(float((x @ u.T).relu() @ a))
    level = initial_output(WIDTH, DIMENSION, float(x.norm()), failure=failure)
    assert np.mean(np.abs(outputs) > level) <= failure
    wider = initial_output(10 * WIDTH, 100 * DIMENSION, float(x.norm()), failure=failure)
    assert wider < 0.15 * level


@pytest.mark.parametrize("y", [1, -1])
@pytest.mark.parametrize("features", [16, 64, 256])
def test_lemma_b1_activation_probability_is_gaussian_up_to_its_error(features, y):
    draws = generator_for(0, f"activation {features} {y}")
    core, count = features // 2, 50_000
    u, _ = half_trained(draws, features=features, core=core)
    z = torch.rand(count, features, generator=draws)
    z[:, :core] *= y
    frequency = (z @ u.T >= 0).float().mean(dim=0)
    every = torch.ones(features)
    normal = activation_probability(
        u, y, core=core, mean=every / 2, variance=every / 12, third_moment=every / 32
    )
    distance = (frequency - normal.value).abs()
    assert (distance <= normal.error + 4 * math.sqrt(0.25 / count)).all()
    assert float(normal.error.mean()) == pytest.approx(1.15 / math.sqrt(features), rel=0.1)


def test_lemma_b1_the_error_decreases_at_rate_one_over_root_d0():
    """Of a neuron with u = 1 on the core, -1 on the background: Bin(n, p) - Bin(n, p) >= 0."""
    chance, sizes, distances, errors = 0.3, [16, 64, 256, 1024], [], []
    variance = chance * (1 - chance)
    for features in sizes:
        half = features // 2
        counts = np.arange(half + 1)
        exact = stats.binom.pmf(counts, half, chance) @ stats.binom.cdf(counts, half, chance)
        every = torch.ones(features, dtype=torch.float64)
        normal = activation_probability(
            torch.cat([every[:half], -every[half:]])[None],
            1,
            core=half,
            mean=chance * every,
            variance=variance * every,
            third_moment=variance * (chance**2 + (1 - chance) ** 2) * every,
        )
        distances.append(exact - float(normal.value))
        errors.append(float(normal.error))
    assert all(0 < distance <= error for distance, error in zip(distances, errors, strict=True))
    for falling in (distances, errors):
        slope = np.polyfit(np.log(sizes), np.log(falling), 1)[0]
        assert slope == pytest.approx(-0.5, abs=0.01)
