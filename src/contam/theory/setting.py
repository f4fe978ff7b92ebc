"""The one list of parameters of a simulated training run; only its seed stands apart."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from contam.theory.distribution import DataModel
from contam.theory.features import check_choices
from contam.theory.intervention import Intervention

STABLE = 2.5
"""Largest step_size * features / width at which a network with a fixed head learns smoothly."""

Activation = Literal["relu", "identity", "leaky_relu", "gelu", "sigmoid", "tanh"]


@dataclass(frozen=True)
class Setting:
    """The data, the network and the optimizer of a training run.

    The defaults are the paper's model at the sizes of its numerical experiments, with a step size
    that takes 200 steps where the published one takes 20 000. The command line, the experiments'
    configs, `simulate` and `predict_contamination` all share this one list.

    Raises:
        ValueError: a field is out of range, or two fields do not fit together.

    Source: Sec. 3.2, App. F.1.

    >>> Setting(depth=2, activation="gelu").outputs
    1
    >>> Setting(width=0)
    Traceback (most recent call last):
    ValueError: width=0 must be at least 1
    """

    data: DataModel = field(default=DataModel())
    """Distribution of the examples."""
    width: int = 256
    """Neurons in each hidden layer, m in the paper."""
    depth: int = 1
    """Hidden layers."""
    activation: Activation = "relu"
    """Activation function of the hidden layers."""
    slope: float = 0.01
    """Slope of leaky_relu for negative inputs."""
    bias: Literal["none", "hidden", "all"] = "none"
    """Layers that have a bias; "all" includes the head."""
    head: Literal["fixed", "trained"] = "fixed"
    """A fixed head has weights +1/m and -1/m, drawn evenly and independently."""
    initialization: Literal["gaussian", "uniform"] = "gaussian"
    """"gaussian" draws weights from N(0, 1 / fan-in) and sets biases to 0; "uniform" draws both
    from U(-1, 1) / sqrt(fan-in), PyTorch's default. The first layer's fan-in is the dimension."""
    loss: Literal["hinge", "logistic", "squared"] = "hinge"
    """"squared" is regression on the core features, with one output for each."""
    optimizer: Literal["sgd", "momentum", "adam", "adamw"] = "sgd"
    """"momentum" is SGD with heavy-ball momentum."""
    step_size: float = 1.0
    """Learning rate."""
    momentum: float = 0.9
    """Momentum of the optimizer "momentum"."""
    weight_decay: float = 1e-3
    """Weight decay, coupled to the step size as in torch.optim."""
    batch_size: int = 1000
    """Examples per step."""
    examples: int | None = None
    """Size of a fixed training set; None draws fresh examples for every step. Minibatches smaller
    than the training set are drawn from it with replacement."""
    steps: int = 200
    """Optimization steps."""
    engine: Literal["auto", "closed_form", "autograd"] = "auto"
    """How gradients are computed; "auto" takes the closed form where there is one."""
    ambient: bool = False
    """Train weights in R^dimension instead of their projections on the features."""
    precision: Literal["float32", "float64"] = "float32"
    """Precision of weights and examples."""
    intervention: Intervention = field(default=Intervention())
    """What is different from plain training."""

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("width", "depth", "batch_size", "steps"):
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
        if self.engine == "closed_form" and self.beyond_closed_form:
            raise ValueError(
                f"engine='closed_form' does not cover {', '.join(self.beyond_closed_form)}; "
                "use engine='auto'"
            )
        features = self.data.features
        if self.intervention.project != "none" and (self.ambient or not features.orthonormal):
            raise ValueError(
                f"project={self.intervention.project!r} is defined for orthonormal features and "
                "ambient=False"
            )
        if self.intervention.gain != 1 and self.head != "fixed":
            raise ValueError(f"gain={self.intervention.gain} needs head='fixed'")
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
    def outputs(self) -> int:
        """Outputs of the network: 1, one per class, or in regression one per core feature."""
        if self.loss == "squared":
            return self.data.features.core
        return self.data.classes if self.data.classes > 2 else 1

    @property
    def time_per_step(self) -> float:
        """Training time that one step takes: the step size, lengthened by momentum."""
        if self.optimizer == "momentum":
            return self.step_size / (1 - self.momentum)
        return self.step_size

    @property
    def stable_step(self) -> float | None:
        """The step size at which a step starts to overshoot; None where no such rule is known."""
        if self.head != "fixed" or self.optimizer in ("adam", "adamw"):
            return None
        # In the long run a step with momentum moves 1 / (1 - momentum) times as far.
        brake = 1 - self.momentum if self.optimizer == "momentum" else 1.0
        return STABLE * brake * self.width / self.data.features.size

    @property
    def beyond_closed_form(self) -> list[str]:
        """The fields that the engine "closed_form" does not cover, as 'name=value'."""
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
        if self.intervention.normalizes:
            beyond.append("a network with changed inputs or batch norm")
        return beyond
