"""How time and memory of an audit grow with the numbers of classes and of neurons.

A linear network of one hidden layer is audited on 300 ID and 300 OOD examples around the centers of
their classes, each time in a process of its own, after a small audit that pays for the imports. The
growth exponent is the slope of the logarithm of processor time, or of the memory beyond that of the
small audit, over that of the number of classes or neurons, for the last factor of ten: 1 is linear.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from typing import NamedTuple

from outcome import conclude, machine

CLASSES = (10, 100, 1000, 10_000)
NEURONS = (1_000, 10_000, 100_000)
EXAMPLES, WIDTH, INPUTS = 300, 192, 64
MOST_EXPONENT = 1.1
"""Wanted: at most linear, up to the spread of the measurement."""
MOST_SECONDS = 20.0
"""Wanted of 1000 classes and 192 features."""
LEAST_SECONDS, LEAST_GIB = 0.2, 0.05
"""Costs that differ from run to run."""
IMAGENET_21K, MOST_GIB = 21_841, 4.0
"""Wanted of so many logits: at most so much memory."""


class Cost(NamedTuple):
    """What one audit took."""

    seconds: float
    """Processor seconds of the audit."""
    peak: float
    """Peak memory of the process in GiB."""
    more: float
    """The part of it that a small audit does not need."""


def audited(classes: int, neurons: int, present: int) -> Cost:
    """Audit one network in this process.

    Args:
        classes: number of logits.
        neurons: width of the hidden layer.
        present: number of classes with examples, drawn at random.
    """
    import torch
    from torch import nn

    import contam

    torch.set_num_threads(1)
    draws = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(INPUTS, neurons), nn.ReLU(), nn.Linear(neurons, classes))
    y = torch.randperm(classes, generator=draws)[torch.arange(EXAMPLES) % present]
    centers = torch.randn(classes, INPUTS, generator=draws)
    own, new = (
        (share * centers[y] + 0.5 * torch.randn(EXAMPLES, INPUTS, generator=draws), y)
        for share in (1.0, 0.7)
    )
    # The smallest audit pays for imports and first calls.
    small = nn.Sequential(nn.Linear(INPUTS, 8), nn.ReLU(), nn.Linear(8, classes))
    contam.audit(small.eval(), id=own, ood=new, reference=None, progress=False)
    before = peak_memory()
    begin = time.process_time()
    contam.audit(network.eval(), id=own, ood=new, reference=None, progress=False)
    seconds = time.process_time() - begin
    peak = peak_memory()
    return Cost(seconds, peak, peak - before)


def peak_memory() -> float:
    """The peak memory of this process so far, in GiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def measured(classes: int, neurons: int, present: int) -> Cost:
    """Audit one network in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", str(classes), str(neurons), str(present)],
        check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{classes} classes and {neurons} neurons: {done.stderr}")
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def exponent(sizes: tuple[int, ...], costs: list[float], least: float) -> float:
    """The slope between the last two sizes, on logarithmic axes.

    Args:
        sizes: numbers of classes or neurons.
        costs: seconds or GiB of each.
        least: cost below which differences are only the spread of the measurement.
    """
    before, after = (max(cost, least) for cost in costs[-2:])
    return math.log(after / before) / math.log(sizes[-1] / sizes[-2])


def report(what: str, sizes: tuple[int, ...], costs: list[Cost]) -> list[float]:
    """Print a table and its exponents, and return those."""
    print(f"\n{what:>10} {'CPU s':>8} {'peak GiB':>9} {'more GiB':>9}")
    for size, cost in zip(sizes, costs, strict=True):
        print(f"{size:10,} {cost.seconds:8.2f} {cost.peak:9.2f} {cost.more:9.2f}")
    exponents = [
        exponent(sizes, [cost.seconds for cost in costs], LEAST_SECONDS),
        exponent(sizes, [cost.more for cost in costs], LEAST_GIB),
    ]
    print(f"{'exponent':>10} {exponents[0]:8.2f} {'':9} {exponents[1]:9.2f}")
    return exponents


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(audited(*options.one)))
        return 0
    print(f"{machine()}, {EXAMPLES} + {EXAMPLES} examples")
    by_classes = [measured(k, WIDTH, min(k, EXAMPLES)) for k in CLASSES]
    exponents = report("classes", CLASSES, by_classes)
    by_neurons = [measured(10, n, 10) for n in NEURONS]
    exponents += report("neurons", NEURONS, by_neurons)
    large = measured(IMAGENET_21K, WIDTH, EXAMPLES)
    print(f"\n{IMAGENET_21K:,} logits: {large.seconds:.2f} CPU s, {large.peak:.2f} GiB "
          f"(wanted at most {MOST_GIB:g})")  # fmt: skip
    wide = by_classes[CLASSES.index(1000)].seconds
    print(f"1000 classes, {WIDTH} features: {wide:.2f} CPU s (wanted at most {MOST_SECONDS:g})")
    wrong = [f"1000 classes take {wide:.1f} CPU s"] if wide > MOST_SECONDS else []
    wrong += [f"{IMAGENET_21K} logits take {large.peak:.1f} GiB"] if large.peak > MOST_GIB else []
    return conclude(max(exponents), at_most=MOST_EXPONENT, wrong=wrong)


if __name__ == "__main__":
    sys.exit(main())
