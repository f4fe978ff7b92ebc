"""The verdict: the cause with the largest share of the accuracy that is lost on the worst OOD set.

Accuracies count from chance: 0 for predicting the most frequent class, 1 for perfect predictions.
A cause needs a positive test and at least a fifth of the loss. A loss that no test accounts for is
an unexplained shift.
"""

from collections.abc import Sequence

from contam.auditing.causes import CAUSES
from contam.auditing.causes.cause import LEAST_SHARE
from contam.auditing.causes.head import Head
from contam.auditing.causes.input_mismatch import InputMismatch
from contam.auditing.causes.undertrained import Undertrained
from contam.auditing.intervals import accuracy_lost, chance_accuracy, percent, points
from contam.auditing.records import (
    HEALTHY,
    UNDECIDED,
    UNEXPLAINED,
    Interval,
    Ledger,
    LostPoints,
    SetScores,
    Step,
    UnlabeledScores,
    Verdict,
)

BY_NAME = {cause.name: cause for cause in CAUSES}
UNDERTRAINED, HEAD, INPUTS = Undertrained.name, Head.name, InputMismatch.name
NEGLIGIBLE = 0.21
"""Share of the above-chance ID accuracy whose loss is negligible."""
HEADINGS = {
    HEALTHY: "Healthy: the OOD accuracy drop is negligible",
    UNDECIDED: "Undecided",
    UNEXPLAINED: "Unexplained shift: accuracy is lost, and no test shows why",
}
"""The verdicts without a cause, in a few words."""
QUESTION = "Is the OOD accuracy drop negligible?"
MEASURED = "share of the above-chance ID accuracy that is lost on the worst OOD set"


def _worst_of(sets: Sequence[SetScores]) -> SetScores | None:
    """Return the OOD set that loses the largest share of accuracy; None without one of two classes.

    Args:
        sets: accuracies on the ID set and on OOD sets.
    """
    own = next(scores for scores in sets if scores.role == "id")
    ood = [scores for scores in sets if scores.role == "ood" and chance_accuracy(scores) < 1]
    return max(ood, key=lambda scores: accuracy_lost(own, scores).value, default=None)


def loses(own: SetScores, other: SetScores) -> bool:
    """Return whether a loss that may not be negligible is to be explained.

    Args:
        own: accuracy on the ID set.
        other: accuracy on an OOD set.

    >>> from contam.auditing.records import Interval, Score
    >>> def scores(name, role, correct):
    ...     half = Score(correct=correct, count=50, accuracy=Interval(value=correct / 50))
    ...     whole = Score(correct=2 * correct, count=100, accuracy=Interval(value=correct / 50))
    ...     by_class = {"cow": half, "camel": half}
    ...     return SetScores(name=name, role=role, overall=whole, by_class=by_class)
    >>> own = scores("meadow", "id", 45)
    >>> loses(own, scores("beach", "ood", 35)), loses(own, scores("pasture", "ood", 44))
    (True, False)
    """
    if chance_accuracy(other) >= 1:
        return False
    lost = accuracy_lost(own, other)
    return lost.value > 0 and (lost.value if lost.high is None else lost.high) >= NEGLIGIBLE


def verdict(
    sets: Sequence[SetScores],
    ledgers: Sequence[Ledger] = (),
    steps: Sequence[Step] = (),
    findings: Sequence[str] = (),
    unlabeled: Sequence[UnlabeledScores] = (),
) -> Verdict:
    """Name the cause of the largest share of the loss.

    Args:
        sets: accuracies on the ID set and on OOD sets.
        ledgers: the ledger of each OOD set that loses accuracy.
        steps: tests of the ID set alone: of too little training, and of the head.
        findings: what else was found, one sentence each.
        unlabeled: estimates on data sets without labels.

    Source: ours, what gives the lost points back is the cause.

    Raises:
        ValueError: there is no ID set.

    >>> from contam.auditing.records import Interval, Score
    >>> half = Score(correct=45, count=50, accuracy=Interval(value=0.9, low=0.78, high=0.97))
    >>> whole = Score(correct=90, count=100, accuracy=Interval(value=0.9, low=0.82, high=0.95))
    >>> by_class = {"cow": half, "camel": half}
    >>> own = SetScores(name="meadow", role="id", overall=whole, by_class=by_class)
    >>> verdict([own]).cause
    'undecided'
    """
    if not any(scores.role == "id" for scores in sets):
        raise ValueError("a verdict needs the accuracy on an ID set, and there is none")
    own = next(scores for scores in sets if scores.role == "id")
    worst = _worst_of(sets)
    lost = _lost(own, worst)
    ledger = next((one for one in ledgers if worst is not None and one.on == worst.name), None)
    named = _named(ledger)
    cause, sentence = _decide(lost, worst, ledger, steps, unlabeled)
    chosen = BY_NAME.get(cause)
    tested = () if ledger is None else ledger.steps
    extra = [_small(named[0], worst)] if cause == HEALTHY and named and worst else []
    return Verdict(
        cause=cause,
        heading=HEADINGS[cause] if chosen is None else chosen.heading,
        sentence=sentence,
        reasons=_reasons(cause, lost, (*tested, *steps)),
        steps=(lost, *tested, *steps),
        behind=tuple(dict.fromkeys(e.cause for e in named if e.cause != cause
                                   and _beyond_chance(e)))
        if cause != HEALTHY else (),
        findings=(*extra, *findings),
        missing=_missing(cause, worst, ledger, unlabeled),
        remedies=() if chosen is None else chosen.remedies,
    )  # fmt: skip


