"""The result of an audit: to read, to save, to show."""

import csv
import html
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from torch import nn

from contam.atomic_files import write_atomically
from contam.auditing.compare import AuditComparison, compare_audits
from contam.auditing.fail_rules import FailRules, RuleCheck, check_audit
from contam.auditing.intervals import percent
from contam.auditing.junit import JUnitSuite, junit
from contam.auditing.markdown import audit_markdown
from contam.auditing.records import (
    FORMAT,
    AuditRecord,
    Interval,
    Ledger,
    SetScores,
    UnlabeledScores,
    Verdict,
    set_title,
)
from contam.auditing.tracking import track
from contam.auditing.what_helps import RepairInputs, best_remedy, remedy_line, repaired
from contam.text_files import read_json

if TYPE_CHECKING:
    import pandas as pd

TO_LABEL = "to_label.csv"
"""File of the unlabeled examples to label first."""
RECORD, SCHEMA = "audit.json", "audit.schema.json"
"""Files of all results, and of their schema."""
TABLES = {"evidence": "evidence.csv", "neurons": "neurons.csv"}
REASONS = 3
"""Reasons that are shown at first."""
GROUPS = 12
"""Groups up to which the text of an audit has the accuracy of each."""


class Audit:
    """The verdict on a network with its evidence.

    The result of `contam.audit` also holds the network and what repairs are fitted to: what its
    head reads of every example, and up to 400 inputs of each data set. A saved audit does not.

    Args:
        evidence: all results.
        repair_inputs: what repairs are fitted to.

    >>> import torch, contam
    >>> x, y = torch.eye(2).repeat(20, 1), torch.arange(40) % 2
    >>> audit = contam.audit(torch.nn.Identity(), id=(x, y), ood=(x.flip(1), y), progress=False)
    >>> [round(part.overall.accuracy.value) for part in audit.evidence.sets]
    [1, 0]
    """

    def __init__(self, evidence: AuditRecord, repair_inputs: RepairInputs | None = None) -> None:
        self.evidence = evidence
        """All results."""
        self._repair_inputs = repair_inputs

    @property
    def verdict(self) -> Verdict:
        """The cause of the largest share of the loss, the reasons, and what to try."""
        return self.evidence.verdict

    def __repr__(self) -> str:
        verdict = self.verdict
        lines = [f"Audit of {self.evidence.model}: {verdict.cause}", verdict.sentence]
        for ledger in self.evidence.ledgers:
            lines.append(f"{100 * ledger.loss.value:.1f} points lost on {ledger.on}:")
            lines += [f"  {text}" for text in ledger_lines(ledger)]
        lines += [f"- {reason}" for reason in verdict.reasons[:REASONS]]
        best = best_remedy(self.evidence.helps)
        lines += [] if best is None else [f"helps most: {remedy_line(best)}"]
        lines += [f"{name}: {text}" for name, text in self._accuracies()]
        lines += self._groups()
        lines += [line for scores in self.evidence.unlabeled for line in _estimate_lines(scores)]
        count = len(self.evidence.left_out)
        lines += [f"not measured: {count}, see .evidence.left_out"] if count else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        escape = html.escape
        reasons = "".join(f"<li>{escape(r)}</li>" for r in self.verdict.reasons[:REASONS])
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>"
            for name, text in self._accuracies()
        )
        ledgers = "".join(
            f"<p>{100 * ledger.loss.value:.1f} points lost on {escape(ledger.on)}:</p>"
            f"<pre>{escape(chr(10).join(ledger_lines(ledger)))}</pre>"
            for ledger in self.evidence.ledgers
        )
        best = best_remedy(self.evidence.helps)
        helps = "" if best is None else f"<p>Helps most: {escape(remedy_line(best))}</p>"
        title = f"Audit of {self.evidence.model}: {self.verdict.cause}"
        return (
            f"<div><strong>{escape(title)}</strong><p>{escape(self.verdict.sentence)}</p>"
            f"{ledgers}<ul>{reasons}</ul>{helps}<table>{rows}</table></div>"
        )

    def _accuracies(self) -> Iterator[tuple[str, str]]:
        for scores in self.evidence.sets:
            accuracy = scores.overall.accuracy
            ends = ""
            if accuracy.low is not None and accuracy.high is not None:
                ends = f" [{accuracy.low:.3f}, {accuracy.high:.3f}]"
            yield (
                set_title(scores.role, scores.name),
                f"accuracy {accuracy.value:.3f}{ends}, n {scores.overall.count}",
            )

    def _groups(self) -> list[str]:
        """A line for each data set and metadata column, or one line where there are many groups."""
        lines: dict[tuple[str, str], list[str]] = {}
        for scores in self.evidence.sets:
            for column, value, score in scores.groups():
                share = f"{value} {score.accuracy.value:.3f} (n {score.count})"
                lines.setdefault((scores.name, column), []).append(share)
        count = sum(map(len, lines.values()))
        if count > GROUPS:
            columns = ", ".join(dict.fromkeys(column for _, column in lines))
            return [f"accuracies by {columns}: {count} groups, see .groups()"]
        return [f"{name} by {column}: " + ", ".join(some) for (name, column), some in lines.items()]

    def groups(self) -> "pd.DataFrame":
        """Return the accuracy on each group of examples that the metadata make.

        Returns:
            Columns `data` (the data set), `column` (of its metadata; `domain` where it has no
            name), `value`, `n`, `accuracy`, and `low` and `high`, the ends of its interval.

        >>> import torch, contam
        >>> x, y = torch.eye(2).repeat(20, 1), torch.arange(40) % 2
        >>> site_and_scanner = torch.stack([y * 0, y * 0], 1)
        >>> site_and_scanner[:10, 0], site_and_scanner[:30, 1] = 1, 1
        >>> audit = contam.audit(
        ...     torch.nn.Identity(), id=(x, y, site_and_scanner), domain=0, progress=False)
        >>> audit.groups()[["column", "value", "n", "accuracy"]].values.tolist()
        [['column 0', '0', 30, 1.0], ['column 0', '1', 10, 1.0], ['column 1', '0', 10, 1.0], \
['column 1', '1', 30, 1.0]]
        """
        import pandas as pd

        rows = [
            (scores.name, column, value, score.count, *_ends(score.accuracy))
            for scores in self.evidence.sets
            for column, value, score in scores.groups()
        ]
        names = ["data", "column", "value", "n", "accuracy", "low", "high"]
        return pd.DataFrame(rows, columns=pd.Index(names))

    def repair(self, name: str, *, on: str | None = None) -> nn.Module:
        """Return a repaired copy of the audited network; the network itself stays as it was.

        The repair is fitted to all examples that the audit kept; its measured effect is in
        `evidence.helps`.

        Args:
            name: name of a repair in `evidence.helps`.
            on: OOD set that the repair is fitted to; by default the first that has it. A repair
                that needs ID data alone is also made where the audit has no OOD set.

        Returns:
            A module that takes and returns what the network does.

        Raises:
            ValueError: the audit was loaded from a folder, or the repair does not fit.

        >>> import torch, contam
        >>> x, y = torch.eye(2).repeat(20, 1), torch.arange(40) % 2
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> audit = contam.audit(model, id=(x, y), ood=(x, y), progress=False)
        >>> audit.repair("fresh head")(torch.eye(2)).argmax(dim=1).tolist()
        [0, 1]
        """
        if self._repair_inputs is None:
            raise ValueError(
                "this audit holds no network to repair; run contam.audit again with remedies=True"
            )
        helps = self.evidence.helps
        sets = [row.on for row in helps if row.name == name and on in (None, row.on)]
        if sets:
            return repaired(self._repair_inputs, name, sets[0])
        without = self._repair_inputs.without_ood() if on is None else ()
        if name in without:
            return repaired(self._repair_inputs, name, None)
        measured = [row.name for row in helps if on in (None, row.on)]
        known = ", ".join(map(repr, dict.fromkeys([*measured, *without]))) or "none"
        where = "" if on is None else f" on {on!r}"
        raise ValueError(f"no repair {name!r}{where}; possible: {known}")

    def records(self) -> list[dict[str, Any]]:
        """Return every number as a flat record, for a table.

        Returns:
            Dicts with `what` was measured, `on` which data set or change, in which `layer` or
            `part` (class, domain, group or encoder), the `value` and the ends of its interval.
        """
        without = (row for one in self.evidence.unlabeled for row in _unlabeled_rows(one))
        return [*_numbers(self.evidence), *without]

    def save(self, folder: str | Path) -> Path:
        """Write `audit.json`, its schema and tables into a folder, each in one piece.

        With sets without labels, `to_label.csv` lists the examples to label first. With its column
        `label` filled in, it is a table that `ood` takes.

        Args:
            folder: where the files are written; it is made if it does not exist.

        Raises:
            ValueError: the folder can't be written.
        """
        folder = Path(folder)
        schema = json.dumps(AuditRecord.model_json_schema(), indent=1, ensure_ascii=False)
        content = {
            SCHEMA: schema + "\n",
            TABLES["evidence"]: _csv(self.records()),
            TABLES["neurons"]: _csv(self._neurons()),
            RECORD: self.evidence.model_dump_json(indent=1) + "\n",
        }
        if self.evidence.unlabeled:
            content[TO_LABEL] = _csv(self._to_label())
        for name, text in content.items():
            write_atomically(folder / name, text.encode())
        return folder

    def _to_label(self) -> list[dict[str, Any]]:
        return [
            {"set": scores.name, "index": one.index, "path": one.path, "predicted": one.predicted,
             "label": ""}
            for scores in self.evidence.unlabeled for one in scores.to_label
        ]  # fmt: skip

    def _neurons(self) -> list[dict[str, Any]]:
        table = self.evidence.neurons
        if table is None:
            return []
        columns = table.model_dump()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def report(self, path: str | Path) -> Path:
        """Write the audit as one HTML page that needs no other file.

        Args:
            path: where the page is written.

        Raises:
            ValueError: the file can't be written.
        """
        from contam.report import audit_page

        write_atomically(Path(path), audit_page(self.evidence).encode())
        return Path(path)

    def compare(self, other: "Audit") -> AuditComparison:
        """Compare this audit with a later one of the same data sets.

        Args:
            other: the later audit, such as that of a repaired network.

        Returns:
            Accuracies with a test of each change, paired where both audits judged the same
            examples, the lost points by cause, and the verdicts.

        Raises:
            ValueError: the audits have other data sets or classes.

        >>> import torch, contam
        >>> x, y = torch.eye(2).repeat(20, 1), torch.arange(40) % 2
        >>> before = contam.audit(torch.nn.Linear(2, 2), id=(x, 1 - y), progress=False)
        >>> after = contam.audit(torch.nn.Identity(), id=(x, 1 - y), progress=False)
        >>> before.compare(after).sets[0].after.correct
        0
        """
        return compare_audits(self.evidence, other.evidence)

    def check(self, rules: FailRules) -> tuple[RuleCheck, ...]:
        """Return the results of rules: one for each OOD set and for each verdict that fails.

        Args:
            rules: the rules.

        Raises:
            ValueError: a rule names a data set that the audit does not have.

        >>> import torch, contam
        >>> from contam.auditing.fail_rules import FailRules
        >>> x, y = torch.eye(2).repeat(20, 1), torch.arange(40) % 2
        >>> audit = contam.audit(
        ...     torch.nn.Identity(), id=(x, y), ood=(x.flip(1), y), progress=False)
        >>> [bool(check.failure) for check in audit.check(FailRules(floor=0.8))]
        [True]
        """
        return check_audit(self.evidence, rules)

    def markdown(self, rules: FailRules | None = None) -> str:
        """Return a summary for a pull request: verdict, accuracies, lost points, best repairs.

        Args:
            rules: rules whose results it shows.

        Raises:
            ValueError: a rule names a data set that the audit does not have.
        """
        return audit_markdown(self.evidence, () if rules is None else self.check(rules))

    def junit(self, rules: FailRules | None = None) -> str:
        """Return JUnit XML with a test case for each OOD set and rule.

        Args:
            rules: rules that fail test cases; without any, all pass.

        Raises:
            ValueError: a rule names a data set that the audit does not have.
        """
        return junit([self.junit_suite(rules or FailRules())])

    def junit_suite(self, rules: FailRules) -> JUnitSuite:
        """Return the checks of this audit with its model, verdict, duration and date.

        Args:
            rules: the rules.
        """
        record = self.evidence
        return JUnitSuite(
            f"contam audit: {record.model}", self.check(rules),
            {"verdict": record.verdict.cause, "contam": record.contam},
            float(record.provenance.get("seconds", 0)),
            record.provenance.get("date", "").partition("+")[0],
        )  # fmt: skip

    def log(self, to: Any, *, run_id: str | None = None, prefix: str = "contam") -> None:
        """Log the main numbers, the verdict and the page to MLflow or W&B.

        Args:
            to: the module `mlflow`, an `MlflowClient`, a run of MLflow, or a run of W&B.
            run_id: the run of MLflow; needed for a client. The module takes its active run by
                default.
            prefix: first part of every name, such as `contam/accuracy/night`.

        Raises:
            ValueError: `to` is none of these, or the run of a client is missing.
        """
        from contam.report import audit_page

        track(self.evidence, audit_page(self.evidence), to, run_id=run_id, prefix=prefix)

    @classmethod
    def load(cls, folder: str | Path) -> "Audit":
        """Read what `save` wrote into a folder.

        Args:
            folder: the folder.

        Raises:
            ValueError: there is no audit, it is damaged, or another version wrote it.
        """
        path = Path(folder) / RECORD
        if not path.is_file():
            raise ValueError(
                f"no {path.name} in {folder}; give the folder that save() or 'contam audit' wrote"
            )
        record = read_json(path)
        version = record.get("format", FORMAT) if isinstance(record, dict) else FORMAT
        if version != FORMAT:
            raise ValueError(
                f"{path} has format {version}, but this version of contam reads format {FORMAT}; "
                "run the audit again"
            )
        try:
            return cls(AuditRecord.model_validate(record))
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            raise ValueError(f"{path} is damaged at {place!r}: {fault['msg']}") from None


