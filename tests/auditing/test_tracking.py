"""Results of an audit in MLflow and W&B.

The stand-ins have the documented signatures of `mlflow`, `MlflowClient` and `wandb.Run`.
"""

import posixpath
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import audit_records
from support.small_audits import small_audit

from contam.auditing.multilabel import MultilabelAudit
from contam.auditing.tracking import tracked_numbers

HOSTILE = audit_records.audit(layers=1, count=10, ood=("../x", "/", "a/b: c", "a_b_ c", "é" * 300))
AUDIT = small_audit(
    {"ID": [True] * 4, "../x": [False] * 4, "a/b: c": [True] * 4, "a_b_ c": [True] * 4},
    lost={"../x": {"head": 1.0}}, helps=HOSTILE.helps,
)  # fmt: skip


def check_metric(name: str, value: float) -> None:
    """MLflow's rules for a metric."""
    assert re.fullmatch(r"[/\w.\- ]{1,250}", name)
    assert posixpath.normpath(name) == name
    assert not name.startswith(("/", ".."))
    assert isinstance(value, float)


class Client:
    """An `MlflowClient`."""

    def __init__(self) -> None:
        self.metrics: dict[str, dict[str, float]] = {}
        self.texts: dict[str, dict[str, str]] = {}
        self.tags: dict[str, dict[str, str]] = {}

    def log_metric(self, run_id: str, key: str, value: float, timestamp=None, step=None) -> None:
        check_metric(key, value)
        self.metrics.setdefault(run_id, {})[key] = value

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.texts.setdefault(run_id, {})[artifact_file] = text

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.tags.setdefault(run_id, {})[key] = value


class Module:
    """The module `mlflow` with an active run."""

    def __init__(self) -> None:
        self.client = Client()

    def MlflowClient(self) -> Client:  # noqa: N802
        return self.client

    def log_metrics(self, metrics: dict[str, float], step=None, synchronous=None,
                    run_id: str | None = None, timestamp=None) -> None:  # fmt: skip
        for key, value in metrics.items():
            self.client.log_metric(run_id or "active", key, value)

    def log_text(self, text: str, artifact_file: str, run_id: str | None = None) -> None:
        self.client.log_text(run_id or "active", text, artifact_file)

    def set_tag(self, key: str, value: str, synchronous=None) -> None:
        self.client.set_tag("active", key, value)


class WandbRun:
    """The result of `wandb.init`."""

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}
        self.artifacts: dict[str, str] = {}

    def log(self, data: dict[str, Any], step=None, commit=None) -> None:
        self.summary |= data

    def log_artifact(self, artifact_or_path: str, name: str = "", type=None, aliases=None) -> None:
        assert re.fullmatch(r"[\w.\-]{1,128}", name)
        self.artifacts[name] = Path(artifact_or_path).read_text("utf-8")


def logged(to: Module | Client, run: str) -> tuple[dict, dict, dict]:
    client = to.client if isinstance(to, Module) else to
    assert client.metrics.keys() == client.texts.keys() == client.tags.keys() == {run}
    return client.metrics[run], client.texts[run], client.tags[run]


CALLS = {
    "the module": (Module(), {}, "active"),
    "the module and a run": (Module(), {"run_id": "r1"}, "r1"),
    "a client": (Client(), {"run_id": "r1"}, "r1"),
}


@pytest.mark.parametrize("case", CALLS)
def test_mlflow_gets_numbers_the_page_and_the_verdict(case):
    to, given, run = CALLS[case]
    AUDIT.log(to, **given)
    metrics, texts, tags = logged(to, run)
    assert metrics == tracked_numbers(AUDIT.evidence)
    assert texts["contam/audit.html"].startswith("<!doctype html>")
    assert tags == {"contam.verdict": AUDIT.verdict.cause}


def test_a_run_of_mlflow_is_logged_through_its_module(monkeypatch):
    module = Module()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    AUDIT.log(SimpleNamespace(info=SimpleNamespace(run_id="r2")))
    assert logged(module, "r2")[0] == tracked_numbers(AUDIT.evidence)


def test_wandb_gets_numbers_the_page_and_the_verdict():
    run = WandbRun()
    AUDIT.log(run)
    expected = tracked_numbers(AUDIT.evidence) | {"contam/verdict": AUDIT.verdict.cause}
    assert run.summary == expected
    assert run.artifacts["contam"].startswith("<!doctype html>")


def test_each_label_has_numbers_of_its_own():
    run = WandbRun()
    MultilabelAudit({"a/b": AUDIT, "green leaf": AUDIT}).log(run)
    assert run.artifacts.keys() == {"contam-a_b", "contam-green-leaf"}
    assert len(run.summary) == 2 * (len(tracked_numbers(AUDIT.evidence)) + 1)


def test_any_name_becomes_a_metric_of_its_own():
    numbers = tracked_numbers(HOSTILE)
    for name, value in numbers.items():
        check_metric(name, value)
    accuracies = [name for name in numbers if name.startswith("contam/accuracy/")]
    assert len(accuracies) == len(HOSTILE.sets)
    # A store of files makes a folder of each part, so no metric may be a folder of another.
    assert not any(other.startswith(f"{name}/") for name in numbers for other in numbers)


def test_other_receivers_are_refused():
    with pytest.raises(ValueError, match="can't log to a list"):
        AUDIT.log([])
    with pytest.raises(ValueError, match="give run_id="):
        AUDIT.log(Client())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_itself_takes_an_audit(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with mlflow.start_run() as run:
        AUDIT.log(mlflow)
        AUDIT.log(run, prefix="later")
    client = mlflow.MlflowClient()
    AUDIT.log(client, run_id=run.info.run_id, prefix="last")
    data = client.get_run(run.info.run_id).data
    assert len(data.metrics) == 3 * len(tracked_numbers(AUDIT.evidence))
    assert data.tags["contam.verdict"] == data.tags["last.verdict"] == AUDIT.verdict.cause
    pages = [file.path for file in client.list_artifacts(run.info.run_id, "contam")]
    assert pages == ["contam/audit.html"]
