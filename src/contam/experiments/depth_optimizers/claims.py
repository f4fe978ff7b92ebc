"""What each block of deep networks shows, and the claims about it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from contam.experiment import Claim, Measure, NotJudged, Statement, difference, judge_all
from contam.experiments.depth_optimizers.config import KINDS, NAMES, Config, Kind, Optimizer
from contam.experiments.support.untrained_controls import CONTROLS, DRAWN, TRAINED, strictest
from contam.measures.correlation import spearman
from contam.run import DataFrame, Run

LEARNED: dict[Kind, float] = {"mlp": 0.9, "linear": 0.9, "resnet": 0.5, "vit": 0.5}
"""ID accuracy above which a network has learned; MLPs have two classes, the others ten."""


class DepthResults:
    """The rows of a run."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        self.rows: DataFrame = run.table()

    def deepest(self, kind: Kind, state: str = TRAINED) -> DataFrame:
        """Rows of the deepest networks of a kind, all optimizers.

        Raises:
            NotJudged: there is none.
        """
        rows = self.rows[(self.rows["kind"] == kind) & (self.rows["state"] == state)]
        if rows.empty:
            raise NotJudged(f"the config has no {KINDS[kind]}")
        return rows[rows["blocks"] == rows["blocks"].max()]

    def per_seed(
        self, rows: DataFrame, column: str, block: Literal["first", "last"]
    ) -> list[float]:
        """A column at the first or last block, one number per seed: means over optimizers."""
        at = rows["block"].min() if block == "first" else rows["block"].max()
        return rows[rows["block"] == at].groupby("seed")[column].mean().tolist()


def gained(kind: Kind, column: str, block: Literal["first", "last"]) -> Measure[DepthResults]:
    """What training adds to a column at a block, one number per seed.

    Of the two untrained networks, the one with more of it is subtracted.
    """

    def measure(results: DepthResults) -> list[float]:
        states = results.rows.loc[results.rows["kind"] == kind, "state"].unique()
        after, *before = (
            np.array(results.per_seed(results.deepest(kind, state), column, block))
            for state in (TRAINED, *(control for control in CONTROLS if control in states))
        )
        return strictest([after - values for values in before], at_least=True).tolist()

    return measure


def _over_depth(kind: Kind, column: str) -> Measure[DepthResults]:
    """A column at the last block minus the first, one number per seed."""
    return difference(
        lambda r: r.per_seed(r.deepest(kind), column, "last"),
        lambda r: r.per_seed(r.deepest(kind), column, "first"),
    )


def _between(kind: Kind, column: str, over: Optimizer, under: Optimizer) -> Measure[DepthResults]:
    """A column of the last block with one optimizer minus that with another, per seed."""

    def measure(results: DepthResults) -> list[float]:
        rows = results.deepest(kind)
        values = [
            results.per_seed(rows[rows["optimizer"] == name], column, "last")
            for name in (over, under)
        ]
        if not all(values):
            raise NotJudged(f"the config does not have both {NAMES[over]} and {NAMES[under]}")
        return [a - b for a, b in zip(*values, strict=True)]

    return measure


def _accuracy_drop(kind: Kind) -> Measure[DepthResults]:
    """ID minus OOD accuracy, one number per seed: means over optimizers."""

    def measure(results: DepthResults) -> list[float]:
        rows = results.deepest(kind)
        drops = rows["id_accuracy"] - rows["ood_accuracy"]
        return drops.groupby(rows["seed"]).mean().tolist()

    return measure


def rise_of_background(results: DepthResults) -> list[float]:
    """What training adds to V of the last layer of the deepest MLPs; the smallest of optimizers."""

    def last(state: str) -> DataFrame:
        rows = results.deepest("mlp", state)
        rows = rows[rows["block"] == rows["block"].max()]
        return rows.pivot(index="seed", columns="optimizer", values="V")

    return (last(TRAINED) - last(DRAWN)).min(axis=1).tolist()


