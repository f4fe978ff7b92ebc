"""Rules that an audit must pass, for continuous integration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from contam.auditing.causes import NAMES
from contam.auditing.intervals import percent, points
from contam.auditing.records import HEALTHY, UNDECIDED, AuditRecord, SetScores

ANY = "any"
"""The word for every verdict that is a failure."""


@dataclass(frozen=True)
class RuleCheck:
    """The result of one check; a test case in JUnit files."""

    name: str
    details: str = ""
    """The numbers behind the result, one line each."""
    failure: str = ""
    """A sentence; empty if the check passed."""


@dataclass(frozen=True)
class FailRules:
    """Rules for verdicts and accuracies.

    Args:
        verdicts: verdicts that fail, such as `head`; a word of a name is enough, and `any` stands
            for all failures. A cause with a smaller share of the loss counts too.
        floor: smallest accuracy of every OOD set, a share. The estimate is compared, not an end of
            its interval.
        floors: smallest accuracy by set, instead of `floor`; the ID set may have one.
        loss: whether a comparison fails if a set lost accuracy beyond chance.

    Raises:
        ValueError: there is no such verdict, or an accuracy is outside [0, 1].

    >>> FailRules(verdicts=("missing",)).causes("missing")
    frozenset({'information missing'})
    """

    verdicts: Sequence[str] = ()
    floor: float | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    loss: bool = False

    def __post_init__(self) -> None:
        for word in self.verdicts:
            self.causes(word)
        for value in (*self.floors.values(), *(() if self.floor is None else (self.floor,))):
            if not 0 <= value <= 1:
                raise ValueError(
                    f"an accuracy to fail below is a share in [0, 1] such as 0.8, not {value:g}"
                )

    @staticmethod
    def causes(word: str) -> frozenset[str]:
        """Return the verdicts that a word stands for.

        Args:
            word: a verdict, a word of one, or `any`.

        Raises:
            ValueError: there is none.
        """
        if word == ANY:
            return frozenset(NAMES) - {HEALTHY}
        known = (*NAMES, UNDECIDED)
        matching = frozenset(name for name in known if word == name or word in name.split())
        if not matching:
            close = get_close_matches(word, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}"
            raise ValueError(f"no verdict {word!r} to fail on; {hint}, or {ANY}")
        return matching

    def floor_of(self, scores: SetScores) -> float | None:
        """Return the smallest accuracy of a data set; None if it has none.

        Args:
            scores: accuracy on the data set.
        """
        return self.floors.get(scores.name, self.floor if scores.role == "ood" else None)

    def check_sets(self, names: Sequence[str]) -> None:
        """Raise an error if a rule names a data set that there is not.

        Args:
            names: names of the data sets.

        Raises:
            ValueError: a rule names another data set.
        """
        unknown = [name for name in self.floors if name not in names]
        if unknown:
            raise ValueError(
                f"no data set {unknown[0]!r} to fail below; the sets are {', '.join(names)}"
            )


def check_audit(record: AuditRecord, rules: FailRules) -> tuple[RuleCheck, ...]:
    """Return a check for each OOD set, each other set with a floor, and each verdict rule.

    Args:
        record: the audit.
        rules: the rules.

    Source: ours, checks for pipelines that must stop when a model gets worse.

    Raises:
        ValueError: a rule names a data set that the audit does not have.

    >>> from contam.auditing.records import Interval, Score, Verdict
    >>> score = Score(correct=7, count=10, accuracy=Interval(value=0.7))
    >>> record = AuditRecord(
    ...     contam="1.0", model="ResNet", classes=("cow", "camel"),
    ...     verdict=Verdict(
    ...         cause="healthy", heading="Healthy", sentence="No failure.", reasons=(), steps=()),
    ...     sets=(SetScores(name="beach", role="ood", overall=score, by_class={}),))
    >>> checks = check_audit(record, FailRules(verdicts=("any",), floor=0.8))
    >>> [(check.name, bool(check.failure)) for check in checks]
    [('accuracy on beach', True), ('verdict is no failure', False)]
    """
    rules.check_sets([scores.name for scores in record.sets])
    judged = [s for s in record.sets if s.role == "ood" or rules.floor_of(s) is not None]
    return (
        *(
            RuleCheck(f"accuracy on {s.name}", details(record, s), too_low(s, rules))
            for s in judged
        ),
        *check_verdict(record, rules),
    )


def check_verdict(record: AuditRecord, rules: FailRules) -> tuple[RuleCheck, ...]:
    """Return a check for each verdict rule.

    Args:
        record: the audit.
        rules: the rules.

    Source: ours, checks for pipelines that must stop when a cause appears.

    >>> from contam.auditing.records import Verdict
    >>> verdict = Verdict(
    ...     cause="head", heading="The classifier head", sentence="A fresh head is better.",
    ...     reasons=(), steps=())
    >>> record = AuditRecord(
    ...     contam="1.0", model="ResNet", classes=("cow", "camel"), verdict=verdict, sets=())
    >>> checks = check_verdict(record, FailRules(verdicts=("head", "corruption")))
    >>> [check.failure for check in checks]
    ['The verdict is head. A fresh head is better.', '']
    """
    verdict = record.verdict
    checks = []
    for word in rules.verdicts:
        failing = [c for c in (verdict.cause, *verdict.behind) if c in rules.causes(word)]
        name = "verdict is no failure" if word == ANY else f"verdict is not {word}"
        what = "The verdict is" if failing[:1] == [verdict.cause] else "A smaller cause is"
        failure = f"{what} {failing[0]}. {verdict.sentence}" if failing else ""
        checks.append(RuleCheck(name, f"verdict: {verdict.heading}", failure))
    return tuple(checks)


def too_low(scores: SetScores, rules: FailRules) -> str:
    """Return the sentence of an accuracy that is below its rule; empty if it is not.

    Args:
        scores: accuracy on a data set.
        rules: the rules.

    Source: ours; the estimate is compared, so that the same count always passes or fails.

    >>> from contam.auditing.records import Interval, Score
    >>> score = Score(correct=7, count=10, accuracy=Interval(value=0.7))
    >>> scores = SetScores(name="beach", role="ood", overall=score, by_class={"cow": score})
    >>> too_low(scores, FailRules(floor=0.8)).split(",")[0]
    'Accuracy on beach is 70.0 %'
    >>> too_low(scores, FailRules(floor=0.8, floors={"beach": 0.6}))
    ''
    """
    floor = rules.floor_of(scores)
    accuracy = scores.overall.accuracy
    if floor is None or accuracy.value >= floor:
        return ""
    return (
        f"Accuracy on {scores.name} is {percent(accuracy)}, below the required {100 * floor:g} % "
        f"(n {scores.overall.count}; the estimate is compared, not its interval)."
    )


def details(record: AuditRecord, scores: SetScores) -> str:
    """Return the accuracy on a data set and the causes of its loss, one line each.

    Args:
        record: the audit.
        scores: accuracy on the data set.

    Source: ours, the lines that a report of tests shows for each check.

    >>> from contam.auditing.records import Interval, Ledger, Score, Verdict
    >>> score = Score(correct=7, count=10, accuracy=Interval(value=0.7))
    >>> scores = SetScores(name="beach", role="ood", overall=score, by_class={})
    >>> ledger = Ledger(on="beach", loss=Interval(value=0.2))
    >>> verdict = Verdict(
    ...     cause="undecided", heading="Undecided", sentence="", reasons=(), steps=())
    >>> record = AuditRecord(contam="1.0", model="ResNet", classes=("cow", "camel"),
    ...                      verdict=verdict, sets=(scores,), ledgers=(ledger,))
    >>> print(details(record, scores))
    accuracy 70.0 %, n 10
    loss against the ID set: +20.0 points
    """
    lines = [f"accuracy {percent(scores.overall.accuracy)}, n {scores.overall.count}"]
    for ledger in record.ledgers:
        if ledger.on == scores.name:
            lines.append(f"loss against the ID set: {points(ledger.loss)}")
            lines += [f"{entry.cause}: {points(entry.points)}" for entry in ledger.entries]
    return "\n".join(lines)
