"""The AUC and the depths of each case, and the claims about them."""

from collections.abc import Sequence

import numpy as np

from contam.experiment import Claim, NotJudged, Statement, judge_all
from contam.experiments.chest_xray.config import Config
from contam.run import Run

MURALI = "Murali et al. (2023)"


class ChestResults:
    """The rows of a run by case, seed and epoch."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        rows = run.table("net/")
        self.rows = rows.set_index(["data", "state", "seed", "epoch"])

    def values(
        self, data: str, column: str, epoch: int | None = None, state: str = "trained"
    ) -> np.ndarray:
        """(seeds,) a column after an epoch, by default and at most the last."""
        keys = self.keys(data, state, epoch)
        if column not in self.rows:
            raise NotJudged("the test has no positive images both with and without a drain")
        return self.rows[column].loc[keys].to_numpy(dtype=float)

    def keys(
        self, data: str, state: str, epoch: int | None = None
    ) -> list[tuple[str, str, int, int]]:
        """The rows of all seeds after an epoch, by default and at most the last."""
        last = int(self.rows.loc[data, state].index.get_level_values("epoch").max())
        at = last if epoch is None else min(epoch, last)
        return [(data, state, seed, at) for seed in range(self.config.seeds)]

    def minus_control(self, column: str, epoch: int | None = None) -> np.ndarray:
        """(seeds,) a column of the network on correlated data minus that of the control."""
        return self.values("correlated", column, epoch) - self.values("control", column, epoch)

    def learned(self, column: str, epoch: int | None = None) -> list[float]:
        """For each seed, `minus_control` minus the same difference of untrained networks."""
        before = self.values("correlated", column, epoch, "untrained")
        before = before - self.values("control", column, epoch, "untrained")
        return (self.minus_control(column, epoch) - before).tolist()

    def heat_learned(self) -> list[float]:
        """For each seed, the share of the heat on drains that training on them adds.

        Raises:
            NotJudged: the images have no masks of their drains, or no heat.
        """
        if "heat" not in self.rows:
            raise NotJudged("files hold no masks of the drains")
        return self.learned("heat")

    def hidden(self) -> list[float]:
        """For each seed, AUC of all minus that of undrained images, minus the control's."""
        both = self.minus_control("auc, as is") - self.minus_control("undrained, as is")
        return both.tolist()


def _independent_test(results: ChestResults) -> None:
    """Require a test set in which drains are independent of the disease."""
    if results.config.kind != "drawn":
        raise NotJudged("files hold no test set in which drains are independent of the disease")


STATEMENTS = (
    Statement("Without help from drains, the disease can be learned", "ours",
              "AUC of the control, drains independent",
              lambda r: r.values("control", "auc, independent").tolist(), low=0.7,
              every_seed=True, given=_independent_test),
    Statement("A network that learns from correlated drains recognizes treated patients better "
              "than untreated ones", MURALI,
              "gap of the AUC, drained minus undrained, minus the control's",
              lambda r: r.minus_control("gap, as is").tolist(), low=0.05, every_seed=True),
    Statement("The AUC over all patients hides it", MURALI,
              "AUC of all minus AUC of undrained patients, minus the control's",
              ChestResults.hidden, low=0.05, every_seed=True),
    Statement("The shortcut harms: where drains are independent of the disease, the AUC is lower "
              "than the control's", MURALI, "AUC, drains independent, control minus correlated",
              lambda r: (-r.minus_control("auc, independent")).tolist(), low=0.05,
              every_seed=True, given=_independent_test),
    Statement("After one epoch, training on correlated drains has moved decisions to early layers",
              MURALI,
              "share of defined depths in the first quarter of the probes, minus the control's, "
              "minus the same untrained", lambda r: r.learned("early", 1), low=0.1,
              every_seed=True),
    Statement("Trained on correlated drains, decisions are made earlier than in the control",
              MURALI, "mean depth minus the control's, minus the same untrained, probes",
              lambda r: r.learned("depth"), high=-0.3, every_seed=True),
    Statement("At the layer where most images are decided, it is the drain that makes ill images "
              "alike", MURALI,
              "share of the heat of the nearest neighbors on the drain, minus the control's, minus "
              "the same untrained", ChestResults.heat_learned, low=0.05, every_seed=True),
)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """Judge whether drains are a shortcut, and whether prediction depth shows it."""
    return judge_all(STATEMENTS, ChestResults(run))