def _named(ledger: Ledger | None) -> list[LostPoints]:
    """The causes with at least the smallest share of the loss, the largest first."""
    if ledger is None:
        return []
    least = LEAST_SHARE * ledger.loss.value
    entries = [e for e in ledger.entries if e.how != "rest" and e.points.value >= least]
    return sorted(entries, key=lambda entry: -entry.points.value)


def _decide(
    lost: Step, worst: SetScores | None, ledger: Ledger | None, steps: Sequence[Step],
    unlabeled: Sequence[UnlabeledScores],
) -> tuple[str, str]:  # fmt: skip
    """The cause and the sentence of the verdict: the first of these cases that holds."""
    on_id = {step.leads_to: step for step in steps}
    training, head = on_id.get(UNDERTRAINED), on_id.get(HEAD)
    named = _named(ledger)
    name = "the OOD data" if worst is None else worst.name
    points_lost = 0.0 if ledger is None else 100 * ledger.loss.value
    plumbing = bool(named) and BY_NAME[named[0].cause].plumbing
    shown = named if lost.answer != "yes" else []
    both = on_id.get(INPUTS)
    cases = (
        (
            both is not None, INPUTS,
            "" if both is None else f"{both.why} The OOD images may have the same fault.",
        ),
        (
            training is not None and training.answer == "yes" and not plumbing,
            UNDERTRAINED, BY_NAME[UNDERTRAINED].meaning,
        ),
        (bool(shown), shown[0].cause if shown else "", _sentence(ledger, shown)),
        (head is not None and head.answer == "yes", HEAD, BY_NAME[HEAD].meaning),
        (
            _unsolved(training), UNDECIDED,
            "The network does not solve the ID data, so OOD accuracy says little; whether more "
            "training would help was not shown.",
        ),
        (
            worst is None, UNDECIDED,
            _without_labels(unlabeled)
            or "There is no OOD set of at least two classes, so no loss of accuracy can be "
            "explained.",
        ),
        (lost.answer == "yes", HEALTHY, f"The accuracy drop on {name} is negligible."),
        (
            lost.answer == "undecided", UNDECIDED,
            f"The loss on {name} may be negligible, and no test accounts for it; more OOD examples "
            "would decide.",
        ),
        (ledger is None, UNDECIDED, f"Accuracy is lost on {name}; its causes were not tested."),
        (
            True, UNEXPLAINED,
            f"{points_lost:.1f} points are lost on {name}, and no test accounts for a fifth of "
            "them.",
        ),
    )  # fmt: skip
    return next((cause, sentence) for holds, cause, sentence in cases if holds)


def _without_labels(unlabeled: Sequence[UnlabeledScores]) -> str:
    """The verdict where no OOD set has labels; empty without an estimate."""
    known = [scores for scores in unlabeled if scores.estimates]
    if not known:
        return ""
    worst = min(known, key=lambda scores: scores.estimates[0].estimate.value)
    first = worst.estimates[0]
    return (
        f"Without labels, the accuracy on {worst.name} is only estimated, as "
        f"{percent(first.estimate)} by {first.method}; this holds if confidence means the same "
        "there as on ID data, which only labels can show."
    )


