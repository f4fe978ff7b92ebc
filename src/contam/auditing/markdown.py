"""A summary of an audit in Markdown, for a pull request."""

import re
from collections.abc import Iterable, Iterator, Sequence

from contam.auditing.fail_rules import RuleCheck
from contam.auditing.intervals import percent, points
from contam.auditing.records import AuditRecord, Ledger, set_title
from contam.auditing.what_helps import remedies_beyond_chance

MOST_ROWS = 40
"""Rows of a table; the rest is counted."""
MOST_REMEDIES = 5


def escaped(text: str) -> str:
    r"""Return text in one line without any Markdown or HTML in it.

    Args:
        text: any text.

    >>> escaped("a|b\n<img> *c*")
    'a\\|b &lt;img> \\*c\\*'
    """
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    # Brackets of intervals stay as they are; those of links and footnotes do not.
    plain = re.sub(r"([\\`*_{}#|~$]|\[(?![-+\d])|\](?=[(:\[]))", r"\\\1", plain)
    return re.sub("^>", "&gt;", plain)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are escaped.

    Args:
        columns: names of the columns.
        rows: texts of the cells.

    >>> print(table(["set", "n"], [["fog", "40"]]))
    | set | n |
    | --- | --- |
    | fog | 40 |
    """
    lines = [[*columns], ["---"] * len(columns)]
    every = [[escaped(cell) for cell in row] for row in rows]
    lines += every[:MOST_ROWS]
    if len(every) > MOST_ROWS:
        more = f"and {len(every) - MOST_ROWS} more"
        lines.append([more, *[""] * (len(columns) - 1)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def audit_markdown(record: AuditRecord, checks: Sequence[RuleCheck] = ()) -> str:
    """Return the verdict, the accuracies, the ledger and the best remedies.

    Args:
        record: the audit.
        checks: results of rules.

    Returns:
        The text, as Markdown.

    Source: ours, an audit as text, for pull requests and issues.

    >>> from contam.auditing.records import Verdict
    >>> verdict = Verdict(
    ...     cause="healthy", heading="Healthy", sentence="No failure.", reasons=(), steps=())
    >>> record = AuditRecord(
    ...     contam="1.0", model="ResNet", classes=("cow", "camel"), verdict=verdict, sets=())
    >>> audit_markdown(record).splitlines()[0]
    '### Audit of ResNet: healthy'
    """
    verdict = record.verdict
    parts = [
        f"### Audit of {escaped(record.model)}: {escaped(verdict.cause)}",
        f"**{escaped(verdict.heading)}**",
        escaped(verdict.sentence),
        table(("set", "accuracy", "n"), _accuracies(record)),
    ]
    for ledger in record.ledgers:
        parts += _ledger(ledger)
    best = remedies_beyond_chance(record.helps)[:MOST_REMEDIES]
    if best:
        parts += [
            "**What helps**, measured on examples that the repair was not fitted to",
            table(
                ("repair", "OOD set", "OOD accuracy before", "after", "gain", "OOD labels"),
                (
                    (
                        row.name, row.on, percent(row.ood_before), percent(row.ood_after),
                        points(row.gain), str(row.labels),
                    )
                    for row in best
                ),
            ),
        ]  # fmt: skip
    if verdict.missing:
        parts.append("\n".join(f"- missing: {escaped(line)}" for line in verdict.missing))
    return "\n\n".join(filter(None, [*parts, *of_checks(checks)])) + "\n"


def of_checks(checks: Sequence[RuleCheck]) -> list[str]:
    """Return the results of rules as paragraphs, the failures first.

    Args:
        checks: results of rules.

    Source: ours, the checks as a table, for pull requests.

    >>> checks = [RuleCheck("accuracy"), RuleCheck("verdict", failure="The verdict is head.")]
    >>> for paragraph in of_checks(checks):
    ...     print(paragraph)
    **Checks:** 1 of 2 failed
    | check | failure |
    | --- | --- |
    | verdict | The verdict is head. |
    """
    failures = [check for check in checks if check.failure]
    if not checks:
        return []
    title = f"**Checks:** {len(failures)} of {len(checks)} failed"
    if not failures:
        return [title]
    return [title, table(("check", "failure"), ((one.name, one.failure) for one in failures))]


def _accuracies(record: AuditRecord) -> Iterator[tuple[str, str, str]]:
    """The accuracy on each data set, and the first estimate on each without labels."""
    for scores in record.sets:
        overall = scores.overall
        name = set_title(scores.role, scores.name)
        yield name, percent(overall.accuracy), str(overall.count)
    for unlabeled in record.unlabeled:
        for estimate in unlabeled.estimates[:1]:
            about = f"about {percent(estimate.estimate)}, by {estimate.method}"
            yield f"unlabeled {unlabeled.name}", about, str(estimate.n)


def _ledger(ledger: Ledger) -> list[str]:
    """The causes of the loss on an OOD set."""
    rows = ((entry.cause, entry.what, points(entry.points), entry.fix) for entry in ledger.entries)
    return [
        f"**Lost on {escaped(ledger.on)}:** {escaped(points(ledger.loss))}",
        table(("cause", "finding", "accuracy lost", "fix"), rows),
    ]
