"""The residual network: shapes, names, size, seed and the choice of its normalization."""

import pytest
import torch
from torch import nn

from contam.batch import Batch
from contam.models.normalization import with_centering, with_instance_norm
from contam.models.observe import layers_of, observe
from contam.models.readings import flat
from contam.models.small import NORMALIZATIONS, resnet8

RELUS = [
    "encoder.relu",
    *(f"encoder.stage{stage}.relu{k}" for stage in (1, 2, 3) for k in (1, 2)),
]


def images(n: int = 4, side: int = 32) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("side", [16, 32, 45])
def test_shapes(normalization, side):
    model = resnet8(7, width=4, normalization=normalization)
    assert model(images(side=side)).shape == (4, 7)
    features = model.encoder(images(side=side))
    assert features.shape == (4, 16) and features.min() >= 0


def test_the_number_of_parameters_by_hand():
    convolutions = 3 * 25 * 16 + 2 * 9 * 16 * 16 + 9 * 16 * 32 + 9 * 32 * 32 + 16 * 32
    convolutions += 9 * 32 * 64 + 9 * 64 * 64 + 32 * 64
    norms = 2 * (16 + 2 * 16 + 3 * 32 + 3 * 64)
    assert sum(p.numel() for p in resnet8().parameters()) == convolutions + norms + 650 == 78_810


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_activation_names_and_map_sizes(normalization):
    model = resnet8(width=4, normalization=normalization)
    assert layers_of(model, images()) == RELUS
    batch = Batch(images(), torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))
    (observation,) = observe(model, [batch], RELUS, reduce=flat)
    sizes = [4 * 16**2] * 3 + [8 * 8**2] * 2 + [16 * 4**2] * 2
    assert [layer.shape[1] for layer in observation.layers.values()] == sizes


def test_features_are_the_last_relu_s_maps_averaged():
    model = resnet8(width=4).eval()
    maps = nn.Sequential(*list(model.encoder.children())[:6])(images())
    torch.testing.assert_close(model.encoder(images()), maps.mean(dim=(2, 3)))


def test_a_block_adds_its_input():
    """With the second normalization's scale at zero, a block is a ReLU of its shortcut."""
    model = resnet8(width=4).eval()
    block = model.get_submodule("encoder.stage1")
    torch.nn.init.zeros_(block.get_parameter("norm2.weight"))
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), x.relu())


def test_the_seed_determines_every_weight_and_the_random_state_is_preserved():
    before = torch.get_rng_state()
    first, again, other = resnet8(seed=0), resnet8(seed=0), resnet8(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    for name, weight in first.named_parameters():
        assert torch.equal(weight, again.get_parameter(name))
        if "norm" not in name:
            assert not torch.equal(weight, other.get_parameter(name))


def test_the_normalization_is_the_conversion_and_the_first_weights_are_shared():
    plain = resnet8(width=4, seed=2).eval()
    for name, convert in (("centered", with_centering), ("instance", with_instance_norm)):
        model = resnet8(width=4, normalization=name, seed=2).eval()  # pyright: ignore
        assert torch.equal(model(images()), convert(plain)(images()))
        assert not torch.allclose(model(images()), plain(images()))


def test_an_unknown_normalization_is_rejected_with_the_known_ones():
    with pytest.raises(ValueError, match=r"choose from .*'centered'"):
        resnet8(normalization="group")  # pyright: ignore[reportArgumentType]
