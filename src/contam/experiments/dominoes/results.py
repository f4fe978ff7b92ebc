"""Results of a dominoes run, read from disk."""

import numpy as np

from contam.experiments.dominoes.cases import Case, Config
from contam.experiments.support.untrained_controls import TRAINED
from contam.run import Run

MURALI = "Murali et al. (2023)"
"""The second paper, as claims and figures name it."""


class DominoesResults:
    """The rows of a run by network, seed and epoch."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        rows = run.table("net/")
        self.information = rows[rows.what == "information"]
        self.counterexamples = rows[rows.what == "counter-examples"].set_index(["case", "seed"])
        snapshots = rows[rows.what == "snapshot"]
        self.snapshots = snapshots.set_index(["case", "seed", "state", "epoch"])
        self.core = Case("alone", self.config.core)
        self.easy, self.hard = (Case("over", self.config.spurious[place]) for place in (0, -1))
        self.easy_contradicted = self.easy._replace(agreement=self.config.agreement)
        self.hard_contradicted = self.hard._replace(agreement=self.config.agreement)
        self.background = Case("background", self.config.core)
        self.easy_core = Case("as core", self.config.spurious[0])

    @property
    def seeds(self) -> range:
        return range(self.config.seeds)

    def values(
        self, case: Case, column: str, epoch: int | None = None, *, state: str = TRAINED
    ) -> np.ndarray:
        """(seeds,) a column of a network's snapshots after an epoch, by default the last.

        Untrained networks have only one snapshot.
        """
        epoch = self.config.epochs if epoch is None else epoch
        keys = [(case.name, seed, state, epoch if state == TRAINED else 0) for seed in self.seeds]
        return self.snapshots[column].loc[keys].to_numpy(dtype=float)

    def alone(self, column: str) -> np.ndarray:
        """(seeds, features) a column of the networks that learned a spurious feature alone."""
        cases = [Case("alone", feature) for feature in self.config.spurious]
        return np.stack([self.values(case, column) for case in cases], axis=1)

    def over(self, column: str) -> np.ndarray:
        """(seeds, features) a column of the networks that learned a feature over the core."""
        cases = [Case("over", feature) for feature in self.config.spurious]
        return np.stack([self.values(case, column) for case in cases], axis=1)

    def order(self, feature: str) -> np.ndarray:
        """(seeds,) -1 if a feature alone is easier than the core, 1 if harder, 0 if unclear.

        The order is clear if the 95 % intervals of the two mean depths do not overlap.
        """
        low, high = (
            self.values(Case("alone", feature), key) for key in ("depth_low", "depth_high")
        )
        core_low, core_high = (self.values(self.core, key) for key in ("depth_low", "depth_high"))
        return (low > core_high).astype(int) - (high < core_low).astype(int)

    def shares(self, case: Case) -> np.ndarray:
        """(seeds, probes) shares of the defined depths at each probe, after training."""
        keys = [(case.name, seed, TRAINED, self.config.epochs) for seed in self.seeds]
        return np.array(self.snapshots["shares"].loc[keys].tolist())

    def bits(self, case: Case, about: str, state: str) -> np.ndarray:
        """(seeds, probes) usable information about `label` or `domain`."""
        rows = self.information
        rows = rows[(rows.case == case.name) & (rows.state == state)]
        return rows.pivot(index="seed", columns="probe", values=about).to_numpy(dtype=float)

    def auc(self, case: Case, score: str) -> np.ndarray:
        """(seeds,) areas under the curve at which a score finds counter-examples."""
        keys = [(case.name, seed) for seed in self.seeds]
        return self.counterexamples[score].loc[keys].to_numpy(dtype=float)
