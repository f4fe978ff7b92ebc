"""Contamination before any training: the features that SGD will learn in the standard setting."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from contam.theory.coverage import background_moments, core_moments, uncovered
from contam.theory.distribution import Where
from contam.theory.meanfield import Grid, Neurons, advance, outcomes, view
from contam.theory.neurons import GOOD_OTHER, GOOD_OWN
from contam.theory.setting import Setting

__all__ = [
    "Neurons",
    "Point",
    "Prediction",
    "firing_rate",
    "hinge_risk",
    "point",
    "predict_contamination",
]

HARDLY_LEARNED = 0.9
"""ID hinge risk above which V / U still reflects the initial weights more than the training."""


@dataclass(frozen=True)
class Point:
    """The predicted network after some steps.

    A neuron is active where its pre-activation is not negative, in the identity network too. It is
    good when it is active on more than 90 % of the class of its sign and on less than 10 % of the
    other class. Averages over good neurons are NaN while there are none.

    Source: ours, the quantities of Thm. 4.1 to Thm. 4.4 as one number each.

    >>> final = predict_contamination(Setting(), neurons=64).final
    >>> final.id_hinge < 0.2 < final.ood_hinge
    True
    """

    step: int
    U: float
    """Mean over neurons of the sum of core coordinates, in the neuron's sign."""
    V: float
    """Mean over neurons of the sum of background coordinates."""
    spurious: float
    """Mean over neurons of the sum of background coordinates, in the neuron's sign: use of their
    correlation with the label."""
    core_norm: float
    """Mean norm of a neuron's core part."""
    background_norm: float
    """Mean norm of a neuron's background part."""
    good_share: float
    """Share of good neurons."""
    own_class_rate: float
    """Activation rate of good neurons on the class of their sign."""
    other_class_rate: float
    """Activation rate of good neurons on the other class."""
    good_core: float
    """C_k in the neuron's sign, over good neurons: core coordinates weighted by E z_j."""
    good_background: float
    """B_k over good neurons: background coordinates weighted by E z_j."""
    id_hinge: float
    ood_hinge: float
    worst_hinge: float
    """Hinge risk with every background weight at -1."""
    id_error: float
    ood_error: float


@dataclass(frozen=True)
class Prediction:
    """The predicted course of a training run, from the first step reported to the last.

    Source: ours, the population model's answer.

    >>> prediction = predict_contamination(Setting(steps=10), neurons=64, report_at=(0, 5))
    >>> [point.step for point in prediction.curve]
    [0, 5, 10]
    """

    setting: Setting
    curve: tuple[Point, ...]
    followed: int
    """Number of neurons that were followed."""
    repeated: Point | None = None
    """The last point of a second sample of neurons; None where all neurons were followed."""

    @property
    def final(self) -> Point:
        """The network when training ends."""
        return self.curve[-1]

    @property
    def contamination(self) -> float:
        """V / U when training ends: background learned per unit of core, 0 in a clean network.

        Once the network has learned, its OOD hinge risk is about 2 V / (U + V). Before that, U is
        near 0 and the ratio means nothing.
        """
        return self.final.V / self.final.U

    @property
    def sampling_error(self) -> dict[str, float] | None:
        """Absolute difference of the last point from that of the second sample, by field.

        None where all neurons are followed, or where no second sample was.
        """
        end, other = self.final, self.repeated
        if other is None:
            return None
        names = ("U", "V", "id_hinge", "ood_hinge", "worst_hinge", "id_error", "ood_error")
        return {name: abs(getattr(end, name) - getattr(other, name)) for name in names}

    def summary(self) -> str:
        """Describe the prediction in words.

        Returns:
            One paragraph.
        """
        end = self.final
        learned = f"the average neuron has learned {end.U:.2f} of the core"
        learned += f" and {end.V:.2f} of the background"
        if end.id_hinge < HARDLY_LEARNED:
            learned += f", a contamination of {self.contamination:.2f}"
        else:
            learned += ", hardly anything: train longer or with larger steps"
        if end.good_share > 0:
            active = (
                f"{end.good_share:.0%} of the neurons fire for one class only "
                f"(and for {end.other_class_rate:.1%} of the other)"
            )
        else:
            active = "no neuron fires for one class only"
        return (
            f"After {end.step} step{'s'[: end.step != 1]} {learned}; {active}. "
            f"Hinge risk is {end.id_hinge:.3f} in distribution, {end.ood_hinge:.3f} out of "
            f"distribution and {end.worst_hinge:.3f} with every background weight at -1; "
            f"{end.id_error:.1%} and {end.ood_error:.1%} of the examples are misclassified in and "
            f"out of distribution.{self._sampling()}"
        )

    def _sampling(self) -> str:
        """Describe the error of following a sample of the neurons; empty where all are followed."""
        end, other, error = self.final, self.repeated, self.sampling_error
        if other is None or error is None:
            return ""
        risk = error["ood_hinge"]
        text = f" A sample of {self.followed:,} of {self.setting.width:,} neurons was followed; "
        text += f"with a second sample, OOD hinge risk differs by {risk:.1g}"
        if end.id_hinge < HARDLY_LEARNED:
            text += f" and contamination by {abs(self.contamination - other.V / other.U):.1g}"
        return text + "."

    def records(self) -> list[dict[str, int | float | None]]:
        """Convert the curve to the rows of a table.

        Returns:
            One row for each point, by field of `Point`; NaN becomes None.
        """
        return [
            {name: None if math.isnan(value) else value for name, value in asdict(point).items()}
            for point in self.curve
        ]


