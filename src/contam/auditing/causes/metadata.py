"""Metadata shortcut: predictions follow a column that is correlated with the class in ID data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from scipy.stats import binomtest
from torch import Tensor

from contam.auditing.causes.cause import SIGNIFICANCE, Cause, CauseTest
from contam.auditing.comparison import Comparison, Treatment, difference_of
from contam.auditing.intervals import above_zero, scaled
from contam.auditing.records import CauseEvidence, Interval, Number

GOES_WITH = 0.15
"""Smallest excess over chance of the ID examples whose class is that of their column's value."""
FEWEST = 20
"""OOD examples that disagree with their column's value, at least."""


@dataclass(frozen=True, eq=False)
class ColumnResult:
    """How predictions on OOD examples follow the class that a column suggests."""

    name: str
    agreement: tuple[float, float]
    """Share of the ID and of the OOD examples whose class is the suggested one."""
    accuracy: tuple[float, float]
    """OOD accuracy where the class is the suggested one, and where it is another."""
    follows: float
    """Share of the disagreeing OOD examples that are predicted as the suggested class."""
    p_value: float
    """Of the hypothesis that this share is that of the other wrong classes."""
    lost: Interval
    """Accuracy that the fall of the agreement costs."""


@final
@dataclass(frozen=True)
class MetadataShortcut(Cause):
    """The loss that follows from fewer examples whose class goes with a metadata column.

    Three conditions: a column's values go with classes in the ID data; where they disagree in the
    OOD data, the network predicts the suggested class more often than other wrong classes; and it
    is more accurate where they agree. No image can be edited for this, so it is a statistic.

    Source: ours; the group accuracies of Sagawa et al. (2020).
    """

    name = "metadata shortcut"
    noun = "a metadata column that is correlated with the class"
    heading = "Shortcut: predictions follow a metadata column that is correlated with the class"
    question = "Do predictions follow a metadata column?"
    measured = "share of the lost accuracy that the fall of the agreement costs"
    meaning = "The network learned what goes with this column, which suggests other classes here."

    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        own, other = (
            _columns_of(comparison, comparison.inputs.id.name),
            _columns_of(comparison, comparison.name),
        )
        columns = [name for name in own if name in other]
        if not columns:
            return self.not_tested("the two sets have no metadata column in common")
        results = [
            result for name in columns
            if (result := _column_result(comparison, name, own[name], other[name])) is not None
        ]  # fmt: skip
        if not results:
            return CauseTest(
                self.step(
                    None, "no", "No metadata column is correlated with the class in the ID data, "
                    f"or too few examples of {comparison.name} disagree with one.",
                )
            )  # fmt: skip
        best = max(results, key=lambda result: result.lost.value)
        sure = best.p_value < SIGNIFICANCE and above_zero(best.lost)
        share, answer = self.share_of_loss(comparison, best.lost, sure=sure, unsure="no")
        agree, differ = best.accuracy
        why = (
            f"The class goes with the column {best.name} in {100 * best.agreement[0]:.0f} % of the "
            f"ID examples and in {100 * best.agreement[1]:.0f} % of {comparison.name}, where "
            f"accuracy is {100 * agree:.1f} % if they agree and {100 * differ:.1f} % if not; "
            f"{100 * best.follows:.0f} % of the others are predicted as "
            f"the column suggests (p = {best.p_value:.2g}): this accounts for "
            f"{100 * best.lost.value:.1f} of the {100 * comparison.loss.value:.1f} lost points."
        )
        evidence = CauseEvidence(
            cause=self.name, title=self.question,
            method="Each value of a column suggests the class that it goes with in the ID data. "
            "OOD accuracy is compared between examples of the suggested class and of others.",
            effect=best.lost, measured=f"accuracy that the column {best.name} costs",
            n=len(comparison.ood.y),
            numbers=tuple(
                Number(what=what, on=comparison.name, part=result.name, value=Interval(value=value))
                for result in results
                for what, value in (
                    ("ID examples of the suggested class", result.agreement[0]),
                    ("OOD examples of the suggested class", result.agreement[1]),
                    ("OOD accuracy where they agree", result.accuracy[0]),
                    ("OOD accuracy where they disagree", result.accuracy[1]),
                )
            ),
        )  # fmt: skip
        return CauseTest(
            self.step(share, answer, why), evidence,
            imitated=best.lost if answer == "yes" else None,
            what=f"the column {best.name}",
            fix=f"balance the classes within each value of {best.name} in the training data",
        )  # fmt: skip


def _columns_of(comparison: Comparison, name: str) -> dict[str, list[str]]:
    """Return the metadata columns of a set, and its domains, with a value for each example.

    Args:
        comparison: the ID set and the OOD set.
        name: name of the set.
    """
    sample = next(
        sample for sample in (comparison.inputs.id, *comparison.inputs.ood) if sample.name == name
    )
    result = comparison.passes.sets[name]
    columns = {key: list(map(str, values)) for key, values in sample.groups.items()}
    domains = list(map(str, result.domain.tolist()))
    if len(set(domains)) > 1:
        columns[sample.domain_column or "domain"] = domains
    # Files that could not be read shift the rows.
    return {key: values for key, values in columns.items() if len(values) == len(result.y)}


def _column_result(
    comparison: Comparison, name: str, values: Sequence[str], others: Sequence[str]
) -> ColumnResult | None:
    """Measure how OOD predictions follow a column; None if the class is not correlated with it.

    Args:
        comparison: the ID set and the OOD set.
        name: name of the column.
        values: the column's value for each ID example.
        others: the same for each OOD example.
    """
    y, labels = comparison.id.y, comparison.ood.y
    suggested = suggestions(values, y)
    hints, new_hints = (
        torch.tensor([suggested.get(value, -1) for value in some]) for some in (values, others)
    )
    known = new_hints >= 0
    chance = float(torch.bincount(y).max()) / len(y)
    agreement = float((hints == y).double().mean())
    agree, differ = known & (new_hints == labels), known & (new_hints != labels)
    if agreement - chance < GOES_WITH or int(differ.sum()) < FEWEST or not bool(agree.any()):
        return None
    correct, predicted = comparison.ood.correct, comparison.ood.predicted
    follows = int((predicted[differ] == new_hints[differ]).sum())
    wrong = int((predicted[differ] != labels[differ]).sum())
    p_value = 1.0
    if wrong:
        rate = 1 / max(1, comparison.classes - 1)
        p_value = float(binomtest(follows, wrong, min(rate, 0.999), alternative="greater").pvalue)
    fall = max(0.0, agreement - float(agree.double().sum() / known.double().sum()))
    inside, outside = correct[agree], correct[differ]
    lost = scaled(difference_of(inside, outside), fall)
    return ColumnResult(
        name, (agreement, float(agree.double().sum() / known.double().sum())),
        (float(inside.double().mean()), float(outside.double().mean())),
        follows / max(1, int(differ.sum())), p_value, lost,
    )  # fmt: skip


def suggestions(values: Sequence[str], y: Int[Tensor, " n"]) -> dict[str, int]:
    """Return the most frequent class of the examples with each value.

    >>> suggestions(["a", "a", "a", "b"], torch.tensor([1, 1, 0, 2]))
    {'a': 1, 'b': 2}
    """
    counts: dict[str, list[int]] = {}
    classes = 1 + int(y.max())
    for value, label in zip(values, y.tolist(), strict=True):
        counts.setdefault(value, [0] * classes)[label] += 1
    return {value: row.index(max(row)) for value, row in counts.items()}
