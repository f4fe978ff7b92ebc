"""Residual networks and vision transformers of any number of blocks, for small color images."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.models.classifier import Classifier
from contam.models.memory_format import channels_last
from contam.models.small import ResidualBlock
from contam.rng import seeded


def deep_resnet(classes: int = 10, *, blocks: int, width: int = 16, seed: int = 0) -> Classifier:
    """A residual network with a stem and any number of blocks of two convolutions.

    The stem halves the image with filters of 5 x 5. The blocks of the first half have `width`
    channels; the others have `2 * width`, and the first of them halves the maps again. The features
    are the last block's maps averaged over space. The blocks are `encoder.block1` and on.

    Args:
        classes: the number of logits.
        blocks: the number of blocks.
        width: channels of the stem.
        seed: random seed of the weights.

    Raises:
        ValueError: there is no block.

    Source: ours, residual networks of He et al. (2016) whose depth varies alone.

    >>> deep_resnet(classes=3, blocks=2, width=4)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 3])
    """
    if blocks < 1:
        raise ValueError(f"blocks={blocks}: a network needs at least one")
    encoder, channels = nn.Sequential(), width
    with seeded(seed, "deep_resnet"):
        encoder.add_module("conv", nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False))
        encoder.add_module("norm", nn.BatchNorm2d(width))
        encoder.add_module("relu", nn.ReLU(inplace=True))
        for block in range(blocks):
            outputs = width if block < blocks // 2 else 2 * width
            stride = 1 if outputs == channels else 2
            encoder.add_module(f"block{block + 1}", ResidualBlock(channels, outputs, stride=stride))
            channels = outputs
        encoder.add_module("pool", nn.AdaptiveAvgPool2d(1))
        encoder.add_module("flat", nn.Flatten())
        model = Classifier(encoder, classes, channels)
    return channels_last(model)


def deep_vit(
    classes: int = 10,
    *,
    blocks: int,
    width: int = 48,
    side: int = 32,
    seed: int = 0,
) -> Classifier:
    """A vision transformer with any number of blocks of attention and a GELU network.

    Two convolutions turn patches into tokens, since transformers learn little from a few thousand
    images without them. Layer norms come first in each block. The features are the layer norm of
    the last tokens, averaged over tokens. The blocks are `encoder.block1` and on.

    Args:
        classes: the number of logits.
        blocks: the number of blocks.
        width: size of a token, a multiple of 4, the number of attention heads.
        side: pixels of the square images, a multiple of 4, the stride of the tokens.
        seed: random seed of the weights.

    Raises:
        ValueError: there is no block, or the sizes do not fit.

    Source: ours; Dosovitskiy et al. (2021), with the convolutions of Xiao et al. (2021).

    >>> deep_vit(classes=3, blocks=1, width=8)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 3])
    """
    if blocks < 1 or width % 4 or side % 4:
        raise ValueError(
            f"blocks={blocks}, width={width}, side={side}: need a block, and a width and "
            "a side that 4 divides"
        )
    encoder = nn.Sequential()
    with seeded(seed, "deep_vit"):
        encoder.add_module("tokens", _Tokens(width, side))
        for block in range(blocks):
            encoder.add_module(
                f"block{block + 1}",
                nn.TransformerEncoderLayer(
                    width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True,
                    norm_first=True,
                ),
            )  # fmt: skip
        encoder.add_module("norm", nn.LayerNorm(width))
        encoder.add_module("mean", _MeanToken())
        return Classifier(encoder, classes, width)


class _Tokens(nn.Module):
    """Tokens of patches of 4 x 4 pixels and their surroundings, with learned positions."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
        )
        self.positions = nn.Parameter(0.02 * torch.randn((side // 4) ** 2, width))

    def forward(self, x: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch tokens width"]:
        return self.convolutions(x).flatten(2).mT + self.positions


class _MeanToken(nn.Module):
    """The mean over tokens."""

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch width"]:
        return x.mean(dim=1)
