"""When contamination takes off, how large it is at the fit, and where training converges.

With many features, each neuron follows the same flow in two numbers; neurons interact only through
the margins of the two classes, which close the gate of the hinge loss. The flow ends at the fit. In
the long run weight decay removes what remains of the initial weights; all neurons of a sign then
are equal, and four numbers minimize the risk.

    x, w     core and background sum of a neuron's coordinates times E z, in its sign and in units
             of the standard deviation of its pre-activations at initialization
    own      w + x, the mean pre-activation on the class of the neuron's sign (without correlation)
    other    w - x, the same for the other class
    s        slope of the activation function for negative inputs
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.polynomial import hermite_e
from torch import Tensor

from contam.theory.coverage import Moments, background_moments, core_moments, uncovered
from contam.theory.setting import Setting

NODES, PACE = 16, 0.25
"""Initial neurons per axis, and the step of the integration in units of the flow's time."""
LONGEST = 2000
"""Steps of the integration after which a network counts as one that never fits."""
SHARPEST = 0.02
"""Smallest spread of margins; a steeper gate would close within one step of the integration."""
ACCURACY = 0.005
"""Accuracy of a critical slope."""


class Learned(NamedTuple):
    """What the average neuron has learned, and the risk under the shift.

    Source: ours, the quantities of Thm. 4.2 and Thm. 4.3 as one number each.

    >>> Learned(step=80.0, U=2.5, V=2.0, spurious=0.0, ood_hinge=0.8).contamination
    0.8
    """

    step: float
    """Steps until then."""
    U: float
    """Sum of core coordinates in the neuron's sign."""
    V: float
    """Sum of background coordinates: contamination."""
    spurious: float
    """Sum of background coordinates in the neuron's sign: use of their correlation with y."""
    ood_hinge: float

    @property
    def contamination(self) -> float:
        """V / U."""
        return self.V / self.U


@dataclass(frozen=True)
class Phases:
    """The three times of a training run and what is learned at two of them.

    Source: ours, T0, T1 and T2 of Thm. 4.1 to Thm. 4.3 with their constants.

    >>> phases = predict_phases(Setting())
    >>> phases.takeoff < phases.fit.step < phases.limit.step
    True
    """

    takeoff: float | None
    """Steps until the background grows at half of its final rate relative to the core; None where
    that does not happen before the fit."""
    fit: Learned | None
    """The step at which the mean margin y h reaches 1; None where it never does."""
    limit: Learned
    """Convergence; its step is 1 / (step_size * weight_decay), the time constant."""

    def record(self) -> dict[str, Any]:
        """Convert the phases to numbers by name.

        Returns:
            `takeoff`, and the fields of `fit` and `limit`; None for what never happens.
        """
        limit = self.limit._asdict()
        return {
            "takeoff": self.takeoff,
            "fit": self.fit and self.fit._asdict(),
            "limit": limit | {"step": None if math.isinf(self.limit.step) else self.limit.step},
        }

    def summary(self) -> str:
        """Describe the phases in words.

        Returns:
            One paragraph.
        """
        limit = f"Training converges to V / U = {self.limit.contamination:z.2f} and an OOD hinge "
        limit += f"risk of {self.limit.ood_hinge:.2f}, "
        if math.isinf(self.limit.step):
            limit += "but without weight decay it never gets there."
        else:
            limit += f"with a time constant of {self.limit.step:,.0f} steps."
        if self.fit is not None and abs(self.limit.spurious) >= 0.005:
            limit += f" Of V, {self.fit.spurious:.2f} at the fit and {self.limit.spurious:.2f} at "
            limit += "convergence is use of the correlation with the label."
        if self.fit is None:
            return f"The training examples are never fitted. {limit}"
        takeoff = (
            "Background features do not take off"
            if self.takeoff is None
            else f"Background features take off after {self.takeoff:.3g} steps"
        )
        return (
            f"{takeoff}; the training examples are fitted after {self.fit.step:.3g} steps, with "
            f"V / U = {self.fit.contamination:z.2f} and an OOD hinge risk of "
            f"{self.fit.ood_hinge:.2f}. {limit}"
        )


def predict_phases(setting: Setting, *, learnable: float | None = None) -> Phases:
    """Predict takeoff, fit and convergence of a training run.

    Args:
        setting: a run that the population model covers. The background may be correlated with the
            label, and gradients may be projected on the core features or on the complement of
            counterfactual pairs.
        learnable: share of the squared length of the background's mean direction that the
            projection leaves; None for its mean over draws, 1 - k / background with k pairs.

    Returns:
        The phases.

    Raises:
        ValueError: the setting is not covered.

    Source: ours, Thm. 4.1 to Thm. 4.4 give the orders of magnitude.

    >>> phases = predict_phases(Setting())
    >>> round(phases.fit.contamination, 1), round(phases.limit.contamination, 1)
    (0.7, 0.8)
    """
    learnable = _learnable_share(setting, learnable)
    return Phases(*_until_fit(setting, learnable), _limit(setting, learnable))


