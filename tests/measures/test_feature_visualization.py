"""Pictures that maximize a channel, checked on networks whose best picture is known."""

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from contam.measures.feature_visualization import (
    box_blur,
    channel_means,
    displayed,
    hue_share,
    redness,
    visualize_channels,
)
from contam.models.resnet_cifar import resnet_cifar
from contam.rng import generator_for, seeded


def pixelwise(*weights: tuple[float, float, float]) -> nn.Sequential:
    """A network whose channels weigh the colors of every pixel."""
    model = nn.Sequential(nn.Conv2d(3, len(weights), 1, bias=False))
    model[0].weight.data = torch.tensor(weights)[:, :, None, None]
    return model


def test_one_adam_step_follows_the_gradient_by_hand():
    """Without a penalty, the gradient of a linear channel's mean is its weights over the pixels.

    Adam's first step has the size of its step size and the sign of the gradient.
    """
    model = pixelwise((1.0, -2.0, 0.5))
    start, moved = (
        visualize_channels(model, "0", [0], 4, restarts=1, steps=steps, step_size=0.1, penalty=0.0)
        for steps in (1, 2)
    )
    signs = torch.tensor([1.0, -1.0, 1.0])[None, :, None, None]
    torch.testing.assert_close(moved - start, (0.1 * signs).expand_as(start), rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["squared", "plain"])
def test_the_optimum_balances_channel_and_penalty(
    norm: Literal["squared", "plain"],
):
    """The optimum of w . x / n - p |x - 1/2|^2 is x = 1/2 + w / (2 p n).

    With the plain norm the objective is linear along its best direction w, so pictures move along
    w without end when the channel weighs more than the penalty, and back to gray otherwise.
    """
    weights = torch.tensor([0.6, -0.3, 0.2])
    model = pixelwise(tuple(weights.tolist()))
    pixels = 16

    def optimized(penalty: float) -> torch.Tensor:
        return visualize_channels(
            model, "0", [0], 4, restarts=1, steps=600, step_size=5e-3, penalty=penalty, norm=norm
        )

    if norm == "squared":
        picture = optimized(0.1)
        best = 0.5 + weights / (2 * 0.1 * pixels)
        torch.testing.assert_close(
            picture[0], best[:, None, None].expand(3, 4, 4), rtol=0, atol=5e-3
        )
        return
    slope = float(weights.norm()) / pixels**0.5
    far, near = (optimized(share * slope) for share in (0.5, 2.0))
    assert float((far - 0.5).norm()) > 10 * float((near - 0.5).norm())
    along = (far[0] - 0.5).mean(dim=(1, 2))
    assert float(torch.cosine_similarity(along, weights, dim=0)) > 0.9


def test_each_channel_is_optimized_independently():
    model = pixelwise((1.0, 0.0, 0.0), (0.0, 1.0, 1.0), (0.3, 0.3, 0.3))
    together = visualize_channels(model, "0", [0, 1, 2], 8, restarts=2, steps=20)
    alone = visualize_channels(model, "0", [0], 8, restarts=2, steps=20)
    torch.testing.assert_close(together[:1], alone)
    reds = redness(together.clamp(0, 1))
    assert reds[0] > 0.2 and reds[1] < -0.2 and abs(float(reds[2])) < 0.05


def test_more_steps_raise_every_channel():
    with seeded(0, "test/weights"):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    values = []
    for steps in (1, 30):
        pictures = visualize_channels(
            model, "2", range(4), 16, restarts=1, steps=steps, penalty=0.0
        )
        with torch.no_grad():
            values.append(channel_means(model(pictures), torch.arange(4)))
    assert bool((values[1] > values[0]).all())


