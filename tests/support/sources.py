"""Encoders small enough to be a teacher in a test; their names are `support.sources:function`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from contam.models.preparation import Preparation
from contam.models.small import resnet8
from contam.models.sources import Source
from contam.models.torchvision_import import import_torchvision


def tiny_source() -> Source:
    """One convolution, with batch normalization."""
    encoder = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return Source("tiny", encoder, 6, Preparation(8, 8, mean=(0.5,) * 3, std=(0.5,) * 3))


def tiny_source_with_head() -> Source:
    """The same with a head for the seven classes of PACS."""
    return replace(tiny_source(), head=nn.Linear(6, 7))


def residual_source() -> Source:
    """A residual network for images of 16 x 16 pixels."""
    return Source("residual", resnet8(40, width=4).encoder, 16, Preparation(16, 16))


def transformer_source() -> Source:
    """A vision transformer for images of 16 x 16 pixels."""
    import_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    encoder = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=12, depth=2, num_heads=2, num_classes=0
    )
    return Source("transformer", encoder, 12, Preparation(16, 16))


def write_weights(folder: Path, make: Callable[[], Source]) -> str:
    """Write weights of a source's encoder where the sources are looked up; returns its name."""
    folder.mkdir(exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = make().encoder.state_dict()
    contiguous = {name: value.contiguous() for name, value in state.items()}
    save_file(contiguous, folder / f"support.sources-{make.__name__}.safetensors")
    return f"support.sources:{make.__name__}"
