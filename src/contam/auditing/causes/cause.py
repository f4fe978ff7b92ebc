"""What a cause of OOD failure consists of: its test, its words, and remedies from a table.

A test is positive: an intervention that gives lost accuracy back, or imitates the loss on ID data,
or a statistic that only this cause produces. No cause is concluded from the failure of others.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from scipy.stats import binomtest
from torch import Tensor

from contam.auditing.comparison import Comparison, Treatment, gain_of
from contam.auditing.intervals import points, scaled
from contam.auditing.records import Answer, CauseEvidence, Interval, Number, Remedy, Step
from contam.auditing.scores import share_correct
from contam.remedies.effects import helpful

SIGNIFICANCE = 0.01
"""The p-value below which a gain counts as more than chance."""
LEAST_SHARE = 0.2
"""Smallest share of the lost accuracy that counts as a cause."""
PLUMBING_SHARE = 0.5
"""The same for plumbing faults: they concern all images, so their repair gives most of it back."""
FINALISTS = 3
"""Variants that are compared on all images for choosing."""
BEFORE, AFTER, GAIN, P_VALUE = (
    "OOD accuracy before", "OOD accuracy after", "gain", "p-value of no gain (McNemar)",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class CauseTest:
    """The result of a cause's test on one OOD set."""

    step: Step
    evidence: CauseEvidence | None = None
    """Numbers for the page."""
    treatment: Treatment | None = None
    """The change that gives accuracy back, if there is one."""
    imitated: Interval | None = None
    """Accuracy that ID data lose if they get what the OOD data have, or that a statistic accounts
    for; absent if a treatment measures it on OOD data."""
    what: str = ""
    """The finding in a few words, such as `red and blue channels exchanged`."""
    fix: str = ""
    """A line of code, or an instruction."""
    hidden: bool = False
    """Whether the test is positive only where the treatments of other causes are applied, too."""
    again: bool = False
    """Whether a second look, at more images, decided it."""

    @property
    def positive(self) -> bool:
        """Whether the test shows the cause."""
        return self.step.answer == "yes"