def ledger_lines(ledger: Ledger) -> list[str]:
    """Return the entries of a ledger as lines of text.

    Args:
        ledger: the ledger of an OOD set.

    >>> from contam.auditing.records import LostPoints
    >>> entry = LostPoints(
    ...     cause="head", what="a fresh head", how="given back", points=Interval(value=0.25))
    >>> ledger_lines(Ledger(on="city", loss=Interval(value=0.25), entries=(entry,)))
    [' 25.0 points  head: a fresh head (given back)']
    """
    return [
        f"{100 * entry.points.value:5.1f} points  {entry.cause}"
        + (
            ": no test accounts for them"
            if entry.how == "rest"
            else f": {entry.what} ({entry.how})"
        )
        for entry in ledger.entries
        if entry.how != "rest" or entry.points.value >= 0.0005
    ]


def _ends(interval: Interval) -> tuple[float, float | None, float | None]:
    return interval.value, interval.low, interval.high


def _csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV, under the names of the first row's fields."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def _numbers(record: AuditRecord) -> Iterator[dict[str, Any]]:
    for scores in record.sets:
        yield from _set_rows(scores)
    for evidence in record.evidence:
        for number in evidence.numbers:
            what = f"{evidence.cause}: {number.what}"
            yield _row(what, number.value, on=number.on, part=number.part)
    for ledger in record.ledgers:
        yield from _ledger_rows(ledger)
    for row in record.helps:
        for what in ("id_before", "id_after", "ood_before", "ood_after", "gain"):
            yield _row(f"remedy: {what}", getattr(row, what), on=row.on, part=row.name)
    for layer in record.layers:
        for what, value in layer:
            if what not in ("name", "neurons") and value is not None:
                yield from _layer_rows(what, value, layer.name)


