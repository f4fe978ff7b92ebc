"""Supervised training on the training domains of a shift."""

from collections.abc import Iterator, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from contam.batch import Shift
from contam.training.minibatches import MicroBatch, TrainingExamples
from contam.training.optimize import Recipe, TrainingState, optimize
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
    momentum: float | None = None,
    schedule_epochs: int | None = None,
    per_domain: bool = False,
    seed: int,
    report_every: int,
    resume: Mapping[str, Tensor] | None = None,
    compute: ComputeConfig = PLAIN,
) -> Iterator[TrainingState]:
    """Minimize the cross-entropy on all training domains together.

    The settings are the fields of a `Recipe`: by default AdamW, with a step size that warms up over
    the first tenth of the steps and then follows a cosine.

    Args:
        model: Network to train, in place; it is in training mode between the steps.
        shift: Data; only its training domains are used.
        step_size: Maximum step size.
        weight_decay: Weight decay.
        batch_size: Examples of a minibatch.
        epochs: Number of epochs, without the examples that do not fill a last minibatch.
        steps: Number of steps, instead of epochs.
        warmup: Number of warm-up steps.
        cosine: Whether the step size follows a schedule or is constant.
        clip: Maximum norm of the gradient.
        momentum: Momentum of SGD; None is AdamW.
        schedule_epochs: Epochs in which the cosine reaches 0, without a warm-up; at least `epochs`.
        per_domain: Whether every training domain gives `batch_size` examples to a step.
        seed: Random seed.
        report_every: Number of steps between two reports.
        resume: Checkpoint of a state. With the same other arguments, a training on the CPU
            continues bit for bit.
        compute: Precision, accumulation and memory format.

    Returns:
        An iterator of states, every `report_every` steps and at the end.

    Raises:
        ValueError: If not exactly one of epochs and steps is given, if a minibatch is larger than
            the training set or smaller than the number of its parts, if the loss is not finite, or
            if the checkpoint belongs to another model or training.

    >>> import torch
    >>> from contam.batch import Batch, Domain, Shift
    >>> x, zeros = torch.eye(4), torch.zeros(4, dtype=torch.int64)
    >>> domain = Domain("data", Batch(x, torch.arange(4) % 2, zeros))
    >>> shift = Shift("toy", ("a", "b"), (domain,), domain, (domain,))
    >>> states = fit(nn.Linear(4, 2), shift, step_size=0.1, weight_decay=0.0, batch_size=2,
    ...              epochs=2, seed=0, report_every=4)
    >>> [state.step for state in states]
    [4]
    """

    def risk(micro_batch: MicroBatch) -> dict[str, Tensor]:
        return {"risk": F.cross_entropy(full(model(micro_batch.batch.x)), micro_batch.batch.y)}

    recipe = Recipe(
        step_size, weight_decay, batch_size,
        epochs=epochs, steps=steps, warmup=warmup, cosine=cosine, clip=clip,
        momentum=momentum, schedule_epochs=schedule_epochs, per_domain=per_domain,
    )  # fmt: skip
    yield from optimize(
        model, TrainingExamples(shift.train), risk, recipe,
        purpose="fit", seed=seed, report_every=report_every, resume=resume, compute=compute,
    )  # fmt: skip