@dataclass(frozen=True)
class Cause(ABC):
    """One cause of OOD failure. A subclass in a file of its own holds everything about it.

    `contam.auditing.causes.CAUSES` lists the causes in the order in which they are tested. Fields
    of a subclass are its thresholds.
    """

    threshold: float = LEAST_SHARE
    """Where the answer to the question changes."""

    name: ClassVar[str]
    """As in records and `--fail-on`."""
    noun: ClassVar[str]
    """For lists such as 'the background, the classifier head'."""
    heading: ClassVar[str]
    """The verdict in a few words."""
    question: ClassVar[str]
    measured: ClassVar[str] = "share of the lost accuracy that comes back"
    """The quantity that is compared with the threshold."""
    meaning: ClassVar[str]
    """One sentence: what the cause means for the user."""
    plumbing: ClassVar[bool] = False
    """Whether the fault lies in files, labels or preprocessing: it is tested first, later tests are
    made with it repaired, and training again does not help."""

    @abstractmethod
    def test(self, comparison: Comparison, base: Sequence[Treatment]) -> CauseTest:
        """Test for this cause.

        Args:
            comparison: the ID set and the OOD set.
            base: treatments of plumbing faults that earlier tests showed; they are applied, too.
        """

    def step(
        self, observed: Interval | None, answer: Answer, why: str, *, threshold: float | None = None
    ) -> Step:
        """Return the answer as a step with this cause's words."""
        return Step(
            question=self.question, evidence=self.measured, observed=observed, answer=answer,
            threshold=self.threshold if threshold is None else threshold, leads_to=self.name,
            why=why,
        )  # fmt: skip

    def not_tested(self, reason: str) -> CauseTest:
        """Return that the test could not be made, and why."""
        return CauseTest(self.step(None, "not asked", f"Not tested: {reason}."))

    def share_of_loss(
        self, comparison: Comparison, points: Interval, *, sure: bool, unsure: Answer = "undecided"
    ) -> tuple[Interval, Answer]:
        """Return accuracy as a share of the loss, and whether it is large enough for a cause.

        Args:
            comparison: the ID set and the OOD set.
            points: accuracy that a treatment gives back, or that an imitation costs.
            sure: whether it is beyond chance.
            unsure: the answer for a large share that may be chance.
        """
        share = scaled(points, 1 / max(comparison.loss.value, 1e-9))
        large = share.value >= self.threshold
        return share, "yes" if large and sure else unsure if large else "no"

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """The trainings that help against this failure in the table of `remedy_effects`."""
        return tuple(
            Remedy(what=row.what, effect=row.words, caveat=row.caveat) for row in helpful(self.name)
        )

    def judged(
        self,
        comparison: Comparison,
        treatment: Treatment,
        before: Bool[Tensor, " n"],
        after: Bool[Tensor, " n"],
        *,
        method: str,
        control: str = "",
        numbers: Sequence[Number] = (),
        significance: float = SIGNIFICANCE,
    ) -> CauseTest:
        """Return the test of a treatment from the correct answers before and after it.

        Args:
            comparison: the ID set and the OOD set.
            treatment: the change; it was chosen on other examples.
            before: which of the judged examples were classified correctly.
            after: which of them are classified correctly under the treatment.
            method: one or two sentences for the page.
            control: what `before` had, where that is not the images as they are.
            numbers: further numbers for the page.
            significance: the p-value below which the gain counts as more than chance.
        """
        result = TreatmentResult(comparison.name, treatment, before, after, control)
        share, answer = self.share_of_loss(
            comparison, result.gain, sure=result.p_value < significance
        )
        conclusion = {
            "yes": f"this gives {100 * share.value:.0f} % of the lost accuracy back"
            f"{' beyond that' if control else ''}",
            "undecided": "this may be chance",
            "no": "this gives little or nothing back",
        }[answer]
        return CauseTest(
            self.step(share, answer, f"{result.sentence}: {conclusion}."),
            result.evidence(self, method, numbers), treatment if answer == "yes" else None,
            what=treatment.what, fix=treatment.fix,
        )  # fmt: skip

    def judged_twice(
        self,
        comparison: Comparison,
        treatment: Treatment,
        answers: Callable[[Tensor], tuple[Tensor, Tensor]],
        *,
        method: str,
        control: str = "",
        numbers: Sequence[Number] = (),
        again: Tensor | None = None,
    ) -> CauseTest:
        """Judge a treatment, and once more on more examples where the gain may be chance.

        The second look asks for half the p-value, since it is a second one. Plumbing faults give
        most of the loss back, which needs none.

        Args:
            comparison: the ID set and the OOD set.
            treatment: the change.
            answers: which of some examples are classified correctly before and under it.
            method: one or two sentences for the page.
            control: what the answers before it had, where these are not the images as they are.
            numbers: further numbers for the page.
            again: the examples of the second look; if left out, all that did not choose.
        """
        again = comparison.others if again is None else again
        for rows, significance in self.looks(comparison, again):
            test = self.judged(
                comparison, treatment, *answers(rows), method=method, control=control,
                numbers=numbers, significance=significance,
            )  # fmt: skip
            if test.step.answer != "undecided":
                break
        return replace(test, again=rows is again)

    def looks(self, comparison: Comparison, again: Tensor) -> list[tuple[Tensor, float]]:
        """Return the examples of the first and the second look, and the p-values they ask for.

        Args:
            comparison: the ID set and the OOD set.
            again: the examples of the second look, if there is one.
        """
        looks = [(comparison.judged, SIGNIFICANCE)]
        if not self.plumbing and len(again) > len(comparison.judged):
            looks.append((again, SIGNIFICANCE / 2))
        return looks

    def tried(
        self, comparison: Comparison, base: Sequence[Treatment], treatment: Treatment, *,
        method: str,
    ) -> CauseTest:  # fmt: skip
        """Apply a treatment to the examples that did not choose it, and return its test.

        Args:
            comparison: the ID set and the OOD set.
            base: treatments of plumbing faults, which are applied before and after.
            treatment: the change.
            method: one or two sentences for the page.
        """

        def answers(rows: Tensor) -> tuple[Tensor, Tensor]:
            before, after = (comparison.correct(some, rows) for some in (base, [*base, treatment]))
            return before, after

        return self.judged_twice(comparison, treatment, answers, method=method)


