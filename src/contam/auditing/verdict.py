"""The verdict: the first cause in the order of `CAUSES` whose question is answered with yes.

Accuracies count from chance: 0 for predicting the most frequent class, 1 for perfect predictions.
An interval that includes the threshold leaves a question open. Then the verdict is undecided,
unless an earlier question is answered with yes.
"""

from collections.abc import Iterable, Sequence

from contam.auditing.causes import CAUSES, Cause, Findings
from contam.auditing.records import (
    UNDECIDED,
    CauseEvidence,
    Remedy,
    SetScores,
    Step,
    Verdict,
)

PROVIDE_MORE = Remedy(
    what="Provide the missing evidence listed below, and audit again.",
    effect="None before the cause is known.",
    caveat="The remedy for another cause can do harm.",
)


def verdict(
    sets: Sequence[SetScores],
    evidence: Iterable[CauseEvidence] = (),
    *,
    causes: Sequence[Cause] = CAUSES,
) -> Verdict:
    """Ask about each cause, and again with the first cause set aside.

    Args:
        sets: accuracies on the ID set and on OOD sets. With several OOD sets the verdict is about
            the one that loses the largest share of accuracy.
        evidence: evidence of the causes, in any order.
        causes: the causes in the order in which they are asked about, with their thresholds.

    Source: ours, calibrated on networks whose cause of failure is known.

    Raises:
        ValueError: there is no ID set.
    """
    if not any(scores.role == "id" for scores in sets):
        raise ValueError("a verdict needs the accuracy on an ID set, and there is none")
    findings = Findings(tuple(sets), {record.cause: record for record in evidence})
    by_name = {cause.name: cause for cause in causes}
    steps = _ask(findings, causes)
    name = _first(steps)
    behind = _behind(findings, steps, name, causes)
    decisive = [step for step in steps if step.leads_to == name and step.answer == "yes"]
    if name == UNDECIDED:
        decisive = [step for step in steps if step.answer == "undecided"]
    ranked = sorted(steps[:-1], key=lambda step: by_name[step.leads_to].reason_rank)
    reasons = [step.why for step in (*decisive, *ranked) if step.answer != "not asked"]
    open_causes = [by_name[step.leads_to] for step in ranked if step.answer == "undecided"]
    chosen = by_name.get(name)
    sentence = _undecided(findings, steps, by_name) if not chosen else chosen.sentence(findings)
    if behind:
        nouns = " and ".join(by_name[other].noun for other in behind)
        sentence += f" A further cause behind it: {nouns}."
    return Verdict(
        cause=name,
        heading="Undecided" if not chosen else chosen.heading,
        sentence=sentence,
        reasons=tuple(dict.fromkeys(reasons)),
        steps=tuple(steps),
        behind=behind,
        missing=tuple(
            dict.fromkeys(line for cause in open_causes if (line := cause.to_provide(findings)))
        ),
        remedies=(PROVIDE_MORE,) if not chosen else chosen.remedies,
    )


def _ask(findings: Findings, causes: Sequence[Cause]) -> list[Step]:
    steps: list[Step] = []
    for cause in causes:
        steps.append(cause.ask(findings, steps))
    return steps


def _first(steps: Sequence[Step]) -> str:
    """The first cause with yes, unless an earlier question is open."""
    for step in steps:
        if step.answer == "yes":
            return step.leads_to
        if step.answer == "undecided":
            return UNDECIDED
    return UNDECIDED


def _behind(
    findings: Findings, steps: Sequence[Step], name: str, causes: Sequence[Cause]
) -> tuple[str, ...]:
    """The causes that appear with the first one set aside, in order.

    If the first cause can be repaired, all questions are asked again about the repaired network.
    Otherwise, only causes count whose evidence the first one does not produce itself.
    """
    first = next((cause for cause in causes if cause.name == name), None)
    if first is None:
        return ()
    repaired = first.repaired(findings)
    if repaired is not None:
        then = _first(_ask(repaired, causes))
        return () if then in ("healthy", UNDECIDED) else (then,)
    place = [cause.name for cause in causes].index(name)
    return tuple(
        step.leads_to
        for cause, step in zip(causes[place + 1 :], steps[place + 1 :], strict=True)
        if step.answer == "yes" and name in cause.may_follow
    )


def _undecided(findings: Findings, steps: Sequence[Step], by_name: dict[str, Cause]) -> str:
    """Which causes the evidence cannot separate."""
    open_names = [step.leads_to for step in steps[:-1] if step.answer == "undecided"]
    if not open_names:
        return "Undecided: no question could be answered."
    if findings.worst is None and open_names == ["healthy"]:
        return "Undecided: the ID data show no problem, and there is no OOD set to compare with."
    shown = [step.leads_to for step in steps[:-1] if step.answer == "yes"]
    names = dict.fromkeys([*open_names, shown[0] if shown else steps[-1].leads_to])
    *others, last = [by_name[name].noun for name in names]
    choice = f"{', '.join(others)} or {last}" if others else last
    return f"Undecided: {choice}. The evidence cannot separate them."
