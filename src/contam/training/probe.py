"""Linear probes of frozen features."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor, nn

from contam.batch import Shift
from contam.models.observe import observe
from contam.models.preserve import evaluating
from contam.rng import generator_for
from contam.training.minibatches import MicroBatch, TrainingExamples
from contam.training.optimize import Recipe, TrainingState, optimize
from contam.training.precision import PLAIN, ComputeConfig, full
from contam.training.schedule import warmup_cosine

Labeled = tuple[Tensor, Tensor]
"""Features (examples, width), and their classes (examples,)."""

WIDE = 3
"""Features for each example above which an optimum is sought in the span of the examples."""
LEAST_SHRINKAGE = 1e-4
"""Shrinkage of the covariance at least, so that it can be inverted where features are constant."""
SELECT_EVERY = 1000
"""Steps between two candidates of `probe_images`, as DomainBed has them for DomainNet."""

_OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": lambda weights, lr, weight_decay: torch.optim.SGD(
        weights, lr, momentum=0.9, weight_decay=weight_decay
    ),
}


@dataclass(frozen=True)
class Probe:
    """A linear classifier of standardized features."""

    weight: Float[Tensor, "classes width"]
    bias: Float[Tensor, " classes"]
    mean: Float[Tensor, " width"]
    """Subtracted from the features."""
    scale: Float[Tensor, " width"]
    """Divides the centered features."""

    def __call__(
        self, features: Float[Tensor, "examples width"]
    ) -> Float[Tensor, "examples classes"]:
        """Return the logits."""
        return F.linear((features - self.mean) / self.scale, self.weight, self.bias)

    def head(self) -> tuple[Float[Tensor, "classes width"], Float[Tensor, " classes"]]:
        """Return the weight and the bias of the same classifier of features as they are.

        >>> two, zero = torch.full((1,), 2.0), torch.zeros(1)
        >>> weight, bias = Probe(torch.tensor([[3.0]]), zero, mean=two, scale=two).head()
        >>> weight.item(), bias.item()
        (1.5, -3.0)
        """
        weight = self.weight / self.scale
        return weight, self.bias - weight @ self.mean

    def double(self) -> "Probe":
        """Return the probe in double precision."""
        parts = (self.weight, self.bias, self.mean, self.scale)
        return Probe(*(part.double() for part in parts))


@dataclass(frozen=True)
class Minibatches:
    """Training of a probe on minibatches; the defaults are those of App. E.1."""

    step_size: float = 1e-3
    weight_decay: float = 0.1
    batch_size: int = 256
    epochs: int | None = 10
    steps: int | None = None
    """Instead of epochs."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """SGD has a momentum of 0.9."""
    cosine: bool = True
    """Whether the step size falls along a half cosine after the warm-up, or is constant."""
    warmup: int = 0
    """Number of warm-up steps of the cosine."""
    clip: float | None = None
    """Maximum norm of the gradient; None does not clip it."""
    standardize: bool = False
    per_domain: bool = False
    """Whether every training domain gives `batch_size` examples to a step; for `probe_images`."""


@dataclass(frozen=True)
class FullBatch:
    """Optimization of a probe on all examples at once by L-BFGS."""

    penalties: tuple[float, ...] = (1e-3,)
    """Candidate weights of half the squared norm, added to the mean cross-entropy.

    scikit-learn's `C` is 1 / (examples * penalty). Validation data select one of several."""
    iterations: int = 500
    """Maximum number of iterations for each penalty."""
    standardize: bool = True


@dataclass(frozen=True)
class Discriminant:
    """Linear discriminant analysis in closed form, for many classes or examples.

    All classes share one covariance, shrunk toward a multiple of the identity (Ledoit and Wolf,
    2004). The fit takes one factorization, of the smaller of examples and features, so its cost
    hardly depends on the number of classes. Classes without examples are never predicted: their
    bias is -inf.
    """

    standardize: bool = True


WITHIN_BUDGET = FullBatch(penalties=(1e-3,), iterations=200)
"""How heads and probes of an audit are fitted, within the budget of `probe_recipe`."""
EXACT_CLASSES = 50
"""Classes up to which probes minimize the cross-entropy."""
LARGEST_EXACT = 3 * 10**8
"""Examples times neurons times classes up to which probes minimize the cross-entropy."""

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
    # Published for the student; we use the same for the teacher. "Batch size 32" is read as in
    # DomainBed: 32 images of every training domain.
    **dict.fromkeys(
        (("domainnet", "teacher"), ("domainnet", "student")),
        Minibatches(3e-3, 1e-6, 32, epochs=None, steps=5000, optimizer="adam", per_domain=True),
    ),
}
"""The paper's settings of probes, by data set and network.

Source: App. E.1, App. E.2, App. E.3, App. E.4; Koh et al. 2021 for the two WILDS data sets.
"""
SCRIPTS: dict[tuple[str, str], Minibatches] = {
    key: replace(PUBLISHED[key], warmup=500, clip=1.0)
    for key in (("imagenet", "teacher"), ("imagenet", "student"))
}
"""Settings of the published scripts, which warm up and clip the gradient.

Source: ours, read from the scripts of the published code, which covers ImageNet alone.
"""


