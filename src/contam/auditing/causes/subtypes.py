"""New subtypes: some classes have kinds of objects in the OOD set that the ID set lacks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from contam.auditing.causes.background import interchange
from contam.auditing.causes.cause import Cause, CauseTest
from contam.auditing.comparison import Comparison, Treatment, interval_of
from contam.auditing.records import CauseEvidence, Interval, Number

FAILING, SOUND = 0.4, 0.15
"""Losses of accuracy above which a class fails, and below which it is sound."""
FEWEST = 8
"""OOD examples that a class needs."""
NEIGHBORS = 3
"""ID examples of the class to which the distance is measured."""
NOVEL, APART = 0.8, 0.15
"""Area under the ROC curve of the distance for failing classes, and its distance to sound ones."""


@final
@dataclass(frozen=True)
class NewSubtypes(Cause):
    """Classes that fail, and whose OOD examples lie far from their ID examples, beside others.

    Distances to the nearest ID examples of the same class are compared between OOD examples and
    held-out ID examples. Sound classes are the control: a shift of all images makes their examples
    as distant.

    Source: ours, OOD examples far from all ID examples of their class need data, not a repair.
    """

    name = "new subtypes"
    noun = "new kinds of objects in some classes"
    heading = "Some classes have kinds of objects that the ID set lacks"
    question = "Do some classes have kinds of objects that the ID set lacks?"
    measured = "area under the ROC curve of the distance to ID examples of the class"
    meaning = "The loss lies in some classes, whose OOD examples are unlike any ID example."

    threshold: float = NOVEL

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        own, other = comparison.id, comparison.ood
        features = (own.reference, other.reference)
        encoder = comparison.inputs.reference_name or "the reference encoder"
        if features[0] is None or features[1] is None:
            return self.not_tested(
                "there is no reference encoder whose features show new kinds of objects; give one "
                "with reference="
            )
        if interchange(comparison, base).reason:
            return self.not_tested("the backgrounds could not be tested, which must come first")
        losses: dict[int, float] = {}
        novelty: dict[int, float] = {}
        for k in other.y.unique().tolist():
            mine, theirs = own.y == k, other.y == k
            if int(mine.sum()) <= 2 * NEIGHBORS or int(theirs.sum()) < FEWEST:
                continue
            accuracy = [
                float(r.correct[m].double().mean()) for r, m in ((own, mine), (other, theirs))
            ]
            losses[k] = accuracy[0] - accuracy[1]
            novelty[k] = distance_auc(features[0][mine], features[1][theirs])
        failing = [k for k, loss in losses.items() if loss > FAILING]
        sound = [k for k, loss in losses.items() if loss < SOUND]
        names = comparison.inputs.classes
        if not failing or len(failing) > len(losses) / 2 or not sound:
            return CauseTest(
                self.step(
                    None, "no",
                    f"{len(failing)} of {len(losses)} classes lose more than "
                    f"{100 * FAILING:.0f} points on {comparison.name}: the loss does not lie in a "
                    "few classes.",
                )
            )  # fmt: skip
        far, near = (sum(novelty[k] for k in some) / len(some) for some in (failing, sound))
        positive = far > self.threshold and far - near > APART
        listed = ", ".join(names[k] for k in failing[:6]) + (" ..." if len(failing) > 6 else "")
        why = (
            f"Of {len(losses)} classes {len(failing)} fail ({listed}). In the features of "
            f"{encoder} their OOD examples lie farther from ID examples of the class than other ID "
            f"examples in {100 * far:.0f} % of comparisons, and those of sound classes in "
            f"{100 * near:.0f} %: "
            + ("the failing classes have new kinds of objects." if positive else
               "this does not set the failing classes apart.")
        )  # fmt: skip
        inside = torch.isin(other.y, torch.tensor(failing))
        expected = torch.zeros(len(other.y), dtype=torch.float64)
        for k in failing:
            expected[other.y == k] = float(own.correct[own.y == k].double().mean())
        missed = torch.where(inside, expected - other.correct.double(), 0.0)
        lost = interval_of(lambda rows: missed[rows].mean(), (len(missed),), seed=comparison.seed)
        evidence = CauseEvidence(
            cause=self.name, title=self.question,
            method="The distance to the nearest ID examples of the same class is compared between "
            "OOD examples and other ID examples, in failing classes and in sound ones.",
            effect=lost, measured="accuracy that is lost in the failing classes", n=len(other.y),
            numbers=tuple(
                Number(what=what, on=comparison.name, part=names[k], value=Interval(value=value[k]))
                for k in (*failing[:6], *sound[:6])
                for what, value in (("lost accuracy", losses), (self.measured, novelty))
            ),
        )  # fmt: skip
        return CauseTest(
            self.step(Interval(value=far), "yes" if positive else "no", why), evidence,
            imitated=lost if positive else None, what=f"new kinds of objects in {listed}",
            fix=f"label some OOD examples of {listed} and train with them",
        )  # fmt: skip


def distance_auc(own: Tensor, other: Tensor) -> float:
    """Return how often OOD examples lie farther from ID examples than held-out ID examples do.

    Args:
        own: (n, width) ID features of a class; one half is held out.
        other: (m, width) OOD features of the class.

    Returns:
        The area under the ROC curve of the distance: 0.5 without a difference, 1 if all lie
        farther.

    >>> own = torch.tensor([[1.0, 0.0], [1.0, 0.1]]).repeat(10, 1)
    >>> distance_auc(own, torch.tensor([[0.0, 1.0]]).repeat(5, 1))
    1.0
    """
    own, other = F.normalize(own.double(), dim=1), F.normalize(other.double(), dim=1)
    known, held = own[::2], own[1::2]
    count = min(NEIGHBORS, len(known))
    distances = [
        torch.cdist(rows, known).topk(count, largest=False).values.mean(1) for rows in (held, other)
    ]
    label = torch.cat([torch.zeros(len(held)), torch.ones(len(other))])
    return float(roc_auc_score(label.numpy(), torch.cat(distances).numpy()))
