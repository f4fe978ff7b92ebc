"""Difficulty of examples, measured while a network learns them.

One training is enough: `DifficultyLog` accumulates the network's logits for each example over
several evaluations. Examples that contradict an easy feature are hard early in training. Examples
with wrong labels are hard, too; these measures cannot separate the two.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.stats import mannwhitneyu
from torch import Tensor, nn

from contam.models.observe import observe


def probability(
    logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return the predicted probability of the label, in [0, 1].

    Source: ours, the softmax of the logits.

    >>> probability(torch.zeros(1, 4), torch.tensor([2])).tolist()
    [0.25]
    """
    return logits.softmax(dim=1).gather(1, y[:, None])[:, 0]


def margin(
    logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return the label's logit minus the largest other logit; negative for wrong predictions.

    Its mean over a training is the area under the margin (AUM).

    Source: Pleiss et al. (2020).

    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0])).tolist()
    [1.0]
    """
    others = logits.scatter(1, y[:, None], -torch.inf)
    return logits.gather(1, y[:, None])[:, 0] - others.amax(dim=1)


def el2n(
    logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return the norm of the error vector, from 0 to the square root of 2.

    The error is the predicted distribution minus the one-hot label. The published score is its mean
    over several trainings, early in each.

    Source: Paul et al. (2021).

    >>> round(el2n(torch.zeros(1, 2), torch.tensor([0])).item(), 4)
    0.7071
    """
    onehot = F.one_hot(y, logits.shape[1])
    return torch.linalg.vector_norm(logits.softmax(dim=1) - onehot, dim=1)


@dataclass(frozen=True, eq=False)
class Difficulty:
    """Difficulty of n examples in one training; times are in the unit of the log."""

    y: Int[Tensor, " n"]
    evaluations: Int[Tensor, " n"]
    """Number of evaluations of each example."""
    learn_time: Float[Tensor, " n"]
    """First evaluation from which on all are correct; infinite if the last one is wrong.

    Source: Baldock et al. (2021), the iteration learned.
    """
    forgotten: Int[Tensor, " n"]
    """Number of times that a correct prediction is followed by a wrong one.

    Source: Toneva et al. (2019).
    """
    ever_right: Bool[Tensor, " n"]
    """Whether any evaluation was correct."""
    aum: Float[Tensor, " n"]
    """Mean margin over the evaluations, in logits."""
    confidence: Float[Tensor, " n"]
    """Mean probability of the label over the evaluations, in [0, 1].

    Source: Swayamdipta et al. (2020).
    """
    variability: Float[Tensor, " n"]
    """Standard deviation of that probability over the evaluations, in [0, 0.5].

    Source: Swayamdipta et al. (2020).
    """
    early_logits: Float[Tensor, "n classes"]
    """Logits of the early evaluation."""

    @property
    def early_loss(self) -> Float[Tensor, " n"]:
        """Cross-entropy at the early evaluation, in nats."""
        return F.cross_entropy(self.early_logits, self.y, reduction="none")

    @property
    def early_error(self) -> Bool[Tensor, " n"]:
        """Whether the early prediction is wrong: the error set.

        Source: Liu et al. (2021).
        """
        return self.early_logits.argmax(dim=1) != self.y

    @property
    def el2n(self) -> Float[Tensor, " n"]:
        """Norm of the error vector at the early evaluation."""
        return el2n(self.early_logits, self.y)

    def scores(self) -> dict[str, Float[Tensor, " n"]]:
        """Return every measure as a score that is larger for harder examples.

        AUM and confidence change their sign. Examples that are never correct count as forgotten
        infinitely often, as in Toneva et al. (2019).
        """
        forgotten = self.forgotten.double().masked_fill(~self.ever_right, torch.inf)
        return {
            "learn time": self.learn_time,
            "early loss": self.early_loss,
            "EL2N": self.el2n,
            "forgotten": forgotten,
            "AUM": -self.aum,
            "confidence": -self.confidence,
            "variability": self.variability,
        }