def probe_recipe(
    features: Iterable[Float[Tensor, "n width"]], exact: FullBatch, *, classes: int
) -> FullBatch | Discriminant:
    """Return how probes are fitted: exactly within a budget, and in closed form beyond it.

    All probes that are compared with each other need the same recipe, so it is chosen for all data
    sets together.

    Args:
        features: features of each data set that is fitted to.
        exact: recipe within the budget.
        classes: number of classes.

    Source: ours, since logistic regressions take minutes with many classes.

    >>> probe_recipe([torch.ones(30, 8)], WITHIN_BUDGET, classes=1000)
    Discriminant(standardize=True)
    """
    sizes = [len(x) * (len(x) if is_wide(x) else x.shape[1]) for x in features]
    fits = classes <= EXACT_CLASSES and max(sizes, default=0) * classes <= LARGEST_EXACT
    return exact if fits else Discriminant()


def extracting(
    encoder: nn.Module, data: Any, *, batch_size: int = 256
) -> Iterator[Float[Tensor, "batch width"]]:
    """Yield the features of a domain batch by batch, on the CPU in single precision.

    The encoder runs in evaluation mode without gradients; its modes are restored between batches.

    Args:
        encoder: Network that returns features of shape (batch, width).
        data: Anything that `contam.inputs` accepts.
        batch_size: Examples of a batch.

    Raises:
        ValueError: If the encoder does not return one row of features for each example.

    >>> data = torch.ones(3, 2), torch.tensor([0, 1, 0])
    >>> [features.shape[0] for features in extracting(nn.Linear(2, 5), data, batch_size=2)]
    [2, 1]
    """
    for observation in observe(encoder, data, layers=[], batch_size=batch_size):
        features = observation.logits
        if features.shape[:1] != observation.batch.y.shape or features.ndim != 2:
            raise ValueError(
                f"an encoder returns (batch, width) features, not {tuple(features.shape)} for "
                f"{len(observation.batch.y)} examples; pool or flatten its output"
            )
        yield features.float().cpu()


def extract(
    encoder: nn.Module, data: Any, *, batch_size: int = 256
) -> Float[Tensor, "examples width"]:
    """Return the features of all examples of a domain, in order.

    Args:
        encoder: Network that returns features of shape (batch, width).
        data: Anything that `contam.inputs` accepts.
        batch_size: Examples of a batch.

    Raises:
        ValueError: If the encoder does not return one row of features for each example.

    >>> extract(nn.Linear(2, 5), (torch.ones(3, 2), torch.tensor([0, 1, 0]))).shape
    torch.Size([3, 5])
    """
    return torch.cat(tuple(extracting(encoder, data, batch_size=batch_size)))


def top1_accuracy(logits: Float[Tensor, "examples classes"], y: Int[Tensor, " examples"]) -> float:
    """Return the accuracy of logits, in [0, 1].

    >>> top1_accuracy(torch.tensor([[2.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1]))
    0.5
    """
    return (logits.argmax(dim=1) == y).float().mean().item()


