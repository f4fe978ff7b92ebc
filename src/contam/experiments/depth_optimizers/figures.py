"""Figures of the measures over the blocks of each network, and of accuracies."""

from collections.abc import Sequence
from typing import Any

import pandas
from scipy.stats import t

from contam.experiment import capitalized
from contam.experiments.depth_optimizers.claims import DepthResults
from contam.experiments.depth_optimizers.config import IMAGE_KINDS, KINDS, NAMES
from contam.experiments.support.untrained_controls import TRAINED
from contam.measures.attenuation import above_one
from contam.plots import Figure, Panel, bars, lines, over_seeds
from contam.run import DataFrame, Run

MEASURES = {
    "V": "V",
    "interaction": "interaction of class and background",
    "attenuation": "class-profile attenuation",
}
"""The measures of a block, and their names."""


def draw(run: Run) -> Sequence[Figure]:
    """The measures over the blocks of each network, and accuracies."""
    rows = DepthResults(run).rows
    rows = rows.assign(what=_series(rows))
    figures = []
    if (rows["kind"] == "mlp").any():
        figures.append(_perceptrons(rows[rows["kind"].isin(["mlp", "linear"])]))
    for kind in IMAGE_KINDS:
        if (rows["kind"] == kind).any():
            figures.append(_blocks_of_images(rows[rows["kind"] == kind], KINDS[kind]))
    of_images = rows[rows["kind"].isin(IMAGE_KINDS)]
    return [*figures, _accuracies(of_images)] if len(of_images) else figures


def _series(rows: DataFrame) -> DataFrame:
    """The name of each row's curve: its optimizer, or its state before training."""
    names = rows["optimizer"].map(NAMES).where(rows["state"] == TRAINED, rows["state"])
    return names.where(rows["kind"] != "linear", "without activation function, " + names)


def _perceptrons(rows: DataFrame) -> Figure:
    """V / U of every layer, and what stands for it in networks for images."""
    trained = rows[rows["state"] == TRAINED]
    mlps, number = rows[rows["kind"] == "mlp"], int(rows["blocks"].max())
    deepest, last = mlps[mlps["blocks"] == number], trained[trained["block"] == trained["blocks"]]
    linear = trained[(trained["kind"] == "linear") & (trained["optimizer"] == "sgd")]
    # V / U is undefined where nothing is learned of the core, as before training.
    compared = pandas.concat([deepest[deepest["state"] == TRAINED], linear])
    x, over = ("block", "hidden layer"), f"by hidden layer of {number}"
    drawn = [
        _curves(compared, x, "contamination", "V / U", over),
        _curves(last[last["kind"] == "mlp"], ("blocks", "number of hidden layers"),
                "contamination", "V / U", "last layer"),
        *(_curves(deepest, x, column, title, over) for column, title in MEASURES.items()),
    ]  # fmt: skip
    return Figure(
        "Where in depth: MLPs on the paper's data",
        "V / U is the background that a layer's neurons have learned per unit of core: the slopes "
        "of their pre-activations, which are the weights of the first layer. The attenuation is "
        "the share of a layer's class signal that is lost on OOD backgrounds; the interaction is "
        "the share of its class response that depends on the background. Bands: 95 % intervals "
        "over seeds.",
        "ours", *_joined(drawn),
    )  # fmt: skip


def _blocks_of_images(rows: DataFrame, name: str) -> Figure:
    """Measures by block of the deepest networks, and of the last block over depths."""
    number = int(rows["blocks"].max())
    deepest = rows[rows["blocks"] == number]
    last = rows[(rows["block"] == rows["blocks"]) & (rows["state"] == TRAINED)]
    drawn = [
        _curves(table, x, column, MEASURES[column], where)
        for column in ("interaction", "attenuation")
        for table, x, where in (
            (deepest, ("block", "block"), f"by block of {number}"),
            (last, ("blocks", "number of blocks"), "last block"),
        )
    ]
    return Figure(
        f"Where in depth: {name}",
        "The interaction is the share of a block's class response that depends on the background. "
        "The attenuation is the share of its class signal that is lost when ID backgrounds are "
        "changed. Bands: 95 % intervals over seeds.",
        "ours",
        *_joined(drawn),
    )