def _set_rows(scores: SetScores) -> Iterator[dict[str, Any]]:
    yield _row("accuracy", scores.overall.accuracy, on=scores.name)
    for part, score in [*scores.by_class.items(), *scores.by_domain.items()]:
        yield _row("accuracy", score.accuracy, on=scores.name, part=part)
    for column, by_value in scores.by_group.items():
        for value, score in by_value.items():
            yield _row("accuracy", score.accuracy, on=scores.name, part=f"{column}: {value}")
    if scores.effective_robustness is not None:
        yield _row("effective_robustness", scores.effective_robustness, on=scores.name)


def _ledger_rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    yield _row("ledger: loss", ledger.loss, on=ledger.on)
    for entry in ledger.entries:
        yield _row(f"ledger: {entry.cause}", entry.points, on=ledger.on, part=entry.what)


def _estimate_lines(scores: UnlabeledScores) -> list[str]:
    """Return the estimates on a set without labels, their errors and its findings as lines.

    Args:
        scores: what was measured on the set.
    """
    lines = []
    for row in scores.estimates:
        errors = ", ".join(
            f"{100 * (check.estimate.value - check.accuracy.value):+.1f} on {check.on}"
            for check in scores.checks
            if check.method == row.method and check.accuracy is not None
        )
        lines.append(
            f"UNLABELED {scores.name}: accuracy about {percent(row.estimate)} by {row.method}, "
            f"n {row.n} (error where labels are known, in points: {errors})"
        )
    if scores.variant is not None:
        lines.append(f"{scores.name}: {scores.variant.sentence}")
    if scores.to_label:
        count = f"{len(scores.to_label)} example{'s' if len(scores.to_label) > 1 else ''}"
        lines.append(
            f"{scores.name}: labels of the {count} in .to_label would {scores.labels_would_show}"
        )
    return lines


