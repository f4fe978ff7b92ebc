"""Label shift: the OOD set has other shares of the classes, and some classes are harder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from contam.auditing.causes.cause import Cause, CauseTest
from contam.auditing.comparison import Comparison, Treatment, interval_of
from contam.auditing.intervals import above_zero
from contam.auditing.records import CauseEvidence, Number


@final
@dataclass(frozen=True)
class LabelShift(Cause):
    """The loss that the ID accuracy of each class predicts for the OOD set's class shares.

    Source: ours; the decomposition of accuracy over classes.
    """

    name = "label shift"
    noun = "other shares of the classes"
    heading = "The OOD set has more examples of the harder classes"
    question = "Do the other shares of the classes account for the loss?"
    measured = "share of the lost accuracy that the class shares predict"
    meaning = "Each class is recognized as well as before; only their shares changed."

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        own, other, classes = comparison.id, comparison.ood, comparison.classes
        known = torch.bincount(own.y, minlength=classes) > 0
        if not bool(known[other.y].all()):
            return self.not_tested("the OOD set has classes that the ID set lacks")
        correct = own.correct.double()

        def predicted_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            counts = torch.bincount(own.y[a], minlength=classes).double()
            right = torch.zeros(classes, dtype=torch.float64).index_add_(0, own.y[a], correct[a])
            accuracy = torch.where(counts > 0, right / counts.clamp(min=1), correct[a].mean())
            return correct[a].mean() - accuracy[other.y[b]].mean()

        loss = interval_of(predicted_loss, (len(own.y), len(other.y)), seed=comparison.seed)
        share, answer = self.share_of_loss(comparison, loss, sure=above_zero(loss))
        why = (
            f"With the ID accuracy of each class, the class shares of {comparison.name} would "
            f"cost {100 * loss.value:.1f} points of the {100 * comparison.loss.value:.1f} that are "
            "lost."
        )
        evidence = CauseEvidence(
            cause=self.name, title=self.question,
            method="The ID accuracies of the classes are averaged with the class shares of the OOD "
            "set.",
            effect=loss, measured="accuracy that the other class shares cost", n=len(other.y),
            numbers=(Number(what="predicted loss", on=comparison.name, value=loss),),
        )  # fmt: skip
        return CauseTest(
            self.step(share, answer, why), evidence, imitated=loss if answer == "yes" else None,
            what="other class shares", fix='model = result.repair("prior correction")',
        )  # fmt: skip
