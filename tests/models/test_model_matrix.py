"""The audit on networks of every kind: it runs, or refuses in one line that says what to give."""

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.noise import noise
from torch import Tensor, nn

import contam
from contam.models.torchvision_import import import_torchvision

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(n) for n in ("torchvision", "timm")),
        reason="needs contam[models]",
    ),
]
Y = torch.arange(8) % 2
ROWS = "not have one row for each example"
HEAD = "The head was not compared with a fresh one"


def audited(model: nn.Module, side: int = 32, channels: int = 3, said: str = "") -> None:
    """Audit a network, and check that it is as it was and that its layers were measured."""
    x = noise(8, channels, side, side).abs()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    result = contam.audit(
        model, id=(x, Y), ood=(x.flip(3), Y), reference=None, untrained=False, altered=False,
        progress=False,
    ).evidence  # fmt: skip
    assert result.layers
    assert len(result.sets) == 2
    assert not any("incomplete" in line or "logits change" in line for line in result.left_out)
    assert (said or ROWS) in " ".join(result.left_out) or not said
    assert bool(said == ROWS) == any(ROWS in line for line in result.left_out)
    assert bool(said == HEAD) == any(HEAD in line for line in result.left_out)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


TINY = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2}
STAGES = {"img_size": 32, "embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4}

# One network of each family of timm, as small as it can be: options, side of the images, and what
# is said besides
TIMM: dict[str, tuple[dict[str, Any], int, str]] = {
    "vit_tiny_patch16_224": (TINY, 32, ""),
    "deit_tiny_distilled_patch16_224": (TINY, 32, HEAD),  # the mean of two heads
    "beit_base_patch16_224": (TINY, 32, ""),
    "eva02_tiny_patch14_224": (TINY | {"img_size": 28}, 28, ""),
    "cait_xxs24_224": (TINY, 32, ""),
    "xcit_nano_12_p16_224": (TINY, 32, ""),
    "convit_tiny": (TINY, 32, ""),
    "swin_tiny_patch4_window7_224": (STAGES, 32, ""),
    "swinv2_tiny_window8_256": (STAGES, 32, ROWS),
    "swinv2_cr_tiny_224": (STAGES, 32, ROWS),
    "mobilevit_xxs": ({}, 32, ROWS),
    "mobilevitv2_050": ({}, 32, ""),
    "tnt_s_legacy_patch16_224": ({"img_size": 32, "embed_dim": 24, "depth": 2}, 32, ROWS),
    "levit_128s": (
        {"embed_dim": (16, 24, 32), "depth": (1, 1, 1), "num_heads": (1, 1, 1)}, 224, HEAD),
    "pvt_v2_b0": ({"depths": (1, 1, 1, 1)}, 32, ""),
    "twins_pcpvt_small": (
        {"img_size": 32, "embed_dims": (8, 8, 16, 16), "num_heads": (1, 1, 1, 1),
         "depths": (1, 1, 1, 1)}, 32, ""),
    "coat_tiny": (
        {"img_size": 32, "serial_depths": (1, 1, 1, 1), "embed_dims": (16, 16, 16, 16)}, 32, ""),
    "hiera_tiny_224": (
        {"img_size": (64, 64), "embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1)}, 64, ""),
    "davit_tiny": (
        {"depths": (1, 1, 1, 1), "embed_dims": (16, 16, 16, 16), "num_heads": (1, 1, 1, 1)}, 64,
        ""),
    "densenet121": ({"growth_rate": 8, "block_config": (1, 1)}, 32, ""),
    "dpn68": ({"k_sec": (1, 1, 1, 1)}, 32, ""),
    "resnet10t": ({"in_chans": 1}, 32, ""),
    "resnetv2_50": ({"layers": (1, 1)}, 32, ""),
    "regnetx_002": ({}, 32, ""),
    "ese_vovnet19b_slim": ({}, 32, ""),
    "mobilenetv3_small_050": ({"in_chans": 6}, 32, ""),
    "lcnet_035": ({}, 32, ""),
    "ghostnet_050": ({}, 32, ""),
    "tinynet_e": ({}, 32, ""),
    "convnext_atto": ({}, 32, ""),
    "convnextv2_atto": ({"in_chans": 1}, 32, ""),
    "edgenext_xx_small": ({}, 32, ""),
    "starnet_s050": ({}, 32, ""),
    "efficientvit_m0": ({}, 64, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_families_of_timm(name):
    import_torchvision()
    import timm

    options, side, said = TIMM[name]
    if name not in timm.list_models():
        pytest.skip(f"this timm has no {name}")
    model = timm.create_model(name, num_classes=2, **options)
    audited(model, side, options.get("in_chans", 3), said)


def _torchvision() -> dict[str, Callable[[Any], tuple[nn.Module, int]]]:
    def made(name: str, side: int = 32, **options: Any) -> Callable[[Any], tuple[nn.Module, int]]:
        return lambda models: (getattr(models, name)(num_classes=2, **options), side)

    return {
        "alexnet": made("alexnet", 64),
        "squeezenet1_1": made("squeezenet1_1"),
        "resnet18": made("resnet18"),
        "mobilenet_v2": made("mobilenet_v2"),
        "mobilenet_v3_small": made("mobilenet_v3_small"),
        "shufflenet_v2_x0_5": made("shufflenet_v2_x0_5"),
        "mnasnet0_5": made("mnasnet0_5"),
        "densenet": made("DenseNet", growth_rate=8, block_config=(1, 1)),
        "googlenet": made("googlenet", init_weights=False),
        "efficientnet_b0": made("efficientnet_b0"),
        "regnet_y_400mf": made("regnet_y_400mf"),
        "vit": made("VisionTransformer", image_size=32, patch_size=8, num_layers=2, num_heads=2,
                    hidden_dim=16, mlp_dim=32),
        "swin": made("SwinTransformer", patch_size=[2, 2], embed_dim=8, depths=[1, 1],
                     num_heads=[1, 1], window_size=[4, 4]),
        "convnext": lambda models: (
            models.ConvNeXt([models.convnext.CNBlockConfig(8, None, 2)], num_classes=2), 32),
    }  # fmt: skip


@pytest.mark.parametrize("name", _torchvision())
def test_classifiers_of_torchvision(name):
    import_torchvision()
    from torchvision import models

    model, side = _torchvision()[name](models)
    audited(model, side)


@pytest.mark.parametrize("kind", ["ViT", "ConvNext", "ResNet"])
def test_vision_models_of_hugging_face(kind):
    import_torchvision()
    transformers = pytest.importorskip("transformers")
    options = {
        "ViT": {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2,
                "num_attention_heads": 2, "intermediate_size": 24},
        "ConvNext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    }[kind]  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(num_labels=2, **options)
    audited(getattr(transformers, f"{kind}ForImageClassification")(config))


def small(channels: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_numbers_of_channels(channels):
    audited(small(channels), channels=channels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precisions(dtype):
    audited(small().to(dtype))


def test_channels_last():
    audited(small().to(memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]


def test_networks_in_training_and_with_frozen_parts():
    model = small().train()
    model[1].eval()
    model[0].requires_grad_(False)
    audited(model)
    assert not model[0].weight.requires_grad and model[5].weight.requires_grad


def test_traced_by_fx():
    audited(torch.fx.symbolic_trace(small()))


# The compiler's own import warns.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("way", ["compiled", "compiled in place", "a compiled part"])
def test_compiled_networks_run_as_they_were_written(way):
    # Nothing is compiled, so no compiler is needed.
    model = small()
    if way == "compiled":
        compiled = torch.compile(model)
    elif way == "compiled in place":
        model.compile()
        compiled = model
    else:
        compiled = nn.Sequential(torch.compile(model[:5]), model[5])  # pyright: ignore
    assert isinstance(compiled, nn.Module)
    audited(compiled)


def test_data_parallel():
    audited(nn.DataParallel(small()))


def test_a_lightning_module():
    import_torchvision()
    lightning = pytest.importorskip("lightning")

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss = small(), nn.CrossEntropyLoss(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)

    audited(Net())


@pytest.mark.parametrize("way", ["scripted", "traced"])
def test_torchscript_is_refused_in_one_line(way):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if way == "scripted":
            model = torch.jit.script(small())
        else:
            model = torch.jit.trace(small().eval(), noise(2, 3, 32, 32))
    assert isinstance(model, nn.Module)
    with pytest.raises(ValueError, match="TorchScript") as caught:
        audited(model)
    assert "\n" not in str(caught.value)
