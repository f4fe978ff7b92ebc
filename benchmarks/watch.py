"""A training on the embedded benchmark with a training monitor, and without one.

The training is that of the embedded benchmark's standard network: 4000 images, batches of 128, 12
epochs, one thread. The monitor has its default interval. It takes snapshots before training, at
each interval and at the end, measures the attenuation on one shifted domain and writes its record.
The ratio is the monitor's CPU time over that of the rest of the same training. Training without a
monitor must give the same weights, bit for bit.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from outcome import conclude, machine
from torch import Tensor

from contam.batch import Shift
from contam.data.shapes import shapes
from contam.models.small import resnet8
from contam.monitor import watch
from contam.training.supervised import fit

MOST = 0.05
"""The monitor's largest share of the training's time."""


class Trained(NamedTuple):
    """CPU seconds of a training and of its monitor, and the trained weights."""

    steps: float
    monitoring: float
    snapshots: int
    weights: dict[str, Tensor]


def trained(shift: Shift, epochs: int, out: Path | None = None) -> Trained:
    """Train, with a monitor if there is a folder for its record."""
    model = resnet8(seed=0)
    begin = time.process_time()
    watched = None
    if out is not None:
        others = {shift.ood_tests[0].name: shift.ood_tests[0]}
        watched = watch(model, shift, others=others, out=out, show=False)
    spent = time.process_time() - begin
    for stage in fit(
        model, shift, epochs=epochs, batch_size=128, step_size=3e-3, weight_decay=0.05, seed=0,
        report_every=20,
    ):  # fmt: skip
        before = time.process_time()
        if watched is not None:
            watched.at(stage.step)
        spent += time.process_time() - before
    before = time.process_time()
    if watched is not None:
        watched.close()
    end = time.process_time()
    spent += end - before
    snapshots = 0 if watched is None else len(watched.snapshots)
    return Trained(end - begin - spent, spent, snapshots, model.state_dict())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    shift = shapes(seed=0)
    trained(shift, 1)  # the first call loads libraries and data
    shares, steps, monitoring, snapshots, differ = [], [], [], 0, 0
    plain = trained(shift, given.epochs)
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            run = trained(shift, given.epochs, Path(folder))
        shares.append(run.monitoring / run.steps)
        steps.append(run.steps)
        monitoring.append(run.monitoring)
        snapshots = run.snapshots
        differ += sum(not torch.equal(plain.weights[n], w) for n, w in run.weights.items())
    print(machine())
    print(f"training {statistics.median(steps):.2f} CPU s, median of {given.rounds} rounds")
    print(f"monitor {statistics.median(monitoring):.2f} CPU s for {snapshots} recorded snapshots")
    print(f"{differ} tensors of weights differ from those of a training without a monitor")
    print(f"time of monitoring over time of training: {min(shares):.3f} to {max(shares):.3f}")
    wrong = ["weights: monitoring changed the training"] * (differ > 0)
    return conclude(statistics.median(shares), at_most=MOST, wrong=wrong)


if __name__ == "__main__":
    sys.exit(main())
