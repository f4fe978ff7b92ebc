"""The small network: its shapes, its names and its seed."""

import pytest
import torch

from contam.models.observe import layers_of
from contam.models.small import small_cnn


@pytest.mark.parametrize("side", [16, 24, 64])
def test_shapes(side):
    model = small_cnn(7, width=4)
    x = torch.rand(5, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert model(x).shape == (5, 7)
    assert model.encoder(x).shape == (5, 16)
    assert model.encoder(x).min() >= 0


def test_activations_have_the_names_of_the_docstring():
    model = small_cnn()
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert layers_of(model, x) == ["encoder.relu1", "encoder.relu2", "encoder.relu3"]
    assert model.get_parameter("encoder.conv1.weight").shape == (16, 3, 3, 3)


def test_the_seed_determines_every_weight_and_the_random_state_is_preserved():
    before = torch.get_rng_state()
    first, again, other = small_cnn(seed=0), small_cnn(seed=0), small_cnn(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    for name, weight in first.named_parameters():
        assert torch.equal(weight, again.get_parameter(name))
        if "norm" not in name:  # normalization begins at ones and zeros
            assert not torch.equal(weight, other.get_parameter(name))