class DifficultyLog:
    """Accumulator of a network's predictions for each example over several evaluations.

    Examples may be evaluated in any groups, such as the minibatches of the training. Sums are kept
    on the CPU in double precision.

    Args:
        examples: Number of examples.
        classes: Number of classes.
        early: Time of the early evaluation of an example: the first one at or after it.

    Raises:
        ValueError: If there are fewer than one example or two classes.

    Source: ours; Murali et al. (2023) detect harmful features early in training.

    >>> log = DifficultyLog(examples=2, classes=2)
    >>> y, index = torch.tensor([0, 1]), torch.tensor([0, 1])
    >>> _ = log.update(1.0, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), y, index)
    >>> log.update(2.0, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), y, index).compute().learn_time
    tensor([1., 2.], dtype=torch.float64)
    """

    def __init__(self, examples: int, classes: int, *, early: float = 0.0) -> None:
        if examples < 1 or classes < 2:
            raise ValueError(
                f"expected at least 1 example and 2 classes, got {examples} and {classes}"
            )
        self.early = early
        self.y = torch.full((examples,), -1)
        self.evaluations = torch.zeros(examples, dtype=torch.int64)
        self.time = torch.full((examples,), -torch.inf, dtype=torch.float64)
        self.right = torch.zeros(examples, dtype=torch.bool)
        self.ever_right = torch.zeros(examples, dtype=torch.bool)
        self.since = torch.full((examples,), torch.inf, dtype=torch.float64)
        self.forgotten = torch.zeros(examples, dtype=torch.int64)
        self.margins = torch.zeros(examples, dtype=torch.float64)
        self.mean = torch.zeros(examples, dtype=torch.float64)
        self.squares = torch.zeros(examples, dtype=torch.float64)
        self.early_logits = torch.full((examples, classes), torch.nan, dtype=torch.float64)

    def update(
        self,
        time: float,
        logits: Float[Tensor, "batch classes"],
        y: Int[Tensor, " batch"],
        index: Int[Tensor, " batch"],
    ) -> "DifficultyLog":
        """Add an evaluation of some examples.

        Args:
            time: Time of the evaluation, such as the step; it grows for each example.
            logits: Logits of the examples.
            y: Class indices.
            index: Indices of the examples, from 0.

        Raises:
            ValueError: If an example appears twice, was evaluated at this time or later, has a
                different label than before, or is out of range, or if a logit is not finite.
        """
        logits, y, index = logits.detach().cpu().double(), y.cpu(), index.cpu()
        if len(index) == 0:
            return self
        self._check(time, logits, y, index)
        right = logits.argmax(dim=1) == y
        self.forgotten[index] += self.right[index] & ~right
        begins = right & ~self.right[index]
        since = torch.where(begins, time, self.since[index])
        self.since[index] = since.masked_fill(~right, torch.inf)
        self.right[index] = right
        self.ever_right[index] |= right
        self.margins[index] += margin(logits, y)
        self.evaluations[index] += 1
        # Welford's recurrence: no cancellation, and exactly 0 for constant values.
        p = probability(logits, y)
        away = p - self.mean[index]
        self.mean[index] += away / self.evaluations[index]
        self.squares[index] += away * (p - self.mean[index])
        if time >= self.early:
            first = self.early_logits[index, 0].isnan()
            self.early_logits[index[first]] = logits[first]
        self.y[index], self.time[index] = y, time
        return self

    def evaluate(
        self, time: float, model: nn.Module, data: Any, *, batch_size: int = 256
    ) -> "DifficultyLog":
        """Evaluate a network in evaluation mode on all examples, which are indexed in order.

        Args:
            time: Time of the evaluation, such as the step.
            model: Network that returns logits; its modes are restored afterwards.
            data: Anything that `contam.inputs` accepts.
            batch_size: Examples of a forward pass.

        Raises:
            ValueError: As for `update`.
        """
        start = 0
        for observation in observe(model, data, layers=(), batch_size=batch_size):
            index = torch.arange(start, start + len(observation.batch.y))
            self.update(time, observation.logits, observation.batch.y, index)
            start += len(index)
        return self

    def merge(self, other: "DifficultyLog") -> "DifficultyLog":
        """Add the examples of another log, which must be different ones.

        Raises:
            ValueError: If both logs have evaluated an example, or differ in size or early time.
        """
        if other.early_logits.shape != self.early_logits.shape or other.early != self.early:
            raise ValueError(
                "cannot merge logs of different sizes or early times: "
                f"{tuple(self.early_logits.shape)} examples and classes at {self.early}, and "
                f"{tuple(other.early_logits.shape)} at {other.early}"
            )
        here = other.evaluations > 0
        both = int((here & (self.evaluations > 0)).sum())
        if both:
            raise ValueError(
                f"both logs have evaluated the same {both} examples; split the examples"
            )
        for name, held in vars(self).items():
            if isinstance(held, Tensor):
                held[here] = getattr(other, name)[here]
        return self

    def compute(self) -> Difficulty:
        """Return the difficulty of each example so far.

        Raises:
            ValueError: If an example has no early evaluation.
        """
        missing = int(self.early_logits[:, 0].isnan().sum())
        if missing:
            raise ValueError(
                f"{missing} of {len(self.y)} examples have no evaluation at time {self.early} or "
                "later; evaluate all of them, or use an earlier time"
            )
        return Difficulty(
            y=self.y.clone(),
            evaluations=self.evaluations.clone(),
            learn_time=self.since.clone(),
            forgotten=self.forgotten.clone(),
            ever_right=self.ever_right.clone(),
            aum=self.margins / self.evaluations,
            confidence=self.mean.clone(),
            variability=(self.squares / self.evaluations).clamp(min=0).sqrt(),
            early_logits=self.early_logits.clone(),
        )

    def _check(self, time: float, logits: Tensor, y: Tensor, index: Tensor) -> None:
        examples, classes = self.early_logits.shape
        if logits.shape[1] != classes or not 0 <= int(y.min()) <= int(y.max()) < classes:
            raise ValueError(
                f"{logits.shape[1]} logits and labels {int(y.min())}..{int(y.max())} don't fit "
                f"{classes} classes numbered from 0"
            )
        if not 0 <= int(index.min()) <= int(index.max()) < examples:
            raise ValueError(
                f"indices {int(index.min())}..{int(index.max())} don't fit the {examples} "
                "examples of this log, numbered from 0"
            )
        if len(index.unique()) < len(index):
            raise ValueError(
                "an example appears twice in one evaluation; give each example its own index"
            )
        late = self.time[index].amax()
        if not late < time:
            raise ValueError(
                f"an evaluation at time {time} follows one at {late:g}; times must increase"
            )
        known = self.evaluations[index] > 0
        if bool((self.y[index] != y)[known].any()):
            raise ValueError("an example has a different label than before; has the order changed?")
        if not bool(logits.isfinite().all()):
            raise ValueError("a logit is not finite; has the training diverged?")


def auc(score: Float[Tensor, " n"], positive: Bool[Tensor, " n"]) -> float:
    """Return the area under the ROC curve of a score that may be infinite.

    This is the probability that a positive example has a higher score than a negative one, in
    [0, 1]; 0.5 is chance. Ties count one half.

    Args:
        score: Score of each example; `inf` is allowed, as in `Difficulty.scores`.
        positive: Which examples the score should find.

    Raises:
        ValueError: If a score is nan, or if all examples or none are positive.

    Source: ours, the statistic of Mann and Whitney (1947).

    >>> import torch
    >>> auc(torch.tensor([0.1, torch.inf, 0.3]), torch.tensor([False, True, True]))
    1.0
    """
    count, n = int(positive.sum()), len(positive)
    if not 0 < count < n or bool(score.isnan().any()):
        raise ValueError(
            "expected numbers, and both positive and negative examples; got "
            f"{count} positive of {n} and {int(score.isnan().sum())} scores that are nan"
        )
    values, chosen = score.double().cpu().numpy(), positive.cpu().numpy()
    test = mannwhitneyu(values[chosen], values[~chosen], method="asymptotic")
    return float(test.statistic) / (count * (n - count))