def test_the_network_is_unchanged():
    model = resnet_cifar(8, width=4).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    visualize_channels(model, "encoder.layer3.0.conv2", range(4), 16, restarts=2, steps=2)
    assert model.training and torch.get_rng_state().equal(state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(model.state_dict()[name].equal(tensor) for name, tensor in before.items())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_blur_is_the_mean_over_a_square():
    x = torch.rand(2, 3, 7, 9, generator=generator_for(0, "test/blur"))
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), (2, 2), (2, 2)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(2, 3))
    assert box_blur(x, 5).numpy() == pytest.approx(windows.mean(axis=(-2, -1)), abs=1e-6)
    assert box_blur(x, 1).equal(x)


def test_redness_by_hand():
    brick = torch.tensor([150, 50, 50]) / 255
    pictures = torch.stack([brick, 1 - brick, torch.full((3,), 0.3)])[:, :, None, None]
    assert redness(pictures).tolist() == pytest.approx([100 / 255, -100 / 255, 0.0], abs=1e-6)
    blue = torch.tensor([0.0, 0.0, 1.0])
    assert redness(blue[None, :, None, None], blue).tolist() == pytest.approx([1.0])


@given(st.integers(0, 10_000))
def test_redness_lies_between_the_complement_and_the_color(seed):
    generator = generator_for(seed, "test/redness")
    # A color near gray has a direction that single precision leaves uncertain.
    pictures = torch.rand(4, 3, 3, 3, generator=generator, dtype=torch.float64)
    color = torch.rand(3, generator=generator, dtype=torch.float64)
    values = redness(pictures, color)
    assert float(values.abs().max()) <= 1 + 1e-6
    torch.testing.assert_close(redness(1 - pictures, color), -values, rtol=0, atol=1e-5)
    brighter = redness(pictures * 0.5 + 0.25, color)
    torch.testing.assert_close(brighter, values * 0.5, rtol=0, atol=1e-5)


@given(st.integers(0, 10_000))
def test_shares_of_two_perpendicular_hues_sum_to_one(seed):
    """Red and the axis from green to blue are perpendicular among colors of one brightness."""
    pictures = torch.rand(3, 3, 4, 4, generator=generator_for(seed, "test/hues"))
    red = hue_share(pictures)
    green_to_blue = hue_share(pictures, torch.tensor([0.5, 0.0, 1.0]))
    torch.testing.assert_close(red + green_to_blue, torch.ones(3))
    # Scale, brightness and the sign of the colors do not count.
    torch.testing.assert_close(hue_share(-3 * pictures + 7), red, rtol=0, atol=1e-4)


def test_uniform_hues_have_share_one_half():
    """The mean over hues is the mean of a squared cosine: 1/2. 30 000 pixels: 1 % is 5 sigma."""
    noise = torch.randn(1, 3, 200, 150, generator=generator_for(0, "test/hues"))
    assert hue_share(noise).item() == pytest.approx(0.5, abs=0.01)


def test_a_picture_without_color_has_no_share():
    assert hue_share(torch.full((1, 3, 2, 2), 0.3)).isnan().all()


def test_a_displayed_image_spans_the_full_range():
    pictures = torch.randn(3, 3, 4, 4, generator=generator_for(0, "test/display"))
    shown = displayed(pictures)
    assert shown.amin(dim=(1, 2, 3)).tolist() == [0.0] * 3
    assert shown.amax(dim=(1, 2, 3)).tolist() == [1.0] * 3
    torch.testing.assert_close(displayed(5 * pictures - 2), shown)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"layer": "1"}, r"no layer '1'; its convolutions are \['0'\]"),
        ({"channels": [2]}, r"shape \(1, 2, 8, 8\); expected"),
        ({"channels": [-1]}, "channels -1 to -1"),
        ({"blur": 4}, "an odd blur"),
        ({"steps": 0}, "positive restarts, steps"),
        ({"penalty": -1.0}, "penalty >= 0"),
    ],
)
def test_invalid_arguments_are_rejected_in_one_line(change, line):
    given = {"layer": "0", "channels": [0], "size": 8, "restarts": 1, "steps": 1} | change
    with pytest.raises(ValueError, match=line) as error:
        visualize_channels(pixelwise((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), **given)
    assert "\n" not in str(error.value)
