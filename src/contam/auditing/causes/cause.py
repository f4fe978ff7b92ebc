"""What a cause of OOD failure consists of: its evidence, its question, its words, its remedies."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from contam.auditing.head_probes import FEWEST_PER_CLASS
from contam.auditing.intervals import accuracy_lost, chance_accuracy
from contam.auditing.passes import Passes
from contam.auditing.records import Answer, CauseEvidence, Interval, Remedy, SetScores, Step

SIGNIFICANCE = 0.05
"""The p-value below which a difference counts as more than chance."""


@dataclass(frozen=True)
class Findings:
    """What the questions are answered from: accuracies, and the evidence of each cause."""

    sets: tuple[SetScores, ...]
    evidence: dict[str, CauseEvidence] = field(default_factory=dict)
    """Keyed by the name of the cause."""

    @property
    def id_scores(self) -> SetScores:
        """The scores of the ID set."""
        return next(scores for scores in self.sets if scores.role == "id")

    @property
    def worst(self) -> SetScores | None:
        """The OOD set that loses the largest share of accuracy; None without one of two classes."""
        ood = [s for s in self.sets if s.role == "ood" and chance_accuracy(s) < 1]
        return max(ood, key=lambda s: accuracy_lost(self.id_scores, s).value, default=None)


@dataclass(frozen=True)
class Cause(ABC):
    """One cause of OOD failure. A subclass in a file of its own holds everything about it.

    `contam.auditing.causes.CAUSES` lists the causes in the order in which they are asked about.
    Fields of a subclass are its thresholds.
    """

    threshold: float
    """Where the answer to the question changes."""

    name: ClassVar[str]
    """As in records and `--fail-on`."""
    noun: ClassVar[str]
    """For lists such as 'Undecided: the classifier head or the representation'."""
    heading: ClassVar[str]
    """The verdict in a few words."""
    question: ClassVar[str]
    measured: ClassVar[str]
    """The quantity that is compared with the threshold."""
    remedies: ClassVar[tuple[Remedy, ...]]
    may_follow: ClassVar[tuple[str, ...]] = ()
    """Causes after whose `yes` this one is reported, too: they do not produce its evidence."""
    reason_rank: ClassVar[int] = 3
    """Position of the answer among the reasons of a verdict; lower ranks come first."""

    def measure(self, passes: Passes) -> CauseEvidence | None:
        """Return the evidence beyond the accuracies; None if the cause needs no other."""
        return None

    @abstractmethod
    def ask(self, findings: Findings, earlier: Sequence[Step] = ()) -> Step:
        """Answer the question from the findings; `earlier` are the steps before this one."""

    @abstractmethod
    def sentence(self, findings: Findings) -> str:
        """Return the verdict as one or two sentences."""

    def to_provide(self, findings: Findings) -> str:
        """Return what would answer the open question; an empty string if another cause says it."""
        return ""

    def repaired(self, findings: Findings) -> Findings | None:
        """Return the findings with this cause removed; None if they cannot be known."""
        return None

    def step(
        self, found: Interval | None, answer: Answer, why: str, *, threshold: float | None = None
    ) -> Step:
        """Return the answer as a step with this cause's words."""
        return Step(
            question=self.question, evidence=self.measured, found=found, answer=answer,
            threshold=self.threshold if threshold is None else threshold, leads_to=self.name,
            why=why,
        )  # fmt: skip


def for_fresh_head(findings: Findings) -> str:
    """Return what a comparison with a fresh head needs, for a network without one."""
    evidence = findings.evidence.get("head")
    if evidence is not None and evidence.n:
        return (
            f"At least {FEWEST_PER_CLASS} ID examples of each class, to fit a fresh head "
            f"(you gave {evidence.n} examples)."
        )
    return "A network that ends in a linear layer: a fresh head separates features and head."


def where(findings: Findings) -> str:
    """Return ' on NAME' for the worst OOD set, or an empty string without one."""
    return "" if findings.worst is None else f" on {findings.worst.name}"