def learned_by_linear(results: DepthResults) -> list[float]:
    """Largest |change of V| in training over layers and optimizers of linear MLPs, per seed."""
    keys = ["seed", "optimizer", "block"]
    after, before = (
        results.deepest("linear", state).set_index(keys)["V"] for state in (TRAINED, DRAWN)
    )
    return (after - before).abs().groupby("seed").max().tolist()


def agreement(column: str) -> Measure[DepthResults]:
    """Rank correlation of V / U and a column over layers, depths and optimizers, per seed."""

    def measure(results: DepthResults) -> list[float]:
        results.deepest("mlp")
        rows = results.rows
        rows = rows[(rows["kind"] == "mlp") & (rows["state"] == TRAINED)]
        return [
            spearman(*(torch.tensor(part[name].tolist()) for name in ("contamination", column)))
            for _, part in rows.groupby("seed")
        ]

    return measure


def _claim(
    kind: Kind,
    says: str,
    quantity: str,
    measure: Measure[DepthResults],
    *,
    low: float | None = None,
    high: float | None = None,
) -> Statement:
    """A claim about a kind, if its deepest networks recognize ID images, on average over seeds."""

    def learned(results: DepthResults) -> None:
        scores = results.deepest(kind).groupby("optimizer")["id_accuracy"].mean()
        if not scores.min() >= LEARNED[kind]:
            raise NotJudged(
                f"a network did not learn: the ID accuracy of {KINDS[kind]}s is {scores.min():.2f}"
            )

    return Statement(says, "ours", quantity, measure, low, high, given=learned)


CLAIMS: tuple[Statement, ...] = (
    _claim(
        "mlp", "MLPs learn background in their last layer, with every optimizer",
        "V of the last of the deepest MLP's hidden layers, trained minus untrained, smallest over "
        "optimizers", rise_of_background, low=0.1),
    _claim(
        "mlp", "In MLPs, every layer passes contamination on, and later ones add to it",
        "V / U, last hidden layer minus first, deepest MLP, mean over optimizers",
        _over_depth("mlp", "contamination"), low=0.2),
    _claim(
        "linear", "MLPs without activation functions learn none in any layer",
        "largest change of |V| in training over layers and optimizers, deepest linear MLP",
        learned_by_linear, high=0.1),
    _claim(
        "mlp", "Where features are unknown, the attenuation can stand for V / U",
        "rank correlation of V / U and class-profile attenuation over layers, depths and "
        "optimizers, MLPs", agreement("attenuation"), low=0.5),
    _claim(
        "mlp", "So can the interaction of class and background",
        "rank correlation of V / U and the interaction over layers, depths and optimizers, MLPs",
        agreement("interaction"), low=0.5),
    _claim(
        "mlp", "Untrained networks are no baseline for it: training lowers it while V rises",
        "interaction of class and background at the last layer, trained minus untrained, MLP",
        gained("mlp", "interaction", "last"), high=-0.02),
    _claim(
        "resnet", "Residual networks fail in front of new backgrounds, whatever the optimizer",
        "ID minus OOD accuracy, deepest ResNet, mean over optimizers",
        _accuracy_drop("resnet"), low=0.1),
    _claim(
        "resnet", "Training makes the class response of ResNets depend on the background",
        "interaction of class and background at the last block, trained minus untrained, ResNet",
        gained("resnet", "interaction", "last"), low=0.02),
    _claim(
        "resnet", "In ResNets, the class profile of the last block is attenuated, more than the "
        "first's",
        "class-profile attenuation, last block minus first, ResNet",
        _over_depth("resnet", "attenuation"), low=0.02),
    _claim(
        "vit", "ViTs fail in front of new backgrounds, too",
        "ID minus OOD accuracy, deepest ViT, mean over optimizers",
        _accuracy_drop("vit"), low=0.1),
    _claim(
        "resnet", "The optimizer changes the attenuation of ResNets little",
        "class-profile attenuation at the last block, AdamW minus SGD, ResNet",
        _between("resnet", "attenuation", "adamw", "sgd"), low=-0.2, high=0.2),
)  # fmt: skip
"""What the blocks of deep networks show."""


def claims(run: Run) -> Sequence[Claim]:
    """Judge the table of claims."""
    return judge_all(CLAIMS, DepthResults(run))
