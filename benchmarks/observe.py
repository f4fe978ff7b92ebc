"""Class profiles of every activation of a ResNet-50, against its forward passes alone.

Images of 224 pixels in float32 in four batches, random weights, one thread. Both sides process the
same images, alternating; the time is CPU time, and contains what is done once for a data set: two
examples on which the layers are tried. The profiles must equal class means from two plain passes.
Peak memory is compared for four times as many images (of 96 pixels, which are faster).
"""

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from outcome import conclude, machine
from torch import Tensor, nn

from contam.batch import Batch, Domain
from contam.measures.class_means import ClassMeans
from contam.measures.class_profiles import class_profiles
from contam.models.observe import observe
from contam.models.sources import load

SIZE = 16
BATCHES = 4
CLASSES = 4
MOST = 1.15
"""The largest cost of one pass with all measures, in plain passes."""
FEW = 64
GROWTH = 16.0
"""MiB that four times `FEW` images may take above `FEW`: half of what their readings alone would
take. The allocator needs some, with its freed pieces of many sizes."""


@dataclass(frozen=True, eq=False)
class Drawn(Domain):
    """Images that are drawn on access and take no memory."""

    side: int = 32
    """Pixels of each side."""

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        drawn = generator or torch.Generator().manual_seed(0)
        for part in super().batches(size):
            yield part._replace(
                x=torch.randn(len(part.y), 3, self.side, self.side, generator=drawn)
            )


def drawn(count: int, side: int) -> Drawn:
    """Images of noise, with the classes in turn."""
    zero = torch.zeros(count, dtype=torch.int64)
    return Drawn("noise", Batch(zero, torch.arange(count) % CLASSES, zero), side=side)


def peak() -> float:
    """The most memory that this process has held, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


def growth(model: nn.Module) -> float:
    """MiB by which four times as many images raise the peak; must run before anything larger."""
    for _ in range(2):  # the second pass fills the gaps that the first leaves in the allocator
        class_profiles(model, drawn(FEW, 96), classes=CLASSES, batch_size=SIZE)
    before = peak()
    class_profiles(model, drawn(4 * FEW, 96), classes=CLASSES, batch_size=SIZE)
    return peak() - before


def timed(model: nn.Module, domain: Domain, rounds: int) -> dict[str, float]:
    """Median seconds for all images, after one round that is not counted."""
    times: dict[str, list[float]] = {"plain": [], "profiles": []}
    for _ in range(rounds + 1):
        begin = time.process_time()
        with torch.no_grad():
            for batch in domain.batches(SIZE):
                model(batch.x)
        between = time.process_time()
        class_profiles(model, domain, classes=CLASSES, batch_size=SIZE)
        times["plain"].append(between - begin)
        times["profiles"].append(time.process_time() - between)
    return {side: statistics.median(seconds[1:]) for side, seconds in times.items()}


def plainly(model: nn.Module, batch: Batch, *, rate: bool) -> dict[str, Tensor]:
    """Class means of each layer, or class rates, by the simplest code."""

    def reading(maps: Tensor) -> Tensor:
        return ((maps > 0).double() if rate else maps.double()).mean(dim=(2, 3))

    (observed,) = observe(model, [batch], "auto", reading)
    return {
        layer: ClassMeans(CLASSES, values.shape[1]).update(values, batch.y).compute()
        for layer, values in observed.layers.items()
    }


def error(model: nn.Module, batch: Batch) -> float:
    """The largest difference to two plain passes, as a share of the layer's largest value."""
    profiles = class_profiles(model, Domain("noise", batch), classes=CLASSES).layers
    means, rates = plainly(model, batch, rate=False), plainly(model, batch, rate=True)
    return max(
        float((ours - plain).abs().max() / plain.abs().max())
        for layer, profile in profiles.items()
        for ours, plain in ((profile.means, means[layer]), (profile.rates, rates[layer]))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    model = load("torchvision:resnet50", seed=0).encoder
    grown = growth(model)
    (batch,) = drawn(BATCHES * SIZE, 224).batches(BATCHES * SIZE)
    times = timed(model, Domain("noise", batch), rounds)
    ratio = times["profiles"] / times["plain"]
    wrong = error(model, Batch(*(part[:SIZE] for part in batch)))
    print(machine())
    for side, seconds in times.items():
        print(
            f"{side} {1e3 * seconds:.0f} ms for {BATCHES * SIZE} images, median of {rounds} rounds"
        )
    print(f"largest difference to two plain passes {wrong:.1e} of a layer's largest value")
    print(f"peak memory grows by {grown:.1f} MiB from {FEW} to {4 * FEW} images")
    failed = {
        "values: they differ from those of plain passes": wrong >= 1e-5,
        f"memory: it may grow by {GROWTH} MiB": grown >= GROWTH,
    }
    return conclude(ratio, at_most=MOST, wrong=[line for line, bad in failed.items() if bad])


if __name__ == "__main__":
    sys.exit(main())
