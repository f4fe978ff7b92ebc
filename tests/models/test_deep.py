"""Networks of any number of blocks."""

import pytest
import torch

from contam.models.deep import deep_resnet, deep_vit
from contam.models.observe import observe
from contam.models.readings import over_space, over_tokens

NETWORKS = {
    "resnet": (lambda blocks: deep_resnet(classes=3, blocks=blocks, width=4), over_space),
    "vit": (lambda blocks: deep_vit(classes=3, blocks=blocks, width=8), over_tokens),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_every_block_can_be_observed(name, blocks):
    make, reading = NETWORKS[name]
    x, y = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    layers = [f"encoder.block{k + 1}" for k in range(blocks)]
    (observation,) = observe(make(blocks), (x, y), layers, reading)
    assert observation.logits.shape == (4, 3)
    assert list(observation.layers) == layers
    assert all(len(values) == 4 for values in observation.layers.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_seed_names_the_weights(name):
    make, _ = NETWORKS[name]
    first, second = make(2), make(2)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_second_half_of_a_residual_network_has_twice_the_channels():
    network = deep_resnet(blocks=4, width=4)
    widths = [getattr(network.encoder, f"block{k}").conv2.out_channels for k in range(1, 5)]
    assert widths == [4, 4, 8, 8]


@pytest.mark.parametrize(
    "make", [lambda: deep_resnet(blocks=0), lambda: deep_vit(blocks=0),
             lambda: deep_vit(blocks=1, width=6), lambda: deep_vit(blocks=1, side=30)]
)  # fmt: skip
def test_sizes_that_do_not_fit_are_rejected(make):
    with pytest.raises(ValueError, match="blocks="):
        make()
