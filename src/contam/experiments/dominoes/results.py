"""What a run found in networks that learned dominoes, read from disk."""

import statistics

import numpy as np

from contam.experiments.dominoes.cases import Case, Config
from contam.run import Run

SECOND = "Murali et al. (2023)"
"""The second paper, as claims and figures name it."""


class Seen:
    """The run's rows by network, seed and epoch."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        self.seeds = range(self.config.seeds)
        self.rows = [row for part in run.parts("net/") for row in run.read(part)]
        self.core = Case("alone", self.config.core)
        self.easy, self.hard = (Case("over", self.config.spurious[place]) for place in (0, -1))
        self.rare = self.easy._replace(agreement=self.config.agreement)
        self.rare_hard = self.hard._replace(agreement=self.config.agreement)
        self.background = Case("background", self.config.core)
        self._looks = {
            (row["case"], row["seed"], row["epoch"]): row
            for row in self.rows
            if row["what"] == "look"
        }

    def each(self, case: Case, key: str, epoch: int | None = None) -> list[float]:
        """One number a seed, at the end or after an epoch; nan where it is not defined."""
        when = self.config.epochs if epoch is None else epoch
        found = [self._looks[case.name, seed, when][key] for seed in self.seeds]
        return [float("nan") if value is None else value for value in found]

    def mean(self, case: Case, key: str, epoch: int | None = None) -> float:
        return statistics.fmean(self.each(case, key, epoch))

    def over(self, key: str) -> np.ndarray:
        """(seeds, cues): a number of the networks that learned a cue over the core."""
        table = [self.each(Case("over", cue), key) for cue in self.config.spurious]
        return np.array(table).T

    def alone(self, key: str) -> np.ndarray:
        """(seeds, cues): the same of those that learned a cue alone."""
        table = [self.each(Case("alone", cue), key) for cue in self.config.spurious]
        return np.array(table).T

    def bits(self, case: Case, about: str, state: str) -> np.ndarray:
        """(seeds, probes) what neighbors read."""
        rows = [
            row
            for row in self.rows
            if row["what"] == "information" and (row["case"], row["state"]) == (case.name, state)
        ]
        rows.sort(key=lambda row: (row["seed"], row["probe"]))
        return np.array([row[about] for row in rows]).reshape(len(self.seeds), -1)

    def found(self, case: Case, where: str) -> list[float]:
        """Areas under the curve of counter-examples, one a seed."""
        rows = [r for r in self.rows if (r["what"], r["case"]) == ("counter-examples", case.name)]
        return [row[where] for row in sorted(rows, key=lambda row: row["seed"])]

    def shares(self, case: Case) -> np.ndarray:
        """(seeds, probes): shares of the ID test that are decided at each probe, at the end."""
        return np.array(
            [self._looks[case.name, s, self.config.epochs]["shares"] for s in self.seeds]
        )
