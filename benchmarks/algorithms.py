"""A step of every algorithm against the same arithmetic in a plain loop.

The plain side is what one would write for this one algorithm. Ours is the algorithm's `step` within
a seeded random state, as in a training, and with its penalty at full weight. Both sides train a
ResNet-8 on images of 32 px from the same weights, in alternation, and their losses must agree. The
ratio is the largest of all algorithms. That of an algorithm is the median ratio of processor times
over pairs of steps: DANN trains its two networks in turn, and the side that begins alternates.
"""

import argparse
import copy
import statistics
import sys
import time
from typing import NamedTuple

import torch
from outcome import conclude, machine
from plain_algorithms import CLASSES, DOMAINS, PLAIN, Batches

from contam.batch import Batch
from contam.models.small import resnet8
from contam.rng import seeded
from contam.training.algorithms import ALGORITHMS

SIDE = 32
AT_MOST = 1.1
AGREE = 1e-3
"""Losses may differ by this share."""

SETTINGS = {
    "anneal_steps": 0, "bottleneck_anneal_steps": 0, "penalty_weight": 1.0,
    "bottleneck_weight": 1.0, "average_from": 0,
}  # fmt: skip
"""Settings of the algorithms that have them: both penalties and the average from the start."""


def minibatches(size: int, seed: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for index in range(DOMAINS):
        x = torch.randn(size, 3, SIDE, SIDE, generator=generator)
        y = torch.randint(CLASSES, (size,), generator=generator)
        batches.append(Batch(x, y, torch.full_like(y, index)))
    return batches


class Timed(NamedTuple):
    """The steps of one algorithm on both sides."""

    ours: float
    """Median seconds of a step."""
    plain: float
    ratio: float
    """Median ratio over pairs of steps."""
    error: float
    """Largest relative difference of a loss."""


def timed(name: str, size: int, steps: int) -> Timed:
    """Take steps of both sides in alternation."""
    begun = resnet8(CLASSES, seed=0)
    networks = {"plain": copy.deepcopy(begun), "contam": copy.deepcopy(begun)}
    kind = ALGORITHMS[name]
    fields = kind.Settings.model_fields
    settings = kind.Settings.model_validate({k: v for k, v in SETTINGS.items() if k in fields})
    algorithm = kind(
        networks["contam"], domains=DOMAINS, classes=CLASSES, settings=settings, seed=0
    )
    algorithm.train()
    networks["plain"].train()
    plain = PLAIN[name](networks["plain"], copy.deepcopy(algorithm))

    def take_plain(batches: Batches, number: int) -> tuple[float, float]:
        with seeded(number, "step"):
            start = time.process_time()
            return plain(batches), time.process_time() - start

    def take_ours(batches: Batches, number: int) -> tuple[float, float]:
        start = time.process_time()
        with seeded(number, "step"):
            terms = algorithm.step(batches)
        return sum(terms.values()), time.process_time() - start

    sides = [("plain", take_plain), ("contam", take_ours)]
    seconds: dict[str, list[float]] = {"contam": [], "plain": []}
    error = 0.0
    for number in range(steps):
        batches, losses = minibatches(size, number), {}
        for side, take in sides if number % 2 else sides[::-1]:
            losses[side], spent = take(batches, number)
            seconds[side].append(spent)
        error = max(error, abs(losses["contam"] / losses["plain"] - 1))
    # The first steps also pay for what is set up once.
    ours, reference = (
        [a + b for a, b in zip(s[2::2], s[3::2], strict=True)] for s in seconds.values()
    )
    return Timed(
        statistics.median(ours) / 2,
        statistics.median(reference) / 2,
        statistics.median(a / b for a, b in zip(ours, reference, strict=True)),
        error,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=32, help="of each of three domains")
    parser.add_argument("--steps", type=int, default=18, help="of each side, an even number")
    parser.add_argument("--only", nargs="*", choices=[*PLAIN], default=[*PLAIN])
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    wrong = [f"{name}: no plain formulation" for name in ALGORITHMS if name not in PLAIN]
    ratios = []
    for name in given.only:
        result = timed(name, given.batch_size, given.steps)
        ratios.append(result.ratio)
        print(
            f"{name:15}{1e3 * result.ours:8.1f} ms, plain {1e3 * result.plain:8.1f} ms, "
            f"ratio {result.ratio:.3f}; losses differ by up to {result.error:.1e}",
            flush=True,
        )
        if not result.error < AGREE:
            wrong.append(f"{name}: losses differ by up to {result.error:.2%}")
    return conclude(max(ratios), at_most=AT_MOST, wrong=wrong)


if __name__ == "__main__":
    sys.exit(main())
