"""The part of `contam audit` for continuous integration: rules, comparisons, files and trackers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contam.auditing.compare import AuditComparison
    from contam.auditing.fail_rules import FailRules
    from contam.auditing.multilabel import MultilabelAudit
    from contam.auditing.result import Audit

LOSS = "loss"
"""The word of `--fail-on` for accuracy that a comparison shows to be lost beyond chance."""
PACKAGES = {"mlflow": "mlflow-skinny", "wandb": "wandb"}
"""What to install for `--log`."""


def fail_rules(fail_on: str | None, fail_below: Sequence[str]) -> "FailRules":
    """Return the rules of `--fail-on` and `--fail-below`.

    Args:
        fail_on: verdicts, separated by commas, and `loss`.
        fail_below: `ACCURACY` for every OOD set, and `SET=ACCURACY`.

    Raises:
        ValueError: there is no such verdict, or an accuracy is not a share.

    >>> fail_rules("head, loss", ["0.8", "night=0.7"])
    FailRules(verdicts=('head',), floor=0.8, floors={'night': 0.7}, loss=True)
    """
    from contam.auditing.fail_rules import ANY, FailRules

    words = [word for word in (word.strip() for word in (fail_on or "").split(",")) if word]
    floors: dict[str, float] = {}
    for entry in fail_below:
        name, _, number = entry.rpartition("=")
        try:
            floors[name] = float(number)
        except ValueError:
            raise ValueError(
                f"--fail-below {entry}: expected ACCURACY or SET=ACCURACY, such as night=0.8"
            ) from None
    floor = floors.pop("", None)
    verdicts = tuple(word for word in words if word != LOSS)
    return FailRules(verdicts, floor, floors, loss=LOSS in words or ANY in words)


def check_before_audit(
    fail_on: str | None, rules: "FailRules", sets: Sequence[tuple[str | None, Any]], log: str | None
) -> None:
    """Raise an error for flags that would otherwise fail after the audit.

    Args:
        fail_on: the value of `--fail-on`.
        rules: the rules.
        sets: names, or None, and data of the sets.
        log: the value of `--log`.

    Raises:
        ValueError: `--fail-on loss` has nothing to compare, `--fail-below` names another data set,
            or the package to log to is not installed.
    """
    if LOSS in [word.strip() for word in (fail_on or "").split(",")]:
        raise ValueError("--fail-on loss needs two audits; give --compare")
    names = [name or getattr(data, "name", None) or Path(str(data)).name for name, data in sets]
    # A set has its role before its name if another set has the same name.
    floors = {name: value for name, value in rules.floors.items() if ": " not in name}
    replace(rules, floors=floors).check_sets(names)
    if log is not None and find_spec(log) is None:
        raise ValueError(f"--log {log}: is not installed; run pip install {PACKAGES[log]}")


def compare_saved(
    before: Path, after: Path, rules: "FailRules", *, junit: Path | None, markdown: Path | None,
    as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Print what changed between two saved audits, and return the exit code.

    Args:
        before: folder of the first audit.
        after: folder of the second audit.
        rules: rules for the second.
        junit: file for JUnit XML.
        markdown: file for a summary.
        as_json: print JSON instead of text.
        quiet: print nothing.

    Raises:
        ValueError: a folder has no audit, or the audits have other data sets or classes.
    """
    from contam.auditing.multilabel import SUMMARY
    from contam.auditing.result import Audit

    for folder in (before, after):
        if (folder / SUMMARY).is_file():
            raise ValueError(f"{folder} has an audit for each label; give the folder of one label")
    comparison = Audit.load(before).compare(Audit.load(after))
    rules.check_sets([one.name for one in comparison.sets])
    if as_json:
        first, second = (
            {"model": record.model, "verdict": record.verdict.cause}
            for record in (comparison.before, comparison.after)
        )
        content = {"before": first, "after": second, "changes": comparison.records()}
        print(json.dumps(content, indent=1))
    elif not quiet:
        print(comparison)
    return write_reports(
        comparison, rules, junit=junit, markdown=markdown, quiet=quiet or as_json
    )  # fmt: skip


def write_reports(
    result: "Audit | MultilabelAudit | AuditComparison", rules: "FailRules", *,
    junit: Path | None, markdown: Path | None, quiet: bool,
) -> int:  # fmt: skip
    """Write the files for CI, print the failures of rules, and return the exit code.

    Args:
        result: an audit or a comparison.
        rules: the rules.
        junit: file for JUnit XML.
        markdown: file for a summary.
        quiet: print nothing.

    Raises:
        ValueError: a file can't be written.
    """
    from contam.atomic_files import write_atomically

    failures = [check.failure for check in result.check(rules) if check.failure]
    if junit is not None:
        write_atomically(junit, result.junit(rules).encode())
    if markdown is not None:
        write_atomically(markdown, result.markdown(rules).encode())
    if not quiet:
        for failure in failures:
            print(f"failed: {failure}")
    return 1 if failures else 0


def log_result(result: "Audit | MultilabelAudit", log: str) -> None:
    """Log an audit to a new run of MLflow or W&B.

    Both packages read their own environment variables, such as `MLFLOW_TRACKING_URI`.

    Args:
        result: the audit.
        log: `mlflow` or `wandb`.

    Raises:
        ValueError: the package reports an error; one line.
    """
    try:
        module = import_module(log)
        run = module.start_run() if log == "mlflow" else module.init(job_type="audit")
        with run:
            result.log(module if log == "mlflow" else run)
    except Exception as error:  # any error of another package; the audit is saved already
        message = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"--log {log}: {message[:300]}") from error