def _learnable_share(setting: Setting, learnable: float | None) -> float:
    """Check that a setting is covered, and return the share that the projection leaves."""
    if reason := phases_uncovered(setting):
        raise ValueError(reason)
    if learnable is None:
        change, background = setting.intervention, setting.data.features.background
        left = {"core": 0.0, "pairs": 1 - change.directions / background}
        learnable = max(0.0, left.get(change.project, 1.0))
    if not 0 <= learnable <= 1:
        raise ValueError(f"learnable must lie between 0 and 1, not {learnable}")
    return learnable


def _until_fit(setting: Setting, learnable: float) -> tuple[float | None, Learned | None]:
    """The step of takeoff, and what is learned at the fit."""
    flow = Flow.of(setting, learnable)
    half, takeoff = min(1.0, flow.final_rate) / 2, None
    for before, after in pairwise(flow.points()):
        if takeoff is None and after.rate >= half > 0:
            takeoff = _between(before, after, "rate", half).time / flow.pace
        if after.margin >= 1:
            return takeoff, flow.learned(_between(before, after, "margin", 1.0))
    return takeoff, None


def phases_uncovered(setting: Setting) -> str | None:
    """Say why the phases of a setting are not predicted; None where they are.

    Args:
        setting: any setting.

    Returns:
        One line that names the field.

    Source: ours, the limits of the derivation.

    >>> phases_uncovered(Setting(depth=2))
    'depth must be 1, not 2: this is not modeled; train the network instead'
    """
    data, change = setting.data, setting.intervention
    if change.project in ("core", "pairs"):
        change = replace(change, project="none")
    if reason := uncovered(replace(setting, intervention=change)):
        return reason
    if data.features.coherence:
        return (
            f"coherence must be 0, not {data.features.coherence}: the phases are derived for "
            "orthonormal features"
        )
    if core_moments(data) != background_moments(data):
        return (
            "core_weights and background_weights must have the same mean and variance: the phases "
            "are derived for one kind of weights"
        )
    return None


def critical_slope(setting: Setting, risk: float = 0.5) -> float:
    """The slope of leaky ReLU at which the OOD hinge risk at the fit falls to a given value.

    Args:
        setting: the run; its activation and slope do not matter.
        risk: OOD hinge risk, between 0 and 1.

    Returns:
        The slope; 0 where a ReLU network already is below the risk.

    Raises:
        ValueError: the setting is not covered, or a network does not fit its training examples.

    Source: ours, between the ReLU networks of Thm. 4.2 and the linear ones of Thm. 4.4.

    >>> round(critical_slope(Setting()), 1)
    0.2
    """
    if not 0 < risk < 1:
        raise ValueError(f"risk must lie between 0 and 1, not {risk}")

    def excess(slope: float) -> float:
        leaky = replace(setting, activation="leaky_relu", slope=slope)
        _, fit = _until_fit(leaky, _learnable_share(leaky, None))
        if fit is None:
            raise ValueError("the network never fits its training examples; lower weight_decay")
        return fit.ood_hinge - risk

    low, high = 0.0, 1.0  # in a linear network nothing is lost
    if excess(low) <= 0:
        return 0.0
    while high - low > ACCURACY:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def law_of_slope(core: int, background: float, slope: float) -> float:
    """V / U of neurons that are active for one class only, in the limit of many features.

    A neuron of slope s gains (1 + s) core and (1 - s) background for each example, so that V / U is
    background / core * (1 - s) / (1 + s). At V = U it becomes active for the other class, too, and
    V / U stays at 1: with more background than core features this holds up to the critical slope
    (background - core) / (background + core).

    Args:
        core: number of core features.
        background: number of background features along which gradients are applied.
        slope: slope of the activation function for negative inputs.

    Returns:
        V / U.

    Source: ours, the ratio of Lemma A.3's gradients for asymmetric neurons.

    >>> law_of_slope(32, 32, 0.5) == 1 / 3, law_of_slope(16, 48, 0.25)
    (True, 1.0)
    """
    return min(1.0, background / core * (1 - slope) / (1 + slope))


