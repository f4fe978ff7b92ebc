"""Networks before training: their shape, and how their weights start."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from contam.rng import generator_for
from contam.theory.features import FeatureModel
from contam.theory.network import ACTIVATIONS, MLP, linear

Activation = Literal["relu", "identity", "leaky_relu", "gelu", "sigmoid", "tanh"]
Bias = Literal["none", "hidden", "all"]
Head = Literal["fixed", "trained"]
Initialization = Literal["gaussian", "uniform"]


@dataclass(frozen=True)
class Architecture:
    """The shape of a network, and how its weights start.

    "gaussian" starts weights at N(0, 1 / fan-in) and biases at 0; "uniform" starts both at
    U(-1, 1) / sqrt(fan-in), as linear layers in torch do. The fan-in of the first layer is the
    ambient dimension. A fixed head is +1/m or -1/m, evenly and independently, and stays; a
    trained one starts like the other layers. `bias` says which layers have one.

    Raises:
        ValueError: a size below 1, or a choice that does not exist.

    Source: Sec. 3.2, App. F.1.
    """

    width: int = 256
    depth: int = 1
    """Hidden layers."""
    outputs: int = 1
    activation: Activation = "relu"
    slope: float = 0.01
    """Of leaky_relu, below 0."""
    bias: Bias = "none"
    head: Head = "fixed"
    initialization: Initialization = "gaussian"

    def __post_init__(self) -> None:
        for name in ("width", "depth", "outputs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name, choices in (
            ("activation", (*ACTIVATIONS, "leaky_relu")),
            ("bias", ("none", "hidden", "all")),
            ("head", ("fixed", "trained")),
            ("initialization", ("gaussian", "uniform")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"no {name} {getattr(self, name)!r}; choose one of {', '.join(choices)}"
                )

    def start(
        self,
        features: FeatureModel,
        seed: int,
        *,
        ambient: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> MLP:
        """The untrained network of a seed: the same one in feature and in ambient coordinates."""
        m, d, draws = self.width, features.dimension, _Draws(self.initialization, seed, dtype)
        biased = self.bias != "none"
        hidden = [
            linear(
                _first_weight(draws, m, features, ambient),
                draws.bias(m, d, "bias 1") if biased else None,
            )
        ]
        for layer in range(2, self.depth + 1):
            bias = draws.bias(m, m, f"bias {layer}") if biased else None
            hidden.append(linear(draws.weight((m, m), m, f"hidden {layer}"), bias))
        head = linear(
            draws.signs((self.outputs, m), "head") / m
            if self.head == "fixed"
            else draws.weight((self.outputs, m), m, "head"),
            draws.bias(self.outputs, m, "head bias") if self.bias == "all" else None,
        )
        head.weight.requires_grad_(self.head == "trained")
        return MLP(
            hidden,
            head,
            activation=self.activation,
            slope=self.slope,
            dictionary=features.matrix(seed, dtype) if ambient else None,
        )


@dataclass(frozen=True)
class _Draws:
    """Initial values, from a stream for each purpose; both precisions draw the same ones."""

    initialization: str
    seed: int
    dtype: torch.dtype

    def weight(self, shape: tuple[int, int], fan_in: int, purpose: str) -> Tensor:
        generator = generator_for(self.seed, f"initial {purpose}")
        if self.initialization == "gaussian":
            drawn = torch.randn(shape, generator=generator)
        else:
            drawn = 2 * torch.rand(shape, generator=generator) - 1
        return drawn.to(self.dtype) / math.sqrt(fan_in)

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

    Along orthonormal directions Gaussian weights are Gaussian again, and along the axes
    uniform ones uniform: then the projections are drawn alone, at d0 / d of the cost.
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
