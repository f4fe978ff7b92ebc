"""Contaminated: the representation fails on the OOD data, and the other tests find no cause."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from contam.auditing.causes.cause import Cause, Findings
from contam.auditing.causes.shortcut import STOP_GRADIENT
from contam.auditing.records import Answer, Remedy, Step

UNTESTED = (
    "Not tested: whether the backgrounds cause the failure, missing coverage of such images, image "
    "corruption, geometry, and mismatched inputs or labels."
)


@final
@dataclass(frozen=True)
class Contaminated(Cause):
    """What remains if the representation fails and no other test finds the cause.

    Source: ours, by elimination; a positive test needs images with exchanged backgrounds.
    """

    threshold: float = 0.21
    """Share of the accuracy whose loss is negligible."""

    name = "contaminated"
    noun = "the representation"
    heading = "The representation fails on the OOD data"
    question = "Does the representation fail for none of these reasons?"
    measured = "share of the above-chance ID accuracy that is lost on the worst OOD set"
    remedies = (
        Remedy(
            what="Center each channel's map in each image before every batch norm, and train again "
            "(`contam.models.normalization.with_centering`).",
            effect="0.20 ± 0.01 more OOD accuracy at equal ID accuracy (3 seeds).",
            caveat="Added after training, with a new head, it gave 0.11, and it took 0.07 from a "
            "network that had been trained on diverse backgrounds.",
        ),
        Remedy(
            what="Use instance norm instead of batch norm, and train again "
            "(`contam.models.normalization.with_instance_norm`).",
            effect="0.22 ± 0.01 more OOD accuracy at equal ID accuracy (3 seeds).",
            caveat="It repairs shifts of texture, and it harms networks that were trained inside "
            "constant frames.",
        ),
        Remedy(
            what="Train on more varied backgrounds, such as the negatives of half of them.",
            effect="0.970 / 0.408 became 0.979 / 0.56 (ID / OOD accuracy).",
            caveat="It helps on the backgrounds that it covers; swapping the existing backgrounds "
            "did not help.",
        ),
        Remedy(
            what="Distill from a teacher that was trained on diverse backgrounds.",
            effect="5 ± 4 points more effective robustness than a standard network (3 seeds).",
            caveat="The student stays far behind its teacher (0.23 ± 0.06 of OOD accuracy): "
            "distillation also contaminates.",
        ),
        STOP_GRADIENT,
    )

    def ask(self, findings: Findings, earlier: Sequence[Step] = ()) -> Step:
        answers = {step.answer for step in earlier}
        lost = next((step for step in earlier if step.leads_to == "healthy"), None)
        found, threshold = (None, None) if lost is None else (lost.found, lost.threshold)
        answer: Answer
        if answers == {"no"}:
            answer = "yes"
            why = (
                "The representation fails on the OOD data. The tests rule out too little training, "
                "a spurious correlation with the background, missing information and the "
                f"classifier head. {UNTESTED}"
            )
        elif "yes" in answers:
            answer, why = "not asked", "Not asked: another cause comes first."
        else:
            answer, why = "undecided", "Not decided: an earlier question is still open."
        return self.step(found, answer, why, threshold=threshold)

    def sentence(self, findings: Findings) -> str:
        name = "OOD data" if findings.worst is None else findings.worst.name
        return (
            f"Contaminated: the representation fails on {name}. The tests rule out a spurious "
            f"correlation, missing information and the classifier head. {UNTESTED}"
        )
