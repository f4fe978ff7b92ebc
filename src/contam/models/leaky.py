"""Copies of networks with leaky activations in place of ReLUs."""

import copy

from torch import nn

SLOPE = 0.3
"""Slope of `with_leaky_activations` for negative inputs."""


def with_leaky_activations(model: nn.Module, slope: float = SLOPE) -> nn.Module:
    """Copy a network with a leaky ReLU in place of every ReLU.

    A leaky ReLU is a ReLU beside a linear path: `slope * x + (1 - slope) * relu(x)`. Parameters
    keep their names and values. ReLUs that the network calls as functions are not replaced.

    Args:
        model: the network.
        slope: slope for negative inputs, the share of the linear path.

    Source: ours, since linear networks do not accumulate background features.

    Raises:
        ValueError: the network has no module of the class ReLU.

    >>> with_leaky_activations(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))[1]
    LeakyReLU(negative_slope=0.3)
    """
    model = copy.deepcopy(model)
    replaced = False
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.ReLU:
                setattr(parent, name, nn.LeakyReLU(slope, inplace=child.inplace))
                replaced = True
    if not replaced:
        raise ValueError(
            f"this {type(model).__name__} has no ReLU to replace; networks with other activations, "
            "or with ReLUs that they call as functions, can't be converted"
        )
    return model