def fit_probe(
    features: Float[Tensor, "examples width"],
    y: Int[Tensor, " examples"],
    recipe: Minibatches | FullBatch | Discriminant = FullBatch(),
    *,
    classes: int | None = None,
    validation: Labeled | None = None,
    score: Callable[[Tensor, Tensor], float] = top1_accuracy,
    seed: int = 0,
) -> Probe:
    """Fit a linear classifier to features: by minimizing the cross-entropy, or in closed form.

    Args:
        features: Features of each example.
        y: Class indices.
        recipe: Training on minibatches or on the full batch, or the closed form.
        classes: Number of classes; by default those of `y`.
        validation: Features and classes that select the best epoch (minibatches) or penalty (full
            batch), the first one if several are equal. Without them, the last epoch is used.
        score: Function of logits and classes that the selection maximizes.
        seed: Random seed of the initial weights and the order of minibatches.

    Raises:
        ValueError: If there is no example, classes are not numbered from 0, the recipe is invalid,
            or features are not finite.

    Source: App. E.1.

    >>> y = torch.tensor([0, 0, 1, 1])
    >>> features = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    >>> top1_accuracy(fit_probe(features, y)(features), y)
    1.0
    """
    classes = _checked(features, y, classes)
    x = features.detach().float()
    mean, scale = torch.zeros_like(x[0]), torch.ones_like(x[0])
    if recipe.standardize:
        mean, spread = x.mean(dim=0), x.std(dim=0, correction=0)
        # A constant feature carries no information, and stays 0.
        scale = torch.where(spread > 1e-7 * (1 + mean.abs()), spread, 1.0)
    x = (x - mean) / scale
    if isinstance(recipe, Discriminant):
        candidates = iter([_discriminant(x, y, classes)])
    elif isinstance(recipe, FullBatch):
        if len(recipe.penalties) != 1 and validation is None:
            raise ValueError(
                f"got {len(recipe.penalties)} penalties; give one, or validation data to select "
                "one of them"
            )
        candidates = _at_once(x, y, classes, recipe)
    else:
        candidates = _by_minibatches(x, y, classes, recipe, seed)
    best, highest = None, -float("inf")
    for weight, bias in candidates:
        probe = Probe(weight, bias, mean, scale)
        value = highest if validation is None else score(probe(validation[0]), validation[1])
        if best is None or validation is None or value > highest:
            best, highest = probe, value
    assert best is not None
    return best


def is_wide(x: Float[Tensor, "examples width"]) -> bool:
    """Return whether a linear fit takes less time in the span of the examples.

    >>> is_wide(torch.ones(16, 64)), is_wide(torch.ones(16, 32))
    (True, False)
    """
    return x.shape[1] > WIDE * len(x)


def in_span(
    x: Float[Tensor, "examples width"],
) -> tuple[Float[Tensor, "examples rank"], Float[Tensor, "rank width"]]:
    """Return coordinates of examples in an orthonormal basis of their span, and this basis.

    Its cost grows with the width and not with its square: the basis comes from the products of the
    examples. A penalized linear fit has the same optimum in these coordinates.

    Args:
        x: Features of each example, in double precision.

    Source: ours, for layers with more neurons than examples.

    >>> x = torch.tensor([[3.0, 0.0, 4.0], [6.0, 0.0, 8.0]], dtype=torch.float64)
    >>> coordinates, basis = in_span(x)
    >>> coordinates.shape, torch.allclose(coordinates @ basis, x)
    (torch.Size([2, 1]), True)
    """
    values, vectors = torch.linalg.eigh(x @ x.T)
    positive = values > 1e-12 * values[-1]
    lengths, vectors = values[positive].sqrt(), vectors[:, positive]
    return vectors * lengths, (vectors / lengths).T @ x


class SelectedHead(nn.Module):
    """A linear classifier in training, with the best weights so far.

    Args:
        width: Number of features.
        classes: Number of classes.
        seed: Random seed of the initial weights.
    """

    best_weight: Tensor
    best_bias: Tensor
    best_score: Tensor

    def __init__(self, width: int, classes: int, *, seed: int) -> None:
        super().__init__()
        self.weight, self.bias = map(nn.Parameter, _initial(classes, width, seed))
        self.register_buffer("best_weight", self.weight.detach().clone())
        self.register_buffer("best_bias", self.bias.detach().clone())
        self.register_buffer("best_score", torch.tensor(-torch.inf))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of the current weights."""
        return F.linear(features, self.weight, self.bias)

    def select(self, score: float) -> None:
        """Keep the current weights if their score is higher than that of all earlier ones."""
        if score > self.best_score:
            self.best_score.fill_(score)
            self.best_weight.copy_(self.weight.detach())
            self.best_bias.copy_(self.bias.detach())


@dataclass(frozen=True)
class _HeadRecipe(Recipe):
    """Settings of a head, with one of the probe's optimizers."""

    kind: Literal["adamw", "adam", "sgd"] = "adamw"

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return _OPTIMIZERS[self.kind](parameters, lr=self.step_size, weight_decay=self.weight_decay)


