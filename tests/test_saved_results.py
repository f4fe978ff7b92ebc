"""`contam.load` opens every folder of results by what it holds."""

import pytest
from pydantic import BaseModel
from support.small_audits import small_audit

import contam
from contam.auditing.result import Audit
from contam.run import Run


class Config(BaseModel):
    seeds: int = 1


def test_runs_trials_and_audits_are_opened_as_what_they_are(tmp_path):
    with Run.start(tmp_path, "toy", Config()) as run:
        run.write("seed0", [{"accuracy": 0.5}])
    loaded = contam.load(run.folder)
    assert isinstance(loaded, Run) and loaded.table("seed").accuracy.tolist() == [0.5]
    audit = small_audit({"id": [True] * 8, "fog": [True, False] * 4})
    opened = contam.load(str(audit.save(tmp_path / "audit")))
    assert isinstance(opened, Audit) and opened.evidence == audit.evidence
    with (
        Run.start(tmp_path, "trial", Config()) as trial,
        pytest.raises(ValueError, match="no arm is trained yet"),
    ):
        contam.load(trial.folder)


def test_a_folder_without_results_is_reported_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="has no run\\.json and no audit\\.json"):
        contam.load(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        contam.load(tmp_path / "absent")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json"):
        contam.load(tmp_path)
