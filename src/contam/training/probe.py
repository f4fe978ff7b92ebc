"""Linear probes: what a straight cut reads from frozen features."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contam.models.observe import observe
from contam.rng import generator_for
from contam.training.schedule import warmup_cosine

Labeled = tuple[Tensor, Tensor]
"""Features (examples, width), and their classes (examples,)."""

_OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": lambda weights, lr, weight_decay: torch.optim.SGD(
        weights, lr, momentum=0.9, weight_decay=weight_decay
    ),
}


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features, which it standardizes first."""

    weight: Float[Tensor, "classes width"]
    bias: Float[Tensor, " classes"]
    mean: Float[Tensor, " width"]
    """Subtracted from the features."""
    scale: Float[Tensor, " width"]
    """What the rest is divided by."""

    def __call__(
        self, features: Float[Tensor, "examples width"]
    ) -> Float[Tensor, "examples classes"]:
        """The logits."""
        return F.linear((features - self.mean) / self.scale, self.weight, self.bias)


@dataclass(frozen=True)
class Minibatches:
    """How a probe is trained on minibatches; the fields' defaults are App. E.1's."""

    step_size: float = 1e-3
    weight_decay: float = 0.1
    batch_size: int = 256
    epochs: int | None = 10
    steps: int | None = None
    """Instead of epochs."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """SGD has a momentum of 0.9."""
    cosine: bool = True
    """Whether the step size falls along a half cosine, without a warm-up."""
    standardize: bool = False


@dataclass(frozen=True)
class FullBatch:
    """How a probe is found on all examples at once by L-BFGS: the optimum, without a step size."""

    penalties: tuple[float, ...] = (1e-3,)
    """Each is laid, halved, on the squared norm of the weights beside the mean cross-entropy.

    scikit-learn's `C` is 1 / (examples * penalty). Several are told apart by validation."""
    iterations: int = 500
    """At most so many for each penalty."""
    standardize: bool = True


PUBLISHED: dict[tuple[str, str], Minibatches] = {
    ("imagenet", "teacher"): Minibatches(weight_decay=0.1),
    ("imagenet", "student"): Minibatches(weight_decay=0.001),
    # "The hyperparameters provided by the official WILDS repository", for both networks.
    **dict.fromkeys(
        (("iwildcam", "teacher"), ("iwildcam", "student")),
        Minibatches(3e-5, 0.0, 16, epochs=12, optimizer="adam", cosine=False),
    ),
    **dict.fromkeys(
        (("camelyon17", "teacher"), ("camelyon17", "student")),
        Minibatches(1e-3, 0.01, 32, epochs=10, optimizer="sgd", cosine=False),
    ),
    # Given for the student; the teacher's probe is ours to choose and is the same.
    **dict.fromkeys(
        (("domainnet", "teacher"), ("domainnet", "student")),
        Minibatches(3e-3, 1e-6, 32, epochs=None, steps=5000, optimizer="adam"),
    ),
}
"""How the paper trained its probes, by data set and network.

Source: App. E.1, App. E.2, App. E.3, App. E.4; Koh et al. 2021 for the two WILDS data sets.
"""


def extracting(
    encoder: nn.Module, data: Any, *, batch_size: int = 256
) -> Iterator[Float[Tensor, "batch width"]]:
    """The features of one batch after the other, in order, on the CPU in single precision.

    The encoder runs in evaluation mode without gradients, and is as it was found between batches.

    Raises:
        ValueError: the encoder's output has not one row of features for each example.
    """
    for seen in observe(encoder, data, layers=[], batch_size=batch_size):
        features = seen.logits
        if features.shape[:1] != seen.batch.y.shape or features.ndim != 2:
            raise ValueError(
                f"an encoder returns (batch, width) features, not {tuple(features.shape)} for "
                f"{len(seen.batch.y)} examples; pool or flatten its output"
            )
        yield features.float().cpu()


def extract(
    encoder: nn.Module, data: Any, *, batch_size: int = 256
) -> Float[Tensor, "examples width"]:
    """The features of a domain's examples, in order; `extracting` shows how far it has come.

    Raises:
        ValueError: the encoder's output has not one row of features for each example.
    """
    return torch.cat(tuple(extracting(encoder, data, batch_size=batch_size)))


def share_right(logits: Float[Tensor, "examples classes"], y: Int[Tensor, " examples"]) -> float:
    """The accuracy of logits, in [0, 1]."""
    return (logits.argmax(dim=1) == y).float().mean().item()