def predict_contamination(
    setting: Setting,
    *,
    seed: int = 0,
    neurons: int = 4096,
    report_at: Sequence[int] | None = None,
    start: Neurons | None = None,
    nodes: int = 12,
    repeat: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Prediction:
    """Predict the features that SGD on fresh examples will learn, without drawing any example.

    From the same initial weights and with uniform data weights, U and V come within 0.1 % of SGD's
    at 64 features or more and within 0.6 % at 8; strongly skewed data weights cost up to 2 %, and
    more below 16 features.

    Args:
        setting: the training run; batch size, engine and precision make no difference.
        seed: names the initial weights.
        neurons: largest number of neurons to follow; a wider network is represented by an even
            sample, and 1024 neurons are nearly as exact.
        report_at: steps of the curve, by default eleven; the last step is always added.
        start: initial neurons, instead of drawn ones.
        nodes: nodes of the integration rule per axis. With more features, pre-activations vary
            less with the two shared sums: 4 nodes are exact to 0.0001 from 4096 features on.
        repeat: whether to predict the last point again from a second sample of the neurons, which
            shows the error of sampling; without effect where all neurons are followed.
        progress: called before each step with the share of the work done.

    Returns:
        The curve of U, V, norms, activation rates and risks.

    Raises:
        ValueError: the setting is not covered; the message says what to change.

    Source: ours, the paper's theorems state the orders of magnitude of these numbers.

    >>> round(predict_contamination(Setting()).contamination, 1)
    0.7
    """
    if reason := uncovered(setting):
        raise ValueError(reason)
    if neurons < 2:
        raise ValueError(f"neurons must be at least 2, not {neurons}: a sample needs both signs")
    steps = setting.steps
    if report_at is None:
        report_at = [round(tenth * steps / 10) for tenth in range(11)]
    outside = sorted({at for at in report_at if at not in range(steps + 1)})
    if outside:
        raise ValueError(f"report_at must contain steps from 0 to {steps}, not {outside}")
    if start is not None and len(start.sign) != setting.width:
        raise ValueError(f"start has {len(start.sign)} neurons, but width is {setting.width}")
    repeat = repeat and start is None and neurons < setting.width
    share = 0.5 if repeat else 1.0

    def report(done: float) -> None:
        if progress is not None:
            progress(done)

    network = Neurons.draw(setting, seed, neurons) if start is None else start
    curve = _curve(network, setting, report_at, nodes, lambda done: report(share * done))
    last = None
    if repeat:
        other = Neurons.draw(setting, seed, neurons, sample="second")
        (last,) = _curve(other, setting, (), nodes, lambda done: report((1 + done) / 2))
    return Prediction(setting, tuple(curve), len(network.sign), last)


def _curve(
    network: Neurons,
    setting: Setting,
    report_at: Sequence[int],
    nodes: int,
    report: Callable[[float], None],
) -> list[Point]:
    curve = []
    for step in range(setting.steps + 1):
        report(step / setting.steps)
        if step in report_at or step == setting.steps:
            # Risks are integrals over steeper functions than gradients.
            curve.append(point(network, setting, step, nodes + 4))
        if step < setting.steps:
            network = advance(network, setting, nodes)
    return curve


class HingeRisk(NamedTuple):
    """Expected hinge loss and classification error on one distribution.

    Source: ours, the result of `hinge_risk`.
    """

    hinge: float
    error: float


def hinge_risk(
    neurons: Neurons, setting: Setting, where: Where = "id", nodes: int = 16
) -> HingeRisk:
    """Compute the hinge risk and the classification error on one distribution.

    Args:
        neurons: the network.
        setting: the data and the activation function.
        where: distribution of the background weights.
        nodes: nodes of the integration rule per axis.

    Returns:
        The two risks.

    Source: ours, averages in place of samples; the risks are those of Thm. 4.3.

    >>> setting = Setting(width=64)
    >>> round(hinge_risk(Neurons.draw(setting, 0, 64), setting).hinge, 1)  # before training
    1.0
    """
    grid = Grid.of(nodes)
    hinge = error = 0.0
    for y in (1.0, -1.0):
        output, spread = outcomes(view(neurons, setting, grid, y, where), grid)
        short = (1 - output) / spread
        density = torch.exp(-(short**2) / 2) / math.sqrt(2 * math.pi)
        hinge += grid.average(spread * (short * torch.special.ndtr(short) + density)) / 2
        error += grid.average(torch.special.ndtr(-output / spread)) / 2
    return HingeRisk(hinge, error)


def firing_rate(neurons: Neurons, setting: Setting, y: float) -> Float[Tensor, " neurons"]:
    """Probability that a neuron's pre-activation is positive on one class, taken as Gaussian.

    Args:
        neurons: the network.
        setting: the data.
        y: the class, -1 or +1.

    Returns:
        One probability for each neuron.

    Source: ours, Lemma B.1 in the four numbers of a neuron.

    >>> setting = Setting(width=64)
    >>> firing_rate(Neurons.draw(setting, 0, 64), setting, y=1.0).shape
    torch.Size([64])
    """
    features, weights = setting.data.features, core_moments(setting.data)
    others = background_moments(setting.data, y=y)
    core, background = neurons.core_mean, neurons.background_mean
    margin = weights.mean * y * features.core * core
    margin = margin + others.mean * features.background * background
    core_squares = features.core * core**2 + neurons.core_rest**2
    squares = features.background * background**2 + neurons.background_rest**2
    variance = weights.variance * core_squares + others.variance * squares
    return torch.special.ndtr(margin / torch.sqrt(variance))


def point(neurons: Neurons, setting: Setting, step: int, nodes: int = 16) -> Point:
    """Measure the network at one step.

    Args:
        neurons: the network.
        setting: the data and the activation function.
        step: number of steps taken.
        nodes: nodes of the integration rule per axis.

    Returns:
        All quantities of the curve.

    Source: ours, one point of a prediction.

    >>> setting = Setting(width=64)
    >>> initial = point(Neurons.draw(setting, 0, 64), setting, step=0)
    >>> 0.3 < initial.id_error < 0.7
    True
    """
    features = setting.data.features
    core_mean, background_mean = (
        weights(setting.data).mean for weights in (core_moments, background_moments)
    )
    core_sum = features.core * neurons.core_mean * neurons.sign
    background_sum = features.background * neurons.background_mean
    positive, negative = (firing_rate(neurons, setting, y) for y in (1.0, -1.0))
    own = torch.where(neurons.sign > 0, positive, negative)
    other = torch.where(neurons.sign > 0, negative, positive)
    good = (own > GOOD_OWN) & (other < GOOD_OTHER)
    in_distribution, shifted, worst = (
        hinge_risk(neurons, setting, where, nodes) for where in get_args(Where)
    )
    return Point(
        step=step,
        U=float(core_sum.mean()),
        V=float(background_sum.mean()),
        spurious=float((neurons.sign * background_sum).mean()),
        core_norm=_norm(core_sum / features.core**0.5, neurons.core_rest),
        background_norm=_norm(background_sum / features.background**0.5, neurons.background_rest),
        good_share=float(good.double().mean()),
        own_class_rate=float(own[good].mean()),
        other_class_rate=float(other[good].mean()),
        good_core=float(core_mean * core_sum[good].mean()),
        good_background=float(background_mean * background_sum[good].mean()),
        id_hinge=in_distribution.hinge,
        ood_hinge=shifted.hinge,
        worst_hinge=worst.hinge,
        id_error=in_distribution.error,
        ood_error=shifted.error,
    )


def _norm(mean_part: Float[Tensor, " neurons"], rest: Float[Tensor, " neurons"]) -> float:
    return float(torch.hypot(mean_part, rest).mean())
