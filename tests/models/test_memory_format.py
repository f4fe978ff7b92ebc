"""Channels last only where oneDNN's kernels keep to their buffers."""

import pytest
import torch
from torch import nn

from contam.models.memory_format import unsafe_in_channels_last
from contam.models.resnet_cifar import resnet_cifar
from contam.models.small import resnet8, small_cnn
from contam.training.precision import ComputeConfig

CHANNELS_LAST = ComputeConfig(channels_last=True)


def strided(channels: int, groups: int = 1) -> nn.Module:
    return nn.Conv2d(channels, 8, 1, stride=2, groups=groups)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (strided(7), [""]),
        (strided(8), []),
        (strided(16, groups=4), [""]),
        (nn.Conv2d(4, 8, 1), []),
        (nn.Conv2d(4, 8, 3, stride=2), []),
        (resnet8(width=4), ["encoder.stage2.shortcut.conv"]),
        (resnet8(width=8), []),
        (small_cnn(width=4), []),
        (resnet_cifar(8), []),
    ],
)
def test_strided_1x1_convolutions_of_few_channels_are_unsafe(model, names):
    assert unsafe_in_channels_last(model) == names


@pytest.mark.parametrize("width", [4, 8])
def test_networks_are_in_channels_last_where_that_is_safe(width):
    weight = dict(resnet8(width=width).named_parameters())["encoder.stage2.conv1.weight"]
    assert weight.shape[1] == width
    assert weight.is_contiguous(memory_format=torch.channels_last) == (width == 8)


def test_a_training_in_channels_last_refuses_an_unsafe_network():
    with pytest.raises(ValueError, match=r"encoder\.stage2\.shortcut\.conv.* channels_last=False"):
        CHANNELS_LAST.convert(resnet8(width=4))
    CHANNELS_LAST.convert(resnet8(width=8))
