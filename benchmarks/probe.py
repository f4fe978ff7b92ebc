"""A linear probe of 10 epochs on features that are extracted once, against encoding every epoch.

Both sides read the same JPEGs through the same ResNet and take the same steps in the same order, so
they must reach the same accuracy. Both sides encode the test images once.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from outcome import conclude, machine
from PIL import Image
from torch import nn

from contam.data.folders import published_folder
from contam.data.images import FolderDomain
from contam.models.sources import Source, load
from contam.rng import bit_generator_for, generator_for
from contam.training.probe import Minibatches, extract, fit_probe, top1_accuracy

CLASSES, EPOCHS = 4, 10
LABELS = [str(label) for label in range(CLASSES)]
BATCH = 32
RECIPE = Minibatches(step_size=1e-2, weight_decay=0.1, batch_size=BATCH, epochs=EPOCHS)


def photographs(root: Path, images: int) -> Path:
    """JPEGs of 320 x 240 pixels: stripes, whose direction and color say a little of the class."""
    draws = np.random.Generator(bit_generator_for(0, f"benchmark/{root.name}"))
    across, down = np.meshgrid(np.arange(320), np.arange(240))
    for i in range(images):
        label = i % CLASSES
        angle = np.pi * label / CLASSES + draws.normal(0, 0.4)
        waves = np.sin((np.cos(angle) * across + np.sin(angle) * down) / draws.uniform(4, 12))
        color = 1 + 0.4 * np.cos(2 * np.pi * (label / CLASSES + np.arange(3) / 3))
        noise = draws.normal(0, 40, (240, 320, 3))
        pixels = (100 + 50 * waves[:, :, None]) * color + noise
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(root / str(label) / f"{i}.jpg", quality=90)
    return root


def ours(source: Source, train: FolderDomain, test: FolderDomain) -> float:
    """The accuracy of a probe on features that are extracted once."""
    x, judged = (extract(source.encoder, domain, batch_size=BATCH) for domain in (train, test))
    probe = fit_probe(x, train.y, RECIPE, classes=CLASSES)
    return top1_accuracy(probe(judged), test.y)


def plain(source: Source, train: FolderDomain, test: FolderDomain) -> float:
    """The accuracy of a probe by the simplest code: the network runs in the training loop."""
    head = nn.Linear(source.width, CLASSES)
    draws, bound = generator_for(0, "probe/weights"), source.width**-0.5
    for weights in (head.weight, head.bias):
        weights.data = (2 * torch.rand(weights.shape, generator=draws) - 1) * bound
    optimizer = torch.optim.AdamW(head.parameters(), RECIPE.step_size, weight_decay=0.1)
    steps = EPOCHS * -(-len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(EPOCHS):
        for batch in train.batches(BATCH, generator_for(0, f"probe/epoch {epoch}")):
            with torch.no_grad():
                x = source.encoder(batch.x)
            optimizer.zero_grad()
            F.cross_entropy(head(x), batch.y).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        logits = torch.cat([head(source.encoder(batch.x)) for batch in test.batches(BATCH)])
    return top1_accuracy(logits, test.y)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--network", default="torchvision:resnet18")
    given = parser.parse_args()
    source = load(given.network, seed=0)
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    right: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as root:
        train, test = (
            published_folder(photographs(Path(root, name), images), source.transform, LABELS)
            for name, images in (("train", given.images), ("test", given.images // 4))
        )
        source.encoder(next(train.batches(BATCH)).x)  # the first call loads libraries
        for _ in range(given.rounds):
            for name, side in (
                ("plain", lambda: plain(source, train, test)),
                ("ours", lambda: ours(source, train, test)),
            ):
                begin = time.perf_counter()
                right[name] = side()
                seconds[name].append(time.perf_counter() - begin)
    print(f"{machine()}; {source.name}, {given.images} images, {EPOCHS} epochs")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name} {value:.2f} s, accuracy {right[name]:.3f}, median of {given.rounds} rounds")
    same = len(set(right.values())) == 1 and right["plain"] > 1.5 / CLASSES
    wrong = [] if same else [f"accuracies: {right}; want one, above {1.5 / CLASSES}"]
    return conclude(medians["plain"] / medians["ours"], at_least=5, wrong=wrong)


if __name__ == "__main__":
    sys.exit(main())