def _unsolved(training: Step | None) -> bool:
    """Whether the ID data are not solved, for whatever reason."""
    if training is None or training.answer != "undecided" or training.observed is None:
        return False
    end = training.observed.value if training.observed.high is None else training.observed.high
    return end < training.threshold


def _reasons(cause: str, lost: Step, steps: Sequence[Step]) -> tuple[str, ...]:
    """The answers as sentences, the most important first."""
    yes = [step for step in steps if step.answer == "yes" and step.leads_to == cause]
    others = [s for s in steps if s.answer in ("yes", "undecided") and s not in yes]
    no = [step for step in steps if step.answer == "no"]
    return tuple(dict.fromkeys(step.why for step in (*yes, lost, *others, *no)))


def _missing(
    cause: str, worst: SetScores | None, ledger: Ledger | None,
    unlabeled: Sequence[UnlabeledScores],
) -> tuple[str, ...]:  # fmt: skip
    """What to provide so that an open question can be answered."""
    if worst is None and unlabeled:
        return tuple(
            f"Labels of the {len(scores.to_label)} examples of {scores.name} that are listed: "
            f"they {scores.labels_would_show}."
            for scores in unlabeled
        )
    if worst is None:
        return ("An OOD set with at least two classes: it shows whether accuracy drops.",)
    lines = []
    if cause == UNDECIDED:
        lines.append(f"More OOD examples (you gave {worst.overall.count}).")
    if ledger is not None and ledger.unexplained > LEAST_SHARE * ledger.loss.value:
        lines += [
            f"{BY_NAME[step.leads_to].question} {step.why}"
            for step in ledger.steps
            if step.answer == "not asked" and step.leads_to in BY_NAME
        ]
    return tuple(lines)


def _lost(own: SetScores, worst: SetScores | None) -> Step:
    """The question whether anything is lost."""
    loss: Interval | None = None
    answer = "undecided"
    why = "Without an OOD set of at least two classes the accuracy drop is unknown."
    if worst is not None:
        loss = accuracy_lost(own, worst)
        low, high = (loss.value if end is None else end for end in (loss.low, loss.high))
        answer = "yes" if high < NEGLIGIBLE else "no" if low > NEGLIGIBLE else "undecided"
        conclusion = {
            "yes": "there is no failure to explain", "no": "this failure needs a cause",
            "undecided": "it is unclear whether this is a failure",
        }[answer]  # fmt: skip
        amount = (
            f"falls below chance ({100 * chance_accuracy(worst):.1f} %) there, so it loses all"
            if loss.value > 1 else f"loses {percent(loss)}"
        )  # fmt: skip
        why = (
            f"Accuracy is {percent(own.overall.accuracy)} on {own.name} and "
            f"{percent(worst.overall.accuracy)} on {worst.name}. The network {amount} of its "
            f"above-chance accuracy: {conclusion}."
        )
    return Step(
        question=QUESTION, evidence=MEASURED, observed=loss, threshold=NEGLIGIBLE, answer=answer,
        leads_to=HEALTHY, why=why,
    )  # fmt: skip


def _sentence(ledger: Ledger | None, named: Sequence[LostPoints]) -> str:
    """The verdict on the largest of these causes, with its share of the loss."""
    if ledger is None or not named:
        return ""
    entry, loss, rest = named[0], 100 * ledger.loss.value, 100 * ledger.unexplained
    verb = "gives back" if entry.how == "given back" else "accounts for"
    others = [
        other for other in ledger.entries
        if other.cause != entry.cause and other.how != "rest" and _beyond_chance(other)
    ]  # fmt: skip
    more = "".join(f" {100 * e.points.value:.1f} are due to {e.cause}." for e in others)
    ending = f" {rest:.1f} remain unexplained." if rest >= 0.05 * loss else ""
    what = entry.what[:1].upper() + entry.what[1:]
    return (
        f"{what}: this {verb} {100 * entry.points.value:.1f} of the {loss:.1f} points that are "
        f"lost on {ledger.on}.{more}{ending} {BY_NAME[entry.cause].meaning}"
    )


def _beyond_chance(entry: LostPoints) -> bool:
    """Whether a share may be named: its interval does not include 0."""
    return entry.points.low is None or entry.points.low > 0


def _small(entry: LostPoints, worst: SetScores) -> str:
    return (
        f"Most of the small loss on {worst.name} is due to {entry.cause}: {entry.what} "
        f"({points(entry.points)})."
    )
