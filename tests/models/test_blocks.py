"""Residual blocks are found by what they do, in everybody's networks."""

import importlib.util

import pytest
import torch
from torch import Tensor, nn

from contam.models.blocks import Block, blocks_of
from contam.models.observe import layers_of
from contam.models.small import resnet8, small_cnn
from contam.models.sources import load

needs_models = pytest.mark.skipif(
    not all(importlib.util.find_spec(n) for n in ("torchvision", "timm", "open_clip")),
    reason="needs contam[models]",
)


CLIP = "transformer.resblocks"


def image(side: int, examples: int = 2) -> Tensor:
    return torch.randn(examples, 3, side, side, generator=torch.Generator().manual_seed(0))


@needs_models
@pytest.mark.parametrize(
    ("name", "side", "count", "first", "last"),
    [
        ("torchvision:resnet18", 64, 8, "layer1.0.relu#1", "layer4.1.relu#1"),
        # Its last maps have one position, which alone would make its ReLUs look like gates.
        ("torchvision:resnet50", 32, 16, "layer1.0.relu#2", "layer4.2.relu#2"),
        ("timm:resnet50", 64, 16, "layer1.0.act3", "layer4.2.act3"),
        ("timm:seresnet50", 64, 16, "layer1.0.act3", "layer4.2.act3"),
        ("open_clip:RN50", 224, 16, "layer1.0.act3", "layer4.2.act3"),
        ("open_clip:ViT-B-32/openai", 224, 12, f"{CLIP}.0.mlp.gelu", f"{CLIP}.11.mlp.gelu"),
        ("timm:vit_tiny_patch16_224", 224, 12, "blocks.0.mlp.act", "blocks.11.mlp.act"),
        # Rotated positions are sums inside its attention.
        ("timm:eva02_tiny_patch14_224", 224, 12, "blocks.0.mlp.act", "blocks.11.mlp.act"),
        # A normalization inside its MLP adds, too.
        ("timm:convnextv2_atto", 64, 12, "stages.0.blocks.0.mlp.act", "stages.3.blocks.1.mlp.act"),
        ("torchvision:swin_t", 64, 12, "features.1.0.mlp.1", "features.7.1.mlp.1"),
        # The gates' activations come last; half of its blocks change shape and add nothing.
        ("timm:efficientnet_b0", 64, 15, "blocks.1.0.bn2.act", "blocks.6.0.bn2.act"),
    ],
)
def test_blocks_of_library_networks(name, side, count, first, last):
    blocks = blocks_of(load(name, seed=0).encoder, image(side))
    assert len(blocks) == count
    assert (blocks[0].last, blocks[-1].last) == (first, last)
    assert all(block.last in block.activations for block in blocks)
    assert len({block.last.removeprefix(block.name) for block in blocks}) == 1
    assert all(
        layer.startswith(f"{block.name}.") for block in blocks for layer in block.activations
    )


def test_blocks_of_our_residual_network_and_all_their_activations():
    model = resnet8(width=4)
    blocks = blocks_of(model, image(32))
    assert blocks == [
        Block(f"encoder.stage{i}", (f"{at}.relu1", f"{at}.relu2"), f"{at}.relu2")
        for i, at in ((i, f"encoder.stage{i}") for i in (1, 2, 3))
    ]
    inside = [layer for block in blocks for layer in block.activations]
    assert layers_of(model, image(32)) == ["encoder.relu", *inside]


def test_blocks_of_a_torch_transformer_that_calls_functions():
    with torch.random.fork_rng(devices=[]):
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
        model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    blocks = blocks_of(model, torch.ones(1, 5, 8))
    assert [block.last for block in blocks] == ["layers.0.gelu()", "layers.1.gelu()"]


class Positions(nn.Module):
    """Adds a parameter of the shape of one example, as vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.ones(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() + self.places


class Step(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.way = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.way(x), x)


def test_adding_a_parameter_is_not_a_block():
    blocks = blocks_of(nn.Sequential(Positions(), Step(), Step()), torch.ones(1, 4))
    assert [(block.name, block.last) for block in blocks] == [("1", "1.way.1"), ("2", "2.way.1")]


@pytest.mark.parametrize("model", [small_cnn(width=4), Step()], ids=["no block", "nothing but one"])
def test_a_network_without_blocks_is_rejected_with_names_of_layers(model):
    x = torch.ones(2, 4) if isinstance(model, Step) else image(16)
    with pytest.raises(ValueError, match=r"no residual blocks in this .* such as \['.*(relu1|1)'"):
        blocks_of(model, x)


def test_the_mode_of_the_model_is_restored():
    model = resnet8(width=4).train()
    before = torch.get_rng_state()
    blocks_of(model, image(32))
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), before)
