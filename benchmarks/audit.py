"""What a whole audit costs, in plain forward passes over the same images.

The head of a ResNet-50 with random weights is fitted to images of noise at 224 px. It is audited on
them and on others, which it classifies at random, so that every cause is tested: with everything
that `contam.audit` does by default, and once with `quick=True`. The reference shows the same ID and
OOD images to the same network once, without hooks. Processor time counts, so that other programs do
not disturb it. The table says what each stage costs.
"""

import argparse
import statistics
import sys
import time

import torch
from outcome import conclude, machine
from torch import Tensor, nn

import contam
from contam.experiment import Stage
from contam.models.sources import load
from contam.training.probe import fit_probe

CLASSES, BATCH = 4, 16
"""Classes, and images in a batch, as many as the audit takes on a CPU."""
MOST, MOST_QUICK = 4.0, 1.5
"""Wanted: the cost of everything, and of a quick audit, for 500 + 500 images; the tests of causes
edit the same number of images in smaller sets."""


class Counted(nn.Module):
    """A network that counts the images that it sees.

    Args:
        seed: seed of the weights.
        shown: where the numbers of images are appended; networks can share it.
    """

    def __init__(self, seed: int, shown: list[int]) -> None:
        super().__init__()
        self.encoder = load("torchvision:resnet50", seed=seed).encoder
        self.head = nn.Linear(2048, CLASSES)
        self.shown = shown

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(len(x))
        return self.head(self.encoder(x))


class StageCosts:
    """Images and processor seconds by stage, from the progress of an audit."""

    def __init__(self, shown: list[int]) -> None:
        self.shown, self.costs = shown, dict[str, list[float]]()
        shown.clear()
        self._images, self._begin = 0, time.process_time()

    def __call__(self, stage: Stage) -> None:
        images, now = sum(self.shown), time.process_time()
        cost = self.costs.setdefault(stage.doing, [0.0, 0.0])
        cost[0] += images - self._images
        cost[1] += now - self._begin
        self._images, self._begin = images, now

    @property
    def seconds(self) -> float:
        return sum(seconds for _, seconds in self.costs.values())


def noise(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of noise, the classes in turn."""
    x = torch.rand(n, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(n) % CLASSES


def plain(model: nn.Module, images: list[Tensor]) -> float:
    """Processor seconds of forward passes without hooks."""
    begin = time.process_time()
    with torch.no_grad():
        for x in images:
            for some in x.split(BATCH):
                model(some)
    return time.process_time() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500, help="images of each set")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shown: list[int] = []
    model, control = Counted(0, shown).eval(), Counted(1, shown).eval()
    own, new = noise(options.images, 0), noise(options.images, 1)
    # With a fitted head there are correct and wrong examples, whose heat maps cost passes, too.
    with torch.no_grad():
        features = torch.cat([model.encoder(x) for x in own[0].split(BATCH)])
    probe = fit_probe(features, own[1], classes=CLASSES)
    model.head.weight = nn.Parameter(probe.weight / probe.scale)
    model.head.bias = nn.Parameter(probe.bias - model.head.weight @ probe.mean)
    # The first calls pay for imports and for memory.
    plain(model, [own[0][:8]])
    contam.audit(model, id=(own[0][:8], own[1][:8]), ood=(new[0][:8], new[1][:8]), progress=False)
    times: dict[str, list[float]] = {"plain": [], "all": [], "quick": []}
    for _ in range(options.rounds):
        times["plain"].append(plain(model, [own[0], new[0]]))
        whole = StageCosts(shown)
        contam.audit(model, id=own, ood=new, untrained=control, progress=whole)
        times["all"].append(whole.seconds)
        quick = StageCosts(shown)
        contam.audit(model, id=own, ood=new, quick=True, progress=quick)
        times["quick"].append(quick.seconds)
    print(f"{machine()}, {options.images} + {options.images} images")
    seconds = {side: statistics.median(values) for side, values in times.items()}
    print(f"plain forward passes: {2 * options.images} images, {seconds['plain']:.2f} s")
    for title, costs in (("everything", whole), ("quick", quick)):
        print(f"\n{title:40} images  passes  seconds  times plain")
        rows = [*costs.costs.items(), ("total", [sum(shown), costs.seconds])]
        if costs is whole:
            rows[-1][1][0] = sum(images for images, _ in costs.costs.values())
        for stage, (images, spent) in rows:
            passes = images / (2 * options.images)
            print(f"  {stage:36} {images:8.0f} {passes:7.2f} {spent:8.2f} "
                  f"{spent / seconds['plain']:8.2f}")  # fmt: skip
    ratio, fast = (seconds[side] / seconds["plain"] for side in ("all", "quick"))
    line = f"quick {fast:.2f} (wanted at most {MOST_QUICK:g})"
    print(f"\n{line}")
    return conclude(ratio, at_most=MOST, wrong=[line] if fast > MOST_QUICK else [])


if __name__ == "__main__":
    sys.exit(main())
