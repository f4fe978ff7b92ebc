"""Both context managers restore everything, also after an exception."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from contam.models.logits_adapter import LogitsAdapter
from contam.models.preserve import evaluating, preserve_model


def peculiar() -> nn.Sequential:
    """In training mode but for one layer, with a frozen parameter and a gradient."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout())
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones(3, 2)
    return model


def state(model: nn.Module) -> list:
    generators = random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    return [
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        [buffer.tolist() for buffer in model.buffers()],
        torch.get_rng_state().tolist(), *generators, torch.is_grad_enabled(),
    ]  # fmt: skip


def disturb(model: nn.Module) -> None:
    model.train()
    model(torch.rand(4, 2))
    random.random()
    np.random.rand()  # noqa: NPY002


@pytest.mark.parametrize("fails", [False, True])
def test_preserve_model_restores_everything(fails):
    model = peculiar()
    before = state(model)
    try:
        with preserve_model(model):
            disturb(model)
            model.requires_grad_(False)
            model.zero_grad()
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert state(model) == before


@pytest.mark.parametrize("fails", [False, True])
def test_evaluating_restores_modes_and_random_states(fails):
    model = peculiar()
    before = state(model)
    try:
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            model(torch.rand(4, 2))
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert state(model) == before


@pytest.mark.parametrize("context", [evaluating, preserve_model])
def test_the_mode_of_a_network_in_an_adapter_is_restored(context):
    network = peculiar()
    adapter = LogitsAdapter(network)
    with context(adapter):
        adapter.eval()
        assert not network.training
    assert network.training and adapter.training
