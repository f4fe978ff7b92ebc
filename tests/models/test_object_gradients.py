"""Gradients of positions of the object: outputs, blocked positions and neighbors."""

import pytest
import torch
from torch import nn

from contam.models.object_gradients import ObjectGradients
from contam.models.small import small_cnn


def pair(mask: torch.Tensor) -> tuple[nn.Conv2d, ObjectGradients, torch.Tensor]:
    model = ObjectGradients(nn.Conv2d(3, 2, 3, padding=1, bias=False))
    assert isinstance(model.network, nn.Conv2d)
    image = torch.rand(1, 3, *mask.shape, generator=torch.Generator().manual_seed(0))
    return model.network, model, torch.cat([image, mask[None, None].float()], dim=1)


def test_outputs_are_those_of_the_network():
    network = small_cnn(width=4).eval()
    x = torch.rand(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ObjectGradients(network)(x), network(x[:, :3]))


def test_an_image_without_an_object_gives_no_gradient():
    convolution, model, x = pair(torch.zeros(6, 6))
    model(x).square().sum().backward()
    assert convolution.weight.grad is not None and not convolution.weight.grad.any()


def test_an_object_that_fills_the_image_gives_the_whole_gradient():
    convolution, model, x = pair(torch.ones(6, 6))
    (own,) = torch.autograd.grad(model(x).square().sum(), [convolution.weight])
    output = nn.functional.conv2d(x[:, :3], convolution.weight, padding=1)
    (whole,) = torch.autograd.grad(output.square().sum(), [convolution.weight])
    torch.testing.assert_close(own, whole)


def test_networks_without_convolutions_are_rejected():
    with pytest.raises(ValueError, match="Linear has no Conv2d"):
        ObjectGradients(nn.Linear(3, 2))
