"""Supervised training on what a shift offers for learning."""

from collections.abc import Iterator, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from contam.batch import Shift
from contam.training.minibatches import Examples, MicroBatch
from contam.training.optimize import Recipe, Stage, descend
from contam.training.precision import PLAIN, ComputeConfig, full


def fit(
    model: nn.Module,
    shift: Shift,
    *,
    step_size: float,
    weight_decay: float,
    batch_size: int,
    epochs: int | None = None,
    steps: int | None = None,
    warmup: int | None = None,
    cosine: bool = True,
    clip: float | None = None,
    seed: int,
    report_every: int,
    resume: Mapping[str, Tensor] | None = None,
    machine: ComputeConfig = PLAIN,
) -> Iterator[Stage]:
    """Minimize the cross-entropy on the training domains, taken together, with AdamW.

    The settings are the fields of a `Recipe`: by default the step size warms up over the first
    tenth of the steps and then follows a cosine. An epoch leaves out the examples that do not fill
    a last minibatch. Yields every `report_every` steps
    and at the end, with the model in training mode between the steps. Given the check-point of
    a stage and the same other arguments, a training on the CPU continues bit for bit. Domains on
    disk are read ahead of the steps, and augmented if they are made so.

    Raises:
        ValueError: neither epochs nor steps were asked for, or both were; a minibatch is larger
            than the training set or has fewer examples than there are parts; the loss stopped
            being finite; or the check-point belongs to another model or training.
    """

    def risk(share: MicroBatch) -> dict[str, Tensor]:
        return {"risk": F.cross_entropy(full(model(share.batch.x)), share.batch.y)}

    recipe = Recipe(
        step_size, weight_decay, batch_size,
        epochs=epochs, steps=steps, warmup=warmup, cosine=cosine, clip=clip,
    )  # fmt: skip
    yield from descend(
        model, Examples(shift.train), risk, recipe,
        purpose="fit", seed=seed, report_every=report_every, resume=resume, machine=machine,
    )  # fmt: skip
