"""What a background costs in each cell of the plane, and the claims about it."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch

from contam.experiment import (
    Claim,
    Measure,
    NotJudged,
    Pooled,
    Statement,
    difference,
    judge_all,
)
from contam.experiments.joint_law.config import Config
from contam.experiments.support.untrained_controls import (
    CALIBRATED,
    CONTROLS,
    DRAWN,
    TRAINED,
    strictest,
)
from contam.measures.correlation import spearman
from contam.run import DataFrame, Run

MURALI = "Murali et al. (2023)"
LEARNED = 0.15
"""How far above guessing the ID accuracy of a network that learned is."""
CHANGES = {
    "trained_change": (TRAINED,), "untrained_change": (DRAWN,), "calibrated_change": (CALIBRATED,),
    **{f"beyond_{control}": (TRAINED, control) for control in CONTROLS},
}  # fmt: skip
"""Changes of depth by a background: of trained networks, of untrained ones, and the differences."""
BEYOND = tuple(f"beyond_{control}" for control in CONTROLS)


class JointLawResults:
    """The rows of a run, and what a background costs in each cell of the plane."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        self.two_layer = run.table("theory/").groupby("part", sort=False).tail(1)
        self.predicted = run.table("predicted/")
        self.table = run.table("net/")
        index = ["digits", "state", "contrast", "correlation", "seed"]
        self.deep = self.table.set_index(index).sort_index()

    def accuracy(
        self, column: str, contrast: float, rho: float, *, state: str = TRAINED, digits: bool = True
    ) -> np.ndarray:
        """(seeds,) a column of deep networks.

        Raises:
            NotJudged: the run has no such cell.
        """
        key = (digits, state, contrast, float(rho))
        if key not in self.deep.index:
            raise NotJudged(f"the run has no contrast {contrast:g} at correlation {rho:g}")
        return self.deep.loc[key, column].to_numpy(dtype=float)

    def require_learning(self, contrast: float, rho: float) -> None:
        """Require networks whose ID accuracy is above guessing.

        Raises:
            NotJudged: one did not learn.
        """
        lowest = self.accuracy("id", contrast, rho).min()
        if lowest < 0.5 + LEARNED:
            raise NotJudged(f"a network did not learn: its ID accuracy is {lowest:.2f}")

    def harm(self, contrast: float, rho: float, part: str = "all") -> np.ndarray:
        """(seeds,) ID accuracy that a background costs: by correlation, by reversal, or in all."""
        first, last = {"all": ("id", "reversed"), "correlation": ("id", "randomized"),
                       "reversal": ("randomized", "reversed")}[part]  # fmt: skip
        return self.accuracy(first, contrast, rho) - self.accuracy(last, contrast, rho)

    def deepening(
        self, contrast: float, rho: float, *, states: Sequence[str] = (TRAINED,)
    ) -> np.ndarray:
        """(seeds,) mean depth minus that without a background.

        With two states, trained and a control, it is the first minus the second.
        """
        changes = [
            self.accuracy("depth", contrast, rho, state=state)
            - self.accuracy("depth", 0.0, 0.0, state=state)
            for state in states
        ]
        return changes[0] - sum(changes[1:])

    def deepening_learned(self, contrast: float, rho: float, *, at_least: bool) -> np.ndarray:
        """(seeds,) what of it is learned: beyond the control that supports a claim the least."""
        changes = [self.deepening(contrast, rho, states=CHANGES[key]) for key in BEYOND]
        return strictest(changes, at_least=at_least)

    def loss(self, size: float, rho: float, *, first: str, last: str) -> np.ndarray:
        """(seeds,) difference of two losses of two-layer networks, of `last` minus of `first`."""
        rows = self.two_layer
        rows = rows[(rows["size"] == size) & (rows.correlation == rho)]
        if not len(rows):
            raise NotJudged(f"the run has no size {size:g} at correlation {rho:g}")
        return (rows[last] - rows[first]).to_numpy(dtype=float)

    def prediction_error(self) -> float:
        """Largest |predicted - trained| loss of two-layer networks on a test, means over seeds.

        Raises:
            NotJudged: there are no predictions, or the networks did not learn.
        """
        if not len(self.predicted):
            raise NotJudged("the population model does not cover the two-layer networks")
        losses = ["id", "randomized", "reversed"]
        trained = self.two_layer.groupby(["size", "correlation"])[losses].mean()
        if not trained["id"].max() <= 0.5:
            raise NotJudged("a two-layer network did not learn")
        predicted = self.predicted.set_index(["size", "correlation"])[losses]
        return float((predicted - trained).abs().to_numpy().max())

    def cells(self) -> DataFrame:
        """A row for each deep network on backgrounds: its costs and the change of its depth."""
        table = self.table
        rows = table[table.digits & (table.state == TRAINED) & (table.contrast > 0)]
        rows = rows.assign(
            harm=rows.id - rows.reversed,
            by_correlation=rows.id - rows.randomized,
            by_reversal=rows.randomized - rows.reversed,
        )
        places = list(product(self.config.contrasts, self.config.correlations))
        for column, states in CHANGES.items():
            changes = {place: self.deepening(*place, states=states) for place in places}
            rows[column] = [
                changes[row.contrast, row.correlation][row.seed] for row in rows.itertuples()
            ]
        return rows

    def alarm(self, *, correlated: bool, column: str) -> Pooled:
        """Rank correlation of cost and decrease of depth, with correlated backgrounds or without.

        The decrease is that of trained networks, or what they have beyond an untrained one.

        Raises:
            NotJudged: too few cells, or no network learned.
        """
        cells = self.cells()
        cells = cells[(cells.correlation > 0) if correlated else (cells.correlation == 0)]
        cells = cells[cells[column].notna()]
        accuracy = cells.id.mean()
        if accuracy < 0.5 + LEARNED:
            raise NotJudged(f"the networks did not learn: their ID accuracy is {accuracy:.2f}")
        if len(cells) < 9 or cells.harm.nunique() < 2 or cells[column].nunique() < 2:
            raise NotJudged("there are fewer networks than a correlation needs")
        harm, change = (torch.tensor(cells[key].tolist()) for key in ("harm", column))
        return Pooled(spearman(harm, -change), len(cells), "network")


