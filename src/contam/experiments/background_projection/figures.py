"""Figures of accuracies over the number of directions, of features and of trainings."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from contam.experiment import capitalized
from contam.experiments.background_projection.claims import (
    ProjectionResults,
    gain_of_features,
    gain_of_training,
)
from contam.experiments.background_projection.config import (
    ARMS,
    ENVIRONMENTS,
    MAIN,
    PAIRS,
    SOURCES,
)
from contam.experiments.support.untrained_controls import TRAINED
from contam.plots import Figure, Panel, lines, over_seeds
from contam.run import DataFrame, Run

ACCURACIES = {"ood_accuracy": "OOD accuracy", "id_accuracy": "ID accuracy"}


def draw(run: Run) -> Sequence[Figure]:
    """Accuracies over the number of directions, of features and of trainings."""
    results = ProjectionResults(run)
    return [_features_figure(results), _trainings_figure(results)]


def _over_directions(
    table: DataFrame, key: str, names: Mapping[str, str], columns: Mapping[str, str], series: str
) -> tuple[tuple[Panel, ...], tuple[dict[str, Any], ...]]:
    """A panel for each column, with a curve over the number of directions for each name.

    Args:
        table: rows of several seeds; all curves start at that without directions.
        key: the field of the curve.
        names: the curves in order, and their names.
        columns: the columns, and their titles.
        series: the field of the name in the rows that are drawn.
    """
    panels, shown = [], []
    for column, title in columns.items():
        rows = []
        for row in over_seeds(table, [key, "directions"], column):
            point = {"directions": row["directions"], "value": row[column], "low": row["low"],
                     "high": row["high"]}  # fmt: skip
            curves = (row[key],) if row[key] in names else names
            rows += [{series: names[curve], **point} for curve in curves]
        order = [*names.values()]
        rows.sort(key=lambda row: (order.index(row[series]), row["directions"]))
        panels.append(
            lines(rows, title=capitalized(title), x=("directions", "directions projected out"),
                  y=("value", title), series=(series, ""), points=True)
        )  # fmt: skip
        shown += [{"of": title} | row for row in rows]
    return tuple(panels), tuple(shown)


def _features_figure(results: ProjectionResults) -> Figure:
    table = results.features[results.features.state == TRAINED]
    width = int(table.width.iloc[0])
    columns = ACCURACIES | {"class_share": "share of the variance between classes"}
    names = {source: source for source in SOURCES}
    return Figure(
        "Directions projected out of features",
        f"The features of a trained network have {width} dimensions. A fresh head is fitted to "
        "what is left of them. The share is that of the variance between class means which lies in "
        "the directions. Bands: all seeds.",
        "ours",
        *_over_directions(table, "source", names, columns, "source"),
    )


def _trainings_figure(results: ProjectionResults) -> Figure:
    return Figure(
        "Directions projected out during training",
        "Networks are trained with gradients of features, or with a first layer, that are blind to "
        "the directions. Without directions, all are the same network. Bands: all seeds.",
        "ours",
        *_over_directions(results.trained, "arm", ARMS, ACCURACIES, "projection"),
    )


def summarize(run: Run) -> str:
    """The accuracies without a projection and with the best one of each kind."""
    results = ProjectionResults(run)
    own, other = (
        results.trained_values("no_change", column).to_numpy().mean()
        for column in ("id_accuracy", "ood_accuracy")
    )
    gains = {
        "features": fmean(gain_of_features(results, PAIRS, MAIN, ENVIRONMENTS)),
        **{name: fmean(gain_of_training(results, arm)) for arm, name in list(ARMS.items())[:3]},
    }
    listed = "; ".join(f"{name} {gain:+.1f}" for name, gain in gains.items())
    return (
        f"Without a projection, accuracy is {own:.0%} ID and {other:.0%} OOD. Change of the OOD "
        f"accuracy at the best number of directions, in points: {listed}."
    )
