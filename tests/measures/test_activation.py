"""Activation rates from a network to a number, against counting one position at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from contam.batch import Batch, Domain
from contam.measures.activation import activation_asymmetry, class_rates
from contam.measures.class_means import ClassMeans
from contam.models.observe import observe
from contam.models.readings import rate_over_space


def rates_of(seed: int, classes: int = 4, neurons: int = 6) -> torch.Tensor:
    return torch.rand(classes, neurons, generator=torch.Generator().manual_seed(seed))


def test_activation_asymmetry_by_hand():
    rates = torch.tensor([[1.0, 0.5], [0.0, 0.5]])
    assert class_rates(rates).tolist() == [0.75, 0.25]
    assert activation_asymmetry(rates).tolist() == [0.5, 0.0]


def test_the_rate_counts_examples_and_positions():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 2, 3, 5, generator=generator) + 0.3
    y = torch.randint(3, (30,), generator=generator)
    domain = Domain("d", Batch(x, y, torch.zeros_like(y)))
    table = ClassMeans(classes=3, neurons=2)
    for observation in observe(nn.Sequential(nn.ReLU()), domain.batches(7), ["0"], rate_over_space):
        table.update(observation.layers["0"], observation.batch.y)
    for c in range(3):
        for channel in range(2):
            before = x[y == c, channel].flatten().tolist()
            share = sum(z > 0 for z in before) / len(before)
            assert table.compute()[c, channel].item() == pytest.approx(share)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_one_class_neuron_reaches_the_maximum(classes):
    rates = torch.zeros(classes, 1)
    rates[0] = 1
    assert activation_asymmetry(rates).item() == pytest.approx(1 - 1 / classes)


@given(st.integers(0, 1000))
def test_asymmetry_is_bounded_and_invariant_to_class_order(seed):
    rates = rates_of(seed)
    asymmetry = activation_asymmetry(rates)
    assert torch.all((asymmetry >= 0) & (asymmetry <= 1 - 1 / len(rates)))
    torch.testing.assert_close(activation_asymmetry(rates.flip(0)), asymmetry)
    # A rate that all classes share says nothing about them.
    torch.testing.assert_close(activation_asymmetry(rates / 2 + 0.25), asymmetry / 2)
    torch.testing.assert_close(class_rates(rates.flip(1)), class_rates(rates))


@pytest.mark.parametrize("measure", [class_rates, activation_asymmetry])
@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_values_that_are_not_rates_are_rejected(measure, bad):
    rates = rates_of(0)
    rates[1, 2] = bad
    with pytest.raises(ValueError, match=r"lie in \[0, 1\].*rate_over_space"):
        measure(rates)
