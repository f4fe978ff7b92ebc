"""Finished runs of experiments."""

from pathlib import Path
from typing import Any

from contam.experiment import Experiment
from contam.run import Run


def run_experiment(experiment: Experiment, config: Any, root: Path) -> Run:
    """The finished run, read from disk; asserts that the progress rises within 0 and 1."""
    with Run.start(root, experiment.name, config) as run:
        progress = [stage.done for stage in experiment.compute(config, run)]
        run.finish()
    assert progress == sorted(progress) and progress[0] >= 0 and progress[-1] <= 1
    return Run.load(run.folder)
