"""Small networks, and the comparison of two."""

import torch
from torch import nn

from contam.models.classifier import Classifier
from contam.models.small import small_cnn


def smooth_network(seed: int = 0, dropout: float = 0.0) -> Classifier:
    """A network in double precision whose gradient is the mean of its minibatch's parts.

    It has no batch normalization, whose statistics would be those of a part, and tanh for ReLU.
    """
    model = small_cnn(3, width=4, seed=seed)
    for name, layer in list(model.encoder.named_children()):
        if isinstance(layer, nn.BatchNorm2d):
            setattr(model.encoder, name, nn.Identity())
        if isinstance(layer, nn.ReLU):
            setattr(model.encoder, name, nn.Tanh())
    if dropout:
        model.encoder.add_module("drop", nn.Dropout(dropout))
    return model.double()


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    """Assert that parameters and buffers are equal, bit for bit."""
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
