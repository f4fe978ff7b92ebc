"""The decision table: which cause comes first, told from the evidence alone.

The questions are asked in this order, and the first yes names the cause:

    U  Do the features fail even on ID data?              undertrained
    S  Does the network answer without the object?        spurious correlation
    D  Is the object gone from the OOD images?            core information missing
    H  Does a fresh linear head do better?                head
    0  Is as good as nothing lost on OOD data?            healthy
    R  Does it fail, and for none of these reasons?       contaminated

Accuracies count from chance: 0 for guessing the commonest class, 1 for no error. An interval on
both sides of a threshold is no answer, and neither is a large gain that may be chance. Then the
verdict is undecided, unless a later question does not depend on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel

from contam.auditing.intervals import above, chance, complement, lost, points, scaled, shown, side
from contam.auditing.records import (
    BackgroundLabel,
    BackgroundOnly,
    Cause,
    HeadRecord,
    Interval,
    OracleRecord,
    SetScores,
    Step,
    Verdict,
)
from contam.auditing.remedies import REMEDIES

Answer = Literal["yes", "no", "undecided", "not asked"]


class Thresholds(BaseModel, frozen=True, extra="forbid"):
    """Where answers turn; shares above chance."""

    undertrained: float
    """A fresh head's accuracy on ID, below which the features are not learned."""
    spurious: float
    """Accuracy without objects, above which something else is answered."""
    missing: float
    """Share of what a probe reads on ID that one fitted on OOD reads there, below which the object
    is not to be seen."""
    missing_alone: float
    """The same where the network's own features are all there is to probe: they may have lost what
    the images hold."""
    head: float
    """Gain of a fresh head in accuracy."""
    healthy: float
    """Share of the accuracy that may be lost."""


THRESHOLDS = Thresholds(
    undertrained=0.60,
    spurious=0.25,
    missing=0.65,
    missing_alone=0.42,
    head=0.04,
    healthy=0.21,
)
"""In the middle of the gaps between causes, among the 51 cases that `benchmarks/audit_zoo.py`
chooses on; it judges them on others."""
SURE = 0.05
"""The p-value below which a gain is no chance, shared among the data sets that are asked."""
READABLE = 0.3
"""What the control of an oracle has to read at least: its accuracy on ID data above chance."""

NAMES: dict[Cause, str] = {
    "healthy": "no failure",
    "undertrained": "the features are not learned",
    "spurious correlation": "the network answers to something that goes with the class",
    "core information missing": "the object can't be seen in the OOD images",
    "head": "the head does not make use of the features",
    "contaminated": "the representation fails on new backgrounds",
    "undecided": "the evidence does not tell",
}
"""Each cause in a few words."""


@dataclass(frozen=True)
class Findings:
    """What the decision table reads."""

    sets: tuple[SetScores, ...]
    head: HeadRecord | None = None
    oracles: tuple[OracleRecord, ...] = ()
    background_only: BackgroundOnly | None = None
    background_label: BackgroundLabel | None = None

    @property
    def inside(self) -> SetScores:
        """The ID set."""
        return next(each for each in self.sets if each.role == "id")

    @property
    def worst(self) -> SetScores | None:
        """The OOD set on which the largest share is lost."""
        outside = [each for each in self.sets if each.role == "ood" and chance(each) < 1]
        return max(outside, key=lambda each: lost(self.inside, each).value, default=None)


def verdict(
    sets: Sequence[SetScores],
    *,
    head: HeadRecord | None = None,
    oracles: Sequence[OracleRecord] = (),
    background_only: BackgroundOnly | None = None,
    background_label: BackgroundLabel | None = None,
    thresholds: Thresholds = THRESHOLDS,
) -> Verdict:
    """Ask the decision table, and ask it again behind the first cause.

    With several OOD sets the verdict is about the one on which the largest share is lost.

    Source: ours, calibrated on networks whose cause of failure is known.

    Raises:
        ValueError: there is no ID set.
    """
    if not any(each.role == "id" for each in sets):
        raise ValueError("a verdict needs the scores of an ID set, and there are none")
    found = Findings(tuple(sets), head, tuple(oracles), background_only, background_label)
    steps = _asked(found, thresholds)
    cause = _first(steps)
    behind = _behind(found, steps, cause, thresholds)
    decisive = [step for step in steps if step.leads_to == cause and step.answer == "yes"]
    if cause == "undecided":
        decisive = [step for step in steps if step.answer == "undecided"]
    # Then what is lost, and what speaks most plainly against the other causes.
    order: tuple[Cause, ...] = ("healthy", "core information missing", "spurious correlation")
    rest = sorted(steps[:-1], key=lambda step: (*order, step.leads_to).index(step.leads_to))
    asked = [step for step in (*decisive, *rest) if step.answer != "not asked"]
    reasons = dict.fromkeys(step.why for step in asked)
    return Verdict(
        cause=cause,
        sentence=_sentence(found, steps, cause, behind),
        reasons=tuple(reasons),
        steps=tuple(steps),
        behind=behind,
        missing=tuple(_to_bring(found, steps)),
        remedies=REMEDIES[cause],
    )