@dataclass(frozen=True, eq=False)
class TreatmentResult:
    """The correct answers before and after a treatment, on examples that did not choose it."""

    on: str
    """Name of the data set."""
    treatment: Treatment
    before: Bool[Tensor, " n"]
    after: Bool[Tensor, " n"]
    control: str = ""
    """What `before` had, where that is not the images as they are."""

    @cached_property
    def gain(self) -> Interval:
        """Accuracy after minus before."""
        return gain_of(self.before, self.after)

    @property
    def p_value(self) -> float:
        """Of the hypothesis that there is no gain."""
        gained, lost = self.after & ~self.before, self.before & ~self.after
        return paired_p_value(int(gained.sum()), int(lost.sum()))

    @property
    def accuracies(self) -> tuple[Interval, Interval]:
        """Before and after."""
        return share_correct(self.before).accuracy, share_correct(self.after).accuracy

    @property
    def sentence(self) -> str:
        """The result without a conclusion and without a full stop."""
        own, other = (f"{100 * accuracy.value:.1f} %" for accuracy in self.accuracies)
        numbers = f"({points(self.gain)}, p = {self.p_value:.2g}, n = {len(self.before)})"
        start = f"With {self.treatment.what}, accuracy on {self.on}"
        if self.control:
            return f"{start} is {other}, and with {self.control} {own} {numbers}"
        return f"{start} goes from {own} to {other} {numbers}"

    def evidence(self, cause: Cause, method: str, numbers: Sequence[Number] = ()) -> CauseEvidence:
        """Return the numbers for the page.

        Args:
            cause: the cause that the treatment shows.
            method: one or two sentences.
            numbers: further numbers.
        """
        own, other = self.accuracies
        values = (own, other, self.gain, Interval(value=self.p_value))
        return CauseEvidence(
            cause=cause.name, title=cause.question, method=method, effect=self.gain,
            measured=f"gain in OOD accuracy with {self.treatment.what}", n=len(self.before),
            numbers=(
                *(Number(what=what, value=value, on=self.on, part=self.treatment.what)
                  for what, value in zip((BEFORE, AFTER, GAIN, P_VALUE), values, strict=True)),
                *numbers,
            ),
        )  # fmt: skip


def best_variant(
    comparison: Comparison, base: Sequence[Treatment], variants: Sequence[Treatment]
) -> Treatment | None:
    """Return the variant with the most correct answers on the images for choosing.

    All variants are tried on some of these images, and the best `FINALISTS` on all.

    Args:
        comparison: the ID set and the OOD set.
        base: treatments of plumbing faults, which are applied, too.
        variants: the variants; of equal ones the first is returned.

    Returns:
        The variant; None if none does better than the images as they are, or without images for
        choosing.
    """
    if not len(comparison.first):
        return None

    def score(variant: Treatment, rows: Int[Tensor, " some"]) -> int:
        return int(comparison.correct([*base, variant], rows).sum())

    best = sorted(variants, key=lambda variant: -score(variant, comparison.first))[:FINALISTS]
    rows = comparison.chosen
    plain = int(comparison.correct(base, rows).sum())
    scores = {place: score(variant, rows) for place, variant in enumerate(best)}
    winner = max(scores, key=lambda place: scores[place], default=None)
    return None if winner is None or scores[winner] <= plain else best[winner]


def paired_p_value(gained: int, lost: int) -> float:
    """Return the exact one-sided McNemar p-value of the hypothesis that there is no gain.

    Args:
        gained: examples that are classified correctly only after a change.
        lost: examples that are classified correctly only before it.

    Source: ours; McNemar (1947).

    >>> paired_p_value(5, 0)
    0.03125
    """
    if gained + lost == 0:
        return 1.0
    return float(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue)


def other_rows(n: int, rows: Int[Tensor, " some"]) -> Int[Tensor, " others"]:
    """Return the positions below n that are not among these rows.

    >>> other_rows(5, torch.tensor([0, 3]))
    tensor([1, 2, 4])
    """
    rest = torch.ones(n, dtype=torch.bool)
    rest[rows] = False
    return rest.nonzero().flatten()
