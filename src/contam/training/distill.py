"""Representation distillation: a student network learns a teacher's features, and no labels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.batch import Shift
from contam.rng import seeded
from contam.training.distributed import ProcessGroup
from contam.training.minibatches import Examples, MicroBatch
from contam.training.optimize import Recipe, Stage, descend
from contam.training.precision import PLAIN, ComputeConfig, full

Reading = Callable[[nn.Module, Tensor], tuple[Tensor, Sequence[Tensor]]]
"""From a network and its input to its features and the output of each of its blocks."""
Augmentation = Callable[[Tensor], Tensor]
"""What changes inputs at random, with torch's draws; teacher and student see the same."""


@dataclass(frozen=True)
class Distillation(Recipe):
    """How a student is distilled."""

    blocks: float = 0.0
    """What each block's distance weighs beside that of the features; 0 leaves the blocks alone."""


PUBLISHED: dict[tuple[str, str], Distillation] = {
    ("imagenet", "RN50"): Distillation(1e-3, 0.05, 256, epochs=100, warmup=10_000),
    ("imagenet", "RN101"): Distillation(1e-3, 0.1, 256, epochs=100, warmup=10_000),
    ("imagenet", "RN50x4"): Distillation(1e-4, 0.5, 256, epochs=100, warmup=10_000),
    ("imagenet", "RN50x16"): Distillation(1e-4, 0.5, 256, epochs=100, warmup=10_000),
    ("imagenet", "ViT-B-16"): Distillation(1e-4, 0.1, 256, epochs=200, warmup=10_000, blocks=0.1),
    # For these two the paper names no schedule: the step size stays.
    ("iwildcam", "resnet50"): Distillation(1e-4, 0.1, 128, epochs=150, cosine=False),
    ("camelyon17", "ViT-B-16"): Distillation(1e-4, 0.1, 128, epochs=120, cosine=False),
    # A cosine, and no word of a warm-up.
    ("domainnet", "RN50"): Distillation(3e-4, 5e-5, 32, steps=95_000, warmup=0),
}
"""How the paper distilled, by data set and teacher. Gradients were not clipped, as far as it says.

Source: App. E.1, App. E.2, App. E.3, App. E.4.
"""


def features_alone(model: nn.Module, x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
    """The reading of an encoder whose blocks are left alone."""
    return model(x), ()


def distance(
    student: Float[Tensor, "batch ... width"], teacher: Float[Tensor, "batch ... width"]
) -> Float[Tensor, ""]:
    """The squared Euclidean distance of two representations, in the mean over examples and tokens.

    It is `width` times what `torch.nn.functional.mse_loss` returns. At least 0.

    Source: App. E.1, where it is in words alone.
    """
    return (student - teacher).square().sum(dim=-1).mean()


def distill(
    student: nn.Module,
    teacher: nn.Module,
    shift: Shift,
    recipe: Distillation,
    *,
    seed: int,
    report_every: int,
    read: Reading = features_alone,
    augment: Augmentation | None = None,
    resume: Mapping[str, Tensor] | None = None,
    machine: ComputeConfig = PLAIN,
) -> Iterator[Stage]:
    """Teach the student the teacher's features on the training domains, taken together.

    The loss is the `distance` of the features; if the recipe weighs blocks, also that of each
    block's output. The teacher is in evaluation mode until the iteration ends, learns nothing and
    is left as it was found. What it makes of an example is computed once and kept unless examples
    are augmented, by `augment` or by their domain, or blocks compared. Domains on disk are read
    ahead of the steps. Yields every `report_every` steps and at the end. Given the check-point of
    a stage and the same other arguments, a training on the CPU continues bit for bit.

    Source: App. E.1.

    Raises:
        ValueError: the recipe does not fit the data, the networks' representations differ in
            shape, blocks are weighed but not read, the loss stopped being finite, or the
            check-point belongs to another model or training.
    """
    examples = Examples(shift.train)
    recipe.length(len(examples))  # what can't be trained is said before the teacher works
    team = ProcessGroup()
    with _still(teacher, team.device(student)):
        kept = augment is None and not examples.augmented and recipe.blocks == 0
        known = None
        if kept:
            known = _table(teacher, examples, recipe, read, machine=machine, team=team)

        def loss(share: MicroBatch) -> dict[str, Tensor]:
            x = share.batch.x
            if augment is not None:
                with seeded(seed, f"distill/augmentation {share.place}"):
                    x = augment(x)
            if known is None:
                with torch.no_grad():
                    wanted, wanted_blocks = read(teacher, x)
            else:
                wanted, wanted_blocks = known[share.numbers].to(x.device), ()
            features, blocks = read(student, x)
            _check(features, wanted, blocks, wanted_blocks, weigh=recipe.blocks > 0)
            terms = {"distance": distance(full(features), full(wanted))}
            if recipe.blocks > 0:
                apart = [
                    distance(full(one), full(other))
                    for one, other in zip(blocks, wanted_blocks, strict=True)
                ]
                terms["blocks"] = recipe.blocks * torch.stack(apart).sum()
            return terms

        yield from descend(
            student, examples, loss, recipe,
            purpose="distill", seed=seed, report_every=report_every, resume=resume, machine=machine,
        )  # fmt: skip


@contextmanager
def _still(teacher: nn.Module, device: torch.device) -> Iterator[None]:
    """The teacher in evaluation mode where the student is; afterwards as and where it was found."""
    modes = {module: module.training for module in teacher.modules()}
    found = next((p.device for p in teacher.parameters()), device)
    teacher.eval().to(device)
    try:
        yield
    finally:
        teacher.to(found)
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def _table(
    teacher: nn.Module,
    examples: Examples,
    recipe: Recipe,
    read: Reading,
    *,
    machine: ComputeConfig,
    team: ProcessGroup,
) -> Tensor:
    """The teacher's features of every example, on the CPU; processes share the work."""
    device = team.device(teacher)
    size = min(recipe.batch_size, max(1, len(examples) // team.size))
    own = torch.arange(len(examples)).split(size)[team.rank :: team.size]
    found = []
    for batch in examples.fetch((numbers, torch.zeros_like(numbers)) for numbers in own):
        with machine.passing(device):
            found.append(full(read(teacher, machine.arranged(batch.x.to(device)))[0]).cpu())
    rows = torch.cat(found)
    if team.size == 1:
        return rows
    table = rows.new_zeros(len(examples), *rows.shape[1:])
    table[torch.cat(own)] = rows
    return team.total(table)


def _check(
    features: Tensor,
    wanted: Tensor,
    blocks: Sequence[Tensor],
    wanted_blocks: Sequence[Tensor],
    *,
    weigh: bool,
) -> None:
    """Subtraction would broadcast in silence what does not fit."""
    if features.shape != wanted.shape:
        raise ValueError(
            f"the student's features have shape {tuple(features.shape)} and the teacher's "
            f"{tuple(wanted.shape)}; give the student the teacher's width"
        )
    if not weigh:
        return
    shapes, wanted_shapes = ([tuple(b.shape) for b in given] for given in (blocks, wanted_blocks))
    if not shapes or shapes != wanted_shapes:
        raise ValueError(
            f"the recipe weighs blocks, and their outputs have shapes {shapes} in the student and "
            f"{wanted_shapes} in the teacher; give a `read` that returns the same for both"
        )