def _asked(found: Findings, at: Thresholds) -> list[Step]:
    """All questions with their answers, as far as there is evidence."""
    steps = [
        undertrained(found, at),
        spurious(found, at),
        missing(found, at),
        better_head(found, at),
        no_failure(found, at),
    ]
    return [*steps, _residual(steps)]


def undertrained(found: Findings, at: Thresholds) -> Step:
    """U: what a fresh head reads from the features on ID data; else the network's own accuracy.

    The own head bounds what the features say from below, so it can only clear them.
    """
    inside = found.inside
    fresh = None if found.head is None else found.head.fresh.get(inside.name)
    read = above(fresh or inside.overall.accuracy, chance(inside))
    answer = side(read, at.undertrained, below="yes")
    if fresh is None and answer != "no":
        answer = "undecided"
    reader = "the network's own head" if fresh is None else "a fresh linear head"
    says = {
        "yes": "the features do not solve even the ID data",
        "no": "the features solve the ID data",
        "undecided": "whether the features solve the ID data is open",
    }
    why = (
        f"On {inside.name} {reader} reaches {shown(fresh or inside.overall.accuracy)}, "
        f"{shown(read)} of the way from chance ({at.undertrained:.0%} is asked): {says[answer]}."
    )
    return Step(
        question="Do the features fail even on ID data?",
        evidence="accuracy on ID above chance, by a fresh linear head",
        found=read, threshold=at.undertrained, answer=answer, leads_to="undertrained", why=why,
    )  # fmt: skip


def spurious(found: Findings, at: Thresholds) -> Step:
    """S: what the network answers without the object; else whether backgrounds say anything."""
    only, label = found.background_only, found.background_label
    read, answer = None, "undecided"
    if only is not None and only.chance < 1:
        read = above(only.accuracy, only.chance)
        answer = side(read, at.spurious, below="no")
        source = {
            "masks": "Without their objects, ID images are",
            "inpainted": "With their objects painted over, ID images are",
            "border": "By their borders alone, ID images are",
            "labels": "Where object and background suggest different classes, examples are",
        }[only.made_from]
        says = {
            "yes": "the network answers to something else than the object",
            "no": "it is the object that the network answers to",
            "undecided": "whether the network needs the object is open",
        }[answer]
        right = "answered as the background has it" if only.made_from == "labels" else "still named"
        why = f"{source} {right} in {shown(only.accuracy)} (chance {only.chance:.0%}): {says}."
    elif label is not None and label.p_value > SURE:
        answer = "no"
        why = (
            f"In the ID data the background says nothing about the label ({label.bits.value:.2f} "
            f"bits, p = {label.p_value:.2f}), so there is nothing to be learned from it."
        )
    else:
        why = "What the network answers without the object was not measured."
        if label is not None:
            why = (
                f"In the ID data the background says {label.bits.value:.2f} bits about the label "
                f"(p = {label.p_value:.3f}), and whether the network uses them was not measured."
            )
    return Step(
        question="Does the network answer without the object?",
        evidence="accuracy on ID images without their objects, above chance",
        found=read, threshold=at.spurious, answer=answer, leads_to="spurious correlation", why=why,
    )  # fmt: skip


def missing(found: Findings, at: Thresholds) -> Step:
    """D: the best that anybody reads from the OOD images, beside what is read on ID by the same.

    A probe that was fitted on OOD examples, on the reference's features or the network's own, or
    the network itself: if one of them can, the object is there.
    """
    question = "Is the object gone from the OOD images?"
    evidence = "accuracy of a linear probe fitted on OOD, as a share of the same on ID"
    inside, worst = found.inside, found.worst

    known = [
        oracle
        for oracle in found.oracles
        if worst is not None and {worst.name, inside.name} <= oracle.accuracy.keys()
    ]
    alone = all(oracle.encoder == "own" for oracle in known)
    threshold = at.missing_alone if alone else at.missing

    def step(read: Interval | None, answer: Answer, why: str) -> Step:
        return Step(
            question=question, evidence=evidence, found=read, threshold=threshold,
            answer=answer, leads_to="core information missing", why=why,
        )  # fmt: skip

    if worst is None:
        return step(None, "not asked", "There is no OOD set to look at.")
    read, reader = complement(lost(inside, worst)), "the network"
    tried = False
    for oracle in known:
        control = above(oracle.accuracy[inside.name], chance(inside)).value
        if control < READABLE:
            continue
        tried = True
        share = scaled(above(oracle.accuracy[worst.name], chance(worst)), 1 / control)
        if share.value > read.value:
            read = share
            whose = "the network's own" if oracle.encoder == "own" else oracle.encoder + "'s"
            reader = f"a linear probe of {whose} features, fitted there,"
    answer = side(read, threshold, below="yes")
    if not tried and answer != "no":
        return step(
            None, "undecided",
            "Whether the object can still be seen in the OOD images is open: no probe could be "
            "fitted that reads even ID images.",
        )  # fmt: skip
    says = {
        "yes": "nobody sees the object there",
        "no": "the object can be seen",
        "undecided": "whether the object can be seen is open",
    }[answer]
    why = f"On {worst.name} {reader} reads {shown(read)} of what it reads on ID: {says}."
    return step(read, answer, why)


