"""Adversarial training of a smoothed classifier: L2 perturbations found by projected gradient.

The attack and the training add the same Gaussian noise, so that the network learns to be right for
most noisy copies of every image within the ball (Salman et al., 2019). A CIFAR ResNet trained so
has features that can be visualized.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import SGD

from contam.batch import Shift
from contam.training.minibatches import MicroBatch, TrainingExamples
from contam.training.optimize import Recipe, TrainingState, optimize
from contam.training.precision import PLAIN, ComputeConfig, full

SMALLEST_PROBABILITY = 1e-20
"""Mean probabilities are clamped here before their logarithm is taken, as in the published code."""


@final
@dataclass(frozen=True)
class AdversarialRecipe(Recipe):
    """Settings of an adversarial training with SGD; the defaults are the published ones.

    `batch_size` counts images: every step trains on `batch_size * noise_vectors` inputs. (The
    published command says `--batch 128` with 2 noise vectors and takes steps of 64 images.)

    Source: App. F.4; Salman et al. (2019), where the paper takes its training from.
    """

    epsilon: float = 255 / 256
    """Largest L2 norm of a perturbation, for pixels in [0, 1]."""
    attack_steps: int = 4
    """Steps of projected gradient ascent, each of length `2 * epsilon / attack_steps`."""
    noise: float = 0.25
    """Standard deviation of the Gaussian noise, for pixels in [0, 1]."""
    noise_vectors: int = 2
    """Noisy copies of every image, shared by the attack and the training step."""
    momentum: float = 0.9
    epsilon_warmup: int = 10
    """Epochs over which epsilon grows linearly to its full value."""
    drop_every: int = 50
    """Epochs after which the step size is divided by 10, again and again."""

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> SGD:
        """Build SGD with momentum."""
        return SGD(
            parameters, self.step_size, momentum=self.momentum, weight_decay=self.weight_decay
        )

    def size(self, step: int, *, steps: int) -> float:
        """Return the step size of a step counted from 0."""
        return self.step_size * 0.1 ** (self.epoch(step, steps=steps) // self.drop_every)

    def radius(self, step: int, *, steps: int) -> float:
        """Return the largest perturbation norm of a step counted from 0."""
        warmed = (self.epoch(step, steps=steps) + 1) / max(1, self.epsilon_warmup)
        return self.epsilon * min(1.0, warmed)

    def epoch(self, step: int, *, steps: int) -> int:
        """Return the epoch, counted from 0, of a step counted from 0."""
        return step * (self.epochs or 1) // steps


def pgd_l2(
    model: Callable[[Tensor], Tensor],
    x: Float[Tensor, "batch ..."],
    y: Int[Tensor, " batch"],
    *,
    epsilon: float,
    steps: int,
    noise: Float[Tensor, "vectors batch ..."] | None = None,
) -> Float[Tensor, "batch ..."]:
    """Perturb inputs in an L2 ball so that their loss rises: projected gradient ascent.

    The loss is the negative logarithm of the class probability, averaged over the noisy copies of
    an input before the logarithm. Every step has length `2 * epsilon / steps`; the result is
    clamped to [0, 1] and projected onto the ball. The ascent starts at the inputs themselves. An
    input whose gradient vanishes stays where it is. The parameters' `.grad` and the model's mode
    do not change; attack a network in evaluation mode.

    Args:
        model: maps inputs to logits `(batch, classes)`.
        x: inputs with values in [0, 1].
        y: their class indices.
        epsilon: largest L2 norm of a perturbation.
        steps: number of steps.
        noise: noise that is added to the inputs, for each of several noisy copies; None attacks
            the inputs without noise.

    Returns:
        The perturbed inputs, in [0, 1] and without the noise.

    Raises:
        ValueError: an input lies outside [0, 1], epsilon is negative, or there are no steps.

    Source: App. F.4; Salman et al. (2019), Eq. 6.

    >>> weights = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    >>> x = torch.tensor([[0.5, 0.5]])
    >>> perturbed = pgd_l2(lambda v: v @ weights.T, x, torch.tensor([0]), epsilon=0.1, steps=4)
    >>> [round(value, 3) for value in (perturbed - x)[0].tolist()]
    [0.06, 0.08]
    """
    if steps < 1 or epsilon < 0:
        raise ValueError(
            f"an attack takes at least 1 step and epsilon >= 0, not {steps}, {epsilon}"
        )
    if float(x.min()) < 0 or float(x.max()) > 1:
        raise ValueError(
            f"attacked inputs must lie in [0, 1], and these go from {float(x.min()):.3g} to "
            f"{float(x.max()):.3g}; let the network standardize its inputs itself"
        )
    noise = x.new_zeros(1, *x.shape) if noise is None else noise
    delta = torch.zeros_like(x)
    for _ in range(steps):
        delta.requires_grad_()
        logits = full(model((x + delta + noise).flatten(0, 1)))
        probabilities = logits.softmax(dim=1).unflatten(0, noise.shape[:2]).mean(dim=0)
        loss = F.nll_loss(probabilities.clamp(min=SMALLEST_PROBABILITY).log(), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, delta)
        with torch.no_grad():
            length = gradient.flatten(1).norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)
            ascent = gradient / length.view(-1, *[1] * (x.ndim - 1))
            moved = (x + delta + 2 * epsilon / steps * ascent).clamp(0, 1) - x
            delta = moved.renorm(2, 0, epsilon)
    return (x + delta).detach()


def train_adversarially(
    model: nn.Module,
    shift: Shift,
    recipe: AdversarialRecipe,
    *,
    seed: int,
    report_every: int,
    augment: Callable[[Tensor], Tensor] | None = None,
    resume: Mapping[str, Tensor] | None = None,
    compute: ComputeConfig = PLAIN,
) -> Iterator[TrainingState]:
    """Train a network on perturbed, noisy images of the training domains, taken together.

    In every step the network is attacked in evaluation mode by `pgd_l2`, and then minimizes the
    cross-entropy of all noisy copies of the perturbed images. Given a checkpoint and the same
    other arguments, a training on the CPU resumes bit for bit.

    Args:
        model: a network of inputs in [0, 1]; it is trained in place.
        shift: its training domains; images in [0, 1].
        recipe: the settings.
        seed: random seed of the order, the noise and the augmentation.
        report_every: steps between two reports.
        augment: changes a batch of images at random, with torch's global generator.
        resume: Checkpoint of a state.
        compute: precision and micro-batches.

    Yields:
        The state of the training, every `report_every` steps and at the end.

    Raises:
        ValueError: the recipe does not fit the data, images lie outside [0, 1], the loss is not
            finite, or the checkpoint belongs to another model or training.

    Source: App. F.4; Salman et al. (2019).

    >>> from contam.data.digits import padded_digits
    >>> from contam.models.small import small_cnn
    >>> recipe = AdversarialRecipe(0.01, 0.0, 64, epochs=1, attack_steps=1)
    >>> training = train_adversarially(
    ...     small_cnn(width=2), padded_digits(train=64), recipe, seed=0, report_every=1
    ... )
    >>> [state.step for state in training]
    [1]
    """
    steps = recipe.length(len(TrainingExamples(shift.train)))

    def loss(part: MicroBatch) -> dict[str, Tensor]:
        # The global generator is seeded for this step by `optimize`.
        x, y = part.batch.x, part.batch.y
        if augment is not None:
            x = augment(x)
        noise = recipe.noise * torch.randn(
            recipe.noise_vectors, *x.shape, dtype=x.dtype, device=x.device
        )
        model.eval()
        x = pgd_l2(
            model,
            x,
            y,
            epsilon=recipe.radius(part.step, steps=steps),
            steps=recipe.attack_steps,
            noise=noise,
        )
        model.train()
        logits = full(model((x + noise).flatten(0, 1)))
        return {"risk": F.cross_entropy(logits, y.repeat(recipe.noise_vectors))}

    yield from optimize(
        model, TrainingExamples(shift.train), loss, recipe,
        purpose="adversarial", seed=seed, report_every=report_every, resume=resume, compute=compute,
    )  # fmt: skip
