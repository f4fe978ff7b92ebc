"""Networks before training: how their weights are drawn."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.rng import generator_for
from contam.theory.features import FeatureModel
from contam.theory.intervention import input_module
from contam.theory.network import MLP, linear
from contam.theory.setting import Setting


def initial_network(setting: Setting, seed: int) -> MLP:
    """Draw the untrained network of a setting.

    Args:
        setting: sizes, biases, head and initialization; `ambient` changes the coordinates of the
            first layer, but not the function that the network computes.
        seed: names the draws. Both precisions round the same numbers.

    Returns:
        A network that takes examples in feature coordinates, (n, d0).

    Source: Sec. 3.2, App. F.1.

    >>> network = initial_network(Setting(width=4, depth=2), seed=0)
    >>> [tuple(layer.weight.shape) for layer in network.layers]
    [(4, 64), (4, 4), (1, 4)]
    """
    m, features = setting.width, setting.data.features
    draws = _Draws(setting.initialization, seed, setting.dtype)
    biased = setting.bias != "none"
    hidden = [
        linear(
            _first_weight(draws, m, features, setting.ambient),
            draws.bias(m, features.dimension, "bias 1") if biased else None,
        )
    ]
    for layer in range(2, setting.depth + 1):
        bias = draws.bias(m, m, f"bias {layer}") if biased else None
        hidden.append(linear(draws.weight((m, m), m, f"hidden {layer}"), bias))
    head = linear(
        draws.signs((setting.outputs, m), "head") / m
        if setting.head == "fixed"
        else draws.weight((setting.outputs, m), m, "head"),
        draws.bias(setting.outputs, m, "head bias") if setting.bias == "all" else None,
    )
    change = setting.intervention
    if change.gain != 1:
        head.weight.data.mul_(change.gain)
    head.weight.requires_grad_(setting.head == "trained")
    return MLP(
        hidden,
        head,
        activation=setting.activation,
        slope=setting.slope,
        dictionary=features.matrix(seed, setting.dtype) if setting.ambient else None,
        before=input_module(change, setting.data, seed, setting.dtype),
        normalization=nn.BatchNorm1d(m, affine=False, dtype=setting.dtype)
        if change.hidden == "batch_norm"
        else None,
    )


@dataclass(frozen=True)
class _Draws:
    """Initial values, from a generator for each purpose."""

    initialization: str
    seed: int
    dtype: torch.dtype

    def weight(self, shape: tuple[int, int], fan_in: int, purpose: str) -> Tensor:
        generator = generator_for(self.seed, f"initial {purpose}")
        if self.initialization == "gaussian":
            values = torch.randn(shape, generator=generator)
        else:
            values = 2 * torch.rand(shape, generator=generator) - 1
        return values.to(self.dtype) / math.sqrt(fan_in)

    def bias(self, size: int, fan_in: int, purpose: str) -> Tensor:
        if self.initialization == "gaussian":
            return torch.zeros(size, dtype=self.dtype)
        return self.weight((1, size), fan_in, purpose)[0]

    def signs(self, shape: tuple[int, int], purpose: str) -> Tensor:
        coins = torch.randint(0, 2, shape, generator=generator_for(self.seed, f"initial {purpose}"))
        return (2 * coins - 1).to(self.dtype)


def _first_weight(
    draws: _Draws, m: int, features: FeatureModel, ambient: bool
) -> Float[Tensor, "m inputs"]:
    """Weights in R^d if `ambient`, otherwise their projections on the features.

    Gaussian weights have Gaussian projections on orthonormal directions, and uniform weights have
    uniform projections on the axes: then only the projections are drawn, at d0 / d of the cost.
    """
    d, d0, seed, dtype = features.dimension, features.size, draws.seed, draws.dtype
    if draws.initialization == "uniform" and features.dictionary != "axes":
        weight = draws.weight((m, d), d, "hidden 1")
        return weight if ambient else weight @ features.matrix(seed, dtype)
    within = draws.weight((m, d0), d, "hidden 1")
    if not ambient:
        return within if features.orthonormal else within @ features.gram_root(dtype)
    basis = features.basis(seed, dtype)
    rest = draws.weight((m, d), d, "hidden 1, outside the features")
    return within @ basis.T + rest - (rest @ basis) @ basis.T
