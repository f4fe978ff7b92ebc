"""Training on the embedded benchmark against a plain loop.

The plain loop is what one would write for a ResNet-8 on images in memory: an order of all images
for each epoch, AdamW with a warm-up and a cosine, and the loss of every step as a number. Ours is
`contam.training.supervised.fit`, as in the experiments, with what resuming bit for bit needs: a
random state of its own for every step. Both train from the same weights on the same minibatches,
in alternation, and their losses must agree. The ratio is the median over rounds of our processor
time over the plain loop's.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from outcome import conclude, machine
from torch import nn

from contam.batch import Batch, Domain, Shift
from contam.data.objects import CORES
from contam.data.shapes import splits
from contam.models.small import resnet8
from contam.training.minibatches import TrainingExamples
from contam.training.schedule import warmup_cosine
from contam.training.supervised import fit

CLASSES = CORES["shapes"]
STEP_SIZE, WEIGHT_DECAY, BATCH = 1e-2, 0.05, 32
AT_MOST = 1.1
AGREE = 1e-4
"""Losses may differ by this share."""


def plain(network: nn.Module, data: Batch, steps: int) -> list[float]:
    """The losses of the loop as one would write it."""
    optimizer = torch.optim.AdamW(network.parameters(), STEP_SIZE, weight_decay=WEIGHT_DECAY)
    order = TrainingExamples([Domain("images", data)]).minibatches(
        BATCH, purpose="fit", seed=0, start=0
    )
    network.train()
    losses = []
    for step, (numbers, _) in zip(range(steps), order, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = STEP_SIZE * warmup_cosine(step, steps=steps, warmup=-(-steps // 10))
        loss = F.cross_entropy(network(data.x[numbers]), data.y[numbers])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def ours(network: nn.Module, data: Batch, steps: int) -> list[float]:
    """The losses of `fit`."""
    domain = Domain("images", data)
    stages = fit(
        network, Shift("images", CLASSES, (domain,), domain, ()), steps=steps,
        step_size=STEP_SIZE, weight_decay=WEIGHT_DECAY, batch_size=BATCH, seed=0, report_every=1,
    )  # fmt: skip
    return [stage.losses["risk"] for stage in stages]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument("--steps", type=int, default=30, help="of each side in a round")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    drawn = splits(0, train=960, id_val=40, id_test=40, ood_test=40)["train"]
    begun = resnet8(len(CLASSES), width=given.width, seed=0)
    sides: dict[str, Callable[[nn.Module, Batch, int], list[float]]] = {
        "plain loop": plain, "contam": ours,
    }  # fmt: skip
    ratios, error = [], 0.0
    spent: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(given.rounds + 1):
        losses, seconds = {}, {}
        for side in sides if number % 2 else reversed(sides):
            start = time.process_time()
            losses[side] = sides[side](copy.deepcopy(begun), drawn.batch, given.steps)
            seconds[side] = (time.process_time() - start) / given.steps
        for one, other in zip(losses["contam"], losses["plain loop"], strict=True):
            error = max(error, abs(one / other - 1))
        if number:  # the first round also pays for what is set up once
            ratios.append(seconds["contam"] / seconds["plain loop"])
            for side in sides:
                spent[side].append(seconds[side])
    for side, values in spent.items():
        print(f"{side:11}{1e3 * statistics.median(values):8.2f} ms a step")
    print(f"ratios of {given.rounds} rounds {min(ratios):.3f} to {max(ratios):.3f}")
    wrong = [f"losses differ by up to {error:.2%}"] if not error < AGREE else []
    return conclude(statistics.median(ratios), at_most=AT_MOST, wrong=wrong)


if __name__ == "__main__":
    sys.exit(main())
