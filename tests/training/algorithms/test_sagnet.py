"""SagNet: mixed styles, the split of encoders of several libraries, and what each loss trains."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.domain_batches import domain_batches
from support.networks import assert_same_weights, smooth_network
from support.plain_training import (
    PlainAdam,
    arrays_of,
    assert_equal_arrays,
    cross_entropy,
    gradient,
)
from support.two_parameters import two_parameter_network
from torch import nn

from contam.batch import Batch
from contam.models.classifier import Classifier
from contam.models.resnet_cifar import resnet_cifar
from contam.models.small import resnet8, small_cnn
from contam.models.sources import load
from contam.rng import seeded
from contam.training.algorithms.sagnet import (
    SagNet,
    SagNetSettings,
    check_split,
    mix_styles,
    split_encoder,
    swap_contents,
    uniformity_loss,
)

MAPS = torch.randn(4, 3, 5, 5, dtype=torch.float64)
OTHERS = torch.tensor([2, 0, 3, 1])


def style(maps):
    return maps.flatten(2).mean(2), maps.flatten(2).var(2)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_style_of_a_mixture(share):
    mixed = mix_styles(MAPS, torch.full((4,), share), OTHERS)
    for result, own in zip(style(mixed), style(MAPS), strict=True):
        expected = share * own + (1 - share) * own[OTHERS]
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    # The content, which is the pattern up to a mean and a scale, stays.
    for image, before in zip(mixed.flatten(0, 1), MAPS.flatten(0, 1), strict=True):
        assert torch.corrcoef(torch.stack([image.flatten(), before.flatten()]))[0, 1] > 1 - 1e-6


def test_its_own_style_changes_nothing():
    torch.testing.assert_close(mix_styles(MAPS, torch.ones(4), OTHERS), MAPS)
    torch.testing.assert_close(mix_styles(MAPS, torch.zeros(4), torch.arange(4)), MAPS)


def test_swapped_contents_keep_the_style_and_get_no_gradient():
    maps = MAPS.clone().requires_grad_()
    swapped = swap_contents(maps, OTHERS)
    for result, own in zip(style(swapped), style(MAPS), strict=True):
        torch.testing.assert_close(result, own, rtol=1e-4, atol=1e-4)
    # The gradient of a map is that of its mean and variance, so linear in its own values.
    (gradient,) = torch.autograd.grad((swapped * torch.randn_like(swapped)).sum(), maps)
    values, slopes = (t.detach().flatten(2)[0, 0] for t in (maps, gradient))
    assert torch.corrcoef(torch.stack([values, slopes]))[0, 1].abs() > 1 - 1e-9


def test_uniform_predictions_have_the_smallest_adversarial_loss():
    logits = torch.randn(5, 4, requires_grad=True)
    assert uniformity_loss(logits) > uniformity_loss(torch.zeros(5, 4))
    uniform = torch.full((5, 4), 0.25)
    torch.testing.assert_close(uniformity_loss(logits), F.cross_entropy(logits, uniform))


MAKERS = {
    "small_cnn": (lambda: small_cnn(3, width=4).encoder, "conv3"),
    "resnet8": (lambda: resnet8(3, width=8).encoder, "stage3"),
    "resnet_cifar": (lambda: resnet_cifar(8, 3, width=4).encoder, "layer3"),
    "timm": (lambda: load("timm:resnet10t", seed=0).encoder, "layer4"),
    "inside another": (
        lambda: nn.Sequential(resnet_cifar(8, 3, width=4).encoder, nn.Dropout(0.5)),
        "0.layer3",
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_parts_of_an_encoder_do_its_work_and_share_its_parameters(name):
    make, first = MAKERS[name]
    encoder, x = make(), torch.rand(2, 3, 64, 64)
    split = split_encoder(encoder)
    check_split(encoder, split, x)
    parts = [*split.maps.parameters(), *split.content.parameters()]
    assert {id(p) for p in parts} == {id(p) for p in encoder.parameters()}
    names = [key for key, _ in encoder.named_parameters()]
    start = next(at for at, key in enumerate(names) if key.startswith(first))
    content = {id(encoder.get_parameter(key)) for key in names[start:]}
    assert {id(p) for p in split.content.parameters()} == content


@pytest.mark.parametrize("make", [
    lambda: nn.Linear(4, 2), lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()),
    lambda: load("timm:test_vit", seed=0).encoder,
])  # fmt: skip
def test_encoders_with_fewer_than_two_convolutions_are_rejected(make):
    encoder = make()
    with pytest.raises(ValueError, match=r'fewer than two .* set styles_of="features"'):
        split_encoder(encoder)


def test_encoders_that_are_no_chain_and_maps_of_one_position_are_rejected():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return (self.one(x) + self.two(x)).mean((2, 3))

    for encoder, message in (
        (Branches(), "can't split this Branches"),
        (nn.Sequential(nn.Conv2d(3, 4, 8), nn.Conv2d(4, 4, 1), nn.Flatten()), "several positions"),
    ):
        algorithm = SagNet(Classifier(encoder, 3, 4).double(), domains=2, classes=3, seed=0)
        with pytest.raises(ValueError, match=message):
            algorithm.step(domain_batches(6, 9))


def make(network: Classifier, **settings) -> SagNet:
    settings = SagNetSettings(**{"step_size": 0.01, **settings})
    return SagNet(network, domains=2, classes=3, settings=settings, seed=0)


def test_steps_by_hand():
    """Maps of two channels and three positions, and the three updates of a step."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Tanh(), nn.Conv2d(2, 2, (1, 3)), nn.Flatten())
    network = Classifier(encoder, 2, 2).double()
    settings = SagNetSettings(step_size=0.05, adversarial_weight=0.7)
    algorithm = SagNet(network, domains=2, classes=2, settings=settings, seed=0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 1, 1, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0, 1])
    x, y = images.numpy()[:, 0], labels.numpy()

    def maps_of(v):
        weight, bias = v["encoder.0.weight"][:, 0, 0], v["encoder.0.bias"][:, None]
        return np.tanh(x * weight + bias)

    def logits_of(maps, kernel, bias, head, head_bias):
        return (np.einsum("ncp,ocp->no", maps, kernel[:, :, 0]) + bias) @ head.T + head_bias

    def content_and_style(maps):
        mean = maps.mean(2, keepdims=True)
        variance = ((maps - mean) ** 2).sum(2, keepdims=True) / 2
        return (maps - mean) / np.sqrt(variance + 1e-5), mean, variance

    def restyled(content, mean, variance):
        return content * np.sqrt(variance + 1e-5) + mean

    def risk(v, share, others):
        content, *style = content_and_style(maps_of(v))
        mixed = (share * part + (1 - share) * part[others] for part in style)
        return cross_entropy(logits_of(restyled(content, *mixed), *[*v.values()][2:]), y)

    def style_risk(s, content, style, others):
        return cross_entropy(logits_of(restyled(content[others], *style), *s.values()), y)

    def adversarial(v, s, content, others):
        _, *style = content_and_style(maps_of(v))
        logits = logits_of(restyled(content[others], *style), *s.values())
        return 0.7 * np.mean(np.log(np.exp(logits).sum(1, keepdims=True)) - logits)

    v, s = arrays_of(network), arrays_of(algorithm.style)
    adam, style_adam = PlainAdam(0.05), PlainAdam(0.05)
    for step in range(4):
        torch.manual_seed(step)
        share = torch.rand(5).double().numpy()[:, None, None]
        one, two, three = (torch.randperm(5).numpy() for _ in range(3))
        expected = [risk(v, share, one)]
        adam.step(v, gradient(partial(risk, share=share, others=one), v))
        content, *style = content_and_style(maps_of(v))
        expected.append(style_risk(s, content, style, two))
        own = partial(style_risk, content=content, style=style, others=two)
        style_adam.step(s, gradient(own, s))
        expected.append(adversarial(v, s, content, three))
        against = partial(adversarial, s=s, content=content, others=three)
        adam.step(v, gradient(against, v, ["encoder.0.weight", "encoder.0.bias"]))

        torch.manual_seed(step)
        domains = [slice(0, 3), slice(3, 5)]
        losses = algorithm.step([Batch(images[p], labels[p], labels[p]) for p in domains])
        assert list(losses.values()) == pytest.approx(expected, rel=1e-9)
        assert_equal_arrays(network, v)
        assert_equal_arrays(algorithm.style, s)


