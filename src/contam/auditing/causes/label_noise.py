"""Label noise, and an ID set that was seen in training: accuracy falls without a shift."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from contam.auditing.causes.cause import Cause, CauseTest
from contam.auditing.comparison import Comparison, Treatment
from contam.auditing.records import CauseEvidence, Interval, Number
from contam.measures.group_auc import group_auc
from contam.rng import generator_for

ALIKE = 0.62
"""Area under the ROC curve of a domain classifier below which the images are not told apart."""
COMPARED = 600
"""Examples of each set that the domain classifier is fitted to and judged on."""
MEMORIZED = 0.995
"""ID accuracy from which an ID set may have been seen in training."""


@dataclass(frozen=True)
class Alike:
    """Whether ID and OOD images differ, and whether wrong answers are less confident."""

    domains: float
    """Area under the ROC curve of a cross-fitted domain classifier."""
    confidence: float
    """Area under the ROC curve of the confidence on right against wrong OOD answers."""


def alike(comparison: Comparison) -> Alike | str:
    """Measure whether the OOD set differs from the ID set at all; or why that is unknown."""
    own, other = comparison.id, comparison.ood
    features = (own.head, other.head)
    if features[0] is None or features[1] is None:
        return "the network has no linear head, whose features are compared"
    correct = other.correct[other.kept]
    if bool(correct.all()) or not bool(correct.any()):
        return "all OOD answers are right, or all are wrong"
    confidence = other.logits.softmax(1).amax(1)
    return Alike(
        domain_auc(features[0], features[1], seed=comparison.seed),
        float(roc_auc_score(correct.numpy(), confidence.numpy())),
    )


def domain_auc(own: Tensor, other: Tensor, *, seed: int = 0) -> float:
    """Return how well a linear classifier tells two sets of features apart, cross-fitted.

    Args:
        own: (n, width) features.
        other: (m, width) features.
        seed: seed of the halves.

    Returns:
        The area under the ROC curve: 0.5 for sets that are not told apart.
    """
    origin, margin = _domain_margins(own, other, seed)
    return float(roc_auc_score(origin, margin))


def domain_auc_interval(own: Tensor, other: Tensor, *, seed: int = 0) -> Interval:
    """Return `domain_auc` with its 95 % interval.

    Args:
        own: (n, width) features.
        other: (m, width) features.
        seed: seed of the halves.
    """
    origin, margin = _domain_margins(own, other, seed)
    new = torch.from_numpy(origin == 1)
    found = group_auc(torch.from_numpy(margin), new, new)
    return Interval(value=found.value, low=found.low, high=found.high)


def _domain_margins(own: Tensor, other: Tensor, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The set of some examples, 0 or 1, and the margins of a cross-fitted linear classifier."""
    few = [
        x[torch.randperm(len(x), generator=generator_for(seed, "audit/domains"))[:COMPARED]]
        for x in (own, other)
    ]
    origin = np.repeat([0, 1], [len(x) for x in few])
    classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=float(own.shape[1])))
    folds = StratifiedKFold(4, shuffle=True, random_state=seed)
    margin = cross_val_predict(
        classifier, torch.cat(few).numpy(), origin, cv=folds, method="decision_function"
    )
    return origin, np.asarray(margin)


@final
@dataclass(frozen=True)
class LabelNoise(Cause):
    """The images are not told apart, and wrong answers are as confident as right ones.

    Source: ours, after the idea of confident learning (Northcutt et al. 2021).
    """

    name = "label noise"
    noun = "wrong labels"
    heading = "The OOD set has wrong labels"
    question = "Are the OOD labels wrong?"
    measured = "area under the ROC curve of the confidence on right against wrong answers"
    meaning = "The images are like the ID images; the labels contradict confident predictions."

    threshold: float = 0.65
    """Area below which wrong answers count as as confident as right ones."""

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        found = alike(comparison)
        if isinstance(found, str):
            return self.not_tested(found)
        positive = found.domains < ALIKE and found.confidence < self.threshold
        why = (
            f"A linear classifier tells the images of {comparison.name} from ID images with an "
            f"area under the ROC curve of {found.domains:.2f} (0.5: not at all), and right answers "
            f"are more confident than wrong ones with {found.confidence:.2f} (0.5: not at all): "
            + ("the labels are wrong where the network is confident." if positive else
               "this does not show wrong labels.")
        )  # fmt: skip
        return CauseTest(
            self.step(Interval(value=found.confidence), "yes" if positive else "no", why),
            _evidence(self, comparison, found),
            imitated=comparison.loss if positive else None,
            what="labels that contradict the images",
            fix="check the labels of the OOD examples with the largest loss",
        )  # fmt: skip


@final
@dataclass(frozen=True)
class SeenInTraining(Cause):
    """The images are not told apart, the ID accuracy is perfect, and errors are unsure.

    Source: ours.
    """

    name = "measurement"
    noun = "an ID set that was seen in training"
    heading = "The ID set was seen in training"
    question = "Was the ID set seen in training?"
    measured = "ID accuracy"
    meaning = "There is no shift: the OOD accuracy is that of new images, the ID accuracy is not."
    plumbing = True

    threshold: float = MEMORIZED

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        accuracy = comparison.scores[0].overall.accuracy
        found = alike(comparison)
        if isinstance(found, str):
            return self.not_tested(found)
        memorized = accuracy.value >= self.threshold
        positive = memorized and found.domains < ALIKE and found.confidence >= 0.65
        why = (
            f"The ID accuracy is {100 * accuracy.value:.1f} %, and a linear classifier tells the "
            f"two sets apart with an area under the ROC curve of {found.domains:.2f} (0.5: not at "
            "all): "
            + ("the network knows the ID images, and there is no shift." if positive else
               "this does not show that the ID set was seen in training.")
        )  # fmt: skip
        return CauseTest(
            self.step(accuracy, "yes" if positive else "no", why),
            _evidence(self, comparison, found),
            imitated=comparison.loss if positive else None, what="ID images that the network knows",
            fix="measure the ID accuracy on images that were not used in training",
        )  # fmt: skip


def _evidence(cause: Cause, comparison: Comparison, found: Alike) -> CauseEvidence:
    values = (
        ("domain classifier, area under the ROC curve", found.domains),
        ("confidence on right against wrong answers, area under the ROC curve", found.confidence),
    )
    return CauseEvidence(
        cause=cause.name, title=cause.question,
        method="A linear classifier of the two sets is fitted to the network's features and judged "
        "on other examples. The network's confidence is compared between right and wrong answers.",
        n=len(comparison.ood.y),
        numbers=tuple(
            Number(what=what, on=comparison.name, value=Interval(value=value))
            for what, value in values
        ),
    )  # fmt: skip
