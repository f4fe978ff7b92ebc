"""Descending a loss of a network with AdamW, interrupted and resumed at will.

The order of the examples, the step size and the draws of a step (dropout) are functions of the
seed and of the step. So weights, the optimizer's memory and the number of steps are all that a
check-point has to hold.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from contam.batch import Batch, Shift
from contam.models.classifier import drawing_from
from contam.seeds import stream
from contam.training.loop import train
from contam.training.schedule import warmup_cosine

WARM_UP = 0.1
"""The share of the steps over which the step size rises, unless a recipe says otherwise."""

Loss = Callable[[Batch, int], dict[str, Tensor]]
"""From a minibatch and the number of steps done to named terms, whose sum is descended."""


@dataclass(frozen=True)
class Recipe:
    """How a network is descended with AdamW."""

    step_size: float
    weight_decay: float
    batch_size: int
    epochs: int | None = None
    """An epoch leaves out the examples that do not fill a last minibatch."""
    steps: int | None = None
    """Instead of epochs."""
    warmup: int | None = None
    """Steps over which the step size rises; None is a tenth of all."""
    cosine: bool = True
    """Whether the step size falls after the warm-up; without, it is the same in every step."""
    clip: float | None = None
    """The largest norm of all gradients together; None leaves them as they are."""

    def length(self, examples: int) -> int:
        """The number of steps on so many examples.

        Raises:
            ValueError: no step or no epoch was asked for, both were, or a minibatch is larger
                than the training set.
        """
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"a training has epochs or steps, not epochs={self.epochs} and steps={self.steps}"
            )
        for name, asked in (("epoch", self.epochs), ("step", self.steps)):
            if asked is not None and asked < 1:
                raise ValueError(f"training takes at least 1 {name}, not {asked}")
        if not 1 <= self.batch_size <= examples:
            raise ValueError(
                f"a minibatch of {self.batch_size} can't be drawn from {examples} training "
                f"examples; choose a batch size between 1 and {examples}"
            )
        return self.steps or (self.epochs or 0) * (examples // self.batch_size)

    def size(self, step: int, *, steps: int) -> float:
        """The step size at a step counted from 0."""
        if not self.cosine:
            return self.step_size
        warmup = math.ceil(WARM_UP * steps) if self.warmup is None else min(self.warmup, steps)
        return self.step_size * warmup_cosine(step, steps=steps, warmup=warmup)


@dataclass(frozen=True)
class Stage:
    """Where a training stands, and what it would need to go on from there."""

    step: int
    """Steps done, from 1."""
    steps: int
    """Steps in all."""
    losses: dict[str, float]
    """The last step's named losses."""
    model: nn.Module
    optimizer: AdamW

    def checkpoint(self) -> dict[str, Tensor]:
        """A copy of everything that resuming needs, as tensors that any format can hold."""
        tensors = {"step": torch.tensor(self.step)}
        for name, tensor in self.model.state_dict().items():
            tensors[f"model/{name}"] = _copy(tensor)
        for index, memory in self.optimizer.state_dict()["state"].items():
            for name, tensor in memory.items():
                tensors[f"optimizer/{index}/{name}"] = _copy(tensor)
        return tensors


def descend(
    model: nn.Module,
    data: Batch,
    loss: Loss,
    recipe: Recipe,
    *,
    purpose: str,
    seed: int,
    report_every: int,
    resume: Mapping[str, Tensor] | None = None,
) -> Iterator[Stage]:
    """Descend the loss on minibatches of the data, and yield every `report_every` and at the end.

    The model is in training mode between the steps. What is drawn depends on the seed and the
    purpose. Given the check-point of a stage and the same other arguments, a training on the CPU
    continues bit for bit.

    Raises:
        ValueError: the recipe does not fit the data, the loss stopped being finite, or the
            check-point belongs to another model or training.
    """
    steps = recipe.length(len(data.y))
    optimizer = AdamW(model.parameters(), recipe.step_size, weight_decay=recipe.weight_decay)
    done = 0 if resume is None else _restore(resume, model, optimizer, steps)

    def step(batches: Sequence[Batch]) -> dict[str, float]:
        nonlocal done
        for group in optimizer.param_groups:
            group["lr"] = recipe.size(done, steps=steps)
        model.train()
        with drawing_from(seed, f"{purpose}/step {done}"):
            terms = loss(batches[0], done)
        losses = {name: term.item() for name, term in terms.items()}
        if not all(map(math.isfinite, losses.values())):
            raise ValueError(
                f"the loss is not finite at step {done + 1}; choose a step size below "
                f"{recipe.step_size}, or look for such values in the inputs"
            )
        optimizer.zero_grad()
        torch.stack(tuple(terms.values())).sum().backward()
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        done += 1
        return losses

    device = next(model.parameters()).device
    batches = minibatches(
        data, recipe.batch_size, purpose=purpose, seed=seed, start=done, device=device
    )
    for progress in train(step, batches, steps=steps, report_every=report_every, done=done):
        yield Stage(progress.step, steps, progress.losses, model, optimizer)


def learned_from(shift: Shift) -> Batch:
    """The examples of all training domains, one domain after the other."""
    parts = zip(*(domain.data for domain in shift.train), strict=True)
    return Batch(*(torch.cat(part) for part in parts))


def minibatches(
    data: Batch, size: int, *, purpose: str, seed: int, start: int, device: torch.device
) -> Iterator[tuple[Batch]]:
    """Full minibatches, epoch after epoch without end, from the one with number `start` on."""
    epoch, skipped = divmod(start, len(data.y) // size)
    while True:
        order = torch.randperm(len(data.y), generator=stream(seed, f"{purpose}/epoch {epoch}"))
        for picked in order.split(size)[skipped : len(data.y) // size]:
            yield (Batch(*(part.to(device) for part in data.pick(picked))),)
        epoch, skipped = epoch + 1, 0


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _restore(
    checkpoint: Mapping[str, Tensor], model: nn.Module, optimizer: AdamW, steps: int
) -> int:
    """Put a check-point's content back in place; returns the steps that were done by then."""
    done = int(checkpoint["step"])
    if done > steps:
        raise ValueError(
            f"the check-point was taken at step {done}, but this training has {steps} in all; "
            "resume with the epochs and the batch size that it was begun with"
        )
    weights = {
        name.removeprefix("model/"): tensor
        for name, tensor in checkpoint.items()
        if name.startswith("model/")
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the check-point belongs to another model: {error}") from error
    state = optimizer.state_dict()
    for index, parameter in enumerate(model.parameters()):
        memory = {
            name: checkpoint[f"optimizer/{index}/{name}"]
            for name in ("step", "exp_avg", "exp_avg_sq")
            if f"optimizer/{index}/{name}" in checkpoint
        }
        # The optimizer's arithmetic is the same to the last bit only in the same memory layout.
        state["state"][index] = {
            name: torch.empty_like(parameter).copy_(tensor) if name != "step" else tensor.clone()
            for name, tensor in memory.items()
        }
    optimizer.load_state_dict(state)
    return done