def probe_images(
    head: SelectedHead,
    encoder: nn.Module,
    shift: Shift,
    recipe: Minibatches,
    *,
    validation: Labeled,
    score: Callable[[Tensor, Tensor], float] = top1_accuracy,
    seed: int,
    report_every: int,
    resume: Mapping[str, Tensor] | None = None,
    compute: ComputeConfig = PLAIN,
) -> Iterator[TrainingState]:
    """Train a linear classifier of a frozen encoder on images that are augmented in every step.

    The encoder is in evaluation mode. Every `SELECT_EVERY` steps and at the end, the weights with
    the highest validation score are kept in the head.

    Args:
        head: Classifier to train, in place; its best weights are the result.
        encoder: Network that returns features of shape (batch, width).
        shift: Data; only its training domains are used.
        recipe: Settings.
        validation: Features and classes of the data for model selection.
        score: Function of logits and classes that the selection maximizes.
        seed: Random seed.
        report_every: Number of steps between two stages; a divisor of `SELECT_EVERY`.
        resume: Check-point of a stage. With the same other arguments, a training on the CPU
            continues bit for bit.
        compute: Precision, accumulation and memory format.

    Returns:
        An iterator of stages, every `report_every` steps and at the end.

    Raises:
        ValueError: If the recipe standardizes features or does not fit the data, or the loss is
            not finite.

    Source: App. E.4; Gulrajani & Lopez-Paz (2021).

    >>> from contam.batch import Batch, Domain
    >>> x, y = torch.eye(4), torch.arange(4) % 2
    >>> domain = Domain("data", Batch(x, y, 0 * y))
    >>> shift = Shift("toy", ("a", "b"), (domain,), domain, (domain,))
    >>> head, recipe = SelectedHead(4, 2, seed=0), Minibatches(0.1, 0.0, 4, epochs=9)
    >>> stages = probe_images(head, nn.Identity(), shift, recipe, validation=(x, y), seed=0,
    ...                       report_every=5)
    >>> [stage.step for stage in stages], head.best_score.item()
    ([5, 9], 1.0)
    """
    if recipe.standardize:
        raise ValueError("features of augmented images are not known in advance to standardize")
    features, y = (part.to(head.weight.device) for part in validation)

    def loss(micro_batch: MicroBatch) -> dict[str, Tensor]:
        with evaluating(encoder):
            x = encoder(micro_batch.batch.x)
        return {"risk": F.cross_entropy(head(full(x)), micro_batch.batch.y)}

    settings = _HeadRecipe(
        recipe.step_size, recipe.weight_decay, recipe.batch_size, epochs=recipe.epochs,
        steps=recipe.steps, warmup=recipe.warmup, cosine=recipe.cosine, clip=recipe.clip,
        per_domain=recipe.per_domain, kind=recipe.optimizer,
    )  # fmt: skip
    for stage in optimize(
        head, TrainingExamples(shift.train), loss, settings,
        purpose="probe", seed=seed, report_every=report_every, resume=resume, compute=compute,
    ):  # fmt: skip
        if stage.step % SELECT_EVERY == 0 or stage.step == stage.steps:
            with torch.no_grad():
                head.select(score(head(features.float()), y))
        yield stage