def _learned(
    number: Callable[..., np.ndarray], rho: float, *, easy: bool = True, **options: object
) -> Measure[JointLawResults]:
    """A number for each seed at the highest or the lowest contrast, of networks that learned."""

    def measure(results: JointLawResults) -> list[float]:
        contrast = results.config.contrasts[-1 if easy else 0]
        results.require_learning(contrast, rho)
        return number(results, contrast, rho, **options).tolist()

    return measure


def _alarm_learned(results: JointLawResults) -> Pooled:
    alarms = [results.alarm(correlated=True, column=column) for column in BEYOND]
    return min(alarms, key=lambda alarm: alarm.value)


def _loss(rho: float, first: str, last: str) -> Measure[JointLawResults]:
    return lambda r: r.loss(1.0, rho, first=first, last=last).tolist()


STATEMENTS = (
    Statement("Two-layer networks: a background that is independent of the label harms", "Thm. 4.3",
              "OOD minus ID hinge loss at correlation 0, weights up to 1",
              _loss(0, "id", "reversed"), low=0.7, high=1.0),
    Statement("Two-layer networks: a shortcut adds harm when its correlation ends", "ours",
              "hinge loss with randomized minus as in training, at correlation 1 minus at 0",
              difference(_loss(1, "id", "randomized"), _loss(0, "id", "randomized")), low=0.05),
    Statement("Two-layer networks: reversal costs more than the end of the correlation, even of a "
              "perfect shortcut", "ours",
              "hinge loss at correlation 1: reversed minus twice randomized plus as in training",
              difference(_loss(1, "randomized", "reversed"), _loss(1, "id", "randomized")),
              low=0.3),
    Statement("The population model predicts the two-layer networks over the whole plane", "ours",
              "largest |predicted - trained| hinge loss over the plane and the three tests, means "
              "over seeds", lambda r: [r.prediction_error()], high=0.03),
    Statement("Deep networks: an easy background that is independent of the label harms",
              "Thm. 4.3", "accuracy that reversal costs at correlation 0, highest contrast",
              _learned(JointLawResults.harm, 0), low=0.15),
    Statement("Deep networks: an easy background that predicts the label harms", MURALI,
              "accuracy that randomized backgrounds cost at correlation 1, highest contrast",
              _learned(JointLawResults.harm, 1, part="correlation"), low=0.3, every_seed=True),
    Statement("Deep networks: a background too faint to see does not harm, even if it predicts the "
              "label", MURALI, "accuracy that reversal costs at correlation 1, lowest contrast",
              _learned(JointLawResults.harm, 1, easy=False), high=0.05),
    Statement("Prediction depth shows the easy shortcut", MURALI,
              "mean depth at correlation 1 and the highest contrast minus without a background, "
              "probes", _learned(JointLawResults.deepening, 1), high=-0.3, every_seed=True),
    Statement("That decrease is a trace of learning", MURALI,
              "the same minus the same of untrained networks, probes",
              _learned(JointLawResults.deepening_learned, 1, at_least=False), high=-0.3,
              every_seed=True),
    Statement("Prediction depth does not show contamination: decisions are later, not earlier",
              "ours", "mean depth at correlation 0 and the highest contrast minus without a "
              "background, probes", _learned(JointLawResults.deepening, 0), low=0.0,
              every_seed=True),
    Statement("They are later beyond untrained networks, too", "ours",
              "the same at correlation 0, minus the same of untrained networks, probes",
              _learned(JointLawResults.deepening_learned, 0, at_least=True), low=0.0,
              every_seed=True),
    Statement("Where background and label are correlated, networks with more harm decide earlier",
              MURALI, "rank correlation of harm and decrease of depth, correlation above 0",
              lambda r: r.alarm(correlated=True, column="trained_change"), low=0.5),
    Statement("They also do beyond untrained networks", MURALI,
              "rank correlation of harm and decrease of depth minus that of untrained networks, "
              "correlation above 0", _alarm_learned, low=0.5),
    Statement("Where they are independent, networks with more harm do not decide earlier", "ours",
              "rank correlation of harm and decrease of depth, correlation 0",
              lambda r: r.alarm(correlated=False, column="trained_change"), high=0.0),
)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """Judge both edges of the plane, and where prediction depth shows the harm."""
    return judge_all(STATEMENTS, JointLawResults(run))
