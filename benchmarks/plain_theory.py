"""The numerical experiment by the simplest code: inputs in R^d, autograd, an optimizer.

Both theory benchmarks compare with it. It shares nothing with the package, so that its outcome is
a check too.
"""

import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from outcome import conclude, machine
from torch import Tensor, nn

CORE, BACKGROUND, DIMENSION, WIDTH, EXAMPLES = 32, 32, 256, 256, 1000
WEIGHT_DECAY = 1e-3


class HingeLosses(NamedTuple):
    """Hinge losses on fresh examples."""

    id_hinge: float
    ood_hinge: float


class PlainNetwork(nn.Module):
    """Two layers, ReLU, a fixed head of +-1/m."""

    a: Tensor

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = nn.Linear(DIMENSION, WIDTH, bias=False)
        start = torch.randn(WIDTH, DIMENSION, generator=generator) / math.sqrt(DIMENSION)
        self.hidden.weight = nn.Parameter(start)
        coins = torch.randint(0, 2, (WIDTH,), generator=generator)
        self.register_buffer("a", (2 * coins - 1) / WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.hidden(x)) @ self.a


def draw(n: int, generator: torch.Generator, *, ood: bool = False) -> tuple[Tensor, Tensor]:
    """Inputs and labels; the features are the first axes, so x = M f needs no product."""
    y = 2.0 * torch.randint(0, 2, (n,), generator=generator) - 1
    z = torch.rand(n, CORE + BACKGROUND, generator=generator)
    if ood:
        z[:, CORE:] -= 1
    x = torch.zeros(n, DIMENSION)
    x[:, :CORE] = y[:, None] * z[:, :CORE]
    x[:, CORE : CORE + BACKGROUND] = z[:, CORE:]
    return x, y


def train(
    network: PlainNetwork,
    batch: Callable[[], tuple[Tensor, Tensor]],
    *,
    step_size: float,
    momentum: float,
    steps: int,
) -> None:
    """Minimize the hinge loss."""
    optimizer = torch.optim.SGD(
        network.parameters(), lr=step_size, momentum=momentum, weight_decay=WEIGHT_DECAY
    )
    for _ in range(steps):
        x, y = batch()
        optimizer.zero_grad()
        F.relu(1 - y * network(x)).mean().backward()
        optimizer.step()


@torch.no_grad()
def outcome(network: PlainNetwork, generator: torch.Generator) -> HingeLosses:
    """Loss on 8192 fresh examples in and out of distribution."""
    losses = []
    for ood in (False, True):
        x, y = draw(8192, generator, ood=ood)
        losses.append(float(F.relu(1 - y * network(x)).mean()))
    return HingeLosses(*losses)


def is_right(losses: HingeLosses) -> bool:
    """Whether a network shows the experiment's result: ID solved, OOD lost."""
    return losses.id_hinge <= 0.008 and 0.82 <= losses.ood_hinge <= 0.88


def compare(
    ours: Callable[[int], tuple[float, HingeLosses]],
    plain: Callable[[int], tuple[float, HingeLosses]],
    *,
    rounds: int,
    unit: str,
    at_least: float,
) -> int:
    """Alternate both sides and print median seconds and their ratio; returns the exit code."""
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    wrong = []
    for seed in range(rounds):
        for name, side in (("ours", ours), ("plain", plain)):
            seconds, losses = side(seed)
            times[name].append(seconds)
            if not is_right(losses):
                wrong.append(f"{name}, seed {seed}: {losses}")
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(machine())
    for name, seconds in medians.items():
        print(f"{name} {1e3 * seconds:.3f} ms {unit}, median of {rounds} rounds")
    return conclude(medians["plain"] / medians["ours"], at_least=at_least, wrong=wrong)
