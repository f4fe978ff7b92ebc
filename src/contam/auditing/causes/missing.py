"""Missing information: the object cannot be recognized in the OOD images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contam.auditing.causes.cause import Cause, Findings, where
from contam.auditing.head_probes import CLOSED_FORM, correct_by_other_half, probe_recipe
from contam.auditing.head_probes import PROBE as EXACT
from contam.auditing.intervals import (
    above_chance,
    accuracy_lost,
    chance_accuracy,
    compare,
    complement,
    percent,
    scaled,
)
from contam.auditing.passes import Passes
from contam.auditing.records import Answer, CauseEvidence, Interval, Number, Remedy, Step
from contam.auditing.scores import share_correct
from contam.rng import generator_for

PROBE = "accuracy of a probe fitted on the set itself"
OWN = "this network"
READABLE = 0.3
"""Above-chance accuracy that a probe must reach on ID data to be used as evidence."""


@final
@dataclass(frozen=True)
class MissingInformation(Cause):
    """The best that any reader recovers from the OOD images, relative to the same reader on ID.

    Readers are linear probes that are fitted on OOD examples, on the features of the reference
    encoder or of the network itself, and the network with its own head. If one of them succeeds,
    the object is there.

    Source: ours.
    """

    threshold: float = 0.65
    """Share of the ID accuracy of a probe below which the object cannot be recognized."""
    threshold_own: float = 0.42
    """The same where only the network's own features are probed: they may have lost what the images
    show."""

    name = "core information missing"
    noun = "missing information in the OOD images"
    heading = "Missing information: no probe recovers the object"
    question = "Is the object missing from the OOD images?"
    measured = "OOD accuracy of a linear probe fitted on OOD data, relative to the same on ID data"
    may_follow = ("spurious correlation",)
    reason_rank = 1
    remedies = (
        Remedy(
            what="Look at the OOD images; provide images in which a person can see the object.",
            effect="None: where the object is hidden, no network recognizes it.",
            caveat="How much blur is too much depends on the encoder; a stronger reference encoder "
            "may still recognize the object.",
        ),
    )

    def measure(self, passes: Passes) -> CauseEvidence | None:
        inputs = passes.inputs
        encoders = {OWN: {name: result.head for name, result in passes.sets.items()}}
        if inputs.reference is not None:
            reference = {name: result.reference for name, result in passes.sets.items()}
            encoders[inputs.reference_name or "reference encoder"] = reference
        numbers: list[Number] = []
        left_out: dict[str, None] = {}
        for encoder, features in encoders.items():
            known = {n: (x, passes.sets[n].y) for n, x in features.items() if x is not None}
            if inputs.ood and len(known) == len(passes.sets):
                fitted = (x for x, _ in known.values())
                if probe_recipe(fitted, EXACT, classes=len(inputs.classes)) is not EXACT:
                    left_out[CLOSED_FORM] = None
                accuracy = probe_accuracy(known, classes=len(inputs.classes), seed=inputs.seed)
                numbers += [
                    Number(what=PROBE, on=name, part=encoder, value=value)
                    for name, value in accuracy.items()
                ]
        if not numbers:
            return None
        ood = [number for number in numbers if number.on != inputs.id.name]
        return CauseEvidence(
            cause=self.name,
            title="Can the object be recognized in the images?",
            method="Linear probes are fitted on one half of each data set and judged on the other "
            "half. The ID set is reduced to the size of the smallest OOD set. A high accuracy "
            "proves that the object is in the images.",
            effect=max((number.value for number in ood), key=lambda value: value.value),
            measured="highest OOD accuracy of a probe",
            n=min(len(result.y) for result in passes.sets.values()),
            numbers=tuple(numbers),
            left_out=tuple(left_out),
        )

    def ask(self, findings: Findings, earlier: Sequence[Step] = ()) -> Step:
        scores, worst = findings.id_scores, findings.worst
        evidence = findings.evidence.get(self.name)
        probes: dict[str, dict[str, Interval]] = {}
        for number in () if evidence is None else evidence.numbers:
            probes.setdefault(number.part, {})[number.on] = number.value
        probes = {
            encoder: accuracy
            for encoder, accuracy in probes.items()
            if worst is not None and {worst.name, scores.name} <= accuracy.keys()
        }
        threshold = self.threshold if probes.keys() - {OWN} else self.threshold_own

        def step(found: Interval | None, answer: Answer, why: str) -> Step:
            return self.step(found, answer, why, threshold=threshold)

        if worst is None:
            return step(None, "not asked", "There is no OOD set.")
        found, reader, usable = complement(accuracy_lost(scores, worst)), "the network", False
        for encoder, accuracy in probes.items():
            control = above_chance(accuracy[scores.name], chance_accuracy(scores)).value
            if control < READABLE:
                continue
            usable = True
            share = scaled(above_chance(accuracy[worst.name], chance_accuracy(worst)), 1 / control)
            if share.value > found.value:
                whose = (
                    "the network's own features" if encoder == OWN else f"the features of {encoder}"
                )
                found, reader = share, f"a linear probe of {whose}, fitted on OOD data,"
        answer = compare(found, threshold, below="yes")
        if not usable and answer != "no":
            return step(
                None, "undecided",
                "It is unclear whether the object can be recognized in the OOD images: no probe "
                "succeeds even on ID images.",
            )  # fmt: skip
        conclusion = {
            "yes": "no probe recovers the object",
            "no": "the object can be recognized",
            "undecided": "it is unclear whether the object can be recognized",
        }[answer]
        why = (
            f"On {worst.name} {reader} reaches {percent(found)} of the above-chance accuracy that "
            f"it has on ID data: {conclusion}."
        )
        return step(found, answer, why)

    def sentence(self, findings: Findings) -> str:
        return (
            f"Missing information: no probe recovers the object{where(findings)}. A stronger "
            "reference encoder may still recognize it."
        )

    def to_provide(self, findings: Findings) -> str:
        return "More OOD examples, or a stronger reference encoder for the probes."


def probe_accuracy(
    sets: dict[str, tuple[Float[Tensor, "_ width"], Int[Tensor, " _"]]],
    *,
    classes: int,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the accuracy of probes that are fitted on half of a set and judged on the other half.

    Args:
        sets: features and labels by name, ID first. The ID set is the control, so it is reduced to
            the size of the smallest set: where a probe fails even there, the examples are too few.
        classes: number of classes.
        seed: seed of the halves and of the reduced ID set.

    Source: ours, whether the information is still there.
    """
    (control, (x, y)), *others = sets.items()
    fewest = min(len(labels) for _, labels in sets.values())
    some = torch.randperm(len(y), generator=generator_for(seed, "audit/control"))[:fewest]
    recipe = probe_recipe((x for x, _ in sets.values()), EXACT, classes=classes)
    return {
        name: share_correct(
            correct_by_other_half(features, labels, recipe, classes=classes, seed=seed)
        ).accuracy
        for name, (features, labels) in [(control, (x[some], y[some])), *others]
    }
