"""The CIFAR ResNet: its layers, its size, and what it does with pixels."""

import pytest
import torch
from torch import nn

from contam.models.resnet_cifar import CIFAR_MEAN, CIFAR_STD, BasicBlock, resnet_cifar


def test_resnet_32_has_31_convolutions_on_the_main_path_and_the_published_size():
    model = resnet_cifar(32)
    main = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and "downsample" not in name
    ]
    assert len(main) == 31
    assert main[-1] == "encoder.layer3.4.conv2"
    # He et al. (2016) give 0.46 million parameters; 1 x 1 shortcuts add 16*32 + 32*64 weights and
    # the batch norms behind them.
    shortcuts = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert sum(p.numel() for p in model.parameters()) - shortcuts == 464_154


def test_the_second_and_third_stage_halve_the_maps():
    x, shapes = torch.zeros(1, 3, 32, 32), {}
    for name, module in resnet_cifar(8, width=4).eval().encoder.named_children():
        x = module(x)
        shapes[name] = tuple(x.shape[1:])
    shapes = {name: shape for name, shape in shapes.items() if name.startswith("layer")}
    assert shapes == {"layer1": (4, 32, 32), "layer2": (8, 16, 16), "layer3": (16, 8, 8)}


def test_pixels_are_standardized_inside_the_network():
    x = torch.rand(2, 3, 32, 32)
    standardized = (x - torch.tensor(CIFAR_MEAN)[:, None, None]) / torch.tensor(CIFAR_STD)[
        :, None, None
    ]
    inside = resnet_cifar(8, width=4).eval()
    outside = resnet_cifar(8, width=4, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    torch.testing.assert_close(inside(x), outside(standardized))


def test_a_block_whose_convolutions_are_zero_is_its_shortcut():
    block = BasicBlock(4, 4, stride=1).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_weights_depend_only_on_the_seed_and_the_random_state_is_preserved():
    before = torch.get_rng_state()
    one, same, other = (resnet_cifar(8, width=2, seed=seed) for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(before)
    assert one.encoder.get_parameter("conv1.weight").equal(
        same.encoder.get_parameter("conv1.weight")
    )
    assert not one.encoder.get_parameter("conv1.weight").equal(
        other.encoder.get_parameter("conv1.weight")
    )


@pytest.mark.parametrize(("depth", "width"), [(2, 16), (18, 16), (33, 16), (8, 0)])
def test_an_invalid_size_is_rejected_in_one_line(depth, width):
    with pytest.raises(ValueError, match=rf"6 n \+ 2 layers.*depth={depth}") as error:
        resnet_cifar(depth, width=width)
    assert "\n" not in str(error.value)
