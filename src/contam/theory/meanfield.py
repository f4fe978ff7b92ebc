"""A step of SGD averaged over all examples, for neurons that are four numbers and a sign each.

A neuron meets the features through the mean of its core and of its background coordinates, and
through the lengths of what deviates from either mean. Two sums of weights are shared by all
neurons: A over the core features and B over the background, each about its mean. Given both, what
is left of a pre-activation sums many independent terms with signs of the neuron's own; it is taken
as Gaussian, and as independent between neurons. The gate of the hinge loss then hardly depends on
any single neuron, so that each average in the gradient is an integral over A and B. A step costs
O(neurons) whatever the number of features, and the output as a whole need not be Gaussian.

    core_mean, background_mean    mean coordinate of a neuron, over core and over background
    core_rest, background_rest    length of its deviation from that
    margin                        expected pre-activation, given A and B
    gate                          probability that y h <= 1, given A and B
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial import hermite_e
from torch import Tensor

from contam.rng import bit_generator_for
from contam.theory.coverage import Inputs


@dataclass(frozen=True)
class Neurons:
    """Hidden neurons, in double precision. Only means over them count, not their number."""

    sign: Float[Tensor, " neurons"]
    """Of the output weight."""
    core_mean: Float[Tensor, " neurons"]
    background_mean: Float[Tensor, " neurons"]
    core_rest: Float[Tensor, " neurons"]
    background_rest: Float[Tensor, " neurons"]

    @classmethod
    def read(
        cls, u: Float[Tensor, "neurons features"], a: Float[Tensor, " neurons"], *, core: int
    ) -> "Neurons":
        """The neurons of a given network, from its weights in feature coordinates, core first.

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
    def draw(cls, inputs: Inputs) -> "Neurons":
        """Neurons as they are initialized: all of a narrow network, a sample of a wide one.

        The law is exact: means of independent Gaussians are Gaussian, and the squared length of
        what deviates from them is chi-square. A sample covers the means evenly and takes each of
        them with both signs, because a wide network nearly does and because early differences grow.

        Source: ours, what N(0, 1/d) weights are in these numbers.
        """
        rng = np.random.Generator(bit_generator_for(inputs.seed, "population neurons"))
        count = min(inputs.width, inputs.neurons)
        if count < inputs.width:
            sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=int(rng.integers(2**31)))
            even = sobol.draw(-(-count // 2), dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
            means = torch.special.ndtri(even).repeat_interleave(2, dim=0)[:count]
            sign = torch.from_numpy(np.resize([1.0, -1.0], count))
        else:
            means = torch.from_numpy(rng.normal(size=(count, 2)))
            sign = torch.from_numpy(rng.choice([1.0, -1.0], count))
        sizes = np.array([inputs.core, inputs.background])
        rests = torch.from_numpy(np.sqrt(rng.chisquare(sizes - 1, (count, 2)) / inputs.dimension))
        means = means / torch.from_numpy(np.sqrt(sizes * float(inputs.dimension)))
        return cls(sign, means[:, 0], means[:, 1], rests[:, 0], rests[:, 1])


@dataclass(frozen=True)
class Grid:
    """A Gauss-Hermite rule over A and B, with a fine grid for what is nearly a step.

    Sums over neurons are smooth in A and B and need few nodes, but the gate of a wide network
    rises within a small distance. So outputs are tabulated at the nodes, their Hermite series is
    evaluated on the fine grid, and only there gates and losses are formed.
    """

    nodes: Float[Tensor, " nodes"]
    interpolation: Float[Tensor, "fine nodes"]
    weights: Float[Tensor, " fine"]
    """Of the fine grid; they sum to 1."""

    @classmethod
    @functools.cache
    def of(cls, nodes: int, fine: int = 161, reach: float = 5.5) -> "Grid":
        """The rule of `nodes` an axis; its fine grid spans `reach` standard deviations."""
        x, weights = hermite_e.hermegauss(nodes)
        norms = np.sqrt([float(math.factorial(degree)) for degree in range(nodes)])
        to_series = (hermite_e.hermevander(x, nodes - 1) / norms).T * (weights / weights.sum())
        fine_x = np.linspace(-reach, reach, fine)
        interpolation = (hermite_e.hermevander(fine_x, nodes - 1) / norms) @ to_series
        density = np.exp(-(fine_x**2) / 2)
        return cls(*map(torch.from_numpy, (x, interpolation, density / density.sum())))

    def refine(self, table: Float[Tensor, "nodes nodes"]) -> Float[Tensor, "fine fine"]:
        """The table's values on the fine grid."""
        return self.interpolation @ table @ self.interpolation.T

    def average(self, values: Float[Tensor, "fine fine"]) -> float:
        """Expectation over A and B."""
        return float(self.weights @ values @ self.weights)

    def weigh(self, gate: Float[Tensor, "fine fine"]) -> Float[Tensor, "nodes nodes"]:
        """Weights for the nodes: with them a smooth table's sum is its expectation while gated."""
        gated = self.weights[:, None] * gate * self.weights
        return self.interpolation.T @ gated @ self.interpolation


@dataclass(frozen=True)
class View:
    """What the network makes of one class's examples, at each node of A and B."""

    A: Float[Tensor, "nodes nodes"]
    B: Float[Tensor, "nodes nodes"]
    output: Float[Tensor, "nodes nodes"]
    """Mean of y h."""
    spread: Float[Tensor, "nodes nodes"]
    """Standard deviation of y h."""
    slope: Float[Tensor, "pairs neurons"]
    """Mean derivative of the activation: how often a ReLU fires."""
    bend: Float[Tensor, "pairs neurons"]
    """Mean second derivative: a ReLU's density of pre-activations at 0."""


def view(
    neurons: Neurons, inputs: Inputs, grid: Grid, y: float, ood: tuple[float, float] | None = None
) -> View:
    """Look at class `y`: in distribution, or with a background of other mean and variance."""
    mean, variance = ood or (inputs.mean, inputs.variance)
    A, B = torch.meshgrid(
        math.sqrt(inputs.variance * inputs.core) * grid.nodes,
        math.sqrt(variance * inputs.background) * grid.nodes,
        indexing="ij",
    )
    margin = torch.outer(y * (inputs.mean * inputs.core + A).flatten(), neurons.core_mean)
    margin += torch.outer((mean * inputs.background + B).flatten(), neurons.background_mean)
    rest = inputs.variance * neurons.core_rest**2 + variance * neurons.background_rest**2
    if inputs.activation == "identity":
        slope, bend = torch.ones_like(margin), torch.zeros_like(margin)
        active, noise = margin, rest.expand_as(margin)
    else:
        ratio = margin / rest.sqrt()
        slope = torch.special.ndtr(ratio)
        bend = torch.exp(-(ratio**2) / 2) / torch.sqrt(2 * torch.pi * rest)
        active = margin * slope + rest * bend
        noise = rest * slope + active * (margin - active)
    output = y * (active @ neurons.sign) / len(neurons.sign)
    spread = (noise.mean(dim=1) / inputs.width).clamp_min(1e-30).sqrt()
    return View(A, B, output.view_as(A), spread.view_as(A), slope, bend)


def outcomes(
    seen: View, grid: Grid
) -> tuple[Float[Tensor, "fine fine"], Float[Tensor, "fine fine"]]:
    """Mean and standard deviation of y h on the fine grid."""
    return grid.refine(seen.output), grid.refine(seen.spread).clamp_min(float(seen.spread.min()))


def advance(neurons: Neurons, inputs: Inputs, nodes: int = 12) -> Neurons:
    """One step of SGD with infinitely many examples in the batch.

    A coordinate grows with E[gate 1{active} z_j]. Summed over the core or the background that is an
    integral over A or B; along the neuron's own deviation it follows by Stein's lemma.

    Source: ours, the limit of Eq. 4 for large batches, which the paper bounds but does not solve.
    """
    grid = Grid.of(nodes)
    core_pull = background_pull = stretch = torch.zeros_like(neurons.sign)
    for y in (1.0, -1.0):
        seen = view(neurons, inputs, grid, y)
        output, spread = outcomes(seen, grid)
        gate = grid.weigh(torch.special.ndtr((1 - output) / spread))
        on, on_A, on_B = (
            torch.stack([gate, gate * seen.A, gate * seen.B]).flatten(start_dim=1) @ seen.slope
        )
        core_pull = core_pull + inputs.mean * on + on_A / inputs.core
        background_pull = background_pull + y * (inputs.mean * on + on_B / inputs.background)
        stretch = stretch + y * inputs.variance * (gate.flatten() @ seen.bend)
    kept = 1 - inputs.step_size * inputs.weight_decay
    rate = inputs.step_size * neurons.sign / (2 * inputs.width)
    return Neurons(
        sign=neurons.sign,
        core_mean=kept * neurons.core_mean + rate * core_pull,
        background_mean=kept * neurons.background_mean + rate * background_pull,
        core_rest=(kept + rate * stretch) * neurons.core_rest,
        background_rest=(kept + rate * stretch) * neurons.background_rest,
    )
