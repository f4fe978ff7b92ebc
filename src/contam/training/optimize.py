"""Minimization of a loss on minibatches, with exact resuming.

The order of the examples, the step size and the random numbers of a step (dropout) are functions of
the seed and the step. So a checkpoint holds only the weights, the optimizer's state and the number
of steps.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from contam.batch import Batch
from contam.rng import seeded
from contam.training.distributed import ProcessGroup
from contam.training.loop import train
from contam.training.minibatches import MicroBatch, TrainingExamples
from contam.training.optimizer_state import cpu_copy, load_optimizer_tensors, optimizer_tensors
from contam.training.precision import PLAIN, ComputeConfig
from contam.training.schedule import warmup_cosine

WARM_UP = 0.1
"""Default share of warm-up steps."""


class NotFiniteError(ValueError):
    """A loss is infinite or not a number; the message names the step and suggests a fix."""


Loss = Callable[[MicroBatch], dict[str, Tensor]]
"""Function from a micro-batch to named terms, each a mean over examples."""


@dataclass(frozen=True)
class Recipe:
    """How a network is optimized, by default with AdamW."""

    step_size: float
    weight_decay: float
    batch_size: int
    epochs: int | None = None
    """Examples that do not fill a last minibatch are left out of an epoch."""
    steps: int | None = None
    """Instead of epochs."""
    warmup: int | None = None
    """Number of warm-up steps; None is a tenth of all steps."""
    cosine: bool = True
    """Whether the step size warms up and follows a cosine; otherwise it is constant."""
    clip: float | None = None
    """Maximum norm of the gradient; None does not clip it."""
    momentum: float | None = None
    """Momentum of SGD; None is AdamW."""
    schedule_epochs: int | None = None
    """Epochs in which the cosine reaches 0, without a warm-up; None is the length of the training.

    A training that is shorter stops in the middle of the cosine.
    """
    per_domain: bool = False
    """Whether every training domain gives `batch_size` examples to a step, as in DomainBed.

    They are drawn with replacement, so there are no epochs.
    """

    def length(self, examples: int) -> int:
        """Return the number of steps for a number of examples.

        Raises:
            ValueError: If not exactly one of epochs and steps is set, if it is less than 1, if a
                minibatch is larger than the training set, or if there are epochs of minibatches
                that every domain gives.
        """
        if self.per_domain and self.steps is None:
            raise ValueError("minibatches from every domain have no epochs; set steps instead")
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"set either epochs or steps, got epochs={self.epochs} and steps={self.steps}"
            )
        for name, count in (("epoch", self.epochs), ("step", self.steps)):
            if count is not None and count < 1:
                raise ValueError(f"training takes at least 1 {name}, got {count}")
        if not 1 <= self.batch_size <= examples:
            raise ValueError(
                f"cannot draw a minibatch of {self.batch_size} from {examples} training "
                f"examples; choose a batch size between 1 and {examples}"
            )
        if self.schedule_epochs is not None and self.schedule_epochs < (self.epochs or math.inf):
            raise ValueError(
                f"a schedule of {self.schedule_epochs} epochs ends before a training of "
                f"{self.epochs}; set at least as many epochs"
            )
        return self.steps or (self.epochs or 0) * (examples // self.batch_size)

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Build the optimizer of this recipe: AdamW, or SGD with momentum.

        >>> recipe = Recipe(0.1, 5e-4, batch_size=4, epochs=1, momentum=0.9)
        >>> type(recipe.optimizer(nn.Linear(2, 2).parameters())).__name__
        'SGD'
        """
        if self.momentum is not None:
            return SGD(
                parameters, self.step_size, momentum=self.momentum, weight_decay=self.weight_decay
            )
        return AdamW(parameters, self.step_size, weight_decay=self.weight_decay)

    def size(self, step: int, *, steps: int) -> float:
        """Return the step size at a step, counted from 0."""
        if not self.cosine:
            return self.step_size
        if self.schedule_epochs is not None and self.epochs is not None:
            steps = steps * self.schedule_epochs // self.epochs
            return self.step_size * warmup_cosine(step, steps=steps, warmup=0)
        warmup = math.ceil(WARM_UP * steps) if self.warmup is None else min(self.warmup, steps)
        return self.step_size * warmup_cosine(step, steps=steps, warmup=warmup)


@dataclass(frozen=True)
class TrainingState:
    """State of a training, from which it can be resumed."""

    step: int
    """Number of completed steps."""
    steps: int
    """Total number of steps."""
    losses: dict[str, float]
    """Named losses of the last step."""
    model: nn.Module
    optimizer: Optimizer

    def checkpoint(self) -> dict[str, Tensor]:
        """Return a copy of everything that resuming needs, as named tensors."""
        tensors = {"step": torch.tensor(self.step)}
        for name, tensor in self.model.state_dict().items():
            tensors[f"model/{name}"] = cpu_copy(tensor)
        for name, tensor in optimizer_tensors(self.optimizer).items():
            tensors[f"optimizer/{name}"] = tensor
        return tensors


