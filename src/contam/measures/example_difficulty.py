"""Which examples are hard to learn, seen while a network learns them.

One training is enough: the network is looked at again and again, and `DifficultyLog` keeps sums of
what it says of each example. Where examples contradict a feature that is easy to learn, they are
hard early on. Noisy labels are hard, too; nothing here tells the two apart.
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
    """How likely the network thinks the label is, in [0, 1].

    Source: ours, the softmax of the logits.
    """
    return logits.softmax(dim=1).gather(1, y[:, None])[:, 0]


def margin(
    logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """By how much the label's logit exceeds the largest other one; negative where it is wrong.

    Its mean over a training is the area under the margin (AUM).

    Source: Pleiss et al. (2020).
    """
    others = logits.scatter(1, y[:, None], -torch.inf)
    return logits.gather(1, y[:, None])[:, 0] - others.amax(dim=1)


def el2n(
    logits: Float[Tensor, "batch classes"], y: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """The length of the error vector, from 0 to the square root of 2.

    The error is the predicted distribution minus the label's. To have the published score, take
    the mean over several trainings, each looked at early.

    Source: Paul et al. (2021).
    """
    onehot = F.one_hot(y, logits.shape[1])
    return torch.linalg.vector_norm(logits.softmax(dim=1) - onehot, dim=1)


@dataclass(frozen=True, eq=False)
class Difficulty:
    """What one training said of each of n examples; times are in the unit that was logged."""

    y: Int[Tensor, " n"]
    looks: Int[Tensor, " n"]
    """How often each was looked at."""
    learn_time: Float[Tensor, " n"]
    """The first look since which it was right at every look; infinite if it is wrong at the last.

    Source: Baldock et al. (2021), the iteration learned.
    """
    forgotten: Int[Tensor, " n"]
    """How often it was right at a look and wrong at the next one.

    Source: Toneva et al. (2019).
    """
    ever_right: Bool[Tensor, " n"]
    """Whether it was right at any look."""
    aum: Float[Tensor, " n"]
    """Its mean margin over the looks, in logits."""
    confidence: Float[Tensor, " n"]
    """The mean probability of its label over the looks, in [0, 1].

    Source: Swayamdipta et al. (2020).
    """
    variability: Float[Tensor, " n"]
    """The standard deviation of that probability over the looks, in [0, 0.5].

    Source: Swayamdipta et al. (2020).
    """
    early_logits: Float[Tensor, "n classes"]
    """What the network said at the early look."""

    @property
    def early_loss(self) -> Float[Tensor, " n"]:
        """The cross-entropy at the early look, in nats."""
        return F.cross_entropy(self.early_logits, self.y, reduction="none")

    @property
    def early_error(self) -> Bool[Tensor, " n"]:
        """Whether it was wrong at the early look: the error set.

        Source: Liu et al. (2021).
        """
        return self.early_logits.argmax(dim=1) != self.y

    @property
    def el2n(self) -> Float[Tensor, " n"]:
        """The length of the error vector at the early look."""
        return el2n(self.early_logits, self.y)

    def scores(self) -> dict[str, Float[Tensor, " n"]]:
        """Every measure as a score that is larger for harder examples.

        AUM and confidence change their sign. What was never right counts as forgotten infinitely
        often, as by Toneva et al. (2019).
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
    """What a network says of each example, look after look, as sums.

    An example may be looked at by itself, as in a minibatch on which the network is about to be
    trained. Its first look at or after the time `early` is its early look. Sums are kept on the CPU
    in double precision.

    Source: ours; Murali et al. (2023) see what harms early in training.

    Raises:
        ValueError: fewer than one example or two classes.
    """

    def __init__(self, examples: int, classes: int, *, early: float = 0.0) -> None:
        if examples < 1 or classes < 2:
            raise ValueError(f"want at least 1 example and 2 classes, not {examples} and {classes}")
        self.early = early
        self.y = torch.full((examples,), -1)
        self.looks = torch.zeros(examples, dtype=torch.int64)
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
        """Add a look at some examples, of which `index` says which they are, from 0.

        Raises:
            ValueError: an example is twice in the look, was looked at then or later already, has
                another label than before, or does not belong here; or a logit is not finite.
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
        self.looks[index] += 1
        # Welford's recurrence: no cancellation, and exactly 0 for what never varies.
        p = probability(logits, y)
        away = p - self.mean[index]
        self.mean[index] += away / self.looks[index]
        self.squares[index] += away * (p - self.mean[index])
        if time >= self.early:
            first = self.early_logits[index, 0].isnan()
            self.early_logits[index[first]] = logits[first]
        self.y[index], self.time[index] = y, time
        return self

    def look(
        self, time: float, model: nn.Module, data: Any, *, batch_size: int = 256
    ) -> "DifficultyLog":
        """Add a look at all examples of a domain, which are numbered in their order.

        The model is in evaluation mode meanwhile, and is left as it was found.

        Raises:
            ValueError: as `update`.
        """
        start = 0
        for seen in observe(model, data, layers=(), batch_size=batch_size):
            index = torch.arange(start, start + len(seen.batch.y))
            self.update(time, seen.logits, seen.batch.y, index)
            start += len(index)
        return self

    def merge(self, other: "DifficultyLog") -> "DifficultyLog":
        """Take over the examples that another log looked at, and this one did not.

        Raises:
            ValueError: both looked at one example, or they differ in size or early time.
        """
        if other.early_logits.shape != self.early_logits.shape or other.early != self.early:
            raise ValueError(
                f"a log of {tuple(self.early_logits.shape)} examples and classes with its early "
                f"look at {self.early} can't take in one of {tuple(other.early_logits.shape)} "
                f"at {other.early}"
            )
        here = other.looks > 0
        both = int((here & (self.looks > 0)).sum())
        if both:
            raise ValueError(f"both logs looked at {both} examples; split them by examples instead")
        for name, held in vars(self).items():
            if isinstance(held, Tensor):
                held[here] = getattr(other, name)[here]
        return self

    def compute(self) -> Difficulty:
        """What is known of each example so far.

        Raises:
            ValueError: an example has no early look.
        """
        missing = int(self.early_logits[:, 0].isnan().sum())
        if missing:
            raise ValueError(
                f"{missing} of {len(self.y)} examples have no look at time {self.early} or later; "
                "look at all of them, or take an earlier time"
            )
        return Difficulty(
            y=self.y.clone(),
            looks=self.looks.clone(),
            learn_time=self.since.clone(),
            forgotten=self.forgotten.clone(),
            ever_right=self.ever_right.clone(),
            aum=self.margins / self.looks,
            confidence=self.mean.clone(),
            variability=(self.squares / self.looks).clamp(min=0).sqrt(),
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
                f"examples {int(index.min())}..{int(index.max())} don't fit the {examples} of this "
                "log, numbered from 0"
            )
        if len(index.unique()) < len(index):
            raise ValueError("an example is twice in one look; give each its own number")
        late = self.time[index].amax()
        if not late < time:
            raise ValueError(
                f"a look at time {time} comes after one at {late:g}; times have to grow"
            )
        known = self.looks[index] > 0
        if bool((self.y[index] != y)[known].any()):
            raise ValueError("an example has another label than before; the order has changed")
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
