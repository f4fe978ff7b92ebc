"""Descending a loss of a network with AdamW, interrupted and resumed at will.

The order of the examples, the step size and the draws of a step (dropout) are functions of the
seed and of the step. So weights, the optimizer's memory and the number of steps are all that a
check-point has to hold.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from contam.batch import Batch
from contam.rng import seeded
from contam.training.distributed import ProcessGroup
from contam.training.loop import train
from contam.training.minibatches import Examples, MicroBatch
from contam.training.precision import PLAIN, ComputeConfig
from contam.training.schedule import warmup_cosine

WARM_UP = 0.1
"""The share of the steps over which the step size rises, unless a recipe says otherwise."""

Loss = Callable[[MicroBatch], dict[str, Tensor]]
"""From a share of a minibatch to named terms, each a mean over examples; their sum is descended."""


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

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Build the optimizer of this recipe: AdamW."""
        return AdamW(parameters, self.step_size, weight_decay=self.weight_decay)

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
    optimizer: Optimizer

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
    examples: Examples,
    loss: Loss,
    recipe: Recipe,
    *,
    purpose: str,
    seed: int,
    report_every: int,
    resume: Mapping[str, Tensor] | None = None,
    machine: ComputeConfig = PLAIN,
) -> Iterator[Stage]:
    """Descend the loss on minibatches; yield every `report_every` steps and at the end.

    The model is in training mode between the steps. What is drawn depends on the seed and the
    purpose. Given the check-point of a stage and the same other arguments, a training on the CPU
    continues bit for bit. Started in several processes, each takes its share of every minibatch.

    Raises:
        ValueError: the recipe does not fit the data or the machine, the loss stopped being
            finite, or the check-point belongs to another model or training.
    """
    steps = recipe.length(len(examples))
    team = ProcessGroup()
    parts = team.size * machine.accumulate
    if parts > recipe.batch_size:
        raise ValueError(
            f"a minibatch of {recipe.batch_size} can't be cut into {parts} parts: {team.size} "
            f"processes with accumulate={machine.accumulate}; take larger minibatches"
        )
    machine.arrange(model)
    losses = team.join(_Losses(model, loss))
    device = team.device(model)
    optimizer = recipe.optimizer(model.parameters())
    done = 0 if resume is None else _restore(resume, model, optimizer, steps)

    def step(shares: tuple[MicroBatch, ...]) -> dict[str, float]:
        nonlocal done
        for group in optimizer.param_groups:
            group["lr"] = recipe.size(done, steps=steps)
        model.train()
        optimizer.zero_grad()
        found: dict[str, float] = {}
        for share in shares:
            with nullcontext() if share is shares[-1] else team.apart(losses):
                with (
                    seeded(seed, f"{purpose}/step {share.place}"),
                    machine.passing(device),
                ):
                    terms = losses(_moved(share, machine, device))
                for name, term in terms.items():
                    found[name] = found.get(name, 0.0) + term.item() * share.weight
                # Gradients are averaged over the processes, and weighed over the whole minibatch.
                whole = torch.stack(tuple(terms.values())).sum()
                (whole * (share.weight * team.size)).backward()
        values = team.total(torch.tensor(list(found.values()), dtype=torch.float64)).tolist()
        if not all(map(math.isfinite, values)):
            raise ValueError(
                f"the loss is not finite at step {done + 1}; choose a step size below "
                f"{recipe.step_size}, or look for such values in the inputs"
            )
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        done += 1
        return dict(zip(found, values, strict=True))

    own = range(team.rank * machine.accumulate, (team.rank + 1) * machine.accumulate)
    shares = examples.shares(
        recipe.batch_size, parts=parts, own=own, purpose=purpose, seed=seed, start=done
    )
    for progress in train(step, shares, steps=steps, report_every=report_every, done=done):
        yield Stage(progress.step, steps, progress.losses, model, optimizer)


class _Losses(nn.Module):
    """The loss as a module: gradients are averaged of what goes through the forward of one."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, share: MicroBatch) -> dict[str, Tensor]:
        return self.loss(share)


def _moved(share: MicroBatch, machine: ComputeConfig, device: torch.device) -> MicroBatch:
    batch = Batch(*(part.to(device) for part in share.batch))
    return share._replace(batch=batch._replace(x=machine.arranged(batch.x)))


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _restore(
    checkpoint: Mapping[str, Tensor], model: nn.Module, optimizer: Optimizer, steps: int
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
        prefix = f"optimizer/{index}/"
        memory = {
            name.removeprefix(prefix): tensor
            for name, tensor in checkpoint.items()
            if name.startswith(prefix)
        }
        # The optimizer's arithmetic is the same to the last bit only in the same memory layout.
        state["state"][index] = {
            name: torch.empty_like(parameter).copy_(tensor) if name != "step" else tensor.clone()
            for name, tensor in memory.items()
        }
    optimizer.load_state_dict(state)
    return done
