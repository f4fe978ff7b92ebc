"""Density of activations: by hand, however the data comes, and from a network in one pass."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.noise import noise
from torch import nn

from contam.batch import Batch, Domain
from contam.measures.density import Density, common_edges
from contam.models.observe import observe
from contam.models.readings import flat


def test_density_by_hand():
    density = Density(3).update(torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])).compute()
    assert density.mean.tolist() == [2, 0, 1]
    assert density.active.tolist() == [1, 0, 0.5]


@given(st.integers(1, 60), st.integers(0, 50))
def test_results_do_not_depend_on_batches_or_processes(size, split):
    values = noise(50, 4).relu()
    parts = [Density(4), Density(4)]
    for part, some in zip(parts, (values[:split], values[split:]), strict=True):
        for batch in some.split(size):
            part.update(batch)
    merged = parts[0].merge(parts[1]).compute()
    torch.testing.assert_close(merged.mean, values.double().mean(dim=0))
    assert torch.equal(merged.active, (values > 0).double().mean(dim=0))


def test_half_precision_is_summed_in_double():
    values = noise(500, 4).bfloat16()
    density = Density(4).update(values).compute()
    torch.testing.assert_close(density.mean, values.double().mean(dim=0), rtol=1e-12, atol=1e-12)


def test_positions_of_a_map_are_read_in_one_pass():
    x = noise(30, 2, 3, 5)
    zero = torch.zeros(30, dtype=torch.int64)
    density = Density(30)
    model = nn.Sequential(nn.ReLU(inplace=True))
    for observation in observe(
        model, Domain("d", Batch(x.clone(), zero, zero)).batches(7), ["0"], flat
    ):
        density.update(observation.layers["0"])
    result = density.compute()
    torch.testing.assert_close(result.mean.reshape(2, 3, 5), x.relu().double().mean(dim=0))
    assert torch.equal(result.active.reshape(2, 3, 5), (x > 0).double().mean(dim=0))


def test_a_relu_of_gaussian_inputs_has_the_known_density():
    density = Density(4).update(noise(100_000, 4).relu()).compute()
    assert density.active.tolist() == pytest.approx([0.5] * 4, abs=0.01)
    assert density.mean.tolist() == pytest.approx([1 / np.sqrt(2 * np.pi)] * 4, abs=0.01)


def test_edges_span_zero_to_the_largest_value():
    edges = common_edges([torch.tensor([1.0, 0.5]), torch.tensor([3.0])], bins=6)
    assert edges.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]


def test_edges_include_negative_values():
    edges = common_edges([torch.tensor([-1.0, 0.5]), torch.tensor([3.0])], bins=4)
    assert edges.tolist() == [-1, 0, 1, 2, 3]


def test_invalid_values_are_rejected():
    with pytest.raises(ValueError, match="at least one example"):
        Density(2).compute()
    with pytest.raises(ValueError, match="expected 2 neurons, got 3"):
        Density(2).update(noise(4, 3))
    with pytest.raises(ValueError, match="expected 2 neurons, got 3"):
        Density(2).merge(Density(3))
    with pytest.raises(ValueError, match="at least 1 bin"):
        common_edges([torch.zeros(3)])
