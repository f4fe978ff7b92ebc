"""What the projections change, and the claims about it."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from contam.experiment import Claim, Measure, NotJudged, Statement, judge_all
from contam.experiments.background_projection.config import (
    ENVIRONMENTS,
    MAIN,
    PAIRS,
    RANDOM,
    Config,
)
from contam.experiments.support.untrained_controls import CONTROLS
from contam.run import DataFrame, Run

FEW = 8
"""Directions at which the share of the variance between classes is judged."""
LEARNED = 0.5
"""ID accuracy from which on a network has learned its ten classes."""


class ProjectionResults:
    """The accuracies with every projection."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        self.trained: DataFrame = run.table("trained/").sort_values("seed")
        self.features: DataFrame = run.table("features/").sort_values("seed")

    def feature_values(self, source: str, column: str, state: str = "trained") -> DataFrame:
        """A column of the projected features, with a row per seed and a column per number."""
        table = self.features
        table = table[(table.source == source) & (table.state == state)]
        return table.pivot(index="seed", columns="directions", values=column)

    def trained_values(self, arm: str, column: str) -> DataFrame:
        """A column of the trainings, with a row per seed and a column per number of directions."""
        table = self.trained[self.trained.arm == arm]
        return table.pivot(index="seed", columns="directions", values=column)


def _points(values: Any) -> list[float]:
    return (100 * values).tolist()


def gain_of_features(results: ProjectionResults, *sources: str) -> list[float]:
    """The gain in OOD accuracy at the best number of directions, that of the mean over seeds.

    Args:
        results: the accuracies.
        sources: where the directions come from; the best one counts.

    Source: ours, in points.
    """
    before = results.feature_values("nothing", "ood_accuracy")[0]
    gains = [
        results.feature_values(source, "ood_accuracy").sub(before, axis=0) for source in sources
    ]
    curves = [gain[gain.mean().idxmax()] for gain in gains]
    return _points(max(curves, key=lambda curve: curve.mean()))


def gain_of_training(results: ProjectionResults, arm: str) -> list[float]:
    """The gain in OOD accuracy of a training at its best number of directions.

    Source: ours, in points.
    """
    before = results.trained_values("no_change", "ood_accuracy")[0]
    gains = results.trained_values(arm, "ood_accuracy").sub(before, axis=0)
    return _points(gains[gains.mean().idxmax()])


def _trained_cost(results: ProjectionResults) -> list[float]:
    """ID accuracy without a change minus that of trainings without most gradients, the larger."""
    before = results.trained_values("no_change", "id_accuracy")[0]
    costs = []
    for arm in ("gradients", "environment_gradients"):
        values = results.trained_values(arm, "id_accuracy")
        costs.append(before - values[values.columns.max()])
    return _points(max(costs, key=lambda cost: cost.mean()))


def _extra_cost(results: ProjectionResults) -> list[float]:
    """ID accuracy with random directions minus that with as many of pairs, at half the width."""
    width = int(results.features.width.iloc[0])
    half = _nearest(results.config.directions, width // 2)
    random, main = (results.feature_values(one, "id_accuracy")[half] for one in (RANDOM, MAIN))
    return _points(random - main)


def _nearest(counts: Sequence[int], to: int) -> int:
    return min(counts, key=lambda count: abs(count - to))


def _class_share(against: Literal["random", "untrained"]) -> Measure[ProjectionResults]:
    """The class share of a few main directions minus that of random ones, or untrained.

    Of the two untrained networks, it is the one whose share differs most.
    """

    def measure(results: ProjectionResults) -> list[float]:
        few = _nearest(results.config.directions, FEW)
        trained = results.feature_values(MAIN, "class_share")[few]
        if against == "random":
            return (trained - results.feature_values(RANDOM, "class_share")[few]).tolist()
        differences = np.stack([
            trained - results.feature_values(MAIN, "class_share", state)[few] for state in CONTROLS
        ])  # fmt: skip
        largest = np.abs(differences).argmax(axis=0)
        return differences[largest, range(len(trained))].tolist()

    return measure


def _change_by_patches(results: ProjectionResults) -> list[float]:
    """The OOD accuracy without 16 directions of patches, minus that without 16 random ones."""
    count = _nearest(results.config.patches, 16)
    patches, random = (
        results.trained_values(arm, "ood_accuracy")[count] for arm in ("patches", "random_patches")
    )
    return _points(patches - random)


def _learned(results: ProjectionResults) -> None:
    """Require that the network without a change has learned."""
    score = results.trained_values("no_change", "id_accuracy").to_numpy().mean()
    if not score >= LEARNED:
        raise NotJudged(f"the network did not learn: its ID accuracy is {score:.2f}")


def _claim(
    says: str,
    quantity: str,
    measure: Measure[ProjectionResults],
    *,
    low: float | None = None,
    high: float | None = None,
) -> Statement:
    """A claim about the network, if it learned."""
    return Statement(says, "ours", quantity, measure, low, high, given=_learned)


CLAIMS: tuple[Statement, ...] = (
    _claim(
        "Features without the span of counterfactual pairs or environments are not better OOD",
        "gain in OOD accuracy of features at the best number of directions, points",
        lambda r: gain_of_features(r, PAIRS, MAIN, ENVIRONMENTS), high=3.0),
    _claim(
        "Projecting background directions out costs ID accuracy, more than random directions",
        "ID accuracy without random directions minus that without main directions of "
        "pairs, half of all directions, points", _extra_cost, low=5.0),
    _claim(
        "The directions of the background are also directions of the classes",
        f"share of the variance between class means in {FEW} main directions of pairs minus that "
        "in random ones", _class_share("random"), low=0.3),
    _claim(
        "They already are in untrained networks",
        f"share of the variance between class means in {FEW} main directions of pairs, trained "
        "minus the untrained network that differs most", _class_share("untrained"),
        low=-0.1, high=0.1),
    _claim(
        "No gradient along the background's directions does not help",
        "gain in OOD accuracy of trainings at the best number of directions, points",
        lambda r: gain_of_training(r, "gradients"), high=3.0),
    _claim(
        "Nor does it along directions in which two environments differ",
        "gain in OOD accuracy of trainings at the best number of directions, two environments, "
        "points", lambda r: gain_of_training(r, "environment_gradients"), high=3.0),
    _claim(
        "Blocked gradients cost little ID accuracy, since the head still reads all features",
        "ID accuracy without a change minus that without gradients along the most "
        "directions, pairs or environments, points", _trained_cost, high=10.0),
    _claim(
        "A first layer that is blind to the background's directions of patches fails more OOD",
        "change of OOD accuracy against as many random directions, points",
        _change_by_patches, high=-3.0),
)  # fmt: skip
"""The remedy of the theory does not carry over; the claims say where it fails."""


def claims(run: Run) -> Sequence[Claim]:
    """Judge the table of claims."""
    return judge_all(CLAIMS, ProjectionResults(run))