@pytest.mark.parametrize("styles_of", ["maps", "features"])
def test_without_the_adversary_the_content_network_learns_as_by_erm(styles_of):
    """On copies of one image, whose styles are all the same."""
    network, plain = smooth_network(), smooth_network()
    algorithm = make(network, adversarial_weight=0.0, styles_of=styles_of)
    optimizer = torch.optim.Adam(plain.parameters(), 0.01)
    (batch,) = domain_batches(1)
    batch = batch.pick(torch.zeros(4, dtype=torch.int64))
    for _ in range(3):
        algorithm.step([batch, batch])
        optimizer.zero_grad()
        F.cross_entropy(plain(batch.x), batch.y).backward()
        optimizer.step()
    for parameter, expected in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-9, atol=1e-9)


def test_the_adversary_trains_the_maps_and_the_style_loss_the_style_network():
    """Differences between trainings with and without the adversary."""
    networks = {}
    for weight in (0.0, 5.0):
        network = smooth_network()
        algorithm = make(network, adversarial_weight=weight)
        before = copy.deepcopy(algorithm.style.state_dict())
        torch.manual_seed(0)
        losses = algorithm.step(domain_batches(6, 9))
        assert list(losses) == ["risk", "style risk", "adversarial"]
        after = algorithm.style.state_dict()
        assert all(not torch.equal(before[name], after[name]) for name in before)
        networks[weight] = dict(network.named_parameters())
    differ = {
        name for name, value in networks[0.0].items() if not torch.equal(value, networks[5.0][name])
    }
    assert differ == {f"encoder.conv{i}.weight" for i in (1, 2)}


