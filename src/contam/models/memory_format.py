"""The channels-last memory format, which trains faster on a CPU, where it is safe."""

from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)

BLOCK = 8
"""Channels that oneDNN's kernels for AVX2 process at once."""


def unsafe_in_channels_last(model: nn.Module) -> list[str]:
    """Name the convolutions whose backward pass corrupts memory in the channels-last format.

    On a processor with AVX2 but without AVX-512, oneDNN writes past its buffer in the backward
    pass of a strided 1 x 1 convolution that reads fewer than 8 channels.

    Args:
        model: any network.

    Returns:
        The names of these convolutions in the model.

    Source: ours; see issue 6035 of oneDNN, met with PyTorch 2.13 and `ONEDNN_MAX_CPU_ISA=AVX2`.

    >>> unsafe_in_channels_last(nn.Sequential(nn.Conv2d(4, 8, 1, stride=2), nn.Conv2d(8, 8, 3)))
    ['0']
    """
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
        and set(module.kernel_size) == {1}
        and max(module.stride) > 1
        and module.in_channels // module.groups < BLOCK
    ]


def channels_last(model: Model) -> Model:
    """Convert a model's filters to the channels-last format, in place, where that is safe.

    Args:
        model: any network; it stays as it is where `unsafe_in_channels_last` names a convolution.

    Returns:
        The model.

    >>> channels_last(nn.Conv2d(8, 8, 3)).weight.is_contiguous()
    False
    """
    if not unsafe_in_channels_last(model):
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return model
