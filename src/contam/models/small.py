"""Networks for small images that train in seconds on a laptop."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.models.classifier import Classifier
from contam.models.normalization import with_centering, with_instance_norm
from contam.rng import seeded

NORMALIZATIONS = {
    "batch": lambda model: model,
    "centered": with_centering,
    "instance": with_instance_norm,
}
"""How `resnet8` normalizes its maps: batch norm, the same behind centering, or instance norm."""


def small_cnn(classes: int = 10, *, width: int = 16, seed: int = 0) -> Classifier:
    """Three convolutions of `width`, twice and four times as many channels, for color images.

    Each is followed by batch normalization and a ReLU, the first two by pooling. The features are
    the last ReLU's maps averaged over space: `4 * width` of them, never negative. What can be
    observed is named `encoder.relu1` to `encoder.relu3`; the stem's filters are
    `encoder.conv1.weight`.

    Source: ours, as small as the padded digits allow.
    """
    encoder = nn.Sequential()
    channels = (3, width, 2 * width, 4 * width)
    with seeded(seed, "small_cnn"):
        for i in (1, 2, 3):
            # Batch normalization takes away any bias that a convolution adds.
            convolution = nn.Conv2d(channels[i - 1], channels[i], 3, padding=1, bias=False)
            encoder.add_module(f"conv{i}", convolution)
            encoder.add_module(f"norm{i}", nn.BatchNorm2d(channels[i]))
            encoder.add_module(f"relu{i}", nn.ReLU(inplace=True))
            encoder.add_module(f"pool{i}", nn.MaxPool2d(2) if i < 3 else nn.AdaptiveAvgPool2d(1))
        encoder.add_module("flat", nn.Flatten())
        model = Classifier(encoder, classes, channels[-1])
    # Channels last trains a quarter faster on a CPU.
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def resnet8(
    classes: int = 10,
    *,
    width: int = 16,
    normalization: Literal["batch", "centered", "instance"] = "batch",
    seed: int = 0,
) -> Classifier:
    """A residual network with a stem and three stages of one block, for color images.

    The stem halves the image with filters of 5 x 5; the stages have `width`, twice and four times
    as many channels, and the second and the third halve their maps: 16, 8 and 4 pixels for images
    of 32. The features are the last ReLU's maps averaged over space, never negative. What can be
    observed is named `encoder.relu` and `encoder.stage1.relu1` to `encoder.stage3.relu2`; the
    stem's filters are `encoder.conv.weight`. The first weights do not depend on the normalization.

    Source: ours, a small relative of the residual networks of He et al. (2016).

    Raises:
        ValueError: there is no such normalization.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"no normalization {normalization!r}; choose from {list(NORMALIZATIONS)}")
    encoder = nn.Sequential()
    with seeded(seed, "resnet8"):
        encoder.add_module("conv", nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False))
        encoder.add_module("norm", nn.BatchNorm2d(width))
        encoder.add_module("relu", nn.ReLU(inplace=True))
        encoder.add_module("stage1", _Block(width, width, stride=1))
        encoder.add_module("stage2", _Block(width, 2 * width, stride=2))
        encoder.add_module("stage3", _Block(2 * width, 4 * width, stride=2))
        encoder.add_module("pool", nn.AdaptiveAvgPool2d(1))
        encoder.add_module("flat", nn.Flatten())
        model = Classifier(encoder, classes, 4 * width)
    model = NORMALIZATIONS[normalization](model)
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class _Block(nn.Module):
    """Two convolutions beside a shortcut, which is the identity where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut.add_module("conv", nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.add_module("norm", nn.BatchNorm2d(outputs))
        self.relu2 = nn.ReLU(inplace=True)

    def forward(
        self, x: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs rows columns"]:
        inner = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(inner)) + self.shortcut(x))