def test_the_adversary_makes_style_predictions_uniform():
    """In images whose class is their color, the style tells the class."""
    losses = {}
    for weight in (0.0, 5.0):
        algorithm = make(smooth_network(), adversarial_weight=weight)
        torch.manual_seed(0)
        for _ in range(20):
            last = algorithm.step(domain_batches(6, 6))
        losses[weight] = last["style risk"]
    assert losses[5.0] > losses[0.0]


def test_a_training_at_maps_resumes_bit_for_bit():
    batches = domain_batches(6, 9)

    def train(algorithm: SagNet, steps: range) -> None:
        for step in steps:
            with seeded(0, f"step {step}"):
                algorithm.step(batches)

    whole, begun, resumed = (make(smooth_network(seed)) for seed in (0, 0, 1))
    train(whole, range(4))
    train(begun, range(2))
    resumed.load_state_tensors(begun.state_tensors())
    train(resumed, range(2, 4))
    assert_same_weights(whole.network, resumed.network)
    assert_same_weights(whole.style, resumed.style)


def test_features_have_a_style_where_maps_have_none():
    algorithm = make(wide_network(), styles_of="features")
    x = torch.randn(6, 2, dtype=torch.float64)
    y = torch.arange(6) % 3
    batch = domain_batches(6)[0]._replace(x=x, y=y)
    assert set(algorithm.step([batch, batch])) == {"risk", "style risk", "adversarial"}


def wide_network() -> Classifier:
    return Classifier(nn.Linear(2, 4), classes=3, width=4).double()


def test_a_network_of_points_is_rejected_at_maps():
    with pytest.raises(ValueError, match="fewer than two"):
        SagNet(two_parameter_network(), domains=2, classes=2, seed=0)
