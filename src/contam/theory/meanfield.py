"""One step of SGD averaged over all examples, for neurons described by four numbers and a sign.

A neuron is described by the mean of its core and of its background coordinates, and by the norms of
the deviations from these means. Two sums of weights are common to all neurons: A over the core
features and B over the background features, both centered. Given A and B, the rest of a
pre-activation is a sum of many independent terms with signs of the neuron's own; the model takes it
as Gaussian, and as independent between neurons. The gate of the hinge loss then hardly depends on
any single neuron, so each average in the gradient is an integral over A and B. A step costs
O(neurons), whatever the number of features, and the distribution of the output can have any shape.

    core_mean, background_mean    mean coordinate of a neuron, over core and background features
    core_rest, background_rest    norm of the deviation from that mean
    margin                        expected pre-activation, given A and B
    gate                          probability that y h <= 1, given A and B
"""

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial import hermite_e
from torch import Tensor

from contam.rng import bit_generator_for
from contam.theory.coverage import background_moments, core_moments
from contam.theory.distribution import Where
from contam.theory.setting import Setting


@dataclass(frozen=True)
class Neurons:
    """Hidden neurons, in double precision: the whole network or a sample of it.

    Source: ours, the coordinates of the population model.

    >>> u = torch.tensor([[1.0, 3.0, 0.0, 2.0], [1.0, 1.0, 2.0, 2.0]])
    >>> neurons = Neurons.read(u, torch.tensor([0.5, -0.5]), core=2)
    >>> neurons.core_mean.tolist(), neurons.background_mean.tolist()
    ([2.0, 1.0], [1.0, 2.0])
    >>> neurons.sign.tolist()
    [1.0, -1.0]
    """

    sign: Float[Tensor, " neurons"]
    """Sign of the output weight."""
    core_mean: Float[Tensor, " neurons"]
    background_mean: Float[Tensor, " neurons"]
    core_rest: Float[Tensor, " neurons"]
    background_rest: Float[Tensor, " neurons"]

    @classmethod
    def read(
        cls, u: Float[Tensor, "neurons features"], a: Float[Tensor, " neurons"], *, core: int
    ) -> "Neurons":
        """Describe the neurons of a given network.

        Args:
            u: hidden weights in feature coordinates, core features first.
            a: output weights.
            core: number of core features.

        Returns:
            The description of every neuron.

        Raises:
            ValueError: the output weights are not all +-1 / neurons.
        """
        if not torch.allclose(a.abs() * len(a), torch.ones_like(a), rtol=1e-4):
            raise ValueError(f"output weights must be +-1 / {len(a)}, the size that is modeled")
        core_part, background_part = u[:, :core].double(), u[:, core:].double()
        core_mean, background_mean = core_part.mean(dim=1), background_part.mean(dim=1)
        return cls(
            sign=a.sign().double(),
            core_mean=core_mean,
            background_mean=background_mean,
            core_rest=(core_part - core_mean[:, None]).norm(dim=1),
            background_rest=(background_part - background_mean[:, None]).norm(dim=1),
        )

    @classmethod
    def draw(
        cls, setting: Setting, seed: int, neurons: int, sample: Literal["first", "second"] = "first"
    ) -> "Neurons":
        """Draw initial neurons: all of a narrow network, a sample of a wide one.

        The distribution is exact: means of independent Gaussians are Gaussian, and the squared norm
        of the deviations from them is chi-square. A sample covers the means evenly and takes each
        of them with both signs, because a wide network nearly does and early differences grow.

        Args:
            setting: the network.
            seed: names the draws.
            neurons: largest number of neurons to draw.
            sample: which of two independent samples of a seed.

        Returns:
            At most `neurons` neurons.

        Source: ours, N(0, 1/d) weights in the coordinates of this class.

        >>> from contam.theory.setting import Setting
        >>> len(Neurons.draw(Setting(width=10_000), seed=0, neurons=64).sign)
        64
        """
        features = setting.data.features
        purpose = "population neurons" if sample == "first" else "population neurons, again"
        rng = np.random.Generator(bit_generator_for(seed, purpose))
        count = min(setting.width, neurons)
        if count < setting.width:
            sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=int(rng.integers(2**31)))
            even = sobol.draw(-(-count // 2), dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
            means = torch.special.ndtri(even).repeat_interleave(2, dim=0)[:count]
            sign = torch.from_numpy(np.resize([1.0, -1.0], count))
        else:
            means = torch.from_numpy(rng.normal(size=(count, 2)))
            sign = torch.from_numpy(rng.choice([1.0, -1.0], count))
        sizes = np.array([features.core, features.background])
        rests = torch.from_numpy(np.sqrt(rng.chisquare(sizes - 1, (count, 2)) / features.dimension))
        means = means / torch.from_numpy(np.sqrt(sizes * float(features.dimension)))
        if not features.orthonormal:
            across, shared = features.gram_root_parts()
            total = means @ torch.from_numpy(sizes.astype(float))
            means = across * means + shared * total[:, None]
            rests = across * rests
        return cls(sign, means[:, 0], means[:, 1], rests[:, 0], rests[:, 1])


@dataclass(frozen=True)
class Grid:
    """A Gauss-Hermite rule over A and B, with a fine grid for functions that are nearly steps.

    Sums over neurons are smooth in A and B and need few nodes, but the gate of a wide network
    rises within a small distance. So outputs are computed at the nodes, their Hermite series is
    evaluated on the fine grid, and gates and losses are computed there only.

    Source: ours, the integration rule of the population model.

    >>> grid = Grid.of(12)
    >>> round(grid.average(grid.refine(torch.outer(grid.nodes**2, grid.nodes**2))), 3)
    1.0
    """

    nodes: Float[Tensor, " nodes"]
    interpolation: Float[Tensor, "fine nodes"]
    weights: Float[Tensor, " fine"]
    """Weights of the fine grid; they sum to 1."""

    @classmethod
    @functools.cache
    def of(cls, nodes: int, fine: int = 161, reach: float = 5.5) -> "Grid":
        """Make the rule, once for each choice of arguments.

        Args:
            nodes: nodes per axis.
            fine: points of the fine grid per axis.
            reach: half the width of the fine grid, in standard deviations.

        Returns:
            The rule.
        """
        x, weights = hermite_e.hermegauss(nodes)
        norms = np.sqrt([float(math.factorial(degree)) for degree in range(nodes)])
        to_series = (hermite_e.hermevander(x, nodes - 1) / norms).T * (weights / weights.sum())
        fine_x = np.linspace(-reach, reach, fine)
        interpolation = (hermite_e.hermevander(fine_x, nodes - 1) / norms) @ to_series
        density = np.exp(-(fine_x**2) / 2)
        return cls(*map(torch.from_numpy, (x, interpolation, density / density.sum())))

    def refine(self, table: Float[Tensor, "nodes nodes"]) -> Float[Tensor, "fine fine"]:
        """Interpolate a function of A and B on the fine grid.

        Args:
            table: its values at the nodes.

        Returns:
            Its values on the fine grid.
        """
        return self.interpolation @ table @ self.interpolation.T

    def average(self, values: Float[Tensor, "fine fine"]) -> float:
        """Take the expectation of a function of A and B.

        Args:
            values: its values on the fine grid.

        Returns:
            The expectation.
        """
        return float(self.weights @ values @ self.weights)

    def weigh(self, gate: Float[Tensor, "fine fine"]) -> Float[Tensor, "nodes nodes"]:
        """Compute weights of the nodes for gated averages: E[gate * table] is sum(weights * table).

        Args:
            gate: probability that the gate is open, on the fine grid.

        Returns:
            One weight for each node.
        """
        gated = self.weights[:, None] * gate * self.weights
        return self.interpolation.T @ gated @ self.interpolation


@dataclass(frozen=True)
class View:
    """The network's response to the examples of one class, at each node of A and B.

    Source: ours, the forward pass of the population model.
    """

    A: Float[Tensor, "nodes nodes"]
    B: Float[Tensor, "nodes nodes"]
    output: Float[Tensor, "nodes nodes"]
    """Mean of y h."""
    spread: Float[Tensor, "nodes nodes"]
    """Standard deviation of y h."""
    slope: Float[Tensor, "pairs neurons"]
    """Mean derivative of the activation function: the activation rate of a ReLU."""
    bend: Float[Tensor, "pairs neurons"]
    """Mean second derivative: a ReLU's density of pre-activations at 0."""


def view(neurons: Neurons, setting: Setting, grid: Grid, y: float, where: Where = "id") -> View:
    """Compute the network's response to class `y`.

    Args:
        neurons: the network.
        setting: the data and the activation function.
        grid: integration rule over A and B.
        y: the class, -1 or +1.
        where: distribution of the background weights.

    Returns:
        Outputs and activation rates at each node.

    Source: ours, the forward pass of the population model.

    >>> setting = Setting(width=64)
    >>> response = view(Neurons.draw(setting, 0, 64), setting, Grid.of(4), y=1.0)
    >>> response.output.shape, response.slope.shape
    (torch.Size([4, 4]), torch.Size([16, 64]))
    """
    data = setting.data
    core, background = data.features.core, data.features.background
    core_mean, core_variance = core_moments(data)
    mean, variance = background_moments(data, where, y)
    A, B = torch.meshgrid(
        math.sqrt(core_variance * core) * grid.nodes,
        math.sqrt(variance * background) * grid.nodes,
        indexing="ij",
    )
    margin = torch.outer(y * (core_mean * core + A).flatten(), neurons.core_mean)
    margin += torch.outer((mean * background + B).flatten(), neurons.background_mean)
    rest = core_variance * neurons.core_rest**2 + variance * neurons.background_rest**2
    if setting.activation == "identity":
        slope, bend = torch.ones_like(margin), torch.zeros_like(margin)
        active, noise = margin, rest.expand_as(margin)
    else:
        ratio = margin / rest.sqrt()
        rate = torch.special.ndtr(ratio)
        density = torch.exp(-(ratio**2) / 2) / torch.sqrt(2 * torch.pi * rest)
        relu = margin * rate + rest * density
        # The activation is s z + (1 - s) relu(z), with s = 0 for ReLU. Its variance follows from
        # those of z and relu(z) and from their covariance, rest * rate.
        s = setting.slope if setting.activation == "leaky_relu" else 0.0
        slope, bend = s + (1 - s) * rate, (1 - s) * density
        active = s * margin + (1 - s) * relu
        noise = (1 - s) ** 2 * (rest * rate + relu * (margin - relu))
        noise += s * rest * (s + 2 * (1 - s) * rate)
    output = y * (active @ neurons.sign) / len(neurons.sign)
    spread = (noise.mean(dim=1) / setting.width).clamp_min(1e-30).sqrt()
    return View(A, B, output.view_as(A), spread.view_as(A), slope, bend)


def outcomes(
    response: View, grid: Grid
) -> tuple[Float[Tensor, "fine fine"], Float[Tensor, "fine fine"]]:
    """Mean and standard deviation of y h on the fine grid.

    Args:
        response: the network's response to one class.
        grid: the rule that the response was computed with.

    Returns:
        The mean and the standard deviation.

    Source: ours, the distribution of the output that the gate and the risks need.

    >>> setting, grid = Setting(width=64), Grid.of(4)
    >>> mean, deviation = outcomes(view(Neurons.draw(setting, 0, 64), setting, grid, 1.0), grid)
    >>> mean.shape, bool((deviation > 0).all())
    (torch.Size([161, 161]), True)
    """
    spread = grid.refine(response.spread).clamp_min(float(response.spread.min()))
    return grid.refine(response.output), spread


def advance(neurons: Neurons, setting: Setting, nodes: int = 12) -> Neurons:
    """Take one step of SGD on the hinge loss with infinitely many examples in the batch.

    A coordinate grows with E[gate 1{active} z_j]. Summed over the core or the background features
    this is an integral over A or B; along the neuron's own deviation it follows by Stein's lemma.

    Args:
        neurons: the network before the step.
        setting: the data, the activation function and the optimizer.
        nodes: nodes of the integration rule per axis.

    Returns:
        The network after the step; the given one does not change.

    Source: ours, the limit of Eq. 4 for large batches, which the paper bounds but does not solve.

    >>> setting = Setting(width=64)
    >>> before = Neurons.draw(setting, 0, 64)
    >>> after = advance(before, setting)
    >>> core_sum = [float((n.sign * n.core_mean).mean()) for n in (before, after)]
    >>> core_sum[1] > core_sum[0]
    True
    """
    grid = Grid.of(nodes)
    features, core_weights = setting.data.features, core_moments(setting.data)
    core, background = features.core, features.background
    core_pull = background_pull = core_stretch = background_stretch = torch.zeros_like(neurons.sign)
    for y in (1.0, -1.0):
        weights = background_moments(setting.data, y=y)
        response = view(neurons, setting, grid, y)
        output, spread = outcomes(response, grid)
        gate = grid.weigh(torch.special.ndtr((1 - output) / spread))
        gated = torch.stack([gate, gate * response.A, gate * response.B]).flatten(start_dim=1)
        on, on_A, on_B = gated @ response.slope
        bent = y * (gate.flatten() @ response.bend)
        core_pull = core_pull + core_weights.mean * on + on_A / core
        background_pull = background_pull + y * (weights.mean * on + on_B / background)
        core_stretch = core_stretch + core_weights.variance * bent
        background_stretch = background_stretch + weights.variance * bent
    if features.coherence:
        # The Gram matrix multiplies the gradient: each feature also gets a part of all others.
        across = 1 - features.coherence
        shared = features.coherence * (core * core_pull + background * background_pull)
        core_pull, background_pull = (across * p + shared for p in (core_pull, background_pull))
        core_stretch, background_stretch = across * core_stretch, across * background_stretch
    kept = 1 - setting.step_size * setting.weight_decay
    rate = setting.step_size * neurons.sign / (2 * setting.width)
    return Neurons(
        sign=neurons.sign,
        core_mean=kept * neurons.core_mean + rate * core_pull,
        background_mean=kept * neurons.background_mean + rate * background_pull,
        core_rest=(kept + rate * core_stretch) * neurons.core_rest,
        background_rest=(kept + rate * background_stretch) * neurons.background_rest,
    )
