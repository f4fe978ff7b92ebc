"""Residual networks for images of 32 pixels, as He et al. (2016) built them for CIFAR-10."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.models.classifier import Classifier
from contam.rng import seeded

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
"""Mean of each color channel of CIFAR-10's training images."""
CIFAR_STD = (0.2023, 0.1994, 0.2010)
"""Standard deviations that the published code divides by."""


def resnet_cifar(
    depth: int = 32,
    classes: int = 10,
    *,
    width: int = 16,
    stem_stride: int = 1,
    mean: Sequence[float] = CIFAR_MEAN,
    std: Sequence[float] = CIFAR_STD,
    seed: int = 0,
) -> Classifier:
    """Build a CIFAR ResNet with `depth` layers and random weights.

    A 3 x 3 convolution is followed by three stages of `(depth - 2) / 6` blocks with `width`,
    `2 * width` and `4 * width` channels; the second and the third stage halve the maps. The network
    takes pixels in [0, 1] and standardizes them itself, so that noise and adversarial perturbations
    are measured in pixel units. `encoder.layer3.4.conv2` is the 31st and last convolution of
    ResNet-32.

    Args:
        depth: number of layers with weights, `6 n + 2`.
        classes: number of classes.
        width: channels of the first stage; 16 as published.
        stem_stride: stride of the first convolution; 1 as published, 2 costs a quarter.
        mean: mean of each color channel that is subtracted from the pixels.
        std: standard deviation of each color channel that the pixels are divided by.
        seed: seed of the random weights.

    Returns:
        A classifier of images `(batch, 3, height, width)` with `4 * width` features that are never
        negative.

    Raises:
        ValueError: the depth is not `6 n + 2`, or the width is not positive.

    Source: App. F.4; He et al. (2016).

    >>> model = resnet_cifar(8, width=4)
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if depth < 8 or (depth - 2) % 6 or width < 1:
        raise ValueError(
            f"a CIFAR ResNet has 6 n + 2 layers and a positive width, not depth={depth} and "
            f"width={width}; choose a depth of 8, 14, 20, 26 or 32"
        )
    encoder = nn.Sequential()
    with seeded(seed, "resnet_cifar"):
        encoder.add_module("standardize", Standardize(mean, std))
        encoder.add_module("conv1", nn.Conv2d(3, width, 3, stem_stride, 1, bias=False))
        encoder.add_module("bn1", nn.BatchNorm2d(width))
        encoder.add_module("relu", nn.ReLU(inplace=True))
        channels = width
        for stage in (1, 2, 3):
            outputs = width * 2 ** (stage - 1)
            blocks = nn.Sequential()
            for block in range((depth - 2) // 6):
                stride = 2 if stage > 1 and block == 0 else 1
                blocks.append(BasicBlock(channels, outputs, stride=stride))
                channels = outputs
            encoder.add_module(f"layer{stage}", blocks)
        encoder.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
        encoder.add_module("flatten", nn.Flatten())
        model = Classifier(encoder, classes, channels)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))
    return model


def resnet18_cifar(classes: int = 10, *, width: int = 64, seed: int = 0) -> Classifier:
    """Build a ResNet-18 with a 3 x 3 stem and random weights, for images of 64 x 32 pixels.

    The stem keeps the resolution. Four stages of two blocks have `width` to `8 * width` channels.
    The maps of the last stage, 8 x 4 for these images, are averaged over squares of 4 x 4, so that
    the head reads `16 * width` features: 1024 as published.

    Args:
        classes: number of classes.
        width: channels of the first stage; 64 as published.
        seed: seed of the random weights.

    Source: ours; Murali et al. (2023), Fig. 5.

    >>> model = resnet18_cifar(width=4)
    >>> model(torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 10])
    """
    encoder = nn.Sequential()
    with seeded(seed, "resnet18_cifar"):
        encoder.add_module("conv1", nn.Conv2d(3, width, 3, 1, 1, bias=False))
        encoder.add_module("bn1", nn.BatchNorm2d(width))
        encoder.add_module("relu", nn.ReLU(inplace=True))
        channels = width
        for stage in (1, 2, 3, 4):
            outputs = width * 2 ** (stage - 1)
            first = BasicBlock(channels, outputs, stride=1 if stage == 1 else 2)
            blocks = nn.Sequential(first, BasicBlock(outputs, outputs, stride=1))
            encoder.add_module(f"layer{stage}", blocks)
            channels = outputs
        encoder.add_module("avgpool", nn.AvgPool2d(4))
        encoder.add_module("flatten", nn.Flatten())
        return Classifier(encoder, classes, 2 * channels)


class Standardize(nn.Module):
    """Subtract a mean from each color channel and divide by a standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Tensor:
        return (x - self.mean) / self.std


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where shapes differ.

    Source: ours; He et al. (2016).
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.downsample.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(inner)) + self.downsample(x))