def law_at_convergence(
    core: int, background: float, slope: float, decay: float, pressure: float
) -> float:
    """V / U where the training of neurons that are active for one class only converges.

    Weight decay shrinks core and background coordinates alike. The hinge loss presses on the
    variance of the output, to which a neuron of slope s adds (1 + s)^2 for the core and (1 - s)^2
    for the background.

    Args:
        core: number of core features.
        background: number of background features along which gradients are applied.
        slope: slope of the activation function for negative inputs, below 1.
        decay: weight decay times width.
        pressure: variance of a weight times half of the derivative of the mean hinge loss by the
            variance of the output, var(z) phi((1 - M) / S) / (4 S) for a margin of mean M and
            standard deviation S.

    Returns:
        V / U.

    Source: ours, the stationary point of the loss of Thm. 4.2's neurons.

    >>> law_at_convergence(32, 16, slope=0.0, decay=0.1, pressure=0.3)
    0.5
    """
    kept, lost = decay / (1 + slope) ** 2 + pressure, decay / (1 - slope) ** 2 + pressure
    return background / core * (1 + slope) / (1 - slope) * kept / lost


class _Point(NamedTuple):
    """The flow at one time."""

    time: float
    margin: float
    rate: float
    """Growth of V over growth of U."""
    x: Float[Tensor, "signs neurons"]
    w: Float[Tensor, "signs neurons"]


@dataclass(frozen=True)
class Flow:
    """The flow of neurons in x and w, for both signs of the output weight."""

    setting: Setting
    slope: float
    core: float
    """Share of the features that are core features."""
    background: float
    """Share of the features that are background features along which gradients are applied."""
    lift: Float[Tensor, "signs 1"]
    """E[z | y] / E z - 1 of a background weight on the neuron's own class."""
    unit: float
    """Standard deviation of a pre-activation at initialization, given the neuron."""
    pace: float
    """Units of time in one step."""

    @classmethod
    def of(cls, setting: Setting, learnable: float) -> "Flow":
        features, (mean, variance) = setting.data.features, background_moments(setting.data)
        unit = math.sqrt(variance * features.size / features.dimension)
        lift = background_moments(setting.data, y=1.0).mean / mean - 1
        return cls(
            setting,
            _slope(setting),
            features.core / features.size,
            learnable * features.background / features.size,
            torch.tensor([[lift], [-lift]], dtype=torch.float64),
            unit,
            setting.step_size * mean**2 * features.size / (2 * setting.width * unit),
        )

    @property
    def final_rate(self) -> float:
        """Growth of V over growth of U where neurons are active for one class only."""
        return self.background / self.core * (1 - self.slope) / (1 + self.slope)

    def points(self) -> Iterator[_Point]:
        """Integrate from the distribution of initial weights by the Runge-Kutta method."""
        x, w = self.start()
        decay = self.setting.weight_decay * self.setting.step_size / self.pace
        for step in range(LONGEST):
            first = self._velocity(x, w, decay)
            mean = [float((velocity @ self.weights).mean()) for velocity in first]
            # The decay of weights is no growth.
            core = mean[0] + decay * float((x @ self.weights).mean())
            rate = mean[1] + decay * float((w @ self.weights).mean())
            rate = rate / core if core > 0 else math.nan
            yield _Point(step * PACE, float(self._margins(x, w).mean()), rate, x, w)
            second = self._velocity(x + PACE / 2 * first[0], w + PACE / 2 * first[1], decay)
            third = self._velocity(x + PACE / 2 * second[0], w + PACE / 2 * second[1], decay)
            last = self._velocity(x + PACE * third[0], w + PACE * third[1], decay)
            x, w = (
                start + PACE / 6 * (a + 2 * b + 2 * c + d)
                for start, a, b, c, d in zip((x, w), first, second, third, last, strict=True)
            )

    def learned(self, point: _Point) -> Learned:
        """What the average neuron has learned at one time."""
        data = self.setting.data
        mean = background_moments(data).mean
        shifted = background_moments(data, "ood").mean / mean
        x, w = (self.unit / mean * (value @ self.weights) for value in (point.x, point.w))
        return Learned(
            step=point.time / self.pace,
            U=float(x.mean()),
            V=float(w.mean()),
            spurious=float(w[0] - w[1]) / 2,
            ood_hinge=float((1 - self._margins(point.x, point.w, shifted)).clamp_min(0).mean()),
        )

    def start(self) -> tuple[Tensor, Tensor]:
        """Return x and w of the nodes at initialization, (signs, neurons) each."""
        features = self.setting.data.features
        mean, variance = background_moments(self.setting.data)
        nodes = torch.from_numpy(hermite_e.hermegauss(NODES)[0]) * mean / math.sqrt(variance)
        x = nodes * math.sqrt(features.core / features.size)
        w = nodes * math.sqrt(features.background / features.size)
        x, w = torch.meshgrid(x, w, indexing="ij")
        return x.flatten().expand(2, -1), w.flatten().expand(2, -1)

    @cached_property
    def weights(self) -> Float[Tensor, " neurons"]:
        """Share of each node among the neurons."""
        weights = torch.from_numpy(hermite_e.hermegauss(NODES)[1])
        return torch.outer(weights, weights).flatten() / weights.sum() ** 2

    def _velocity(self, x: Tensor, w: Tensor, decay: float) -> tuple[Tensor, Tensor]:
        s, lift = self.slope, self.lift
        gate = self.gate(x, w)
        own = gate * (s + (1 - s) * torch.special.ndtr(w * (1 + lift) + x))
        other = gate.flip(0) * (s + (1 - s) * torch.special.ndtr(w * (1 - lift) - x))
        core = self.core * (own + other)
        return core - decay * x, self.background * (own - other + lift * (own + other)) - decay * w

    def gate(self, x: Tensor, w: Tensor) -> Float[Tensor, "signs 1"]:
        """Share of the examples of a sign's own class that are inside the hinge."""
        data = self.setting.data
        mean, variance = background_moments(data)
        U, V = (self.unit / mean * float((value @ self.weights).mean()) for value in (x, w))
        squares = ((1 + self.slope) * U) ** 2 / data.features.core
        if self.background:
            squares += ((1 - self.slope) * V) ** 2 / (self.background * data.features.size)
        spread = max(SHARPEST, math.sqrt(variance * squares) / 2)
        return torch.special.ndtr((1 - self._margins(x, w)) / spread)[:, None]

    def _margins(
        self, x: Tensor, w: Tensor, background: float | None = None
    ) -> Float[Tensor, " classes"]:
        """Mean of y h on each class, in the order of the signs.

        Args:
            x: see the module.
            w: see the module.
            background: replaces the mean background weight, in units of E z.
        """
        factor = 1 + self.lift if background is None else background
        own = self._activation(w * factor + x) @ self.weights
        other = self._activation(w.flip(0) * factor - x.flip(0)) @ self.weights
        return self.unit * (own - other) / 2

    def _activation(self, z: Tensor) -> Tensor:
        """Expected activation of pre-activations with mean z and standard deviation 1."""
        relu = z * torch.special.ndtr(z) + torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        return self.slope * z + (1 - self.slope) * relu


