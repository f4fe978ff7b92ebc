"""The published weights of EfficientNet-Lite0, in timm's network and as the audit's reference."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from contam.auditing.prepare import prepare
from contam.models import efficientnet_lite
from contam.models.checkpoints import read_weights
from contam.models.efficientnet_lite import NAME, renamed, weights_file
from contam.models.small import small_cnn
from contam.models.sources import load

STAGES = ((1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1))
"""Blocks, kernel and first stride of each stage, from Table 1 of Tan and Le (2019)."""
PALACE, DAISY = 698, 985
"""Classes of ImageNet that scikit-learn's two sample photos show."""

installed = pytest.mark.skipif(weights_file() is None, reason="the extra reference is missing")


def normalized(state: dict[str, Tensor], name: str, x: Tensor, *, clipped: bool = True) -> Tensor:
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    x = F.batch_norm(x, mean, variance, weight, bias, eps=1e-3)
    return x.clamp(0, 6) if clipped else x


def convolved(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """TensorFlow's "same" padding: its odd pixel is on the right and at the bottom."""
    side, kernel = x.shape[-1], weight.shape[-1]
    pad = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    x = F.pad(x, (pad // 2, pad - pad // 2) * 2)
    return F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])


def lite0(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits of the network, written with the file's own names and without timm."""
    x = normalized(state, "_bn0", convolved(x, state["_conv_stem.weight"], 2))
    number = 0
    for blocks, _, first in STAGES:
        for place in range(blocks):
            block, start = f"_blocks.{number}", x
            if number:
                x = F.conv2d(x, state[f"{block}._expand_conv.weight"])
                x = normalized(state, f"{block}._bn0", x)
            weight = state[f"{block}._depthwise_conv.weight"]
            x = convolved(x, weight, 1 if place else first)
            x = normalized(state, f"{block}._bn1", x)
            x = F.conv2d(x, state[f"{block}._project_conv.weight"])
            x = normalized(state, f"{block}._bn2", x, clipped=False)
            x = x + start if place else x
            number += 1
    x = normalized(state, "_bn1", F.conv2d(x, state["_conv_head.weight"]))
    return F.linear(x.mean(dim=(2, 3)), state["_fc.weight"], state["_fc.bias"])


@installed
def test_the_renamed_weights_compute_what_their_own_names_say():
    path = weights_file()
    assert path is not None
    state, source = read_weights(path).state, load(NAME, weights=path)
    assert source.head is not None
    kernels = [weight.shape[-1] for name, weight in state.items() if "_depthwise_conv" in name]
    assert kernels == [kernel for blocks, kernel, _ in STAGES for _ in range(blocks)]
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, expected = source.head(source.encoder(x)), lite0(state, x)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@installed
@pytest.mark.parametrize(("photo", "label"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_it_recognizes_photos(photo, label):
    source = load(NAME, weights=weights_file())
    assert source.head is not None
    x = source.transform(Image.fromarray(load_sample_image(photo)))[None]
    with torch.no_grad():
        assert int(source.head(source.encoder(x)).argmax()) == label


@installed
def test_the_audit_takes_it_by_default():
    x, y = torch.rand(12, 3, 8, 8), torch.arange(12) % 3
    prepared = prepare(small_cnn(classes=3, width=3), id=(x, y), control=False)
    assert prepared.inputs.reference_name == NAME
    assert prepared.inputs.reference is not None
    assert prepared.inputs.reference(x[:2]).shape == (2, 1280)


def test_without_the_package_there_is_no_file(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "no-such-package")
    assert weights_file() is None


def test_names_of_other_networks_stay():
    state = {name: torch.zeros(1) for name in ("conv_stem.weight", "_blocks.16._bn0.bias")}
    assert renamed(state) == state