def _initial(classes: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw weights and biases as `nn.Linear` does: uniform, within one over the root of width."""
    draws = generator_for(seed, "probe/weights")
    bound = width**-0.5
    weight, bias = (
        (2 * torch.rand(*shape, generator=draws) - 1) * bound
        for shape in ((classes, width), (classes,))
    )
    return weight, bias


def _checked(x: Tensor, y: Tensor, classes: int | None) -> int:
    """Return the number of classes, or reject data that no probe can be fitted to."""
    if not len(x) == len(y) > 0:
        raise ValueError(
            f"expected one class for each row of features, got {len(x)} rows and {len(y)} classes"
        )
    count = int(y.max()) + 1 if classes is None else classes
    if y.min() < 0 or y.max() >= count or count < 2:
        raise ValueError(
            f"expected at least two classes numbered from 0, got {int(y.min())}..{int(y.max())} "
            f"for a probe of {count}"
        )
    if not x.isfinite().all():
        raise ValueError("some features are not finite; check the encoder and its inputs")
    return count


def _at_once(
    x: Tensor, y: Tensor, classes: int, recipe: FullBatch
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the optimum for each penalty, starting from the previous optimum."""
    # In single precision the line search stops short of the optimum.
    x, basis = x.double(), None
    if is_wide(x):
        # The optimum lies in the span of the examples, and L-BFGS does not depend on the basis.
        x, basis = in_span(x)
    width, rows = x.shape[1], torch.arange(len(x), device=x.device)

    def split(parameters: np.ndarray) -> tuple[Tensor, Tensor]:
        flat = torch.from_numpy(parameters).to(x)
        return flat[:-classes].view(classes, width), flat[-classes:]

    def risk_and_gradient(parameters: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        weight, bias = split(parameters)
        log_shares = torch.addmm(bias, x, weight.T).log_softmax(dim=1)
        risk = F.nll_loss(log_shares, y) + 0.5 * penalty * weight.square().sum()
        excess = log_shares.exp_() / len(x)
        excess[rows, y] -= 1 / len(x)
        gradient = torch.cat([(excess.T @ x + penalty * weight).flatten(), excess.sum(dim=0)])
        return risk.item(), gradient.cpu().numpy()

    parameters = np.zeros(classes * (width + 1))
    for penalty in recipe.penalties:
        if penalty < 0:
            raise ValueError(f"a penalty must be at least 0, got {penalty}")
        parameters = minimize(
            risk_and_gradient, parameters, penalty, jac=True, method="L-BFGS-B",
            options={"maxiter": recipe.iterations, "maxfun": 2 * recipe.iterations,
                     "gtol": 1e-7, "ftol": 1e-13},
        ).x  # fmt: skip
        weight, bias = split(parameters)
        original = weight if basis is None else weight @ basis
        yield original.float(), bias.float()


def _discriminant(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return weights and biases of linear discriminant analysis with a shrunk covariance."""
    x = x.double()
    n, width = x.shape
    present, label, counts = y.unique(return_inverse=True, return_counts=True)
    means = x.new_zeros(len(present), width).index_add_(0, label, x) / counts[:, None]
    rest = x - means[label]
    wide = width > n
    # Both products have the same trace and the same norm.
    product = rest @ rest.T if wide else rest.T @ rest
    trace, square = product.trace() / n, product.square().sum() / n**2
    level = trace / width
    if not level > 0:
        # No class has two different examples: the nearest mean.
        weight = means
    else:
        fourth = rest.square().sum(dim=1).square().sum() / n
        distance = square - trace**2 / width
        noise = torch.minimum((fourth - square) / n, distance)
        share = (noise / distance if noise > 0 else noise * 0).clamp(LEAST_SHRINKAGE, 1)
        # The covariance is scale * rest.T @ rest + ridge * identity.
        freedom = max(1, n - len(present))
        scale, ridge = (1 - share) / freedom, share * level * n / freedom
        if not wide:
            product = scale * product
            product.diagonal().add_(ridge)
            weight = torch.cholesky_solve(means.T, torch.linalg.cholesky(product)).T
        elif scale == 0:
            weight = means / ridge
        else:
            # The inverse by Woodbury's identity, from a matrix over examples.
            product.diagonal().add_(ridge / scale)
            inside = torch.cholesky_solve(rest @ means.T, torch.linalg.cholesky(product))
            weight = (means - inside.T @ rest) / ridge
    bias = (counts / n).log() - (means * weight).sum(dim=1) / 2
    weights = x.new_zeros(classes, width, dtype=torch.float32)
    biases = x.new_full((classes,), -torch.inf, dtype=torch.float32)
    weights[present], biases[present] = weight.float(), bias.float()
    return weights, biases


def _by_minibatches(
    x: Tensor, y: Tensor, classes: int, recipe: Minibatches, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the weights after each epoch; the last minibatch of an epoch may be smaller."""
    if (recipe.epochs is None) == (recipe.steps is None):
        raise ValueError(
            f"set either epochs or steps, got epochs={recipe.epochs} and steps={recipe.steps}"
        )
    per_epoch = -(-len(x) // recipe.batch_size) if recipe.batch_size > 0 else 0
    steps = recipe.steps or per_epoch * (recipe.epochs or 0)
    if steps < 1:
        raise ValueError(
            f"expected at least one epoch and one example in a minibatch, got {recipe}"
        )
    weight, bias = (
        drawn.to(x.device).requires_grad_() for drawn in _initial(classes, x.shape[1], seed)
    )
    optimizer = _OPTIMIZERS[recipe.optimizer](
        [weight, bias], lr=recipe.step_size, weight_decay=recipe.weight_decay
    )
    done = 0
    for epoch in range(-(-steps // per_epoch)):
        order = torch.randperm(len(x), generator=generator_for(seed, f"probe/epoch {epoch}"))
        for picked in order.split(recipe.batch_size)[: steps - done]:
            if recipe.cosine:
                share = warmup_cosine(done, steps=steps, warmup=min(recipe.warmup, steps))
                optimizer.param_groups[0]["lr"] = recipe.step_size * share
            here = picked.to(x.device)
            optimizer.zero_grad()
            F.cross_entropy(F.linear(x[here], weight, bias), y[here]).backward()
            if recipe.clip is not None:
                nn.utils.clip_grad_norm_([weight, bias], recipe.clip)
            optimizer.step()
            done += 1
        yield weight.detach().clone(), bias.detach().clone()
