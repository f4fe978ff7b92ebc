"""Label noise, and an ID set that was seen in training: accuracy falls without a shift."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, final

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

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
LINKED = 0.05
"""Fall of the accuracy of a linear classifier of the classes from which the classes are linked to
something that the OOD set lacks."""
SAME, LESS = 0.55, 0.08
"""Area under the ROC curve below which the two sets, and the confidence on them, are the same; and
the fall of that of the confidence on right against wrong answers that then shows wrong labels."""
CELLS = 4
"""Cells along each side of an image whose brightness and contrast are compared."""


@dataclass(frozen=True)
class Alike:
    """Whether ID and OOD images differ, and whether wrong answers are less confident."""

    domains: float
    """Area under the ROC curve of a cross-fitted linear domain classifier of the features, or of
    their squared deviations from the ID mean: the larger one."""
    confidence: float
    """Area under the ROC curve of the confidence on right against wrong OOD answers."""
    id_confidence: float
    """The same on ID answers; 1 if all are right."""
    lower: float
    """Area under the ROC curve of the confidence on ID against OOD images."""


def _alike(comparison: Comparison) -> Alike | str:
    """Measure whether the OOD set differs from the ID set at all; or why that is unknown."""
    own, other = comparison.id, comparison.ood
    if own.head is None or other.head is None:
        return "the network has no linear head, whose features are compared"
    features = own.head, other.head
    correct = other.correct[other.kept]
    if bool(correct.all()) or not bool(correct.any()):
        return "all OOD answers are right, or all are wrong"
    id_correct = own.correct[own.kept]
    id_confidence, confidence = (part.logits.softmax(1).amax(1) for part in (own, other))
    mean = features[0].mean(0)
    deviations = [(part - mean).square() for part in features]
    return Alike(
        max(domain_auc(*pair, seed=comparison.seed) for pair in (features, deviations)),
        _auc(confidence[correct], confidence[~correct]),
        _auc(id_confidence[id_correct], id_confidence[~id_correct]),
        _auc(id_confidence, confidence),
    )


def _auc(larger: Tensor, smaller: Tensor) -> float:
    """How often a value of the first kind exceeds one of the second; 1 if a kind is missing."""
    if not len(larger) or not len(smaller):
        return 1.0
    kind = np.repeat([1, 0], [len(larger), len(smaller)])
    return float(roc_auc_score(kind, torch.cat([larger, smaller]).numpy()))


def domain_auc(own: Tensor, other: Tensor, *, seed: int = 0) -> float:
    """Return how well a linear classifier tells two sets of features apart, cross-fitted.

    Args:
        own: (n, width) features.
        other: (m, width) features.
        seed: seed of the halves.

    Returns:
        The area under the ROC curve: 0.5 for sets that are not told apart.

    >>> x = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    >>> domain_auc(x[:40], x[40:] + 9)
    1.0
    """
    origin, margin = _domain_margins(own, other, seed)
    return float(roc_auc_score(origin, margin))


def domain_auc_interval(own: Tensor, other: Tensor, *, seed: int = 0) -> Interval:
    """Return `domain_auc` with its 95 % interval.

    Args:
        own: (n, width) features.
        other: (m, width) features.
        seed: seed of the halves.

    >>> x = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    >>> domain_auc_interval(x[:40], x[40:] + 9).value
    1.0
    """
    origin, margin = _domain_margins(own, other, seed)
    new = torch.from_numpy(origin == 1)
    auc = group_auc(torch.from_numpy(margin), new, new)
    return Interval(value=auc.value, low=auc.low, high=auc.high)


class ImageShift(NamedTuple):
    """How two sets of images differ, in features that the network's training did not shape."""

    encoder: str
    """Names of the features."""
    domains: float
    """Area under the ROC curve of a linear classifier of the two sets; 0.5 if they are alike."""
    links: float
    """Accuracy of a linear classifier of the classes, fitted to ID examples, on other ID examples
    minus that on OOD examples. It is positive where backgrounds or colors are linked to the classes
    in the ID set only."""
    chance: float
    """How far that difference is from 0 by chance, one-sided at 5 %."""

    @property
    def alike(self) -> bool:
        """Whether neither is evidence of a shift."""
        return self.domains < ALIKE and self.links < max(LINKED, self.chance)


def _image_shift(comparison: Comparison) -> ImageShift:
    """Compare the images of both sets by brightness and contrast, and by a reference encoder.

    A network represents the images that it was trained on differently, so its own features are
    compared only where there is nothing else. The larger of the differences counts.
    """
    own, other = comparison.id, comparison.ood
    compared: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
    images = comparison.id_images, comparison.ood_images
    if images[0] is not None and images[1] is not None:
        compared["brightness and contrast in cells"] = (
            cell_moments(images[0].x), images[0].y, cell_moments(images[1].x), images[1].y
        )  # fmt: skip
    if own.reference is not None and other.reference is not None:
        name = comparison.inputs.reference_name or "the reference encoder"
        compared[name] = own.reference, own.y, other.reference, other.y
    if not compared:
        assert own.head is not None and other.head is not None
        compared["the network's features"] = own.head, own.y, other.head, other.y
    links = {name: link_loss(*sets, seed=comparison.seed) for name, sets in compared.items()}
    largest = max(links, key=links.__getitem__)
    sizes = (len(compared[largest][1]), len(compared[largest][3]))
    return ImageShift(
        " or ".join(compared),
        max(domain_auc(x, new, seed=comparison.seed) for x, _, new, _ in compared.values()),
        links[largest],
        # The variance of an accuracy is at most 1/4 over the number of examples.
        chance=1.64 * (sum(0.25 / size for size in sizes)) ** 0.5,
    )


