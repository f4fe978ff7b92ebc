"""Label mismatch: the labels of the OOD set number the classes in another order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from contam.auditing.causes.cause import PLUMBING_SHARE, Cause, CauseTest, other_rows
from contam.auditing.comparison import Comparison, Treatment

LISTED = 6
"""Reassigned classes that are listed."""
MOST_CLASSES = 2000
"""Classes up to which an assignment is searched for."""


@final
@dataclass(frozen=True)
class LabelMismatch(Cause):
    """The accuracy that an assignment of predicted classes to labels gives back.

    The assignment maximizes the matches on one half of the OOD set and is judged on the other.

    Source: ours; the assignment is that of Kuhn (1955).
    """

    name = "label mismatch"
    noun = "the order of the class labels"
    heading = "The labels of the OOD set number the classes in another order"
    question = "Do the OOD labels number the classes in another order?"
    meaning = "The network is not at fault; predictions and labels count the classes differently."
    plumbing = True

    threshold: float = PLUMBING_SHARE

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        if comparison.classes > MOST_CLASSES:
            return self.not_tested(f"there are more than {MOST_CLASSES} classes")
        chosen, judged = comparison.chosen, comparison.judged
        if base:
            fitted, y = comparison.under(base, chosen).predicted, comparison.y[chosen]
        else:
            # All examples that are not judged.
            rest = other_rows(len(comparison.ood.y), comparison.kept_rows[judged])
            fitted, y = comparison.ood.predicted[rest], comparison.ood.y[rest]
        to = assignment(fitted, y, classes=comparison.classes)
        return self._result(comparison, base, to)

    def _result(self, comparison: Comparison, base: Sequence[Treatment], to: Tensor) -> CauseTest:
        moved = (to != torch.arange(len(to))).nonzero().flatten().tolist()
        names = comparison.inputs.classes
        if not moved:
            return CauseTest(
                self.step(
                    None, "no",
                    f"No other numbering of the classes fits the labels of {comparison.name} "
                    "better than the given one.",
                )
            )  # fmt: skip
        pairs = ", ".join(f"{names[k]} as {names[int(to[k])]}" for k in moved[:LISTED])
        more = f" and {len(moved) - LISTED} more" if len(moved) > LISTED else ""
        treatment = Treatment(
            self.name,
            f"predictions renamed ({pairs}{more})",
            9,
            relabels=lambda p: to[p],
            fix=f"renumber = {to.tolist()}  # class of the network -> class of the labels"
            if len(to) <= 100
            else "check the order of the classes in the label file",
        )
        return self.tried(
            comparison, base, treatment,
            method="Predicted classes are assigned to labels one to one, so that most predictions "
            "match on some of the OOD examples; the others judge the assignment.",
        )  # fmt: skip


def assignment(
    predicted: Int[Tensor, " n"], y: Int[Tensor, " n"], *, classes: int
) -> Int[Tensor, " classes"]:
    """Return the one-to-one assignment of predicted classes to labels with the most matches.

    A class keeps its own label where another one would match no more examples.

    >>> assignment(torch.tensor([0, 0, 1, 2]), torch.tensor([1, 1, 0, 2]), classes=3).tolist()
    [1, 0, 2]
    """
    table = torch.bincount(predicted * classes + y, minlength=classes**2).view(classes, classes)
    preference = table.double() + 0.5 * torch.eye(classes, dtype=torch.float64)
    _, columns = linear_sum_assignment(preference.numpy(), maximize=True)
    return torch.from_numpy(columns).long()
