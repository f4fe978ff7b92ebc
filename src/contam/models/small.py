"""Networks for small images that train in seconds on a laptop."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from contam.models.classifier import Classifier
from contam.models.memory_format import channels_last
from contam.models.normalization import with_centering, with_instance_norm
from contam.rng import seeded

NORMALIZATIONS = {
    "batch": lambda model: model,
    "centered": with_centering,
    "instance": with_instance_norm,
}
"""The normalizations of `resnet8`: batch norm, centering before batch norm, or instance norm."""


def small_cnn(classes: int = 10, *, width: int = 16, seed: int = 0) -> Classifier:
    """A network of three convolutions for color images.

    The convolutions have `width`, `2 * width` and `4 * width` channels. Each is followed by batch
    normalization and a ReLU, the first two by pooling. The `4 * width` features are the last ReLU's
    maps averaged over space, so they are never negative. The activations are `encoder.relu1` to
    `encoder.relu3`; the filters of the first layer are `encoder.conv1.weight`.

    Args:
        classes: the number of logits.
        width: channels of the first convolution.
        seed: random seed of the weights.

    Source: ours, as small as the padded digits allow.

    >>> import torch
    >>> small_cnn(classes=3, width=4)(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 3])
    """
    encoder = nn.Sequential()
    channels = (3, width, 2 * width, 4 * width)
    with seeded(seed, "small_cnn"):
        for i in (1, 2, 3):
            # Batch normalization removes any bias that a convolution adds.
            convolution = nn.Conv2d(channels[i - 1], channels[i], 3, padding=1, bias=False)
            encoder.add_module(f"conv{i}", convolution)
            encoder.add_module(f"norm{i}", nn.BatchNorm2d(channels[i]))
            encoder.add_module(f"relu{i}", nn.ReLU(inplace=True))
            encoder.add_module(f"pool{i}", nn.MaxPool2d(2) if i < 3 else nn.AdaptiveAvgPool2d(1))
        encoder.add_module("flat", nn.Flatten())
        model = Classifier(encoder, classes, channels[-1])
    # Channels last trains a quarter faster on a CPU.
    return channels_last(model)


def resnet8(
    classes: int = 10,
    *,
    width: int = 16,
    normalization: Literal["batch", "centered", "instance"] = "batch",
    seed: int = 0,
) -> Classifier:
    """A residual network with a stem and three stages of one block, for color images.

    The stem halves the image with filters of 5 x 5. The stages have `width`, `2 * width` and
    `4 * width` channels, and the second and the third halve their maps: 16, 8 and 4 pixels for
    images of 32. The features are the last ReLU's maps averaged over space, so they are never
    negative. The activations are `encoder.relu` and `encoder.stage1.relu1` to
    `encoder.stage3.relu2`; the stem's filters are `encoder.conv.weight`. The initial weights do not
    depend on the normalization.

    Args:
        classes: the number of logits.
        width: channels of the stem.
        normalization: how maps are normalized.
        seed: random seed of the weights.

    Source: ours, a small relative of the residual networks of He et al. (2016).

    Raises:
        ValueError: there is no such normalization.

    >>> import torch
    >>> resnet8(classes=3, width=4)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 3])
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"no normalization {normalization!r}; choose from {list(NORMALIZATIONS)}")
    encoder = nn.Sequential()
    with seeded(seed, "resnet8"):
        encoder.add_module("conv", nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False))
        encoder.add_module("norm", nn.BatchNorm2d(width))
        encoder.add_module("relu", nn.ReLU(inplace=True))
        encoder.add_module("stage1", ResidualBlock(width, width, stride=1))
        encoder.add_module("stage2", ResidualBlock(width, 2 * width, stride=2))
        encoder.add_module("stage3", ResidualBlock(2 * width, 4 * width, stride=2))
        encoder.add_module("pool", nn.AdaptiveAvgPool2d(1))
        encoder.add_module("flat", nn.Flatten())
        model = Classifier(encoder, classes, 4 * width)
    model = NORMALIZATIONS[normalization](model)
    return channels_last(model)


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, which is the identity where shapes are equal."""

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
