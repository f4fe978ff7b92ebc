"""Figures of the pictures, the costs over the plane, and the change of prediction depth."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from contam.experiments.joint_law.claims import MURALI, JointLawResults
from contam.experiments.joint_law.deep import DeepCell
from contam.plots import (
    Figure,
    Panel,
    bars,
    channels_last,
    contact_sheet,
    lines,
    matrix,
    over_seeds,
)
from contam.run import Run

CORRELATION = ("correlation", "correlation with the label")
CONTRAST = ("contrast", "contrast of the background")
"""Fields and titles of axes."""


def draw(run: Run) -> Sequence[Figure]:
    """The pictures, the cost over the plane, its two parts, and the change of depth."""
    results = JointLawResults(run)
    return [_pictures(run, results), _surfaces(results), _parts(results), _depths(results)]


def _pictures(run: Run, results: JointLawResults) -> Figure:
    contrasts, first = results.config.contrasts, results.config.correlations[0]
    rows = [
        channels_last(images)
        for contrast in contrasts
        for images in run.arrays(DeepCell(contrast, first).part(0))["pictures"]
    ]
    names = ", ".join(f"{contrast:g}" for contrast in contrasts)
    return Figure(
        "Digits on backgrounds",
        f"Test pictures at contrasts of {names}, from top to bottom: first as in training, then "
        "with the background subtracted. The digit below determines the class; noise is above it.",
        "ours",
        (contact_sheet(rows, title="As in training, and reversed"),),
    )


def _plane(rows: Any, title: str, y: tuple[str, str], value: tuple[str, str]) -> Panel:
    """A number over correlation and ease."""
    return matrix(rows, title=title, x=CORRELATION, y=y, value=value, wide=False)


def _surfaces(results: JointLawResults) -> Figure:
    deep = over_seeds(results.cells(), ["contrast", "correlation"], "harm")
    panels = [_plane(deep, "Deep networks", CONTRAST, ("harm", "accuracy lost"))]
    rows = [{"networks": "deep"} | row for row in deep]
    for name, title, table in (
        ("two-layer", "Two-layer networks", results.two_layer),
        ("two-layer, predicted", "Two-layer networks, predicted", results.predicted),
    ):
        if len(table):
            losses = table.assign(harm=table.reversed - table.id)
            theory = over_seeds(losses, ["size", "correlation"], "harm")
            size = ("size", "largest background weight")
            panels.append(_plane(theory, title, size, ("harm", "hinge loss gained")))
            rows += [{"networks": name} | row for row in theory]
    about = " Last: what the population model predicts for them." if len(panels) > 2 else ""
    return Figure(
        "What a background costs",
        "First: ID accuracy minus accuracy with reversed backgrounds that are independent of the "
        "label (0.5 is all that networks of two classes can lose). Second: the same as an "
        "increase of the hinge loss, for networks on the data model of the paper. The first column "
        f"is feature contamination, the last a shortcut. Means over seeds.{about}",
        "ours",
        tuple(panels),
        tuple(rows),
    )


def _parts(results: JointLawResults) -> Figure:
    cells = results.cells()
    kinds = {"by_correlation": "the correlation ends", "by_reversal": "the background is reversed"}
    long = [
        {"contrast": row["contrast"], "correlation": row["correlation"], "cost": kind}
        | {"accuracy": row[key], "low": row["low"], "high": row["high"]}
        for key, kind in kinds.items()
        for row in over_seeds(cells, ["contrast", "correlation"], key)
    ]
    panels = tuple(
        lines(
            [row for row in long if row["contrast"] == contrast],
            title=f"Contrast {contrast:g}",
            x=CORRELATION,
            y=("accuracy", "accuracy lost"),
            series=("cost", "lost when"),
            points=True,
        )
        for contrast in results.config.contrasts
    )
    return Figure(
        "Two ways to lose accuracy",
        "Deep networks. The end of the correlation keeps the backgrounds and makes them "
        "independent of the label. Reversal then subtracts them. Bands: range over seeds.",
        "ours",
        panels,
        tuple(long),
    )


def _by_contrast(rows: Any, key: str, column: str) -> list[dict[str, Any]]:
    """A column over contrasts and another field, with the contrasts as names."""
    rows = over_seeds(rows, ["contrast", key], column)
    return [row | {"contrast": f"{row['contrast']:g}"} for row in rows]


def _depths(results: JointLawResults) -> Figure:
    cells = results.cells()
    depths = over_seeds(cells, ["contrast", "correlation"], "depth")
    panels = [_plane(depths, "Mean prediction depth, trained", CONTRAST, ("depth", "probes"))]
    titles = {
        "trained_change": "Change of depth, trained", "untrained_change": "Untrained",
        "calibrated_change": "Calibrated",
    }  # fmt: skip
    rows = []
    for column, title in titles.items():
        change = _by_contrast(cells, "correlation", column)
        panels.append(
            lines(change, title=title, x=CORRELATION,
                  y=(column, "probes, against no background"), series=("contrast", "contrast"),
                  points=True)
        )  # fmt: skip
        rows += change
    none = float(np.mean(results.accuracy("depth", 0.0, 0.0)))
    difficulty = _by_contrast(results.table[~results.table.digits], "state", "depth")
    panels.append(
        bars(difficulty, title="Depth of a background alone", x=("contrast", "contrast"),
             y=("depth", "mean prediction depth (probes)"), series=("state", ""))
    )  # fmt: skip
    return Figure(
        "Where prediction depth shows the harm",
        f"First: mean depth of ID test pictures; without backgrounds it is {none:.2f}. Then: the "
        "change against networks without backgrounds. A decrease is the alarm of the second paper; "
        "untrained networks, as drawn and with calibrated batch norms, show what neighbors in the "
        "pictures decide alone. Last: how hard a background is to learn when nothing else predicts "
        "the label.",
        MURALI,
        tuple(panels),
        tuple([*depths, *rows, *difficulty]),
    )


def summarize(run: Run) -> str:
    """The costs at the corners of the plane and what depth shows there, in two sentences."""
    results = JointLawResults(run)
    easy = results.config.contrasts[-1]
    ends = (results.config.correlations[0], results.config.correlations[-1])
    harm = " and ".join(f"{results.harm(easy, rho).mean():.0%} at {rho:g}" for rho in ends)
    change = " and ".join(f"{results.deepening(easy, rho).mean():+.2f} at {rho:g}" for rho in ends)
    return (
        "At the highest contrast, reversed backgrounds cost this share of the test pictures by "
        f"the background's correlation with the label: {harm}. The mean prediction depth changes "
        f"by this number of probes: {change}."
    )
