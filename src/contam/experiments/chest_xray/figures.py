"""Figures of pictures, the AUC by group, depths, and what neighbors share."""

from collections.abc import Sequence

import numpy as np

from contam.experiments.chest_xray.claims import MURALI, ChestResults
from contam.experiments.chest_xray.config import CASES
from contam.plots import (
    Figure,
    bars,
    channels_last,
    contact_sheet,
    heat_maps,
    histogram,
    over_seeds,
    tile_row,
)
from contam.run import Run

DATA = ("correlated", "control")
"""What the networks learned from."""


def draw(run: Run) -> Sequence[Figure]:
    """Pictures, AUC by group, and the distribution of depths."""
    results = ChestResults(run)
    return [*_pictures(run), _auc(results), _depths(results), *_heat(run, results)]


def _pictures(run: Run) -> list[Figure]:
    shown = run.arrays(CASES[0].part(0))["pictures"]
    if not shown.numel():
        return []
    rows = [channels_last(kind) for kind in shown]
    return [Figure(
        "Test images", "Rows: ill with a drain, ill without, healthy with a drain, healthy "
        "without.", "ours", (contact_sheet(rows, title="Test images"),),
    )]  # fmt: skip


def _auc(results: ChestResults) -> Figure:
    names = {"drained": "ill with drain", "undrained": "ill without", "auc": "all ill"}
    rows = [
        {"network": data, "patients": name, "AUC": value}
        for data in DATA
        for key, name in names.items()
        if f"{key}, as is" in results.rows
        for value in results.values(data, f"{key}, as is")
    ]
    means = over_seeds(rows, ["network", "patients"], "AUC")
    return Figure(
        "AUC by group", "Ill patients of each group against all healthy ones, on the test in which "
        "drains are correlated with the disease. The control learned from data in which they are "
        "not. Bars: mean over seeds; whiskers: all seeds.", MURALI,
        (bars(means, title="AUC by group", x=("network", "training data"), y=("AUC", "AUC"),
              series=("patients", "")),), tuple(means),
    )  # fmt: skip


def _depths(results: ChestResults) -> Figure:
    panels, table = [], []
    for title, state, epoch in (("Untrained", "untrained", None), ("After one epoch", "trained", 1),
                                ("After training", "trained", None)):  # fmt: skip
        samples = {}
        for data in DATA:
            keys = results.keys(data, state, epoch)
            shares = np.mean(results.rows["shares"].loc[keys].tolist(), axis=0)
            counts = np.rint(10_000 * shares).astype(int)
            samples[data] = np.repeat(np.arange(len(shares)), counts).astype(float)
        edges = np.arange(len(shares) + 1) - 0.5
        if any(map(len, samples.values())):
            chart, bins = histogram(samples, title=title, x="prediction depth, probes",
                                    edges=edges, y="share of defined depths")  # fmt: skip
            panels.append(chart)
            table += [{"state": title} | row for row in bins]
    return Figure(
        "Prediction depth", f"Depth by the rule for chest X-rays: {results.config.rule.k} "
        "neighbors, an uncertain band, maps resized to 8 x 8. A peak at low depths is the alarm of "
        "the published procedure. The untrained networks show what the data alone decide.",
        MURALI, tuple(panels), tuple(table),
    )  # fmt: skip


def _heat(run: Run, results: ChestResults) -> list[Figure]:
    """Where images resemble those of their class, drawn and as a share on the drain."""
    if "heat" not in results.rows:
        return []
    tiles, numbers = [], []
    for case in CASES:
        name = f"{case.data}, {case.state}"
        arrays = run.arrays(case.part(0))
        pictures = channels_last(arrays["heated"])
        heads = [f"image {place + 1}" for place in range(len(pictures))]
        tiles = tiles or tile_row("picture", heads, pictures)
        tiles += tile_row(name, heads, pictures, arrays["heat"].numpy())
        rows = results.rows.loc[results.keys(case.data, case.state)].reset_index()
        columns = ["seed", "heat_layer", "heat", "heat_low", "heat_high", "even"]
        numbers += [{"network": name} | row for row in rows[columns].to_dict("records")]
    means = over_seeds(numbers, ["network"], "heat")
    return [Figure(
        "What ill images share at the layer that decides",
        "Grad-CAM of the similarity to ill training images, at the layer where most images are "
        "decided, on ill test images with a drain. Right: the share of the heat on the drain, "
        f"mean over images; even heat has {numbers[0]['even']:.2f}. Bars: mean over seeds; "
        "whiskers: all seeds. The table has the 95 % bootstrap intervals over images.",
        MURALI,
        (heat_maps(tiles, title="Heat of the nearest neighbors of the first seed", x="image",
                   y="network"),
         bars(means, title="Heat on the drain", x=("network", ""),
              y=("heat", "share of the heat"))),
        tuple(numbers),
    )]  # fmt: skip


def summarize(run: Run) -> str:
    """The AUC of drained and undrained patients, in two sentences."""
    results = ChestResults(run)
    mean = {
        (data, key): float(np.mean(results.values(data, f"{key}, as is")))
        for data in DATA
        for key in ("auc", "drained", "undrained")
    }
    return (
        f"Trained where drains are correlated with the disease, the network has an AUC of "
        f"{mean['correlated', 'auc']:.3f}: {mean['correlated', 'drained']:.3f} for ill patients "
        f"with a drain and {mean['correlated', 'undrained']:.3f} for those without. Trained where "
        f"drains are independent, it has {mean['control', 'drained']:.3f} and "
        f"{mean['control', 'undrained']:.3f}."
    )
