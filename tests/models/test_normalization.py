"""Converted networks: the arithmetic to the letter, and everything else as it was."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from contam.models.normalization import centered, with_centering, with_instance_norm
from contam.models.small import resnet8, small_cnn

CONVERSIONS = (with_centering, with_instance_norm)


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 + 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stirred(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """With statistics and parameters of which none is a default."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return norm


def test_centering_by_hand():
    x = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]], [[[0.0, 0.0], [0.0, 8.0]]]])
    expected = torch.tensor([[[[-3.0, -1.0], [1.0, 3.0]]], [[[-2.0, -2.0], [-2.0, 6.0]]]])
    assert torch.equal(centered(x), expected)


def test_centered_batch_norm_is_batch_norm_of_centered_maps():
    norm, x = stirred(nn.BatchNorm2d(4)), maps(5, 4, 6, 7)
    alone = x - x.mean(dim=(2, 3), keepdim=True)
    model = with_centering(nn.Sequential(norm))
    torch.testing.assert_close(model.eval()(x), norm.eval()(alone))
    torch.testing.assert_close(model.train()(x), norm.train()(alone))
    torch.testing.assert_close(model.state_dict()["0.running_var"], norm.running_var)


def test_instance_norm_divides_each_map_by_its_own_deviation():
    norm, x = stirred(nn.BatchNorm2d(4, eps=0.1)), maps(5, 4, 6, 7)
    model = with_instance_norm(nn.Sequential(norm))
    variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
    scaled = (x - mean) / (variance + 0.1).sqrt()
    expected = scaled * norm.weight.view(1, 4, 1, 1) + norm.bias.view(1, 4, 1, 1)
    torch.testing.assert_close(model.eval()(x), expected)
    torch.testing.assert_close(model.train()(x), expected)


@given(shift=st.floats(-100, 100), channel=st.integers(0, 2), train=st.booleans())
def test_a_constant_added_to_a_map_is_removed(shift, channel, train):
    x = maps(4, 3, 5, 5).double()
    moved = x.clone()
    moved[1, channel] += shift
    for convert in CONVERSIONS:
        model = convert(nn.Sequential(nn.BatchNorm2d(3)).double()).train(train)
        torch.testing.assert_close(model(moved), model(x))


def test_the_scale_of_an_image_survives_centering_but_not_instance_norm():
    x = maps(4, 3, 5, 5)
    bigger = x.clone()
    bigger[0] *= 3
    plain = nn.Sequential(nn.BatchNorm2d(3, eps=1e-12)).eval()
    center, instance = with_centering(plain), with_instance_norm(plain)
    torch.testing.assert_close(center(bigger)[0], 3 * center(x)[0])
    torch.testing.assert_close(instance(bigger)[0], instance(x)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("convert", CONVERSIONS)
@pytest.mark.parametrize("build", [small_cnn, resnet8])
def test_the_original_is_unchanged_and_parameters_keep_names_and_values(build, convert):
    model = build(3, width=4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = convert(model)
    converted = dict(other.named_parameters())
    assert list(converted) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert torch.equal(converted[name], parameter) and converted[name] is not parameter
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    kinds = {type(module).__name__ for module in other.modules()}
    assert "BatchNorm2d" not in kinds
    assert "BatchNorm2d" in {type(module).__name__ for module in model.modules()}


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_gradients_reach_every_parameter_and_modes_are_kept(convert):
    model = small_cnn(3, width=4)
    model.get_submodule("encoder.norm2").eval()
    other = convert(model)
    assert [m.training for m in other.modules()] == [m.training for m in model.modules()]
    F.cross_entropy(other(torch.rand(4, 3, 16, 16)), torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None for p in other.parameters())


def test_centering_again_changes_nothing():
    model = with_centering(small_cnn(3, width=4)).eval()
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    again = with_centering(model)
    assert torch.equal(again(x), model(x))
    assert [type(m) for m in again.modules()] == [type(m) for m in model.modules()]


class BatchNormAct(nn.BatchNorm2d):
    """With a dropout and an activation inside, as timm builds it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop = nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, input):
        return self.act(self.drop(super().forward(input)))


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_an_activation_inside_the_batch_norm_stays(convert):
    norm = stirred(BatchNormAct(4)).eval()
    plain = nn.BatchNorm2d(4).eval()
    plain.load_state_dict(norm.state_dict())
    x = maps(5, 4, 6, 6)
    converted = convert(nn.Sequential(norm))(x)
    torch.testing.assert_close(converted, convert(nn.Sequential(plain))(x).relu())
    assert converted.min() == 0


def test_a_shared_layer_stays_shared():
    norm = nn.BatchNorm2d(3)
    for convert in CONVERSIONS:
        other = convert(nn.Sequential(norm, nn.ReLU(), nn.Sequential(norm)))
        assert other.get_submodule("0") is other.get_submodule("2.0")


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_a_network_without_batch_norm_is_rejected(convert):
    with pytest.raises(ValueError, match="no BatchNorm2d to convert"):
        convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)))


def test_one_position_is_too_few_to_center():
    model = with_centering(nn.Sequential(nn.BatchNorm2d(3))).eval()
    with pytest.raises(ValueError, match="give larger images"):
        model(torch.rand(2, 3, 1, 1))


def test_an_unknown_subclass_of_batch_norm_is_rejected():
    class Louder(nn.BatchNorm2d):
        def forward(self, input):
            return 2 * super().forward(input)

    norm, x = Louder(3).eval(), maps(2, 3, 4, 4)
    with pytest.raises(ValueError, match="can't replace a Louder"):
        with_instance_norm(nn.Sequential(norm))
    torch.testing.assert_close(with_centering(nn.Sequential(norm))(x), norm(centered(x)))
