"""Healthy: the accuracy drop on the worst OOD set is negligible."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from contam.auditing.causes.cause import Cause, Findings, where
from contam.auditing.intervals import accuracy_lost, compare, percent
from contam.auditing.records import Remedy, Step


@final
@dataclass(frozen=True)
class Healthy(Cause):
    """The share of the above-chance ID accuracy that is lost on the worst OOD set.

    Source: ours.
    """

    threshold: float = 0.21
    """Share of the accuracy whose loss is negligible."""

    name = "healthy"
    noun = "no failure"
    heading = "Healthy: the OOD accuracy drop is negligible"
    question = "Is the OOD accuracy drop negligible?"
    measured = "share of the above-chance ID accuracy that is lost on the worst OOD set"
    reason_rank = 0
    remedies = (
        Remedy(
            what="Nothing to repair; watch the worst domain and class, which fail first.",
            effect="None was needed.",
            caveat="The network is healthy on these OOD sets; others were not tested.",
        ),
    )

    def ask(self, findings: Findings, earlier: Sequence[Step] = ()) -> Step:
        scores, worst = findings.id_scores, findings.worst
        if worst is None:
            return self.step(
                None, "undecided",
                "Without an OOD set of at least two classes the accuracy drop is unknown.",
            )  # fmt: skip
        found = accuracy_lost(scores, worst)
        answer = compare(found, self.threshold, below="yes")
        conclusion = {
            "yes": "there is no failure to explain",
            "no": "this failure needs a cause",
            "undecided": "it is unclear whether this is a failure",
        }[answer]
        why = (
            f"Accuracy is {percent(scores.overall.accuracy)} on {scores.name} and "
            f"{percent(worst.overall.accuracy)} on {worst.name}. The network loses "
            f"{percent(found)} of its above-chance accuracy: {conclusion}."
        )
        return self.step(found, answer, why)

    def sentence(self, findings: Findings) -> str:
        return f"Healthy: the accuracy drop{where(findings)} is negligible."

    def to_provide(self, findings: Findings) -> str:
        if findings.worst is None:
            return "An OOD set with at least two classes: it shows whether accuracy drops."
        n = findings.worst.overall.count
        return f"More OOD examples (you gave {n}): the accuracy drop is near the threshold."
