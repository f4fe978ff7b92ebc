"""Send the results of an audit to MLflow or W&B; neither is imported here."""

import math
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contam.auditing.records import AuditRecord, Interval

PAGE = "audit.html"
LONGEST = 60
"""Characters of a part of a name; MLflow takes 250 in all."""


def tracked_numbers(record: AuditRecord, prefix: str = "contam") -> dict[str, float]:
    """Return the main numbers of an audit under flat names; accuracies are shares.

    Args:
        record: the audit.
        prefix: first part of every name.

    Returns:
        `PREFIX/accuracy/SET` with the ends of its interval under `accuracy_low` and
        `accuracy_high`, `estimated_accuracy/SET` for sets without labels, `loss/SET` (ID accuracy
        minus OOD accuracy), `lost/SET/CAUSE`, and `gain/SET/REPAIR`.

    Source: ours, the numbers of an audit under fixed names, for experiment trackers.

    >>> from contam.auditing.records import Interval, Score, SetScores, Verdict
    >>> score = Score(correct=9, count=10, accuracy=Interval(value=0.9, low=0.6, high=1.0))
    >>> record = AuditRecord(
    ...     contam="1.0", model="ResNet", classes=("cow", "camel"),
    ...     verdict=Verdict(
    ...         cause="healthy", heading="Healthy", sentence="No failure.", reasons=(), steps=()),
    ...     sets=(SetScores(name="meadow", role="id", overall=score, by_class={}),))
    >>> sorted(tracked_numbers(record).values())
    [0.6, 0.9, 1.0]
    """
    numbers: dict[str, float | None] = {}

    def add(value: float | None, *parts: str) -> None:
        name = base = "/".join([*map(plain, prefix.split("/")), *map(plain, parts)])
        copies = 1
        while name in numbers:
            copies += 1
            name = f"{base} {copies}"
        numbers[name] = value

    def add_interval(value: Interval, what: str, on: str) -> None:
        add(value.value, what, on)
        add(value.low, f"{what}_low", on)
        add(value.high, f"{what}_high", on)

    for scores in record.sets:
        add_interval(scores.overall.accuracy, "accuracy", scores.name)
    for unlabeled in record.unlabeled:
        for estimate in unlabeled.estimates[:1]:
            add(estimate.estimate.value, "estimated_accuracy", unlabeled.name)
    for ledger in record.ledgers:
        add_interval(ledger.loss, "loss", ledger.on)
        for entry in ledger.entries:
            add(entry.points.value, "lost", ledger.on, entry.cause)
    for row in record.helps:
        add(row.gain.value, "gain", row.on, row.name)
    return {k: v for k, v in numbers.items() if v is not None and math.isfinite(v)}


def plain(name: str) -> str:
    """Return a name as a part of a metric's name that MLflow and W&B accept.

    Args:
        name: any text.

    >>> plain("night/fog: 3"), plain("..")
    ('night_fog_ 3', '_')
    """
    text = re.sub(r"[^\w.\- ]", "_", name, flags=re.ASCII)[:LONGEST].strip()
    return text if text.strip(".") else "_"


def track(
    record: AuditRecord, page: str, to: Any, *, run_id: str | None = None, prefix: str = "contam"
) -> None:
    """Log the numbers, the verdict and the page of an audit.

    Args:
        record: the audit.
        page: its page, HTML.
        to: the module `mlflow`, an `MlflowClient`, a run of MLflow, or a run of W&B.
        run_id: the run of MLflow; needed for a client. The module takes its active run by default.
        prefix: first part of every name.

    Source: ours, the numbers of an audit in the trackers that a team has.

    Raises:
        ValueError: `to` is none of these, or the run of a client is missing.

    >>> from contam.auditing.records import Verdict
    >>> verdict = Verdict(cause="healthy", heading="Healthy", sentence="", reasons=(), steps=())
    >>> record = AuditRecord(
    ...     contam="1.0", model="ResNet", classes=("cow", "camel"), verdict=verdict, sets=())
    >>> track(record, "<html></html>", to="mlflow")
    Traceback (most recent call last):
        ...
    ValueError: can't log to a str; expected the module mlflow, an MlflowClient, ...
    """
    numbers = tracked_numbers(record, prefix)
    folder = "/".join(map(plain, prefix.split("/")))
    verdict = record.verdict.cause
    if hasattr(to, "log_artifact") and hasattr(to, "summary"):
        _to_weights_and_biases(to, numbers | {f"{folder}/verdict": verdict}, page, folder)
        return
    run = getattr(getattr(to, "info", None), "run_id", None)
    if run is not None and "mlflow" in sys.modules:
        # A run has no methods to log with; the module that it comes from does.
        to, run_id = sys.modules["mlflow"], run
    tag, file = f"{folder.replace('/', '.')}.verdict", f"{folder}/{PAGE}"
    if hasattr(to, "log_metrics") and hasattr(to, "log_text"):
        active = {} if run_id is None else {"run_id": run_id}
        to.log_metrics(numbers, **active)
        to.log_text(page, file, **active)
        if run_id is None:
            to.set_tag(tag, verdict)
        else:
            to.MlflowClient().set_tag(run_id, tag, verdict)
    elif hasattr(to, "log_metric") and hasattr(to, "log_text"):
        if run_id is None:
            raise ValueError("a client of MLflow needs the run; give run_id=")
        for name, value in numbers.items():
            to.log_metric(run_id, name, value)
        to.log_text(run_id, page, file)
        to.set_tag(run_id, tag, verdict)
    else:
        raise ValueError(
            f"can't log to a {type(to).__name__}; expected the module mlflow, an MlflowClient, a "
            "run of MLflow, or the run that wandb.init returns"
        )


def _to_weights_and_biases(
    run: Any, values: Mapping[str, float | str], page: str, folder: str
) -> None:
    run.log(dict(values))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / PAGE
        path.write_text(page, "utf-8")
        # W&B copies the file before the call returns.
        run.log_artifact(str(path), name=folder.replace("/", "-").replace(" ", "-"), type="audit")