def _joined(
    drawn: Sequence[tuple[Panel, list[dict[str, Any]]]],
) -> tuple[tuple[Panel, ...], tuple[dict[str, Any], ...], tuple[str, ...]]:
    """Panels, all their points, and a note if an attenuation is above 1."""
    shown = tuple(row for _, points in drawn for row in points)
    notes = above_one(point["value"] for point in shown if point["of"] == MEASURES["attenuation"])
    return tuple(panel for panel, _ in drawn), shown, notes


def _curves(
    table: DataFrame, x: tuple[str, str], column: str, title: str, where: str
) -> tuple[Panel, list[dict[str, Any]]]:
    """A panel of a column over `x`, with 95 % intervals, and its points."""
    points = _with_intervals(table, x[0], column)
    panel = lines(points, title=f"{capitalized(title)}, {where}", x=x,
                  y=("value", title), series=("what", ""), points=True)  # fmt: skip
    return panel, [{"of": title} | point for point in points]


def _with_intervals(table: DataFrame, x: str, column: str) -> list[dict[str, Any]]:
    """Means of a column over seeds by network and `x`, with 95 % t intervals."""
    # Before training, the networks of all optimizers are the same.
    table = table.drop_duplicates(["what", "seed", x])
    points = []
    for (name, at), values in table.groupby(["what", x])[column]:
        point = {x: at, "what": name, "value": values.mean()}
        if values.count() > 1:
            half = float(t.ppf(0.975, values.count() - 1) * values.sem())
            point |= {"low": point["value"] - half, "high": point["value"] + half}
        points.append(point)
    return points


def _accuracies(rows: DataFrame) -> Figure:
    """ID and OOD accuracy of every network."""
    trained = rows[(rows["state"] == "trained") & (rows["block"] == 1)]
    shown = [
        {"network": f"{KINDS[row['kind']]}-{row['blocks']}, {NAMES[row['optimizer']]}",
         "where": where, "accuracy": row[column], "low": row["low"], "high": row["high"]}
        for where, column in (("ID", "id_accuracy"), ("OOD", "ood_accuracy"))
        for row in over_seeds(trained, ["kind", "blocks", "optimizer"], column)
    ]  # fmt: skip
    panel = bars(shown, title="Accuracy", x=("network", ""), y=("accuracy", "accuracy"),
                 series=("where", ""), wide=True)  # fmt: skip
    return Figure(
        "Accuracy before and after the shift",
        "The number after the kind of network is that of its blocks. The OOD accuracy is the mean "
        "over five families of new backgrounds. Whiskers: all seeds.",
        "ours", (panel,), tuple(shown),
    )  # fmt: skip


def summarize(run: Run) -> str:
    """V / U by layer of MLPs, and what the last blocks of networks for images depend on."""
    rows = DepthResults(run).rows
    trained = rows[rows["state"] == TRAINED]
    deepest = trained[trained["blocks"] == trained.groupby("kind")["blocks"].transform("max")]
    sentences = []
    layers = deepest[deepest["kind"] == "mlp"].groupby("block")["contamination"].mean()
    if len(layers):
        values = ", ".join(f"{value:.2f}" for value in layers)
        sentences.append(
            f"V / U of MLPs, from the first to the last of {len(layers)} hidden layers, mean over "
            f"optimizers: {values}."
        )
    parts = []
    for kind in IMAGE_KINDS:
        last = deepest[(deepest["kind"] == kind) & (deepest["block"] == deepest["blocks"])]
        for optimizer, group in last.groupby("optimizer"):
            own, ood, share = group[["id_accuracy", "ood_accuracy", "interaction"]].mean()
            parts.append(
                f"{KINDS[kind]}-{group['blocks'].iloc[0]} with {NAMES[optimizer]} {share:.2f} "
                f"(accuracy {own:.0%} ID, {ood:.0%} OOD)"
            )
    if parts:
        sentences.append(
            "Share of the last block's class response that depends on the background, deepest "
            f"networks: {'; '.join(parts)}."
        )
    return " ".join(sentences)