def better_head(found: Findings, at: Thresholds) -> Step:
    """H: whether a head that is fitted afresh on ID data does better, beyond chance."""
    question = "Does a fresh linear head do better than the network's own?"
    evidence = "gain in accuracy on the same images, as a share of what chance leaves"

    def step(read: Interval | None, answer: Answer, why: str) -> Step:
        return Step(
            question=question, evidence=evidence, found=read, threshold=at.head,
            answer=answer, leads_to="head", why=why,
        )  # fmt: skip

    head = found.head
    if head is None:
        return step(None, "undecided", "The network's head was not compared with a fresh one.")
    asked = [each for each in (found.inside, found.worst) if each and each.name in head.gain]
    gains = {
        each.name: scaled(head.gain[each.name], 1 / (1 - chance(each)))
        for each in asked
        if chance(each) < 1
    }
    if not gains:
        return step(None, "undecided", "Both heads always answer the only class there is.")
    sure = [name for name in gains if head.p_value[name] < SURE / len(gains)]
    large = [name for name, gain in gains.items() if gain.value > at.head]
    both = [name for name in large if name in sure]
    name = max(both or large or gains, key=lambda each: gains[each].value)
    answer: Answer = "yes" if both else "undecided" if large else "no"
    says = {
        "yes": "the features hold more than the head makes of them",
        "no": "the head is not to blame",
        "undecided": "that may be chance",
    }[answer]
    why = (
        f"On {name} a fresh head, fitted on ID data, is right in {head.fresh[name].value:.1%} and "
        f"the network's own in {head.own[name].value:.1%} (gain {points(head.gain[name])} points, "
        f"p = {head.p_value[name]:.2g}): {says}."
    )
    return step(gains[name], answer, why)


def no_failure(found: Findings, at: Thresholds) -> Step:
    """0: which share of the accuracy above chance is lost on the worst OOD set."""
    question = "Is as good as nothing lost on OOD data?"
    evidence = "share of the ID accuracy above chance that is lost on the worst OOD set"
    inside, worst = found.inside, found.worst
    if worst is None:
        return Step(
            question=question, evidence=evidence, found=None, threshold=at.healthy,
            answer="undecided", leads_to="healthy",
            why="Without an OOD set it is not known whether anything is lost.",
        )  # fmt: skip
    read = lost(inside, worst)
    answer = side(read, at.healthy, below="yes")
    says = {
        "yes": "no failure to explain",
        "no": "a failure that needs a cause",
        "undecided": "whether that is a failure is open",
    }[answer]
    why = (
        f"Accuracy is {shown(inside.overall.accuracy)} on {inside.name} and "
        f"{shown(worst.overall.accuracy)} on {worst.name}, so {shown(read)} of what is above "
        f"chance is lost: {says}."
    )
    return Step(
        question=question, evidence=evidence, found=read, threshold=at.healthy,
        answer=answer, leads_to="healthy", why=why,
    )  # fmt: skip


def _residual(steps: Sequence[Step]) -> Step:
    """R: what is left when there is a failure and nothing else explains it."""
    asked: dict[Cause, Answer] = {step.leads_to: step.answer for step in steps}
    left = next(step.found for step in steps if step.leads_to == "healthy")
    answers = set(asked.values())
    if answers == {"no"}:
        answer: Answer = "yes"
        why = (
            "The representation fails on new backgrounds: it is not undertrained, no spurious "
            "correlation, no missing information and not the head. Whether it is contaminated "
            "or has just never seen such images, no test can tell."
        )
    elif "yes" in answers:
        answer, why = "not asked", "Another cause comes first."
    else:
        answer, why = "undecided", "What is left can't be named while another question is open."
    return Step(
        question="Does the representation fail on new backgrounds, for none of these reasons?",
        evidence="what is left of the share that is lost",
        found=left, threshold=next(s.threshold for s in steps if s.leads_to == "healthy"),
        answer=answer, leads_to="contaminated", why=why,
    )  # fmt: skip


