"""Undertrained: the features do not solve even the ID data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from contam.auditing.causes.cause import Cause, Findings, for_fresh_head
from contam.auditing.intervals import above_chance, chance_accuracy, compare, percent
from contam.auditing.passes import Passes
from contam.auditing.records import CauseEvidence, Number, Remedy, Step
from contam.auditing.scores import share_correct

FRESH = "ID accuracy with a fresh head"


@final
@dataclass(frozen=True)
class Undertrained(Cause):
    """The ID accuracy that a linear head reaches on the network's features, a fresh one or its own.

    The network's own accuracy alone can rule the cause out but not show it.

    Source: ours.
    """

    threshold: float = 0.60
    """Share of the way from chance to perfect below which the features are not learned."""

    name = "undertrained"
    noun = "too little training"
    heading = "Undertrained: the features do not solve the ID data"
    question = "Do the features fail even on ID data?"
    measured = "ID accuracy with a fresh linear head, from chance (0) to perfect (1)"
    remedies = (
        Remedy(
            what="Train for longer, on more data, or a wider network; then audit again.",
            effect="4000 instead of 500 images: 0.683 / 0.203 became 0.968 / 0.427 "
            "(ID / OOD accuracy).",
            caveat="OOD accuracy rose along the line of standard networks, not above it.",
        ),
    )

    def measure(self, passes: Passes) -> CauseEvidence | None:
        if passes.fresh_correct is None:
            return None
        name = passes.inputs.id.name
        score = share_correct(passes.fresh_correct[name])
        return CauseEvidence(
            cause=self.name,
            title="Do the features solve the ID data?",
            method="A new linear head is fitted on the network's features of one half of the ID "
            "set and judged on the other half.",
            effect=score.accuracy,
            measured="accuracy",
            n=score.count,
            numbers=(Number(what=FRESH, on=name, value=score.accuracy),),
        )

    def ask(self, findings: Findings, earlier: Sequence[Step] = ()) -> Step:
        scores, evidence = findings.id_scores, findings.evidence.get(self.name)
        fresh = None if evidence is None else evidence.effect
        own = scores.overall.accuracy
        # A fresh head that is fitted to few examples can do worse than the network's own.
        accuracy = own if fresh is None or own.value > fresh.value else fresh
        found = above_chance(accuracy, chance_accuracy(scores))
        answer = compare(found, self.threshold, below="yes")
        if fresh is None and answer != "no":
            answer = "undecided"
        reader = "the network's own head" if accuracy is own else "a fresh linear head"
        conclusion = {
            "yes": "the features do not solve even the ID data",
            "no": "the features solve the ID data",
            "undecided": "it is unclear whether the features solve the ID data",
        }[answer]
        return self.step(
            found, answer,
            f"On {scores.name} {reader} reaches {percent(accuracy)} accuracy. This is "
            f"{percent(found)} of the way from chance to perfect "
            f"({100 * self.threshold:.0f} % required): {conclusion}.",
        )  # fmt: skip

    def sentence(self, findings: Findings) -> str:
        return (
            "Undertrained: the features do not solve even the ID data, so the OOD accuracy says "
            "little about the shift."
        )

    def to_provide(self, findings: Findings) -> str:
        if findings.evidence.get(self.name) is None:
            return for_fresh_head(findings)
        n = findings.id_scores.overall.count
        return f"More ID examples (you gave {n}): the interval includes the threshold."