def link_loss(x: Tensor, y: Tensor, new: Tensor, new_y: Tensor, *, seed: int = 0) -> float:
    """Return by how much the accuracy of a linear classifier of the classes falls on other data.

    Args:
        x: (n, width) features that the classifier is fitted to.
        y: (n,) classes.
        new: (m, width) features of other data.
        new_y: (m,) classes.
        seed: seed of the parts in which it is judged on data like its own.

    >>> y = torch.arange(40) % 2
    >>> x = torch.nn.functional.one_hot(y).float()
    >>> link_loss(x, y, x, y), link_loss(x, y, x.flip(1), y)
    (0.0, 1.0)
    """
    classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=float(x.shape[1])))
    folds = KFold(4, shuffle=True, random_state=seed)
    own = cross_val_predict(classifier, x.numpy(), y.numpy(), cv=folds)
    other = classifier.fit(x.numpy(), y.numpy()).predict(new.numpy())
    return float(np.mean(own == y.numpy()) - np.mean(other == new_y.numpy()))


def cell_moments(x: Tensor) -> Tensor:
    """Return the mean and the standard deviation of each channel in `CELLS` x `CELLS` cells.

    Args:
        x: (n, channels, height, width) images.

    Returns:
        (n, 2 * channels * CELLS * CELLS) numbers.

    >>> cell_moments(torch.rand(2, 3, 16, 16)).shape == (2, 2 * 3 * CELLS * CELLS)
    True
    """
    x = x.double()
    mean = adaptive_avg_pool2d(x, CELLS)
    square = adaptive_avg_pool2d(x.square(), CELLS)
    return torch.cat([mean, (square - mean.square()).clamp(min=0).sqrt()], dim=1).flatten(1)


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

    A network that errs on ID images, too, has unsure errors beside the wrong labels. Then it is as
    confident on OOD as on ID images, but its confidence tells right from wrong answers less well.

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
        scores = _alike(comparison)
        if isinstance(scores, str):
            return self.not_tested(scores)
        as_confident = scores.domains < ALIKE and scores.confidence < self.threshold
        positive = as_confident or (
            scores.domains < SAME
            and 1 - SAME < scores.lower < SAME
            and scores.confidence < scores.id_confidence - LESS
        )
        why = (
            f"A linear classifier tells the images of {comparison.name} from ID images with an "
            f"area under the ROC curve of {scores.domains:.2f} (0.5: not at all), and right "
            f"answers are more confident than wrong ones with {scores.confidence:.2f} (on ID "
            f"images with {scores.id_confidence:.2f}): "
            + ("the labels are wrong where the network is confident." if positive else
               "this does not show wrong labels.")
        )  # fmt: skip
        return CauseTest(
            self.step(Interval(value=scores.confidence), "yes" if positive else "no", why),
            _evidence(self, comparison, scores),
            imitated=comparison.loss if positive else None,
            what="labels that contradict the images",
            fix="check the labels of the OOD examples with the largest loss",
        )  # fmt: skip


@final
@dataclass(frozen=True)
class SeenInTraining(Cause):
    """The images are not told apart, the ID accuracy is perfect, and the OOD answers are unsure.

    Source: ours, ID images that the network was trained on make any OOD set look worse.
    """

    name = "measurement"
    noun = "an ID set that was seen in training"
    heading = "The ID set was seen in training"
    question = "Was the ID set seen in training?"
    measured = "ID accuracy"
    meaning = "There is no shift: the OOD accuracy is that of new images, the ID accuracy is not."
    plumbing = True

    threshold: float = MEMORIZED
    unsure: float = 0.65
    """Area under the ROC curve of the confidence from which OOD answers are unsure: on ID against
    OOD images, or on right against wrong answers. Wrong labels leave it at 0.5."""

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        accuracy = comparison.scores[0].overall.accuracy
        scores = _alike(comparison)
        if isinstance(scores, str):
            return self.not_tested(scores)
        images = _image_shift(comparison)
        memorized = accuracy.value >= self.threshold
        positive = (
            memorized and images.alike and max(scores.confidence, scores.lower) >= self.unsure
        )
        why = (
            f"The ID accuracy is {100 * accuracy.value:.1f} %. A linear classifier of "
            f"{images.encoder} tells the two sets apart with an area under the ROC curve of "
            f"{images.domains:.2f}, and one of the classes loses {100 * images.links:.1f} points "
            f"on {comparison.name}. The network is more confident on ID than on OOD images with "
            f"{scores.lower:.2f} (0.5: not at all): "
            + ("the network knows the ID images, and there is no shift." if positive else
               "this does not show that the ID set was seen in training.")
        )  # fmt: skip
        return CauseTest(
            self.step(accuracy, "yes" if positive else "no", why),
            _evidence(self, comparison, replace(scores, domains=images.domains)),
            imitated=comparison.loss if positive else None, what="ID images that the network knows",
            fix="measure the ID accuracy on images that were not used in training",
        )  # fmt: skip


def _evidence(cause: Cause, comparison: Comparison, scores: Alike) -> CauseEvidence:
    values = (
        ("domain classifier, area under the ROC curve", scores.domains),
        ("confidence on right against wrong answers, area under the ROC curve", scores.confidence),
    )
    return CauseEvidence(
        cause=cause.name, title=cause.question,
        method="A linear classifier of the two sets is fitted to features and judged on other "
        "examples. The network's confidence is compared between right and wrong answers.",
        n=len(comparison.ood.y),
        numbers=tuple(
            Number(what=what, on=comparison.name, value=Interval(value=value))
            for what, value in values
        ),
    )  # fmt: skip
