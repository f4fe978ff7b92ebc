"""One step of the population, piece by piece, against integrals, samples and exact laws."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from contam.rng import generator_for
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.meanfield import Grid, Neurons, advance, outcomes, view
from contam.theory.setting import Setting

CORE, BACKGROUND, WIDTH = 24, 40, 32
SETTING = Setting(
    data=DataModel(FeatureModel(CORE, BACKGROUND, 256)), width=WIDTH, step_size=0.5, steps=1
)


def network(progress: float):
    """Weights somewhere between initialization (0) and what Theorem 4.2 says of the end (1)."""
    draws = generator_for(0, "half trained")
    u = torch.randn(WIDTH, CORE + BACKGROUND, generator=draws, dtype=torch.float64) / 16
    sign = torch.randint(2, (WIDTH, 1), generator=draws).double() * 2 - 1
    u[:, :CORE] += progress * sign * 2.6 / CORE
    u[:, CORE:] += progress * 1.8 / BACKGROUND
    return u, sign.flatten() / WIDTH


def examples(draws, count, y, low=0.0):
    z = torch.rand(count, CORE + BACKGROUND, generator=draws, dtype=torch.float64)
    z[:, :CORE] *= y
    z[:, CORE:] += low
    return z


def test_grid_averages_agree_with_the_gaussian():
    grid = Grid.of(12)
    A, B = torch.meshgrid(grid.nodes, grid.nodes, indexing="ij")
    for table, expected in ((A**0, 1), (A, 0), (A**2, 1), (A**4 * B**2, 3)):
        assert grid.average(grid.refine(table)) == pytest.approx(expected, abs=2e-4)


def test_gated_weights_are_half_plane_integrals():
    grid = Grid.of(12)
    A, B = torch.meshgrid(grid.nodes, grid.nodes, indexing="ij")
    weights = grid.weigh(torch.special.ndtr((0.4 - grid.refine(0.6 * A + 0.8 * B)) / 0.05))
    wide = math.hypot(1, 0.05)
    share, density = stats.norm.cdf(0.4 / wide), stats.norm.pdf(0.4 / wide) / wide
    assert float(weights.sum()) == pytest.approx(share, abs=1e-4)
    assert float((weights * A).sum()) == pytest.approx(-0.6 * density, abs=1e-4)
    assert float((weights * B).sum()) == pytest.approx(-0.8 * density, abs=1e-4)


@pytest.mark.parametrize("margin", [-0.3, 0.0, 0.2])
def test_relu_moments_of_a_gaussian_agree_with_integration(margin):
    one = Neurons(
        sign=torch.ones(1, dtype=torch.float64),
        core_mean=torch.zeros(1, dtype=torch.float64),
        background_mean=torch.tensor([margin / (0.5 * BACKGROUND)], dtype=torch.float64),
        core_rest=torch.tensor([0.8], dtype=torch.float64),
        background_rest=torch.tensor([0.6], dtype=torch.float64),
    )
    response = view(one, replace(SETTING, width=1, step_size=0.01), Grid.of(3), 1.0)
    sd = math.sqrt(1 / 12)
    moments = [
        integrate.quad(lambda v, p=p: v**p * stats.norm.pdf(v, margin, sd), 0, 10)[0]
        for p in (0, 1, 2)
    ]
    assert float(response.slope[4]) == pytest.approx(moments[0])
    assert float(response.output[1, 1]) == pytest.approx(moments[1])
    assert float(response.spread[1, 1]) == pytest.approx(math.sqrt(moments[2] - moments[1] ** 2))
    assert float(response.bend[4]) == pytest.approx(stats.norm.pdf(0, margin, sd))


@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.parametrize(("low", "where"), [(0.0, "id"), (-1.0, "ood")])
@pytest.mark.parametrize("y", [1.0, -1.0])
def test_predicted_output_moments_match_sampled_outputs(activation, low, where, y):
    u, a = network(0.7)
    h = examples(generator_for(1, "view"), 200_000, y, low) @ u.T
    h = y * ((h.relu() if activation == "relu" else h) @ a)
    grid = Grid.of(16)
    setting = replace(SETTING, activation=activation)
    output, spread = outcomes(view(Neurons.read(u, a, core=CORE), setting, grid, y, where), grid)
    mean = grid.average(output)
    deviation = math.sqrt(grid.average(output**2 + spread**2) - mean**2)
    assert mean == pytest.approx(float(h.mean()), abs=0.003)
    assert deviation == pytest.approx(float(h.std()), rel=0.02)
    for level in (0.5, 0.9, 1.1):
        below = grid.average(torch.special.ndtr((level - output) / spread))
        assert below == pytest.approx(float((h <= level).double().mean()), abs=0.008)


def sampled_pulls(u, a, activation, examples_per_class=300_000):
    """Minus the gradient over many examples, as changes of what `Neurons` holds."""
    pull = torch.zeros_like(u)
    for y in (1.0, -1.0):
        draws = generator_for(2, f"pull {y}")
        for _ in range(examples_per_class // 50_000):
            f = examples(draws, 50_000, y)
            preactivations = f @ u.T
            active = preactivations >= 0
            if activation == "identity":
                active = torch.ones_like(active)
            gate = y * ((preactivations * active) @ a) <= 1
            pull += y * (active * gate[:, None]).double().T @ f / (2 * examples_per_class)
    pull *= a[:, None]
    core, background = u[:, :CORE], u[:, CORE:]
    directions = [part - part.mean(dim=1, keepdim=True) for part in (core, background)]
    along = [part / part.norm(dim=1, keepdim=True) for part in directions]
    return {
        "core_mean": pull[:, :CORE].mean(dim=1),
        "background_mean": pull[:, CORE:].mean(dim=1),
        "core_rest": (pull[:, :CORE] * along[0]).sum(dim=1),
        "background_rest": (pull[:, CORE:] * along[1]).sum(dim=1),
    }


@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.parametrize("progress", [0.0, 0.4, 0.8])
def test_each_term_of_a_step_is_the_gradient_over_many_examples(activation, progress):
    u, a = network(progress)
    before = Neurons.read(u, a, core=CORE)
    setting = replace(SETTING, activation=activation, weight_decay=0.0, step_size=WIDTH * 0.01)
    after = advance(before, setting)
    for term, sampled in sampled_pulls(u, a, activation).items():
        predicted = (getattr(after, term) - getattr(before, term)) / setting.step_size
        neglected = 0.01 if activation == "identity" and "rest" in term else 0.003
        assert float((predicted - sampled).abs().max()) < neglected / WIDTH, term
        largest = float(sampled.abs().max()) * WIDTH
        assert activation == "identity" or largest > (0.02 if "rest" in term else 0.2), term


def test_weight_decay_scales_all_weights_equally():
    before = Neurons.read(*network(0.5), core=CORE)
    kept, decayed = (advance(before, replace(SETTING, weight_decay=decay)) for decay in (0.0, 0.01))
    for name in ("core_mean", "background_mean", "core_rest", "background_rest"):
        lost = getattr(kept, name) - getattr(decayed, name)
        torch.testing.assert_close(lost, 0.005 * getattr(before, name))


def differ(first, second):
    """Chance that two samples of one law are as different, by the Kolmogorov-Smirnov test."""
    return np.asarray(stats.ks_2samp(first, second))[1]


@pytest.mark.parametrize("width", [20_000, 10**7])
def test_drawn_neurons_follow_the_law_of_gaussian_weights(width):
    drawn = Neurons.draw(replace(SETTING, width=width), 0, 20_000)
    u = torch.randn(20_000, CORE + BACKGROUND, generator=generator_for(3, "weights")) / 16
    a = torch.where(torch.arange(20_000) % 2 == 0, 1.0, -1.0) / 20_000
    read = Neurons.read(u, a, core=CORE)
    for field in fields(Neurons):
        ours, theirs = getattr(drawn, field.name), getattr(read, field.name)
        assert differ(ours, theirs) > 1e-3, field.name
        assert differ(ours, 1.1 * theirs) < 1e-3, field.name


@pytest.mark.parametrize("neurons", [2, 255, 4096])
def test_the_sampled_neurons_of_a_wide_network_are_balanced(neurons):
    drawn = Neurons.draw(replace(SETTING, width=10**6), 0, neurons)
    assert len(drawn.sign) == neurons
    assert float(drawn.sign.sum()) == neurons % 2
    independent = 1 / math.sqrt(256 * BACKGROUND * neurons)
    assert abs(float(drawn.background_mean.mean())) < 0.5 * independent or neurons == 2
    assert abs(float((drawn.sign * drawn.core_mean).mean())) < 0.5 * independent


def test_neurons_depend_on_the_seed():
    first, again, other = (
        Neurons.draw(SETTING, seed, 4096).core_mean.tolist() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_output_weights_of_another_size_are_rejected():
    u, a = network(0.0)
    with pytest.raises(ValueError, match=r"output weights must be \+-1 / 32"):
        Neurons.read(u, 2 * a, core=CORE)
