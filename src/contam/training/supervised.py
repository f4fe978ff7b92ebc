"""Supervised training on what a shift offers for learning, interrupted and resumed at will.

The order of the examples, the step size and the draws of a step (dropout) are functions of the
seed and of the step. So weights, the optimizer's memory and the number of steps are all that a
check-point has to hold.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW

from contam.batch import Batch, Shift
from contam.models.classifier import drawing_from
from contam.seeds import stream
from contam.training.loop import train
from contam.training.schedule import warmup_cosine

WARM_UP = 0.1
"""The share of the steps over which the step size rises."""


@dataclass(frozen=True)
class Stage:
    """Where a supervised training stands, and what it would need to go on from there."""

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


def fit(
    model: nn.Module,
    shift: Shift,
    *,
    epochs: int,
    batch_size: int,
    step_size: float,
    weight_decay: float,
    seed: int,
    report_every: int,
    resume: Mapping[str, Tensor] | None = None,
) -> Iterator[Stage]:
    """Minimize the cross-entropy on the training domains, taken together, with AdamW.

    The step size warms up over the first tenth of the steps and then follows a cosine. An epoch
    leaves out the examples that do not fill a last minibatch. Yields every `report_every` steps
    and at the end, with the model in training mode between the steps. Given the check-point of
    a stage and the same other arguments, a training on the CPU continues bit for bit.

    Raises:
        ValueError: no epoch was asked for, a minibatch is larger than the training set, the loss
            stopped being finite, or the check-point belongs to another model or training.
    """
    data = Batch(*(torch.cat(parts) for parts in zip(*(d.data for d in shift.train), strict=True)))
    if epochs < 1:
        raise ValueError(f"training takes at least 1 epoch, not {epochs}")
    if not 1 <= batch_size <= len(data.y):
        raise ValueError(
            f"a minibatch of {batch_size} can't be drawn from {len(data.y)} training examples; "
            f"choose a batch size between 1 and {len(data.y)}"
        )
    steps = epochs * (len(data.y) // batch_size)
    optimizer = AdamW(model.parameters(), step_size, weight_decay=weight_decay)
    done = 0 if resume is None else _restore(resume, model, optimizer, steps)

    def step(batches: Sequence[Batch]) -> dict[str, float]:
        nonlocal done
        size = step_size * warmup_cosine(done, steps=steps, warmup=math.ceil(WARM_UP * steps))
        for group in optimizer.param_groups:
            group["lr"] = size
        model.train()
        with drawing_from(seed, f"fit/step {done}"):
            loss = F.cross_entropy(model(batches[0].x), batches[0].y)
        risk = loss.item()
        if not math.isfinite(risk):
            raise ValueError(
                f"the loss is not finite at step {done + 1}; "
                f"choose a step size below {step_size}, or look for such values in the inputs"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        done += 1
        return {"risk": risk}

    device = next(model.parameters()).device
    minibatches = _minibatches(data, batch_size, seed=seed, start=done, device=device)
    for progress in train(step, minibatches, steps=steps, report_every=report_every, done=done):
        yield Stage(progress.step, steps, progress.losses, model, optimizer)


def _minibatches(
    data: Batch, size: int, *, seed: int, start: int, device: torch.device
) -> Iterator[tuple[Batch]]:
    """Full minibatches, epoch after epoch without end, from the one with number `start` on."""
    epoch, skipped = divmod(start, len(data.y) // size)
    while True:
        order = torch.randperm(len(data.y), generator=stream(seed, f"fit/epoch {epoch}"))
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