def fit_probe(
    features: Float[Tensor, "examples width"],
    y: Int[Tensor, " examples"],
    recipe: Minibatches | FullBatch = FullBatch(),
    *,
    classes: int | None = None,
    validation: Labeled | None = None,
    score: Callable[[Tensor, Tensor], float] = share_right,
    seed: int = 0,
) -> Probe:
    """The linear classifier of least cross-entropy, or the one that is best on validation data.

    With validation data, the best of the epochs (minibatches) or of the penalties (full batch)
    is taken by `score(logits, y)`, the earlier one if two are equal; without, the last epoch.
    Where training is counted in steps, an epoch is a pass over the data or what is left of it.
    There are as many classes as `y` has, or `classes`. The seed decides the first weights and the
    order of minibatches.

    Source: App. E.1.

    Raises:
        ValueError: no example, classes that are not 0 and up, a recipe that can't be followed,
            or features that are not finite.
    """
    classes = _checked(features, y, classes)
    x = features.float()
    mean, scale = torch.zeros_like(x[0]), torch.ones_like(x[0])
    if recipe.standardize:
        mean, spread = x.mean(dim=0), x.std(dim=0, correction=0)
        # A feature that never changes says nothing, and stays 0.
        scale = torch.where(spread > 1e-7 * (1 + mean.abs()), spread, 1.0)
    x = (x - mean) / scale
    if isinstance(recipe, FullBatch):
        if len(recipe.penalties) != 1 and validation is None:
            raise ValueError(
                f"{len(recipe.penalties)} penalties were given; want one, or validation data "
                "to choose by"
            )
        candidates = _at_once(x, y, classes, recipe)
    else:
        candidates = _by_minibatches(x, y, classes, recipe, seed)
    best, highest = None, -float("inf")
    for weight, bias in candidates:
        probe = Probe(weight, bias, mean, scale)
        reached = highest if validation is None else score(probe(validation[0]), validation[1])
        if best is None or validation is None or reached > highest:
            best, highest = probe, reached
    assert best is not None
    return best


def _checked(x: Tensor, y: Tensor, classes: int | None) -> int:
    """The number of classes, once the data are such as a probe can be fitted to."""
    if not len(x) == len(y) > 0:
        raise ValueError(f"{len(x)} rows of features and {len(y)} classes; want one of each, not 0")
    count = int(y.max()) + 1 if classes is None else classes
    if y.min() < 0 or y.max() >= count or count < 2:
        raise ValueError(
            f"classes {int(y.min())}..{int(y.max())} for a probe of {count}; want at least two, "
            "numbered from 0"
        )
    if not x.isfinite().all():
        raise ValueError("some features are not finite; look at the encoder, or at its inputs")
    return count


def _at_once(
    x: Tensor, y: Tensor, classes: int, recipe: FullBatch
) -> Iterator[tuple[Tensor, Tensor]]:
    """The optimum for each penalty, begun at the optimum of the one before."""
    # In single precision the line search stops short of the optimum.
    x = x.double()
    weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    for penalty in recipe.penalties:
        if penalty < 0:
            raise ValueError(f"a penalty is at least 0, not {penalty}")
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=recipe.iterations, tolerance_grad=1e-7,
            tolerance_change=1e-12, line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure(optimizer: torch.optim.LBFGS = optimizer, penalty: float = penalty) -> Tensor:
            optimizer.zero_grad()
            risk = F.cross_entropy(F.linear(x, weight, bias), y)
            loss = risk + 0.5 * penalty * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)  # pyright: ignore[reportArgumentType], a tensor will do
        yield weight.detach().float(), bias.detach().float()


def _by_minibatches(
    x: Tensor, y: Tensor, classes: int, recipe: Minibatches, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The weights after each epoch, whose last minibatch may be smaller."""
    if (recipe.epochs is None) == (recipe.steps is None):
        raise ValueError(
            f"a probe has epochs or steps, not epochs={recipe.epochs} and steps={recipe.steps}"
        )
    an_epoch = -(-len(x) // recipe.batch_size) if recipe.batch_size > 0 else 0
    steps = recipe.steps or an_epoch * (recipe.epochs or 0)
    if steps < 1:
        raise ValueError(f"want at least one epoch and one example in a minibatch, not {recipe}")
    draws = generator_for(seed, "probe/weights")
    # What nn.Linear draws: uniform, within one over the root of the width.
    bound = x.shape[1] ** -0.5
    weight, bias = (
        ((2 * torch.rand(*shape, generator=draws) - 1) * bound).to(x.device).requires_grad_()
        for shape in ((classes, x.shape[1]), (classes,))
    )
    optimizer = _OPTIMIZERS[recipe.optimizer](
        [weight, bias], lr=recipe.step_size, weight_decay=recipe.weight_decay
    )
    done = 0
    for epoch in range(-(-steps // an_epoch)):
        order = torch.randperm(len(x), generator=generator_for(seed, f"probe/epoch {epoch}"))
        for picked in order.split(recipe.batch_size)[: steps - done]:
            if recipe.cosine:
                share = warmup_cosine(done, steps=steps, warmup=0)
                optimizer.param_groups[0]["lr"] = recipe.step_size * share
            here = picked.to(x.device)
            optimizer.zero_grad()
            F.cross_entropy(F.linear(x[here], weight, bias), y[here]).backward()
            optimizer.step()
            done += 1
        yield weight.detach().clone(), bias.detach().clone()