def optimize(
    model: nn.Module,
    examples: TrainingExamples,
    loss: Loss,
    recipe: Recipe,
    *,
    purpose: str,
    seed: int,
    report_every: int,
    resume: Mapping[str, Tensor] | None = None,
    compute: ComputeConfig = PLAIN,
) -> Iterator[TrainingState]:
    """Minimize a loss on minibatches; yield every `report_every` steps and at the end.

    The model is in training mode between the steps. With several processes, each takes a part of
    every minibatch.

    Args:
        model: Network to train, in place.
        examples: Training examples.
        loss: Function from a micro-batch to named loss terms; their sum is minimized.
        recipe: Optimizer settings.
        purpose: Name of the training, for random numbers.
        seed: Random seed.
        report_every: Number of steps between two reports.
        resume: Checkpoint of a state. With the same other arguments, a training on the CPU
            continues bit for bit.
        compute: Precision, accumulation and memory format.

    Yields:
        The state of the training, with the model in place.

    Raises:
        NotFiniteError: If the loss is not finite.
        ValueError: If the recipe does not fit the data or the number of processes, or if the
            checkpoint belongs to another model or training.

    >>> from contam.batch import Domain
    >>> x, y = torch.eye(2), torch.arange(2)
    >>> model, cross_entropy = nn.Linear(2, 2), nn.CrossEntropyLoss()
    >>> def loss(micro_batch):
    ...     return {"risk": cross_entropy(model(micro_batch.batch.x), micro_batch.batch.y)}
    >>> examples = TrainingExamples([Domain("photo", Batch(x, y, torch.zeros_like(y)))])
    >>> recipe = Recipe(step_size=0.1, weight_decay=0.0, batch_size=2, steps=40)
    >>> states = optimize(
    ...     model, examples, loss, recipe, purpose="example", seed=0, report_every=20)
    >>> [state.step for state in states]
    [20, 40]
    >>> model(x).argmax(dim=1)
    tensor([0, 1])
    """
    steps = recipe.length(len(examples))
    group = ProcessGroup()
    parts = group.size * compute.accumulate
    if parts > recipe.batch_size:
        raise ValueError(
            f"cannot split a minibatch of {recipe.batch_size} into {parts} parts: {group.size} "
            f"processes with accumulate={compute.accumulate}; use larger minibatches"
        )
    compute.convert(model)
    losses = group.join(_Losses(model, loss))
    device = group.device(model)
    optimizer = recipe.optimizer(model.parameters())
    done = 0 if resume is None else _restore(resume, model, optimizer, steps)

    def step(micro_batches: tuple[MicroBatch, ...]) -> dict[str, float]:
        nonlocal done
        for parameters in optimizer.param_groups:
            parameters["lr"] = recipe.size(done, steps=steps)
        model.train()
        optimizer.zero_grad()
        sums: dict[str, float] = {}
        for micro_batch in micro_batches:
            with nullcontext() if micro_batch is micro_batches[-1] else group.no_sync(losses):
                with (
                    seeded(seed, f"{purpose}/step {micro_batch.place}"),
                    compute.autocast(device),
                ):
                    terms = losses(_moved(micro_batch, compute, device))
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0.0) + term.item() * micro_batch.weight
                # Gradients are averaged over the processes and weighted by micro-batch size.
                whole = torch.stack(tuple(terms.values())).sum()
                (whole * (micro_batch.weight * group.size)).backward()
        values = group.all_reduce(torch.tensor(list(sums.values()), dtype=torch.float64)).tolist()
        if not all(map(math.isfinite, values)):
            raise NotFiniteError(
                f"the loss is not finite at step {done + 1}; choose a step size below "
                f"{recipe.step_size}, or check the inputs for such values"
            )
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        done += 1
        return dict(zip(sums, values, strict=True))

    own = range(group.rank * compute.accumulate, (group.rank + 1) * compute.accumulate)
    micro_batches = examples.micro_batches(
        recipe.batch_size, parts=parts, own=own, purpose=purpose, seed=seed, start=done,
        per_domain=recipe.per_domain,
    )  # fmt: skip
    for progress in train(step, micro_batches, steps=steps, report_every=report_every, done=done):
        yield TrainingState(progress.step, steps, progress.losses, model, optimizer)


class _Losses(nn.Module):
    """The loss as a module, since DDP averages gradients of a module's forward pass."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, micro_batch: MicroBatch) -> dict[str, Tensor]:
        return self.loss(micro_batch)


def _moved(micro_batch: MicroBatch, compute: ComputeConfig, device: torch.device) -> MicroBatch:
    batch = Batch(*(part.to(device) for part in micro_batch.batch))
    return micro_batch._replace(batch=batch._replace(x=compute.inputs(batch.x)))


def _restore(
    checkpoint: Mapping[str, Tensor], model: nn.Module, optimizer: Optimizer, steps: int
) -> int:
    """Load a checkpoint; return the number of completed steps."""
    done = int(checkpoint["step"])
    if done > steps:
        raise ValueError(
            f"the checkpoint is from step {done}, but this training has {steps} steps; "
            "resume with the epochs and batch size of the original training"
        )
    weights = {
        name.removeprefix("model/"): tensor
        for name, tensor in checkpoint.items()
        if name.startswith("model/")
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the checkpoint belongs to another model: {error}") from error
    memory = {
        name.removeprefix("optimizer/"): tensor
        for name, tensor in checkpoint.items()
        if name.startswith("optimizer/")
    }
    load_optimizer_tensors(optimizer, memory)
    return done
