"""Responses to backgrounds: additive and coupled backgrounds, and gates."""

import pytest
import torch

from contam.measures.background_response import background_response, gate_drive

Y = torch.tensor([0, 0, 1, 1])


def response(gain: torch.Tensor, add: torch.Tensor):
    """Class 1 has a response of 2, which a background multiplies; it also adds an amount."""
    objects = 2.0 * Y[:, None, None]
    return background_response(objects * gain[None, :, None] + add[None, :, None], Y)


def test_an_additive_background_has_variance_and_no_interaction():
    shares = response(torch.ones(2), torch.tensor([0.0, 1.0]))
    assert shares.interaction == pytest.approx(0)
    assert shares.relative == pytest.approx(0.25) and shares.within == pytest.approx(1)


def test_a_background_that_scales_the_class_response_interacts():
    shares = response(torch.tensor([0.5, 1.5]), torch.zeros(2))
    assert shares.interaction > 0.1


def test_equal_class_means_are_rejected():
    with pytest.raises(ValueError, match="class means are equal"):
        background_response(torch.tensor([[[0.0], [1.0]], [[1.0], [0.0]]]), torch.tensor([0, 1]))


def test_backgrounds_that_change_nothing_have_no_part_in_any_variance():
    assert response(torch.ones(2), torch.zeros(2)) == (0, 0, 0)


def test_a_layer_without_any_activity_has_no_drive():
    with pytest.raises(ValueError, match="no neuron is active"):
        gate_drive(torch.zeros(2, 3), torch.zeros(4, 3), torch.ones(1, 3))


def test_gates_count_by_their_asymmetry_and_by_the_drive_of_backgrounds():
    values = torch.ones(3, 2)
    open_to_all = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    asymmetric = torch.tensor([[1.0, 0.5], [0.0, 0.5]])
    alone = torch.tensor([[2.0, 9.0]])
    assert gate_drive(open_to_all, values, alone) == 0
    assert gate_drive(asymmetric, values, alone) == pytest.approx(0.5 * 2 / 2)
    assert gate_drive(asymmetric, values, torch.zeros(1, 2)) == 0
