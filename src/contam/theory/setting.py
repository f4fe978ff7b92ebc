"""Everything that a training run depends on, except its seed."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from contam.theory.architecture import Activation, Architecture, Bias, Head, Initialization
from contam.theory.distribution import DataModel
from contam.theory.engines import LOSSES
from contam.theory.network import MLP

STABLE = 2.5
"""Largest step_size d0 / width for which a fixed head of +-1/m learns smoothly."""


@dataclass(frozen=True)
class Setting:
    """Everything that a training run depends on, except its seed.

    The defaults are the paper's model at the sizes of its numerical experiments, with a step size
    that takes 200 steps where the published one takes 20 000.

    Raises:
        ValueError: a field out of range, or fields that do not fit each other.

    Source: Sec. 3.2, App. F.1.
    """

    data: DataModel = field(default=DataModel())
    width: int = 256
    depth: int = 1
    """Hidden layers."""
    activation: Activation = "relu"
    slope: float = 0.01
    """Of leaky_relu, below 0."""
    bias: Bias = "none"
    head: Head = "fixed"
    initialization: Initialization = "gaussian"
    loss: Literal["hinge", "logistic", "squared"] = "hinge"
    """"squared" asks for the core features themselves, one output for each."""
    optimizer: Literal["sgd", "momentum", "adam", "adamw"] = "sgd"
    step_size: float = 1.0
    momentum: float = 0.9
    """Of the optimizer "momentum"."""
    weight_decay: float = 1e-3
    batch_size: int = 1000
    examples: int | None = None
    """Size of a fixed data set; None draws fresh examples for every step. Minibatches smaller than
    the data set are drawn from it with replacement."""
    steps: int = 200
    engine: Literal["auto", "by_hand", "autograd"] = "auto"
    ambient: bool = False
    """Train weights in R^d instead of their projections on the features."""
    precision: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        _ = self.architecture
        for name, choices in (
            ("loss", tuple(LOSSES)),
            ("optimizer", ("sgd", "momentum", "adam", "adamw")),
            ("engine", ("auto", "by_hand", "autograd")),
            ("precision", ("float32", "float64")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"no {name} {getattr(self, name)!r}; choose one of {', '.join(choices)}"
                )
        for name in ("batch_size", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise ValueError(f"step_size={self.step_size} must be a positive number")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay={self.weight_decay} must be 0 or a positive number")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum} must lie in [0, 1)")
        if self.examples is not None and self.examples < self.batch_size:
            raise ValueError(
                f"batch_size={self.batch_size} is more than examples={self.examples}; "
                "lower batch_size, or set it to examples for full-batch steps"
            )
        if self.engine == "by_hand" and self.beyond_by_hand:
            raise ValueError(
                f"engine='by_hand' does not cover {', '.join(self.beyond_by_hand)}; "
                "use engine='auto'"
            )
        if (
            self.optimizer in ("adam", "adamw")
            and self.data.features.dictionary != "axes"
            and not self.ambient
        ):
            raise ValueError(
                f"{self.optimizer} scales each coordinate on its own, so with dictionary="
                f"{self.data.features.dictionary!r} it needs ambient=True"
            )

    @property
    def dtype(self) -> torch.dtype:
        """The type of all weights and examples."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def architecture(self) -> Architecture:
        """The shape of the network: one output for each thing that it is asked for."""
        regression, several = self.loss == "squared", self.data.classes > 2
        return Architecture(
            width=self.width,
            depth=self.depth,
            outputs=self.data.features.core if regression else self.data.classes if several else 1,
            activation=self.activation,
            slope=self.slope,
            bias=self.bias,
            head=self.head,
            initialization=self.initialization,
        )

    def start(self, seed: int) -> MLP:
        """The untrained network of a seed."""
        return self.architecture.start(
            self.data.features, seed, ambient=self.ambient, dtype=self.dtype
        )

    @property
    def stable_step(self) -> float | None:
        """Where step_size d0 / m reaches STABLE; None where that ratio has no meaning."""
        if self.head != "fixed" or self.optimizer in ("adam", "adamw"):
            return None
        # In the long run a step with momentum moves 1 / (1 - momentum) times as far.
        brake = 1 - self.momentum if self.optimizer == "momentum" else 1.0
        return STABLE * brake * self.width / self.data.features.size

    @property
    def beyond_by_hand(self) -> list[str]:
        """What the engine "by_hand" does not cover."""
        covered = {
            "depth": (1,),
            "activation": ("relu", "identity"),
            "bias": ("none",),
            "head": ("fixed",),
            "loss": ("hinge",),
            "optimizer": ("sgd", "momentum"),
            "ambient": (False,),
        }
        beyond = [
            f"{name}={getattr(self, name)!r}"
            for name, values in covered.items()
            if getattr(self, name) not in values
        ]
        if self.data.classes > 2:
            beyond.append(f"data.classes={self.data.classes}")
        return beyond
