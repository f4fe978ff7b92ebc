"""Draws the diagrams: heat maps over two axes, curves over one, bars over names."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from contam.experiment import NotJudged, judge_all
from contam.experiments.phase_diagrams.claims import CLAIMS, critical_slopes, differences
from contam.experiments.phase_diagrams.config import Name
from contam.experiments.phase_diagrams.results import PhaseResults, Table, in_words
from contam.measures.attenuation import above_one
from contam.plots import Figure, Panel, bars, lines, matrix, over_seeds
from contam.run import Run

CONTAMINATION = ("contamination", "V / U, background per core")
GAP = ("gap", "OOD − ID risk")
SHORTCUT = ("shortcut", "Shortcut use")

KINDS = {"": "trained", ", predicted": "predicted"}
"""What is drawn, by the end of its name in a legend."""


class Drawing(NamedTuple):
    """How a diagram is drawn."""

    title: str
    about: str
    """What varies."""
    x: str
    """Title of the axis."""
    series: str = ""
    """Title of the legend, or of the second axis."""
    log: str = ""
    columns: tuple[tuple[str, str], ...] = (CONTAMINATION, GAP)


DRAWINGS: dict[Name, Drawing] = {
    "slope": Drawing(
        "How linear an activation function must be",
        "Leaky ReLU interpolates between ReLU (slope 0) and a linear network (slope 1), at several "
        "training times.", "slope for negative inputs", "training time"),
    "batch": Drawing(
        "Gradient noise", "The same training time with batches of other sizes.",
        "examples per step", log="x"),
    "decay": Drawing("Weight decay", "The same training time with other strengths of decay.",
                     "weight decay"),
    "correlation": Drawing(
        "From no correlation to a shortcut",
        "In training, background weights are correlated with the label: 0 is the paper's data, 1 a "
        "shortcut. Out of distribution they are independent of it. Shortcut use is V in the sign "
        "of the output weight.", "correlation of background and label",
        columns=(CONTAMINATION, SHORTCUT, GAP)),
    "coherence": Drawing(
        "Features that are not orthogonal", "Every two features have the same inner product.",
        "inner product of two features"),
    "width": Drawing(
        "Width and number of features", "Networks of several widths m on d0 features, trained "
        "equally far. Half of the features are core features.", "width m / d0", "features d0"),
    "share": Drawing(
        "Share of core features", "The same number of features, split otherwise.",
        "share of core features"),
    "classes": Drawing(
        "Number of classes", "Trained head, logistic loss.", "classes", log="x"),
    "weights": Drawing(
        "Distribution of the feature weights", "Core and background weights have the same "
        "distribution on [0, 1]; the step size makes up for its mean.", "distribution"),
    "optimizer": Drawing(
        "Optimizer, and directions of the features", "Adam and AdamW scale each coordinate on its "
        "own, so features along the coordinates (axes) and rotated ones differ.", "optimizer",
        "dictionary"),
    "activation": Drawing(
        "Activation function", "Two-layer networks without biases, with a fixed head.",
        "activation function"),
    "critical": Drawing(
        "The critical slope", "Networks of several shares of core features, trained until their "
        "mean margin is 1. The critical slope of leaky ReLU is where the OOD risk then is 1/2.",
        "slope for negative inputs", "share of core features",
        columns=(("ood_risk", "OOD risk at the fit"),)),
}  # fmt: skip
"""The diagrams of two-layer networks."""


def draw(run: Run) -> Sequence[Figure]:
    """Draw the diagrams that the run has."""
    results = PhaseResults(run)
    figures = [
        _figure(results, name, drawing) for name, drawing in DRAWINGS.items() if results.has(name)
    ]
    return [*figures, _depth(results)] if results.has("depth") else figures


def _caption(results: PhaseResults, name: Name, about: str) -> str:
    """What varies, what was found, and the numbers with their intervals."""
    sentences = " ".join(
        f"{claim.says}. {in_words(claim)}" for claim in judge_all(CLAIMS[name], results)
    )
    return f"{about} {sentences}{_error(results, name)} Bands and whiskers: all seeds."


def _error(results: PhaseResults, name: Name) -> str:
    """How far predictions are from trained networks; empty where there are no predictions."""
    known = {
        symbol: max(values)
        for symbol, column in (("V / U", "contamination"), ("the risk", "gap"))
        if name not in ("depth", "critical") and (values := differences(results, name, column))
    }
    if not known:
        return ""
    text = " and ".join(f"{value:.2g} in {symbol}" for symbol, value in known.items())
    return f" Predictions of the population model are off by at most {text} (means over seeds)."


def _figure(results: PhaseResults, name: Name, drawing: Drawing) -> Figure:
    rows = results.rows(name)
    if name == "critical":
        panels, shown = _critical(results, drawing)
    elif name in ("slope", "width"):
        panels, shown = _maps(rows, drawing, "time" if name == "slope" else "series")
        curves, more = _curves(results, name, drawing)
        panels, shown = [*panels, *curves], shown + more
        if name == "slope":
            curves, more = _over_time(results, drawing)
            panels, shown = [*panels, *curves], shown + more
    elif isinstance(rows["x"].iloc[0], str):
        panels, shown = _bars(results, name, drawing)
    else:
        panels, shown = _curves(results, name, drawing)
    caption = _caption(results, name, drawing.about)
    return Figure(drawing.title, caption, "ours", tuple(panels), tuple(shown))


def _maps(rows: Table, drawing: Drawing, y: str) -> tuple[list[Panel], list[dict[str, Any]]]:
    """A heat map of each column over the axis and the field `y`."""
    panels, shown = [], []
    for column, title in drawing.columns:
        cells = over_seeds(rows.sort_values([y, "x"]), ["x", y], column)
        panels.append(
            matrix(
                [{"across": f"{cell['x']:g}", "up": f"{cell[y]:g}", column: cell[column]}
                 for cell in cells],
                title=title, x=("across", drawing.x), y=("up", drawing.series),
                value=(column, title),
            )
        )  # fmt: skip
        shown += [{"of": title} | cell for cell in cells]
    return panels, shown


def _curves(
    results: PhaseResults, name: Name, drawing: Drawing
) -> tuple[list[Panel], list[dict[str, Any]]]:
    """Curves of each column when training ends, trained and predicted."""
    panels, shown = [], []
    tables = {suffix: _last(results.rows(name, kind)) for suffix, kind in KINDS.items()}
    for column, title in drawing.columns:
        points = [
            {"x": row["x"], "what": f"{row['series']}{suffix}"} | _ends(row, column)
            for suffix, table in tables.items()
            if len(table) and column in table
            for row in over_seeds(table.sort_values("x"), ["x", "series"], column)
        ]
        panels.append(
            lines(
                points, title=title, x=("x", drawing.x), y=(column, title),
                series=("what", drawing.series if name == "width" else ""), log=drawing.log,
                points=True,
            )
        )  # fmt: skip
        shown += [{"of": title} | point for point in points]
    return panels, shown


def _over_time(results: PhaseResults, drawing: Drawing) -> tuple[list[Panel], list[dict[str, Any]]]:
    """Curves of each column over the training time for three slopes, trained and predicted."""
    slopes = results.config.slopes
    slopes = slopes[:: max(1, len(slopes) // 4)][:3]
    panels, shown = [], []
    for column, title in drawing.columns:
        points = [
            {"time": row["time"], "what": f"{slope:g}{suffix}"} | _ends(row, column)
            for slope in slopes
            for suffix, kind in KINDS.items()
            for row in over_seeds(_of_slope(results.rows("slope", kind), slope), ["time"], column)
        ]
        panels.append(
            lines(
                points, title=f"{title}, over time", x=("time", drawing.series), y=(column, title),
                series=("what", "slope"), log="x", points=True,
            )
        )  # fmt: skip
        shown += [{"of": f"{title}, over time"} | point for point in points]
    return panels, shown


def _of_slope(rows: Table, slope: float) -> Table:
    return rows[rows["x"] == slope].sort_values("time") if len(rows) else rows


def _critical(results: PhaseResults, drawing: Drawing) -> tuple[list[Panel], list[dict[str, Any]]]:
    """Heat maps of the risk at the fit, trained and predicted, and the critical slopes."""
    panels, shown = [], []
    for suffix, kind in KINDS.items():
        rows = results.rows("critical", kind)
        if len(rows):
            ((column, title),) = drawing.columns
            named = drawing._replace(columns=((column, f"{title}{suffix}"),))
            more, cells = _maps(rows, named, "series")
            panels, shown = [*panels, *more], shown + cells
    points = _critical_points(results)
    if points:
        panels.append(
            lines(points, title="Critical slope", x=("share", drawing.series),
                  y=("value", "critical slope"), series=("what", ""), points=True)
        )  # fmt: skip
    return panels, shown + points


def _critical_points(results: PhaseResults) -> list[dict[str, Any]]:
    """The critical slope of each share, trained and predicted; none where networks do not fit."""
    trained, predicted = [], []
    for share in sorted(results.rows("critical")["series"].unique()):
        try:
            slopes, formula = critical_slopes(results, share)
        except NotJudged:
            continue
        mean = sum(slopes) / len(slopes)
        trained.append({"share": share, "what": "trained", "value": mean,
                        "low": min(slopes), "high": max(slopes)})  # fmt: skip
        predicted.append({"share": share, "what": "predicted", "value": formula})
    return trained + predicted


def _last(rows: Table) -> Table:
    return rows[rows["time"] == rows.groupby(["x", "series"])["time"].transform("max")]


def _ends(row: dict[str, Any], column: str) -> dict[str, Any]:
    """The value and the ends of its band; a single value has no band."""
    if row["seeds"] == 1:
        return {column: row[column]}
    return {column: row[column], "low": row["low"], "high": row["high"]}


def _bars(
    results: PhaseResults, name: Name, drawing: Drawing
) -> tuple[list[Panel], list[dict[str, Any]]]:
    """Bars of each column over names, trained and predicted."""
    panels, shown = [], []
    tables = {suffix: results.rows(name, kind) for suffix, kind in KINDS.items()}
    several = tables[""]["series"].nunique() > 1 or len(tables[", predicted"]) > 0
    for column, title in drawing.columns:
        points = [
            row | {"series": f"{row['series']}{suffix}"}
            for suffix, table in tables.items()
            if len(table) and column in table
            for row in over_seeds(table, ["x", "series"], column)
        ]
        panels.append(
            bars(
                points, title=title, x=("x", drawing.x), y=(column, title),
                series=("series", drawing.series) if several else None,
            )
        )  # fmt: skip
        shown += [{"of": title} | point for point in points]
    return panels, shown


def _depth(results: PhaseResults) -> Figure:
    """Attenuation of every layer of the deepest networks, and the cost of the shift over depth."""
    table = results.run.table("depth/")
    deepest = table[table["depth"] == table["depth"].max()]
    layers = [
        {"layer": row["layer"], "what": f"{row['kind']}, {row['state']}",
         "value": row["attenuation"], "low": row["low"], "high": row["high"]}
        for row in over_seeds(deepest, ["kind", "state", "layer"], "attenuation")
    ]  # fmt: skip
    trained = table[(table["state"] == "trained") & (table["layer"] == 1)]
    gaps = [
        {"depth": row["depth"], "what": row["kind"], "value": row["gap"], "low": row["low"],
         "high": row["high"]}
        for row in over_seeds(trained, ["kind", "depth"], "gap")
    ]  # fmt: skip
    panels = (
        lines(layers, title="Class signal lost under the shift, by layer",
              x=("layer", "hidden layer"), y=("value", "class-profile attenuation"),
              series=("what", ""), points=True),
        lines(gaps, title="OOD − ID risk over depth", x=("depth", "hidden layers"),
              y=("value", "logistic risk"), series=("what", ""), points=True),
    )  # fmt: skip
    about = (
        f"Networks of up to {deepest['depth'].max()} hidden layers, trained by SGD on the logistic "
        "loss. The attenuation of a layer is the share of its class signal that is lost when the "
        "background shifts. The experiment depth_optimizers draws V / U of every layer."
    )
    return Figure("Depth", _caption(results, "depth", about), "ours", panels,
                  tuple(layers + gaps), above_one(row["high"] for row in layers))  # fmt: skip