def _first(steps: Sequence[Step]) -> Cause:
    """The first cause that is met, unless an earlier question is open."""
    for step in steps:
        if step.answer == "yes":
            return step.leads_to
        if step.answer == "undecided":
            return "undecided"
    return "undecided"


def _behind(
    found: Findings, steps: Sequence[Step], cause: Cause, at: Thresholds
) -> tuple[Cause, ...]:
    """The causes that the table finds when the first is taken away, in order.

    Behind a head, the table is asked about the network with the fresh head. Behind other causes
    only what does not follow from them counts: they lower the OOD accuracy themselves.
    """
    if cause in ("healthy", "contaminated", "undecided"):
        return ()
    if cause == "head":
        then = _first(_asked(_with_fresh_head(found), at))
        return () if then in ("healthy", "undecided") else (then,)
    later = steps[[step.leads_to for step in steps].index(cause) + 1 :]
    told: dict[Cause, tuple[Cause, ...]] = {
        "undertrained": ("spurious correlation",),
        "spurious correlation": ("core information missing", "head"),
        "core information missing": ("head",),
    }
    return tuple(
        step.leads_to for step in later if step.answer == "yes" and step.leads_to in told[cause]
    )


def _with_fresh_head(found: Findings) -> Findings:
    """The same findings, had the network the fresh head."""
    head = found.head
    assert head is not None
    sets = tuple(
        each.model_copy(
            update={"overall": each.overall.model_copy(update={"accuracy": head.fresh[each.name]})}
        )
        if each.name in head.fresh
        else each
        for each in found.sets
    )
    nothing = {name: Interval(value=0.0, low=0.0, high=0.0) for name in head.gain}
    same = head.model_copy(
        update={"own": head.fresh, "gain": nothing, "p_value": dict.fromkeys(head.gain, 1.0)}
    )
    return replace(found, sets=sets, head=same)


def _sentence(
    found: Findings, steps: Sequence[Step], cause: Cause, behind: tuple[Cause, ...]
) -> str:
    """The verdict as a person would say it."""
    worst = found.worst
    where = "" if worst is None else f" on {worst.name}"
    plain = {
        "healthy": f"Healthy: nothing to speak of is lost{where}.",
        "undertrained": "Undertrained: the features do not solve even the ID data, so what "
        "happens elsewhere says little.",
        "spurious correlation": "Spurious correlation: the network answers without the object. "
        "Other causes may hide behind this one.",
        "core information missing": f"Core information missing: the object can't be seen{where}, "
        "so no network could do better.",
        "head": "Head: the features are better than the head that reads them.",
        "contaminated": "The representation fails on new backgrounds"
        + ("" if worst is None else f" ({worst.name})")
        + "; not spurious, not missing information, not the head.",
    }
    if cause != "undecided":
        then = "".join(f" Behind it: {NAMES[each]}." for each in behind)
        return plain[cause] + then
    open_ones = [s.leads_to for s in steps[:-1] if s.answer == "undecided"]
    met = [s.leads_to for s in steps[:-1] if s.answer == "yes"]
    rest = met[0] if met else "contaminated"
    if not open_ones:
        return "Undecided: no question could be asked."
    if "healthy" in open_ones and worst is None and open_ones == ["healthy"]:
        return "Undecided: nothing is wrong on ID data, and there is no OOD data to look at."
    return (
        f"Undecided between {', '.join(dict.fromkeys([*open_ones, rest]))}: "
        "the evidence does not tell."
    )


def _to_bring(found: Findings, steps: Sequence[Step]) -> list[str]:
    """What would answer the questions that are open."""
    wanted = []
    open_ones = {step.leads_to: step for step in steps if step.answer == "undecided"}
    if found.worst is None:
        wanted.append("An OOD set with at least two classes: it says whether anything is lost.")
    if "undertrained" in open_ones:
        wanted.append(
            "More ID examples: the interval lies on both sides of the threshold."
            if found.head is not None
            else "A network that ends in a linear layer: a fresh head tells features from heads."
        )
    if "spurious correlation" in open_ones:
        wanted.append(
            "Masks of the objects, or declared background labels: they show what is answered "
            "without the object."
            if found.background_only is None
            else "More ID examples with masks: how many are answered without the object is open."
        )
    if "core information missing" in open_ones:
        wanted.append("More OOD examples, or a stronger reference encoder for the oracle probe.")
    if "head" in open_ones and found.head is not None:
        wanted.append("More examples: the gain of a fresh head may be chance.")
    if "head" in open_ones and found.head is None and "undertrained" not in open_ones:
        wanted.append("A network that ends in a linear layer: a fresh head tells if it matters.")
    if "healthy" in open_ones and found.worst is not None:
        wanted.append("More OOD examples: the share that is lost is near the threshold.")
    return wanted
