"""One step of distillation, CLIP's RN50 into itself at 224 px, against the plain loop.

The plain loop runs in float32 and in PyTorch's default memory layout; it runs the teacher in every
step. Ours is `contam.training.distill` with bfloat16 products and channels last: first with the
teacher in every step, as augmentation requires, then with its features kept. The sides alternate,
from the same weights and images, and their losses must agree. The ratio is that of the first of
ours.

What a processor can gain: AVX512-BF16 doubles the rate of products and halves the bytes of
activations. AMX multiplies the rate by 16 (1024 operations a cycle and core for 64 in float32), so
that a step no longer waits for products. What remains does not get faster: batch normalization and
pooling, and, once per step however few the images are, the cast of 38 million weights to bfloat16,
their reordering into oneDNN's blocks, and the float32 update of AdamW. With 4 images these decide
the ratio (CPU time of one thread: 1.7 with AVX512-BF16; 1.8 to 2.4 with AMX), so a minibatch has
16 (2.4 with AVX512-BF16, where products then take 83 % of a step; AMX was not measured).
"""

import argparse
import copy
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from outcome import conclude, machine
from torch import nn

from contam.batch import Batch, Domain, Shift
from contam.models.sources import load
from contam.training.distill import Distillation, distill
from contam.training.minibatches import TrainingExamples
from contam.training.precision import ComputeConfig

SIDE = 224
AGREE = 0.03
"""Losses may differ by this share; a bfloat16 has eight bits, so products are off by 0.4 %."""
WANTED = 2.0
"""Times as fast as the plain loop, on processors with instructions for bfloat16."""
NATIVE = ("amx_bf16", "avx512_bf16")
"""Their names in /proc/cpuinfo."""
Timed = tuple[list[float], list[float]]
"""Seconds of each step, and its loss."""


def plain(student: nn.Module, teacher: nn.Module, data: Batch, recipe: Distillation) -> Timed:
    """The loop as one would write it."""
    optimizer = torch.optim.AdamW(
        student.parameters(), recipe.step_size, weight_decay=recipe.weight_decay
    )
    picks = TrainingExamples([Domain("images", data)]).minibatches(
        recipe.batch_size, purpose="distill", seed=0, start=0
    )
    student.train()
    teacher.eval()
    seconds, losses = [], []
    for _, (numbers, _) in zip(range(recipe.steps or 0), picks, strict=False):
        x = data.x[numbers].to(next(student.parameters()).device)
        begun = now()
        with torch.no_grad():
            wanted = teacher(x)
        loss = (student(x) - wanted).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds.append(now() - begun)
    return seconds, losses


def ours(
    student: nn.Module, teacher: nn.Module, data: Batch, recipe: Distillation, *, kept: bool
) -> Timed:
    """The same by `distill`; the teacher's features are kept, or computed in every step."""
    domain = Domain("images", data)
    stages = distill(
        student, teacher, Shift("images", ("any", "other"), (domain,), domain, ()), recipe,
        seed=0, report_every=1, augment=None if kept else lambda x: x,
        compute=ComputeConfig("bfloat16", channels_last=True),
    )  # fmt: skip
    seconds, losses = [], []
    begun = now()
    for stage in stages:
        losses.append(stage.losses["distance"])
        seconds.append(now() - begun)
        begun = now()
    return seconds, losses


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def processor() -> tuple[str, list[str]]:
    """Its name, and which of the bfloat16 instructions it has."""
    about = Path("/proc/cpuinfo")
    text = about.read_text() if about.exists() else ""
    name = re.search(r"model name\s*:\s*(.+)", text)
    return name[1].strip() if name else platform.processor(), [n for n in NATIVE if n in text]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3, help="of each side in a round")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name, native = processor()
    if device.type == "cuda":
        name, native = torch.cuda.get_device_name(), ["tensor cores"]
    kinds = " and ".join(native) or "no instruction for bfloat16, so no ratio is wanted"
    print(f"{machine()}; {name}: {kinds}")

    count = given.batch_size * given.steps
    generator = torch.Generator().manual_seed(0)
    nothing = torch.zeros(count, dtype=torch.int64)
    data = Batch(torch.randn(count, 3, SIDE, SIDE, generator=generator), nothing, nothing)
    recipe = Distillation(1e-4, 0.1, given.batch_size, steps=given.steps, warmup=0, cosine=False)
    begun = load("open_clip:RN50", seed=0).encoder.to(device)
    teacher = load("open_clip:RN50", seed=1).encoder.to(device)

    sides: dict[str, Callable[..., Timed]] = {
        "plain loop": plain,
        "distill": lambda *inputs: ours(*inputs, kept=False),
        "distill, features kept": lambda *inputs: ours(*inputs, kept=True),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    losses: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(given.rounds):
        for side, take in sides.items():
            spent, losses[side] = take(copy.deepcopy(begun), teacher, data, recipe)
            # The first step also pays for what is set up once; of ours, the kept features.
            seconds[side] += spent[1:]

    speed = {side: given.batch_size / statistics.median(spent) for side, spent in seconds.items()}
    for side, spent in seconds.items():
        slow, fast = given.batch_size / max(spent), given.batch_size / min(spent)
        print(
            f"{side:24}{speed[side]:8.1f} images/s ({slow:.1f} to {fast:.1f}, n {len(spent)}), "
            f"{speed[side] / speed['plain loop']:.2f}x; losses "
            + ", ".join(f"{loss:.2f}" for loss in losses[side])
        )
    wrong = []
    for side in sides:
        error = torch.tensor(losses[side]) / torch.tensor(losses["plain loop"]) - 1
        if error.abs().max() >= AGREE:
            wrong.append(f"losses: those of {side} differ by up to {error.abs().max():.1%}")
    ratio = speed["distill"] / speed["plain loop"]
    return conclude(ratio, at_least=WANTED if native else None, wrong=wrong)


if __name__ == "__main__":
    sys.exit(main())
