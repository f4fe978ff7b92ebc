"""Trainings of small networks, in one process or several: in_process_group.py FOLDER."""

import os
import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from contam.batch import Batch, Domain, Shift
from contam.data.images import FolderDomain, cropped_and_flipped, pixels
from contam.models.classifier import Classifier
from contam.models.small import small_cnn
from contam.training.distill import Distillation, distill
from contam.training.optimize import Stage
from contam.training.precision import ComputeConfig
from contam.training.supervised import fit

LOW_ENOUGH = 0.35
"""A norm of gradients that cuts some steps and not others, or a factor would go unseen: AdamW
takes the same steps when all gradients are twice as large."""


def network(seed: int = 0, dropout: float = 0.0) -> Classifier:
    """In double precision; without batch norm, which would see a share's statistics alone."""
    model = small_cnn(3, width=4, seed=seed)
    for name, layer in list(model.encoder.named_children()):
        if isinstance(layer, nn.BatchNorm2d):
            setattr(model.encoder, name, nn.Identity())
        if isinstance(layer, nn.ReLU):
            setattr(model.encoder, name, nn.Tanh())
    model.encoder.add_module("drop", nn.Dropout(dropout))
    return model.double()


def toy(n: int = 46) -> Shift:
    """Images whose class is the brightest channel, in two domains of unequal size."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (n,), generator=generator)
    x = torch.rand(n, 3, 16, 16, generator=generator, dtype=torch.float64)
    x[torch.arange(n), y] += 0.5
    whole = Batch(x, y, torch.zeros_like(y))
    parts = [Domain("toy", whole.pick(slice(*ends))) for ends in ((0, 17), (17, n))]
    return Shift("toy", ("r", "g", "b"), train=tuple(parts), id_test=parts[0], ood_tests=())


def on_disk(folder: Path) -> Shift:
    """The same as files, augmented on their way, in double precision."""
    files, y = [], []
    for index, (image, label) in enumerate(
        pair for d in toy().train for pair in zip(d.data.x, d.data.y, strict=True)
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
    found: dict[str, Tensor] = {}

    def keep(name: str, stages: list[Stage]) -> None:
        for key, tensor in stages[-1].model.state_dict().items():
            found[f"{name}/{key}"] = tensor.clone(memory_format=torch.contiguous_format)
        told = [list(stage.losses.values()) for stage in stages]
        found[f"{name}/losses"] = torch.tensor(told, dtype=torch.float64)

    settings = dict(epochs=2, batch_size=12, step_size=1e-2, weight_decay=0.05, seed=0)
    machine = ComputeConfig(accumulate=parts)
    for name, model in (("fit", network()), ("dropout", network(dropout=0.3))):
        steps = fit(model, toy(), **settings, report_every=1, machine=machine)  # pyright: ignore[reportArgumentType]
        keep(name, list(steps))
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for name, shift in (("distill", toy()), ("files", on_disk(files))):
        recipe = Distillation(1e-2, 0.05, 12, epochs=2, clip=LOW_ENOUGH)
        student, teacher = network().encoder, network(seed=5).encoder
        steps = distill(student, teacher, shift, recipe, seed=0, report_every=1, machine=machine)
        keep(name, list(steps))
    return found


if __name__ == "__main__":
    out = Path(sys.argv[1])
    halved = {f"halved {name}": tensor for name, tensor in trainings(out, parts=2).items()}
    save_file(trainings(out) | halved, out / f"{os.environ['RANK']}.safetensors")
