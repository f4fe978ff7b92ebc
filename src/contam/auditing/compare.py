"""Two audits of the same data sets: what changed from one network to the next."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scipy.stats import binomtest, fisher_exact

from contam.auditing.fail_rules import FailRules, RuleCheck, check_verdict, details, too_low
from contam.auditing.intervals import percent, points
from contam.auditing.junit import JUnitSuite, junit
from contam.auditing.markdown import escaped, of_checks, table
from contam.auditing.records import AuditRecord, Interval, Score, SetScores, set_title
from contam.auditing.scores import unpacked
from contam.auditing.verdict import loses
from contam.measures.accuracy import Accuracy, paired_change, unpaired_change

SIGNIFICANT = 0.05
"""p-value below which a change is beyond chance, divided by the number of data sets."""


@dataclass(frozen=True)
class SetChange:
    """The accuracy of two audits on one data set."""

    name: str
    role: str
    before: Score
    after: Score
    change: Interval
    """Accuracy after minus before, with its 95 % interval."""
    p_value: float
    """Two-sided p-value of no change: McNemar's exact test, or Fisher's if not paired."""
    sets: int
    """Number of data sets that are compared."""
    gained: int | None = None
    """Examples that are correct only after; absent if the audits cannot be paired."""
    lost: int | None = None
    """Examples that are correct only before."""
    unpaired: str = ""
    """Why the examples cannot be paired; empty if they are."""

    @property
    def beyond_chance(self) -> bool:
        """Whether the accuracy changed beyond chance, corrected for the number of data sets."""
        return self.p_value * self.sets < SIGNIFICANT

    @property
    def is_loss(self) -> bool:
        """Whether accuracy was lost beyond chance."""
        return self.beyond_chance and self.change.value < 0

    def sentence(self) -> str:
        """Return the change with its test in words."""
        test = f"n {self.after.count}"
        if self.unpaired:
            test = f"not paired, n {self.before.count} and {self.after.count}"
        p_value = "p < 0.001" if self.p_value < 0.001 else f"p {self.p_value:.3f}"
        beyond = " beyond chance" if self.beyond_chance else ", may be chance"
        return (
            f"accuracy {self.before.accuracy.value:.3f} -> {self.after.accuracy.value:.3f}, "
            f"{points(self.change)}{beyond} ({p_value}, {test})"
        )


@dataclass(frozen=True)
class CauseChange:
    """The accuracy that one cause takes on one OOD set, in two audits."""

    on: str
    cause: str
    before: float | None
    """A share of all examples; None if the causes of the loss were not tested."""
    after: float | None

    @property
    def change(self) -> float | None:
        """What the cause takes after, minus before."""
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True, repr=False)
class AuditComparison:
    """Two audits of the same data sets: accuracies, causes and verdicts before and after.

    `Audit.compare` makes it.
    """

    before: AuditRecord
    after: AuditRecord
    sets: tuple[SetChange, ...]
    """Accuracies in the order of the audit before, the ID set first."""
    causes: tuple[CauseChange, ...]
    """Every cause in the ledger of either audit, by OOD set."""

    def __repr__(self) -> str:
        lines = [f"Comparison of two audits: {self._models}", f"verdict: {self._verdicts}"]
        lines += [f"{set_title(one.role, one.name)}: {one.sentence()}" for one in self.sets]
        for on in dict.fromkeys(one.on for one in self.causes):
            moved = [
                f"{one.cause} {_points(one.before)} -> {_points(one.after)}"
                for one in self.causes
                if one.on == on
            ]
            lines.append(f"points lost on {on}: " + ", ".join(moved))
        return "\n".join([*lines, *self._notes()])

    def _repr_html_(self) -> str:
        sets, causes = (
            "".join(
                "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
                for row in rows
            )
            for rows in (self._set_rows(), self._cause_rows())
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._notes())
        heads = [
            "".join(f"<th>{name}</th>" for name in names) for names in (SET_COLUMNS, CAUSE_COLUMNS)
        ]
        title = f"Comparison of two audits: {self._models}"
        return (
            f"<div><strong>{html.escape(title)}</strong>"
            f"<p>Verdict: {html.escape(self._verdicts)}</p>"
            f"<table><tr>{heads[0]}</tr>{sets}</table>"
            + (f"<table><tr>{heads[1]}</tr>{causes}</table>" if causes else "")
            + f"{notes}</div>"
        )

    def records(self) -> list[dict[str, Any]]:
        """Return every change as a flat record, for a table.

        Returns:
            Dicts with `what` changed, `on` which data set, for which `cause`, `before`, `after`,
            the `change` and the ends of its interval `low` and `high`, its `p_value`, and whether
            the examples were `paired`. Accuracies are shares.
        """
        return [
            *(
                {
                    "what": "accuracy", "on": one.name, "cause": "",
                    "before": one.before.accuracy.value, "after": one.after.accuracy.value,
                    "change": one.change.value, "low": one.change.low, "high": one.change.high,
                    "p_value": one.p_value, "paired": not one.unpaired,
                }
                for one in self.sets
            ),
            *(
                {
                    "what": "lost accuracy", "on": one.on, "cause": one.cause,
                    "before": one.before, "after": one.after, "change": one.change, "low": None,
                    "high": None, "p_value": None, "paired": None,
                }
                for one in self.causes
            ),
        ]  # fmt: skip

    def check(self, rules: FailRules) -> tuple[RuleCheck, ...]:
        """Return the results of rules; accuracies and verdicts are those of the audit after.

        Args:
            rules: the rules.

        Raises:
            ValueError: a rule names a data set that the audits do not have.
        """
        rules.check_sets([one.name for one in self.sets])
        after = {scores.name: scores for scores in self.after.sets}
        checks = []
        for one in self.sets:
            scores = after[one.name]
            text = "\n".join([one.sentence(), *filter(None, [one.unpaired])])
            checks.append(
                RuleCheck(
                    f"accuracy on {one.name}", f"{text}\n{details(self.after, scores)}",
                    too_low(scores, rules),
                )
            )  # fmt: skip
            if rules.loss:
                lost = f"Accuracy on {one.name} dropped: {one.sentence()}."
                name = f"no accuracy lost on {one.name}"
                checks.append(RuleCheck(name, text, lost if one.is_loss else ""))
        return (*checks, *check_verdict(self.after, rules))

    def markdown(self, rules: FailRules | None = None) -> str:
        """Return a summary for a pull request.

        Args:
            rules: rules whose results it shows.

        Raises:
            ValueError: a rule names a data set that the audits do not have.
        """
        parts = [
            f"### Comparison of two audits: {escaped(self._models)}",
            f"**Verdict:** {escaped(self._verdicts)}",
            table(SET_COLUMNS, self._set_rows()),
        ]
        rows = list(self._cause_rows())
        parts += ["**Points lost by cause**", table(CAUSE_COLUMNS, rows)] if rows else []
        parts += [escaped(note) for note in self._notes()]
        parts += [] if rules is None else of_checks(self.check(rules))
        return "\n\n".join(parts) + "\n"

    def junit(self, rules: FailRules | None = None) -> str:
        """Return JUnit XML with a test case for each data set and rule.

        Args:
            rules: rules that fail test cases.

        Raises:
            ValueError: a rule names a data set that the audits do not have.
        """
        properties = {
            "before": self.before.model, "after": self.after.model, "verdict": self._verdicts,
        }  # fmt: skip
        checks = self.check(rules or FailRules())
        return junit([JUnitSuite("contam comparison", checks, properties)])

    @property
    def _models(self) -> str:
        return f"{self.before.model} -> {self.after.model}"

    @property
    def _verdicts(self) -> str:
        return f"{self.before.verdict.cause} -> {self.after.verdict.cause}"

    def _set_rows(self) -> Iterator[tuple[str, ...]]:
        for one in self.sets:
            yield (
                set_title(one.role, one.name), percent(one.before.accuracy),
                percent(one.after.accuracy), points(one.change),
                "< 0.001" if one.p_value < 0.001 else f"{one.p_value:.3f}",
                "yes" if one.beyond_chance else "no",
            )  # fmt: skip

    def _cause_rows(self) -> Iterator[tuple[str, ...]]:
        for one in self.causes:
            change = "" if one.change is None else f"{100 * one.change:+.1f}"
            yield one.on, one.cause, _points(one.before), _points(one.after), change

    def _notes(self) -> list[str]:
        notes = [one.unpaired for one in self.sets if one.unpaired]
        if self.before.unlabeled or self.after.unlabeled:
            notes.append("Data sets without labels are not compared.")
        return notes


SET_COLUMNS = ("set", "accuracy before", "accuracy after", "change", "p-value", "beyond chance")
CAUSE_COLUMNS = ("OOD set", "cause", "points lost before", "points lost after", "change")


def compare_audits(before: AuditRecord, after: AuditRecord) -> AuditComparison:
    """Compare two audits of the same data sets.

    Where both audits judged the same examples, the change of accuracy has McNemar's exact test;
    otherwise Fisher's.

    Args:
        before: the first audit.
        after: the second audit.

    Source: ours; McNemar (1947), Fisher (1935).

    Raises:
        ValueError: the audits have other data sets or classes.

    >>> from contam.auditing.records import Verdict
    >>> verdict = Verdict(cause="healthy", heading="Healthy", sentence="", reasons=(), steps=())
    >>> def record(correct):
    ...     score = Score(correct=correct, count=100, accuracy=Interval(value=correct / 100))
    ...     scores = SetScores(name="meadow", role="id", overall=score, by_class={})
    ...     return AuditRecord(contam="1.0", model="ResNet", classes=("cow", "camel"),
    ...                        verdict=verdict, sets=(scores,))
    >>> change = compare_audits(record(90), record(70)).sets[0]
    >>> round(change.change.value, 1), change.beyond_chance
    (-0.2, True)
    """
    names = [[(scores.role, scores.name) for scores in record.sets] for record in (before, after)]
    if sorted(names[0]) != sorted(names[1]):
        first, second = (", ".join(name for _, name in some) for some in names)
        raise ValueError(
            f"the audits have different data sets, {first} before and {second} after; audit the "
            "same sets under the same names"
        )
    if set(before.classes) != set(after.classes):
        other = sorted(set(before.classes) ^ set(after.classes))
        raise ValueError(
            f"the audits have different classes: {other[0]!r} is only in the one "
            f"{'before' if other[0] in before.classes else 'after'}"
        )
    by_name = {scores.name: scores for scores in after.sets}
    pairs = [(scores, by_name[scores.name]) for scores in before.sets]
    return AuditComparison(
        before, after, tuple(_set_change(*pair, len(pairs)) for pair in pairs),
        tuple(_cause_changes(before, after)),
    )  # fmt: skip


def _set_change(before: SetScores, after: SetScores, sets: int) -> SetChange:
    """The change of accuracy on one data set, paired if the examples are the same."""
    value = after.overall.accuracy.value - before.overall.accuracy.value
    old, new = (Accuracy(s.overall.correct, s.overall.count) for s in (before, after))
    gained = lost = None
    unpaired = _unpaired(before, after)
    if before.correct is None or after.correct is None or unpaired:
        rows = [[one.correct, one.count - one.correct] for one in (old, new)]
        result: Any = fisher_exact(rows)
        p_value = float(result.pvalue)
        low, high = unpaired_change(old, new)
    else:
        first, second = (unpacked(s.correct, old.count) for s in (before, after) if s.correct)
        gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
        p_value = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
        low, high = paired_change(gained, lost, old.count)
    return SetChange(
        before.name, before.role, before.overall, after.overall,
        Interval(value=value, low=low, high=high), p_value, sets, gained, lost, unpaired,
    )  # fmt: skip


def _unpaired(before: SetScores, after: SetScores) -> str:
    """Why the examples of two audits cannot be paired; empty if they can be."""
    if before.correct is None or after.correct is None:
        return f"{before.name} is not paired: an audit does not hold which examples are correct."
    if before.overall.count != after.overall.count:
        return (
            f"{before.name} is not paired: it has {before.overall.count} examples before and "
            f"{after.overall.count} after."
        )
    if before.correct.labels != after.correct.labels:
        return f"{before.name} is not paired: its labels or their order differ."
    return ""


def _cause_changes(before: AuditRecord, after: AuditRecord) -> Iterator[CauseChange]:
    """Each cause in the ledger of either audit."""
    for scores in before.sets:
        if scores.role != "ood":
            continue
        first, second = (_points_by_cause(record, scores.name) for record in (before, after))
        for cause in dict.fromkeys([*(first or ()), *(second or ())]):
            values = (None if some is None else some.get(cause, 0.0) for some in (first, second))
            yield CauseChange(scores.name, cause, *values)


def _points_by_cause(record: AuditRecord, name: str) -> dict[str, float] | None:
    """The ledger of an OOD set; None if a loss was not split among causes."""
    for ledger in record.ledgers:
        if ledger.on == name:
            return {entry.cause: entry.points.value for entry in ledger.entries}
    own = next(scores for scores in record.sets if scores.role == "id")
    other = next(scores for scores in record.sets if scores.name == name)
    return None if loses(own, other) else {}


def _points(share: float | None) -> str:
    return "not tested" if share is None else f"{100 * share:.1f}"
