"""Deep networks on synthetic features: the class profile that each layer loses under a shift."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contam.experiments.phase_diagrams.config import Config
from contam.measures.attenuation import class_profile_attenuation
from contam.measures.class_means import ClassMeans
from contam.rng import bit_generator_for, generator_for
from contam.theory.distribution import DataModel, Sample
from contam.theory.network import linear

Kind = Literal["plain", "residual", "linear"]
KINDS: tuple[Kind, ...] = ("plain", "residual", "linear")
"""ReLU layers, ReLU layers that add to their input, and layers without an activation function."""
PARTS = 10
"""Groups of examples for the jackknife intervals of one network."""


class DeepNetwork(nn.Module):
    """A network of hidden layers of one width, in feature coordinates, with a trained head.

    The first layer has the paper's initial weights, N(0, 1 / d); the others keep the scale of their
    input.

    Args:
        data: the data model.
        depth: number of hidden layers.
        width: neurons of each.
        kind: with ReLU ("plain", "residual") or without ("linear").
        seed: names the initial weights.

    Source: ours, the depth that the paper leaves open.

    >>> network = DeepNetwork(DataModel(), depth=2, width=16, kind="residual", seed=0)
    >>> [layer.shape for layer in network.layers(torch.zeros(5, 64))]
    [torch.Size([5, 16]), torch.Size([5, 16])]
    """

    def __init__(self, data: DataModel, *, depth: int, width: int, kind: Kind, seed: int) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, deviation: float, purpose: str) -> nn.Linear:
            generator = generator_for(seed, f"deep {purpose}")
            return linear(deviation * torch.randn(outputs, inputs, generator=generator))

        gain = 2.0 if kind == "plain" else 1.0
        deviation = math.sqrt(gain / width)
        first = layer(data.features.size, width, data.features.dimension**-0.5, "hidden 1")
        others = [layer(width, width, deviation, f"hidden {k}") for k in range(2, depth + 1)]
        self.hidden = nn.ModuleList([first, *others])
        self.head = layer(width, 1, width**-0.5, "head")
        self.kind: Kind = kind

    def layers(self, f: Tensor) -> list[Tensor]:
        """The activations of each hidden layer, (examples, width), the first layer first."""
        values = []
        for index, layer in enumerate(self.hidden):
            value = layer(values[-1] if values else f)
            value = value if self.kind == "linear" else F.relu(value)
            values.append(values[-1] + value if self.kind == "residual" and index else value)
        return values

    def forward(self, f: Tensor) -> Tensor:
        """One output for each example."""
        return self.head(self.layers(f)[-1])[:, 0]


def trained(config: Config, kind: Kind, depth: int, seed: int) -> Iterator[dict[str, Any]]:
    """Train a deep network by SGD, and yield a row for each layer before and after training.

    Args:
        config: sizes and step size.
        kind: see `DeepNetwork`.
        depth: number of hidden layers.
        seed: seed of all random numbers.
    """
    setting = config.setting
    network = DeepNetwork(setting.data, depth=depth, width=setting.width, kind=kind, seed=seed)
    labels = {"kind": kind, "depth": depth, "seed": seed}
    yield from (labels | {"state": "untrained"} | row for row in _measured(config, network, seed))
    optimizer = torch.optim.SGD(
        network.parameters(), lr=config.deep_step_size, weight_decay=setting.weight_decay
    )
    draws = bit_generator_for(seed, "deep minibatches")
    for _ in range(config.deep_steps):
        sample = setting.data.sample(setting.batch_size, draws)
        optimizer.zero_grad()
        F.softplus(-sample.y * network(sample.f)).mean().backward()
        optimizer.step()
    yield from (labels | {"state": "trained"} | row for row in _measured(config, network, seed))


@torch.no_grad()
def _measured(config: Config, network: DeepNetwork, seed: int) -> list[dict[str, Any]]:
    data, examples = config.setting.data, config.test_examples
    inside, outside = (
        data.sample(examples, bit_generator_for(seed, f"held out {where}"), where)
        for where in ("id", "ood")
    )
    core = data.features.core
    shifted = Sample(torch.cat([inside.f[:, :core], outside.f[:, core:]], 1), *inside[1:])
    risks = [float(F.softplus(-s.y * network(s.f)).mean()) for s in (inside, shifted)]
    part, y = torch.arange(examples) % PARTS, data.class_index(inside.y)
    rows = []
    layers = zip(network.layers(inside.f), network.layers(shifted.f), strict=True)
    for number, values in enumerate(layers, start=1):
        means = [
            ClassMeans(2, value.shape[1], parts=PARTS).update(value, y, part=part)
            for value in values
        ]
        rows.append({
            "layer": number,
            "attenuation": class_profile_attenuation(*means, paired=True).value,
            "id_risk": risks[0], "gap": risks[1] - risks[0], "remaining": risks[0] / math.log(2),
        })  # fmt: skip
    return rows
