"""A training on the embedded benchmark with a watch at its default interval, and without one.

The standard network of the embedded benchmark: 4000 pictures, batches of 128, 12 epochs, one
thread. The watch draws its examples, looks before training, every so many steps and at the end,
measures coupling to one shifted domain and writes its record. What all of that takes is told as a
share of what the rest of the same training takes, both in the processor's time, so that other
programs count little. The same training without a watch has to come to the same weights, to the
last bit.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from contam.batch import Shift
from contam.data.shapes import shapes
from contam.models.small import resnet8
from contam.monitor import watch
from contam.training.supervised import fit

MOST = 0.05
"""The share of the training's time that watching may take."""


class Trained(NamedTuple):
    """What a training took, in seconds of the processor, and what it came to."""

    steps: float
    watching: float
    looks: int
    weights: dict[str, Tensor]


def trained(shift: Shift, epochs: int, out: Path | None = None) -> Trained:
    """Train, with a watch if there is a folder for its record."""
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
    looks = 0 if watched is None else len(watched.snapshots)
    return Trained(end - begin - spent, spent, looks, model.state_dict())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    shift = shapes(seed=0)
    trained(shift, 1)  # the first call pays for what is loaded once
    shares, steps, watching, looks, differ = [], [], [], 0, 0
    plain = trained(shift, given.epochs)
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            found = trained(shift, given.epochs, Path(folder))
        shares.append(found.watching / found.steps)
        steps.append(found.steps)
        watching.append(found.watching)
        looks = found.looks
        differ += sum(not torch.equal(plain.weights[n], w) for n, w in found.weights.items())
    print(
        f"machine {platform.processor() or platform.machine()}, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, 1 thread"
    )
    print(f"training {statistics.median(steps):.2f} CPU s, median of {given.rounds} rounds")
    print(f"{looks} looks, their examples and their record {statistics.median(watching):.2f} CPU s")
    print(f"{differ} tensors of weights differ from those of a training without a watch")
    spread = f"{min(shares):.3f} to {max(shares):.3f}"
    print(
        f"watching takes {statistics.median(shares):.3f} of the training's time ({spread}); at "
        f"most {MOST} is wanted"
    )
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