def _unlabeled_rows(scores: UnlabeledScores) -> Iterator[dict[str, Any]]:
    for row in scores.estimates:
        yield _row("estimated accuracy", row.estimate, on=scores.name, part=row.method)
    for check in scores.checks:
        if check.accuracy is not None:
            error = check.estimate.value - check.accuracy.value
            yield _row("error of the estimated accuracy", error, on=check.on, part=check.method)
    for what, value in (
        ("mean confidence", scores.confidence),
        ("domain classifier, area under the ROC curve", scores.domain_auc),
        ("accuracy with the labels to provide", scores.with_labels),
    ):
        if value is not None:
            yield _row(what, value, on=scores.name)
    for pixel in scores.pixels:
        what = f"pixels: {pixel.statistic}, in ID standard deviations"
        yield _row(what, pixel.difference, on=scores.name, part=pixel.channel)


def _layer_rows(what: str, value: Any, layer: str) -> Iterator[dict[str, Any]]:
    """A number, or numbers by data set; those by class are in the record alone."""
    if not isinstance(value, Mapping):
        yield _row(what, value, layer=layer)
        return
    for on, number in value.items():
        if isinstance(number, Interval | float):
            yield _row(what, number, on=on, layer=layer)


def _row(
    what: str, value: Interval | float, *, on: str = "", layer: str = "", part: str = ""
) -> dict[str, Any]:
    interval = value if isinstance(value, Interval) else Interval(value=value)
    return {"what": what, "on": on, "layer": layer, "part": part} | interval.model_dump()
