"""What an audit found, as its user holds it: to read, to save, to show."""

import csv
import html
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contam.auditing.records import FORMAT, AuditRecord, Interval, Verdict
from contam.auditing.verdict import NAMES
from contam.run import write_atomically

RECORD, SCHEMA = "audit.json", "audit.schema.json"
"""All that was found, and the form that it has."""
TABLES = {"evidence": "evidence.csv", "neurons": "neurons.csv"}
REASONS = 3
"""So many reasons are told at once."""


class Audit:
    """A verdict on a network, with the evidence for it; it holds no network and no data."""

    def __init__(self, evidence: AuditRecord) -> None:
        self.evidence = evidence
        """Everything that was found."""

    @property
    def verdict(self) -> Verdict:
        """The cause that comes first, why, and what to try."""
        return self.evidence.verdict

    def __repr__(self) -> str:
        lines = [f"Audit of {self.evidence.model}: {self._cause()}", self.verdict.sentence]
        lines += [f"- {reason}" for reason in self.verdict.reasons[:REASONS]]
        lines += [f"{name}: {told}" for name, told in self._accuracies()]
        left = len(self.evidence.left_out)
        lines += [f"left out: {left}, see .evidence.left_out"] if left else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        said = html.escape
        reasons = "".join(f"<li>{said(r)}</li>" for r in self.verdict.reasons[:REASONS])
        rows = "".join(
            f"<tr><td>{said(name)}</td><td>{said(told)}</td></tr>"
            for name, told in self._accuracies()
        )
        return (
            f"<div><strong>Audit of {said(self.evidence.model)}: {said(self._cause())}</strong>"
            f"<p>{said(self.verdict.sentence)}</p><ul>{reasons}</ul><table>{rows}</table></div>"
        )

    def _cause(self) -> str:
        cause = self.verdict.cause
        return f"{cause}, {NAMES[cause]}"

    def _accuracies(self) -> Iterator[tuple[str, str]]:
        for each in self.evidence.sets:
            found = each.overall.accuracy
            yield (
                f"{each.role.upper()} {each.name}",
                f"accuracy {found.value:.3f}{_ends(found)}, n {each.overall.count}",
            )

    def records(self) -> list[dict[str, Any]]:
        """Every number as a flat record, as a table wants it.

        `what` was measured, `on` which data set (or under which change), in which `layer` or `part`
        (a class or a domain), with both ends of its interval where there is one.
        """
        return list(_numbers(self.evidence))

    def save(self, folder: str | Path) -> Path:
        """Write `audit.json`, its schema and two tables into a folder, each whole or not at all.

        Raises:
            ValueError: the folder can't be written.
        """
        folder = Path(folder)
        schema = json.dumps(AuditRecord.model_json_schema(), indent=1, ensure_ascii=False)
        content = {
            SCHEMA: schema + "\n",
            TABLES["evidence"]: _table(self.records()),
            TABLES["neurons"]: _table(self._neurons()),
            RECORD: self.evidence.model_dump_json(indent=1) + "\n",
        }
        for name, text in content.items():
            write_atomically(folder / name, text.encode())
        return folder

    def _neurons(self) -> list[dict[str, Any]]:
        table = self.evidence.neurons
        if table is None:
            return []
        columns = {
            name: values for name, values in table.model_dump().items() if isinstance(values, tuple)
        }
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def report(self, path: str | Path) -> Path:
        """Write one HTML page that needs nothing else.

        Raises:
            ValueError: the file can't be written.
        """
        from contam.report import audit_page

        write_atomically(Path(path), audit_page(self.evidence).encode())
        return Path(path)

    @classmethod
    def load(cls, folder: str | Path) -> "Audit":
        """What `save` wrote into a folder.

        Raises:
            ValueError: there is none, it is damaged, or it comes from a newer version.
        """
        path = Path(folder) / RECORD
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"no audit in {folder}: {path.name} can't be read ({error}); give the folder that "
                "save() or 'contam audit' wrote"
            ) from None
        try:
            written = json.loads(text)
            newer = isinstance(written, dict) and written.get("format", 0) > FORMAT
        except (json.JSONDecodeError, TypeError):
            raise ValueError(f"{path} is no JSON; audit again") from None
        if newer:
            raise ValueError(
                f"{path} has format {written['format']} and this contam reads {FORMAT}; take a "
                "newer one"
            )
        try:
            return cls(AuditRecord.model_validate_json(text))
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            raise ValueError(f"{path} is damaged at {place!r}: {fault['msg']}") from None


def _ends(found: Interval) -> str:
    if found.low is None or found.high is None:
        return ""
    return f" [{found.low:.3f}, {found.high:.3f}]"


def _table(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV, under the names of the first one's fields."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def _numbers(found: AuditRecord) -> Iterator[dict[str, Any]]:
    for each in found.sets:
        yield _row("accuracy", each.overall.accuracy, on=each.name)
        for part, scores in [*each.by_class.items(), *each.by_domain.items()]:
            yield _row("accuracy", scores.accuracy, on=each.name, part=part)
        if each.effective_robustness is not None:
            yield _row("effective_robustness", each.effective_robustness, on=each.name)
    for layer in found.layers:
        for what, value in layer:
            if what not in ("name", "neurons") and value is not None:
                yield from _rows(what, value, layer=layer.name)
    if found.head is not None:
        for what, value in found.head:
            yield from _rows(f"head_{what}", value)
    for oracle in found.oracles:
        yield from _rows("oracle", oracle.accuracy, part=oracle.encoder)
    if found.background_only is not None:
        yield _row("background_only", found.background_only.accuracy)
    if found.background_label is not None:
        yield _row("background_label_bits", found.background_label.bits)


def _rows(what: str, value: Any, *, layer: str = "", part: str = "") -> Iterator[dict[str, Any]]:
    """A number, or numbers by data set; those by class are in the record alone."""
    if not isinstance(value, Mapping):
        yield _row(what, value, layer=layer, part=part)
        return
    for on, each in value.items():
        if isinstance(each, Interval | float):
            yield _row(what, each, on=on, layer=layer, part=part)


def _row(
    what: str, value: Interval | float, *, on: str = "", layer: str = "", part: str = ""
) -> dict[str, Any]:
    known = value if isinstance(value, Interval) else Interval(value=value)
    return {"what": what, "on": on, "layer": layer, "part": part} | known.model_dump()
