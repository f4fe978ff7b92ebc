"""What the population model covers: its inputs, refused where the model would have to guess."""

from dataclasses import dataclass

ACTIVATIONS = ("relu", "identity")
LARGEST_PACE = 2.5
"""Of step_size * features / width; beyond it a step overshoots what the network has to learn."""


@dataclass(frozen=True)
class Inputs:
    """What a prediction is asked for.

    Raises:
        ValueError: names the field, what it needs and what to do instead.

    Source: ours, the standard setting of Sec. 3.1 and Sec. 3.2 with its limits.
    """

    core: int
    background: int
    dimension: int
    width: int
    mean: float
    variance: float
    ood_mean: float
    ood_variance: float
    step_size: float
    weight_decay: float
    steps: int
    activation: str
    loss: str
    optimizer: str
    bias: bool
    seed: int
    neurons: int

    def __post_init__(self) -> None:
        self._check_network()
        self._check_sizes()
        _check_moments("", self.mean, self.variance, low=0)
        _check_moments("ood_", self.ood_mean, self.ood_variance, low=-1)
        if not self.variance > 0:
            raise ValueError(
                "variance must be positive: with constant weights there is nothing to average over"
            )
        self._check_steps()

    @property
    def features(self) -> int:
        """Core and background features together."""
        return self.core + self.background

    def _check_network(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {list(ACTIVATIONS)}, not {self.activation!r}: only "
                "their averages have a closed form; train the network instead"
            )
        if self.loss != "hinge":
            raise ValueError(
                f"loss must be 'hinge', not {self.loss!r}: its gate is part of the model; "
                "train the network instead"
            )
        if self.optimizer != "sgd":
            raise ValueError(
                f"optimizer must be 'sgd', not {self.optimizer!r}: SGD with momentum b follows the "
                "path of step_size / (1 - b) without it; for others train the network instead"
            )
        if self.bias:
            raise ValueError("bias must be False, a bias is not modeled; train the network instead")

    def _check_sizes(self) -> None:
        for name, least, why in (
            ("core", 4, "a sum of fewer weights is far from Gaussian; train the network instead"),
            ("background", 4, "a sum of fewer weights is far from Gaussian; train it instead"),
            ("width", 1, "a network needs neurons"),
            ("steps", 1, "there is nothing to predict before training"),
            ("neurons", 2, "a sample needs one neuron of each sign"),
            ("dimension", self.features, "core + background orthogonal features must fit into it"),
        ):
            if not getattr(self, name) >= least:
                raise ValueError(
                    f"{name} must be at least {least}, not {getattr(self, name)}: {why}"
                )

    def _check_steps(self) -> None:
        if not self.step_size > 0:
            raise ValueError(f"step_size must be positive, not {self.step_size}")
        if not 0 <= self.weight_decay * self.step_size < 1:
            raise ValueError(
                f"weight_decay must be in [0, 1 / step_size) = [0, {1 / self.step_size:g}), not "
                f"{self.weight_decay}: every step would turn the weights around; lower either"
            )
        pace = self.step_size * self.features / self.width
        if not pace <= LARGEST_PACE:
            raise ValueError(
                f"step_size * (core + background) / width must be at most {LARGEST_PACE}, not "
                f"{pace:.3g}: a step would overshoot; "
                f"try step_size {self.step_size * LARGEST_PACE / pace:.3g} and more steps"
            )


def _check_moments(prefix: str, mean: float, variance: float, *, low: int) -> None:
    """Refuse moments that no distribution on [low, low + 1] has."""
    high = low + 1
    if not low <= mean <= high:
        raise ValueError(f"{prefix}mean must be in [{low}, {high}], as the weights are, not {mean}")
    largest = (mean - low) * (high - mean)
    if not 0 <= variance <= largest + 1e-12:
        raise ValueError(
            f"{prefix}variance must be in [0, {largest:.4g}], not {variance}: "
            f"no distribution on [{low}, {high}] with mean {mean} has another"
        )
