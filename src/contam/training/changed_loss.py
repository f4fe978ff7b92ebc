"""The loss of a training with a change, as the table `contam.training.changes` has it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contam.inputs.pixel_range import PixelRange
from contam.rng import generator_for
from contam.training.changes import TrainingChange
from contam.training.minibatches import MicroBatch
from contam.training.precision import full


def changed_risk(
    learner: nn.Module,
    change: TrainingChange | None,
    *,
    masks: Float[Tensor, "n 1 height width"] | None = None,
    pixels: PixelRange | None = None,
    purpose: str,
    seed: int,
) -> Callable[[MicroBatch], dict[str, Tensor]]:
    """Return the cross-entropy of a learner on minibatches that a change edits.

    Args:
        learner: the network, or what the change's `wrap` made of it.
        change: the change; None leaves images and gradients as they are.
        masks: masks of all training images, for changes that need them.
        pixels: values of black and white in the inputs; None stands for images in [0, 1].
        purpose: name of the training, for random numbers.
        seed: random seed.

    Source: ours, one loss for all changes of a training.

    >>> from contam.batch import Batch
    >>> batch = Batch(torch.eye(2), torch.arange(2), torch.zeros(2).long())
    >>> loss = changed_risk(nn.Identity(), None, purpose="example", seed=0)
    >>> round(loss(MicroBatch(batch, torch.arange(2), 0, "0", 1.0))["risk"].item(), 3)
    0.313
    """

    def risk(micro_batch: MicroBatch) -> dict[str, Tensor]:
        x, y = micro_batch.batch.x, micro_batch.batch.y
        covered = None
        if change is not None and change.needs_masks and masks is not None:
            covered = masks[micro_batch.numbers].to(x)
        if change is not None and change.edit is not None:
            # A generator of its own, so that the random numbers of layers are those of other arms.
            source = generator_for(seed, f"{purpose}/{change.name}/step {micro_batch.place}")
            pictures = x if pixels is None else pixels.pictures(x)
            edited = change.edit(pictures, covered, source)
            x = edited if pixels is None else pixels.inputs(edited)
        if change is not None and change.wrap is not None:
            assert covered is not None
            x = torch.cat([x, covered], dim=1)
        return {"risk": F.cross_entropy(full(learner(x)), y)}

    return risk