def _limit(setting: Setting, learnable: float, points: int = 61, reach: float = 5.0) -> Learned:
    """Minimize the risk over networks whose neurons of one sign are all equal."""
    data, slope = setting.data, _slope(setting)
    core, background = data.features.core, learnable * data.features.background
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    weights = torch.exp(-(axis**2) / 2)
    weights = weights / weights.sum()
    mean, variance = background_moments(data)
    c = (mean + math.sqrt(variance / core) * axis)[:, None]

    def risk(sums: Tensor, moments: tuple[Moments, ...]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for y in (0, 1):
            b = moments[y].mean + math.sqrt(moments[y].variance / max(background, 1.0)) * axis
            own = sums[y, 0] * c + sums[y, 1] * b
            other = sums[1 - y, 1] * b - sums[1 - y, 0] * c
            h = (F.leaky_relu(own, slope) - F.leaky_relu(other, slope)) / 2
            total = total + weights @ F.relu(1 - h) @ weights / 2
        return total

    here = tuple(background_moments(data, y=y) for y in (1.0, -1.0))
    there = (background_moments(data, "ood"),) * 2

    learns = torch.tensor([1.0, float(background > 0)], dtype=torch.float64)
    sums = (torch.tensor([1.25, 1.0], dtype=torch.float64) / mean * learns).repeat(2, 1)
    sums.requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [sums], max_iter=300, tolerance_grad=1e-9, tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )  # fmt: skip
    sizes = torch.tensor([core, max(background, 1e-9)], dtype=torch.float64)

    def objective() -> float:
        optimizer.zero_grad()
        decay = setting.weight_decay * setting.width / 4 * (sums.square() / sizes).sum()
        loss = risk(sums, here) + decay
        loss.backward()
        assert sums.grad is not None
        sums.grad.mul_(learns)
        return float(loss.detach())

    optimizer.step(objective)
    sums = sums.detach()
    forgets = setting.step_size * setting.weight_decay
    return Learned(
        step=1 / forgets if forgets else math.inf,
        U=float(sums[:, 0].mean()),
        V=float(sums[:, 1].mean()),
        spurious=float(sums[0, 1] - sums[1, 1]) / 2,
        ood_hinge=float(risk(sums, there)),
    )


def _slope(setting: Setting) -> float:
    return {"relu": 0.0, "identity": 1.0, "leaky_relu": setting.slope}[setting.activation]


def _between(before: _Point, after: _Point, field: str, value: float) -> _Point:
    """The point between two at which a field has a value, by linear interpolation."""
    low, high = getattr(before, field), getattr(after, field)
    share = 1.0 if high == low else (value - low) / (high - low)
    values = (a + share * (b - a) for a, b in zip(before, after, strict=True))
    return _Point(*values)  # pyright: ignore[reportArgumentType]
