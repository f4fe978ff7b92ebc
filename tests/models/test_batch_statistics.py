"""Batch norms with the statistics of given inputs, as a control with random weights."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from contam.models.batch_statistics import batch_norms, calibrate, calibrated
from contam.models.small import resnet8


def batches(count=3, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return [2 + 3 * torch.rand(8, 3, 32, 32, generator=draws) for _ in range(count)]


def test_statistics_are_those_of_torch_and_weights_stay():
    ours, theirs = resnet8(width=4, seed=0), resnet8(width=4, seed=0)
    before = {name: value.clone() for name, value in ours.named_parameters()}
    calibrate(ours, batches())
    update_bn(batches(), theirs)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    for name, value in ours.named_parameters():
        assert torch.equal(value, before[name])


def test_activations_of_a_calibrated_network_have_the_scale_of_normalized_ones():
    drawn = resnet8(width=4, seed=0).eval()
    network = calibrated(drawn, batches(1))
    (x,) = batches(1)
    with torch.no_grad():
        spread = [
            nn.Sequential(model.encoder.get_submodule("conv"), model.encoder.get_submodule("norm"))(
                x
            ).std(dim=(0, 2, 3))
            for model in (network, drawn)
        ]
    torch.testing.assert_close(spread[0], torch.ones(4), atol=0.01, rtol=0)
    assert (spread[1] - 1).abs().min() > 0.05


def test_only_batch_norms_are_in_training_mode_and_all_is_restored():
    modes = []

    class Recorder(nn.Module):
        def forward(self, x):
            modes.append(self.training)
            return x

    network = nn.Sequential(Recorder(), nn.BatchNorm2d(3, momentum=0.3)).train()
    calibrate(network, batches(2))
    assert modes == [False, False]
    assert network.training and network[1].training and network[1].momentum == 0.3


def test_a_network_without_batch_norms_sees_no_input():
    def never():
        raise AssertionError("an input was read")
        yield

    calibrate(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)), never())


def test_a_single_value_for_each_channel_is_an_error_and_momenta_return():
    network = nn.Sequential(nn.BatchNorm1d(2, momentum=0.2))
    with pytest.raises(ValueError, match="more than 1 value"):
        calibrate(network, [torch.ones(1, 2)])
    assert [norm.momentum for norm in batch_norms(network)] == [0.2]
