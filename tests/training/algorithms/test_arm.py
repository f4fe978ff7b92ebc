"""ARM: its context channel, the start from the given network, and the trained context network."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.domain_batches import domain_batches
from support.networks import smooth_network
from support.plain_training import assert_minimizes, batch_norm, cross_entropy, relu
from support.two_parameters import two_parameter_network
from torch import nn

from contam.batch import Batch
from contam.models.classifier import Classifier
from contam.models.preserve import evaluating
from contam.models.resnet_cifar import resnet_cifar
from contam.models.small import resnet8, small_cnn
from contam.models.sources import load
from contam.training.algorithms.algorithm import AlgorithmSettings, pooled
from contam.training.algorithms.arm import ARM, ARMSettings, ContextConvolution, read_context
from contam.training.algorithms.erm import ERM

SETTINGS = ARMSettings(step_size=0.01, context_width=4, batch_size=4)


def context_layer(arm: ARM) -> ContextConvolution:
    layer = arm.network.encoder.get_submodule("conv1")
    assert isinstance(layer, ContextConvolution)
    return layer


def make(network: Classifier) -> ARM:
    arm = ARM(network, domains=2, classes=3, settings=SETTINGS, seed=0)
    arm.network.to(torch.float64)
    return arm


def test_by_hand():
    """A context of image means, two groups, and a 1 x 1 convolution."""
    layer = ContextConvolution(nn.Conv2d(1, 1, 1), width=1, support=2)
    layer.context = nn.Sequential()
    with torch.no_grad():
        layer.convolution.weight.copy_(torch.tensor([2.0, 10.0]).view(1, 2, 1, 1))
        layer.convolution.get_parameter("bias").fill_(1.0)
    x = torch.tensor([0.0, 4.0, 6.0]).view(3, 1, 1, 1)
    assert layer(x).flatten().tolist() == [1 + 20, 1 + 8 + 20, 1 + 12 + 60]
    with layer.sharing([1, 2]):
        assert layer(x).flatten().tolist() == [1, 1 + 8 + 50, 1 + 12 + 50]


def test_steps_by_hand():
    """Images of 1 x 2 pixels, of which the 5 x 5 filters reach three weights."""
    torch.manual_seed(0)
    network = Classifier(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Tanh(), nn.Flatten()), 2, 4)
    settings = ARMSettings(step_size=0.05, context_width=2)
    algorithm = ARM(network, domains=2, classes=2, settings=settings, seed=0)
    network.double()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(7, 1, 1, 2, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    x, y = images.numpy()[:, :, 0], labels.numpy()

    def filtered(x, weight, bias):
        left = x[:, :, 0] @ weight[:, :, 2, 2].T + x[:, :, 1] @ weight[:, :, 2, 3].T
        right = x[:, :, 0] @ weight[:, :, 2, 1].T + x[:, :, 1] @ weight[:, :, 2, 2].T
        return np.stack([left, right], axis=2) + bias[:, None]

    def loss(_here):
        def objective(v):
            context = x
            for layer in (0, 3, 6):
                name = f"encoder.0.context.{layer}"
                context = filtered(context, v[f"{name}.weight"], v[f"{name}.bias"])
                if layer < 6:
                    scale, shift = (
                        v[f"encoder.0.context.{layer + 1}.{kind}"][:, None]
                        for kind in ("weight", "bias")
                    )
                    context = relu(batch_norm(context, scale, shift, axes=(0, 2)))
            means = [context[:4].mean(0)] * 4 + [context[4:].mean(0)] * 3
            inputs = np.concatenate([x, np.stack(means)], axis=1)
            weight = v["encoder.0.convolution.weight"][:, :, 0, 0]
            maps = np.einsum("ncp,oc->nop", inputs, weight)
            maps = np.tanh(maps + v["encoder.0.convolution.bias"][:, None])
            logits = maps.reshape(7, 4) @ v["head.weight"].T + v["head.bias"]
            return cross_entropy(logits, y)

        return objective

    domains = [slice(0, 4), slice(4, 7)]
    batches = [Batch(images[part], labels[part], labels[part]) for part in domains]
    assert_minimizes(algorithm, network, loss, batches)


def test_the_convolution_is_linear_in_image_and_context():
    plain = nn.Conv2d(3, 5, 3, stride=2, padding=1).double()
    layer = ContextConvolution(plain, width=4, support=2).double()
    weight = layer.convolution.weight
    with torch.no_grad():
        weight[:, 3:].normal_()
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    with evaluating(layer):
        context = layer.context(x).unflatten(0, (2, 2)).mean(1).repeat_interleave(2, dim=0)
        expected = plain(x) + F.conv2d(context, weight[:, 3:], stride=2, padding=1)
        torch.testing.assert_close(layer(x), expected)


MAKERS = {
    "small_cnn": lambda: small_cnn(3, width=4),
    "resnet8": lambda: resnet8(3, width=8),
    "resnet_cifar": lambda: resnet_cifar(8, 3, width=4),
    "timm": lambda: Classifier(load("timm:resnet10t", seed=0).encoder, 3, 512),
}


@pytest.mark.parametrize("name", MAKERS)
def test_it_starts_with_the_outputs_of_the_network(name):
    network = MAKERS[name]()
    before, x = copy.deepcopy(network), torch.rand(5, 3, 32, 32)
    read_context(network, width=4, support=2)
    with evaluating(before), evaluating(network):
        torch.testing.assert_close(network(x), before(x), rtol=1e-4, atol=1e-5)


def test_the_first_gradient_of_the_network_is_that_of_erm():
    plain, arm = smooth_network(), make(smooth_network())
    batches = domain_batches(6, 9)
    arm.step(batches)
    x, y, _ = pooled(batches)
    F.cross_entropy(plain(x), y).backward()
    expected = dict(plain.named_parameters())
    layer = context_layer(arm)
    for name, value in arm.network.named_parameters():
        if not name.startswith("encoder.conv1."):
            torch.testing.assert_close(value.grad, expected[name].grad)
    own = layer.convolution.weight.grad
    assert own is not None
    torch.testing.assert_close(own[:, :3], expected["encoder.conv1.weight"].grad)


def test_with_a_context_of_zeros_it_is_erm():
    network, plain = smooth_network(), smooth_network()
    settings = AlgorithmSettings(step_size=SETTINGS.step_size)
    arm, erm = make(network), ERM(plain, domains=2, classes=3, settings=settings, seed=0)
    layer = context_layer(arm)
    for parameter in layer.context[-1].parameters():
        nn.init.zeros_(parameter)
    for _ in range(5):
        arm.step(domain_batches(6, 9))
        erm.step(domain_batches(6, 9))
    state, expected = arm.network.state_dict(), plain.state_dict()
    images, context = state["encoder.conv1.convolution.weight"].split([3, 1], dim=1)
    assert not context.any()
    state["encoder.conv1.weight"] = images
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-9, atol=1e-12)


def test_the_context_network_is_trained():
    arm = make(smooth_network())
    layer = context_layer(arm)
    before = copy.deepcopy(layer.context.state_dict())
    for _ in range(2):
        arm.step(domain_batches(6, 9))
    for name, value in layer.context.named_parameters():
        assert not torch.equal(before[name], value) or name in ("0.bias", "3.bias"), name
    assert layer.convolution.weight[:, 3].abs().max() > 0


def test_an_example_depends_on_its_group_alone():
    arm = make(smooth_network())
    batches = domain_batches(8, 8)
    for _ in range(5):
        arm.step(batches)
    x = batches[0].x
    changed = x.clone()
    changed[4:] = batches[1].x[4:]
    with evaluating(arm.evaluated):
        logits, other = arm.evaluated(x), arm.evaluated(changed)
        changed[0] += 1
        third = arm.evaluated(changed)
    torch.testing.assert_close(logits[:4], other[:4], rtol=1e-12, atol=1e-12)
    assert (third[1:4] - other[1:4]).abs().max() > 1e-9


@pytest.mark.parametrize("network", [two_parameter_network(), Classifier(
    nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten()), 2, 4)])  # fmt: skip
def test_networks_without_a_plain_first_convolution_are_rejected(network):
    with pytest.raises(ValueError, match="has no two-dimensional convolution without groups"):
        ARM(network, domains=2, classes=2, seed=0)
