"""What an audit sees in a ResNet-50 (accuracies, layers, coupling), against forward passes alone.

Images of 224 pixels in float32, drawn weights, one thread. The reference shows the same networks as
many images in batches of the same sizes, one side after the other in each round, and the
processor's time counts, so that other programs' does not. One pass alone is timed, too: what a
large data set costs, whose images are many beside what is done once. Class means of that pass are
compared with those of two plain passes.
"""

import argparse
import platform
import statistics
import sys
import time

import torch
from torch import Tensor, nn

from contam.auditing.audit_inputs import AuditInputs, Sample
from contam.auditing.layer_evidence import Bounds
from contam.auditing.layers import look_inside
from contam.auditing.progress import finished
from contam.auditing.single_pass import looking, running_layers
from contam.batch import Batch, Domain
from contam.models.observe import observe
from contam.models.sources import load

IMAGES, CLASSES, SIZE = 48, 4, 16
FEW = Bounds(fitted=16, queries=16, control=16, altered=16, read=0)
"""Readers are other evidence; all else is in the proportions of an audit of a small data set."""
MOST = 1.2
"""What the evidence may cost, in plain passes over the same images."""


class Counted(nn.Module):
    """A network that remembers the sizes of the batches that it was shown."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.encoder = load("torchvision:resnet50", seed=seed).encoder
        self.head = nn.Linear(2048, CLASSES)
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.head(self.encoder(x))


def drawn(name: str, seed: int) -> Sample:
    """Noise of so many images, the classes in turn."""
    x = torch.rand(IMAGES, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
    y = torch.arange(IMAGES) % CLASSES
    return Sample(name, Domain(name, Batch(x, y, y * 0)))


def used(since: float) -> float:
    return time.process_time() - since


def plain(model: nn.Module, x: Tensor, sizes: list[int]) -> float:
    """Seconds of forward passes over batches of these sizes."""
    begin = time.process_time()
    with torch.no_grad():
        for size in sizes:
            model(x[:size])
    return used(begin)


def error(model: nn.Module, sample: Sample, layers: tuple[str, ...]) -> float:
    """The largest difference to class means of plain readings, over a layer's largest mean."""
    look = finished(looking(model, sample, layers, classes=CLASSES, batch_size=SIZE))
    sums: dict[str, Tensor] = {}
    for seen in observe(model, sample.domain.batches(SIZE), layers):
        for layer, values in seen.layers.items():
            added = torch.stack([values[seen.batch.y == c].sum(dim=0) for c in range(CLASSES)])
            sums[layer] = sums.get(layer, 0) + added
    return max(
        float((look.tables[layer].means.sums - each).abs().max() / each.abs().max())
        for layer, each in sums.items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    model, control = Counted(0).eval(), Counted(1).eval()
    own, new = drawn("ID", 0), drawn("OOD", 1)
    layers = running_layers(model, own)
    subject = AuditInputs(
        "ResNet-50", model, tuple("abcd"), own, (new,), layers, untrained=control, batch_size=SIZE
    )
    x = own.domain.data.x
    plain(model, x, [SIZE])  # the first call pays for what is made once
    times: dict[str, list[float]] = {"one pass": [], "its images": [], "all": [], "all images": []}
    shown = 0
    for _ in range(rounds):
        model.sizes.clear()
        begin = time.process_time()
        list(looking(model, own, layers, classes=CLASSES, batch_size=SIZE))
        times["one pass"].append(used(begin))
        times["its images"].append(plain(model, x, model.sizes.copy()))
    for _ in range(max(1, rounds // 3)):
        model.sizes.clear()
        control.sizes.clear()
        begin = time.process_time()
        list(look_inside(subject, FEW))
        times["all"].append(used(begin))
        sizes = model.sizes + control.sizes
        shown = sum(sizes)
        times["all images"].append(plain(model, x, sizes))
    wrong = error(model, own, layers)
    print(
        f"machine {platform.processor() or platform.machine()}, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} thread"
    )
    medians = {side: statistics.median(seconds) for side, seconds in times.items()}
    print(f"one pass over {IMAGES} images {medians['one pass']:.2f} s, "
          f"forward passes alone {medians['its images']:.2f} s, median of {rounds}")  # fmt: skip
    print(f"whole evidence from {shown} looks at an image {medians['all']:.2f} s, "
          f"forward passes alone {medians['all images']:.2f} s")  # fmt: skip
    print(f"largest difference to plain class means {wrong:.1e} of a layer's largest")
    ratios = {
        "one pass": medians["one pass"] / medians["its images"],
        "whole evidence": medians["all"] / medians["all images"],
    }
    for name, ratio in ratios.items():
        print(f"ratio of {name} {ratio:.3f}")
    good = {"values": wrong < 1e-5} | {name: ratio <= MOST for name, ratio in ratios.items()}
    for what in [what for what, holds in good.items() if not holds]:
        print(f"WRONG {what}: want at most {MOST} of the time, and equal values")
    return int(not all(good.values()))


if __name__ == "__main__":
    sys.exit(main())
