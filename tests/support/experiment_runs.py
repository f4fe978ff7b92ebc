"""Finished runs of experiments."""

import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock

from contam.experiment import Experiment
from contam.experiments.support.model_zoo import STORE
from contam.run import Run


def run_experiment(experiment: Experiment, config: Any, root: Path) -> Run:
    """The finished run, read from disk; asserts that the progress rises within 0 and 1."""
    with Run.start(root, experiment.name, config) as run:
        progress = [stage.done for stage in experiment.compute(config, run)]
        run.finish()
    assert progress == sorted(progress) and all(0 <= done <= 1 for done in progress)
    return Run.load(run.folder)


class SharedRuns:
    """Finished runs that all test processes share: each is computed once, by the first to ask."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[tuple[str, str], Path] = {}

    def run(self, experiment: Experiment, config: Any) -> Run:
        """The finished run of a config; experiments on the same networks wait for each other."""
        key = experiment.name, config.model_dump_json()
        if key not in self._folders:
            with self._lock("networks" if hasattr(config, "networks") else experiment.name):
                self._folders[key] = run_experiment(experiment, config, self.root).folder
        return Run.load(self._folders[key])

    def smoke(self, experiment: Experiment) -> Run:
        return self.run(experiment, experiment.presets["smoke"])

    def copy_networks(self, root: Path) -> None:
        """Give another root the networks that have been trained here."""
        with self._lock("networks"):
            shutil.copytree(self.root / STORE, root / STORE)

    def _lock(self, name: str) -> FileLock:
        return FileLock(self.root / f"{name}.lock")
