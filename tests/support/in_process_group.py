"""Trainings of small networks, in one process or several: in_process_group.py FOLDER."""

import atexit
import os
import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from contam.batch import Shift
from contam.data.images import FolderDomain, cropped_and_flipped, pixels
from contam.training.distill import Distillation, distill
from contam.training.optimize import TrainingState
from contam.training.precision import ComputeConfig
from contam.training.supervised import fit
from support.networks import smooth_network
from support.shifts import brightest_channel

SHIFT = brightest_channel(17, 29, dtype=torch.float64)
LOW_ENOUGH = 0.35
"""A norm of gradients that cuts some steps and not others, or a factor would go unseen: AdamW
takes the same steps when all gradients are twice as large."""


def on_disk(folder: Path) -> Shift:
    """The same as files, augmented on their way, in double precision."""
    files, y = [], []
    for index, (image, label) in enumerate(
        pair for d in SHIFT.train for pair in zip(d.data.x, d.data.y, strict=True)
    ):
        files.append(folder / f"{index}.png")
        values = (image / 1.5 * 255).byte().permute(1, 2, 0).numpy()
        if not files[-1].exists():
            Image.fromarray(values).save(files[-1])
        y.append(int(label))
    domain = FolderDomain(
        "files", files, torch.tensor(y), 0, lambda image: pixels(image).double()
    ).augmented(cropped_and_flipped(16, scale=(0.3, 1.0)))
    return Shift("files", ("r", "g", "b"), train=(domain,), id_test=domain, ood_tests=())


def trainings(folder: Path, parts: int = 1) -> dict[str, Tensor]:
    """Weights and losses of several trainings, each process's share in so many parts."""
    tensors: dict[str, Tensor] = {}

    def keep(name: str, stages: list[TrainingState]) -> None:
        for key, tensor in stages[-1].model.state_dict().items():
            tensors[f"{name}/{key}"] = tensor.clone(memory_format=torch.contiguous_format)
        losses = [list(stage.losses.values()) for stage in stages]
        tensors[f"{name}/losses"] = torch.tensor(losses, dtype=torch.float64)

    compute = ComputeConfig(accumulate=parts)
    for name, model in (("fit", smooth_network()), ("dropout", smooth_network(dropout=0.3))):
        steps = fit(
            model, SHIFT, epochs=2, batch_size=12, step_size=1e-2, weight_decay=0.05, seed=0,
            report_every=1, compute=compute,
        )  # fmt: skip
        keep(name, list(steps))
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for name, shift in (
        ("distill", SHIFT),
        ("files", on_disk(files)),
    ):
        recipe = Distillation(1e-2, 0.05, 12, epochs=2, clip=LOW_ENOUGH)
        student, teacher = smooth_network().encoder, smooth_network(seed=5).encoder
        steps = distill(student, teacher, shift, recipe, seed=0, report_every=1, compute=compute)
        keep(name, list(steps))
    return tensors


if __name__ == "__main__":
    out = Path(sys.argv[1])
    left = out / f"{os.environ['RANK']} at the end"
    # Handlers run in reverse order, so this one is the last.
    atexit.register(lambda: left.write_text(str(torch.distributed.is_initialized())))
    halved = {f"halved {name}": tensor for name, tensor in trainings(out, parts=2).items()}
    save_file(trainings(out) | halved, out / f"{os.environ['RANK']}.safetensors")
