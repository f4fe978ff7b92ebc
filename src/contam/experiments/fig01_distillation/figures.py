"""Figure 1 with published and own networks, and the figures of a run."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any, Literal

import torch

from contam.experiments.fig01_distillation.config import Config
from contam.experiments.fig01_distillation.results import (
    DistillationResults,
    drawn_rows,
    fitted,
    model_scores,
    read_results,
    scored_rows,
)
from contam.experiments.support.networks import SWEEP
from contam.experiments.support.per_network import by_network
from contam.measures.published import figure_1, imagenet_robustness
from contam.measures.robustness import Line
from contam.measures.standard_models import shipped_models
from contam.plots import Figure, accuracies, bars, matrix, over_seeds
from contam.run import Run

PLACES = 60
"""Points along a drawn line."""
TITLES = {
    "imagenet": "ImageNet, mean of its five shifts",
    "iwildcam": "iWildCam, macro F1",
    "camelyon17": "Camelyon17",
    "domainnet": "DomainNet",
}
"""The panels of Figure 1."""
FURTHER = {
    "shapes": "Embedded benchmark",
    "shapes, domains": "Embedded shapes, families as domains",
    "digits, domains": "Embedded digits, families as domains",
    "pacs": "PACS",
}
"""Further panels, for networks that were trained here."""
CONVENTIONS: dict[Literal["all", "same_classes"], str] = {
    "all": "all classes",
    "same_classes": "the classes of each shift",
}
LEAST_DRAWN = 0.5
"""ImageNet models below this ID accuracy are not drawn in Figure 1."""


def draw(run: Run) -> Sequence[Figure]:
    """The published tables, then the networks that were trained here."""
    results = read_results(run)
    figures = [_figure_1(results), _published_robustness_bars(), _here(results), _tests(results)]
    return [*figures, _far(results)] if results.config.distill else figures


def _figure_1(results: DistillationResults) -> Figure:
    """Tables 1 to 4, with this run, other runs, standard models and their lines."""
    shipped = shipped_models()
    published = [
        {"data": row.data, "model": row.name, "kind": f"{row.kind}, published"}
        | {"pair": row.pair, "id": row.id, "ood": row.ood}
        for row in figure_1()
    ]
    others = [row for row in results.others if row["kind"] != "standard model"]
    rows = published + others + drawn_rows(results.config, results.points)
    present = {row["data"] for row in rows}
    titles = TITLES | {data: title for data, title in FURTHER.items() if data in present}
    panels = []
    for data, title in titles.items():
        standard = [
            row for row in results.others if row["kind"] == "standard model" and row["data"] == data
        ]
        around = list(standard)
        if data == "imagenet" and not standard:
            standard = scored_rows(data, "standard model", *model_scores(shipped))
            robust = scored_rows(data, "robustly trained", *model_scores(shipped, "robust"))
            around = [row for row in standard + robust if row["id"] >= LEAST_DRAWN]
        marks = [row for row in rows if row["data"] == data]
        line = results.line if data == results.config.networks.data else None
        line = fitted(standard) if standard else line
        panels.append(
            accuracies(
                marks + around,
                title=title,
                x=("id", "ID score" if data == "iwildcam" else "ID accuracy"),
                y=("ood", "OOD score" if data == "iwildcam" else "OOD accuracy"),
                series=("kind", ""),
                name="model",
                line=_curve(line, marks + around) if line is not None else (),
                join="pair",
            )
        )
    return Figure(
        "Figure 1: teachers, their students and standard models",
        "Every network of Tables 1 to 4; thin lines join a teacher and its student. The line and "
        "its 95 % band (Student's t) are fitted on logits to standard models: for ImageNet, those "
        "of the testbed of Taori et al. (2020), trained on ImageNet alone. For the other "
        "benchmarks no table of standard models is shipped; give one with --standard-models. "
        "Networks of this run stand beside the published ones; --pairs trains those of other "
        "presets in the same run, and --also adds finished runs, also those that compare "
        "baselines. "
        "DomainNet has two teachers without a student.",
        "Fig. 1",
        tuple(panels),
        tuple(
            {key: row.get(key) for key in ("data", "model", "kind", "id", "ood")} for row in rows
        ),
    )


def _curve(line: Line, marks: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Points of a line with its band, over the ID scores of some networks."""
    inside = [mark["id"] for mark in marks if 0 < mark["id"] < 1]
    ends = torch.tensor([min(inside), max(inside)], dtype=torch.float64).logit()
    at = torch.linspace(float(ends[0]) - 0.3, float(ends[1]) + 0.3, PLACES).double().sigmoid()
    columns = torch.stack((at, line.expected(at), *line.interval(at)), dim=1).tolist()
    return [dict(zip(("id", "ood", "low", "high"), row, strict=True)) for row in columns]


def _published_robustness_bars() -> Figure:
    """Effective robustness from Table 1, by both conventions of the ID accuracy."""
    rows = [
        {"network": pair.network, "kind": kind, "robustness": mean, "convention": convention}
        for convention in CONVENTIONS
        for pair in imagenet_robustness(convention)
        for kind, mean in (("teacher", pair.teacher_mean), ("student", pair.student_mean))
    ]
    panels = tuple(
        bars(
            [row for row in rows if row["convention"] == convention],
            title=f"ID accuracy on {words}",
            x=("network", ""),
            y=("robustness", "accuracy above the line, points"),
            series=("kind", ""),
        )
        for convention, words in CONVENTIONS.items()
    )
    return Figure(
        "Published: effective robustness on ImageNet's shifts",
        "Mean over the five shifts, each above its own line of standard models, from the "
        "accuracies of Table 1; nothing was trained for this figure. The second panel takes the ID "
        "accuracy on the classes of ImageNet-R, ImageNet-A and ObjectNet, which follows from that "
        "on all classes by the relation of standard models.",
        "Tab. 1",
        panels,
        tuple(rows),
    )


def _here(results: DistillationResults) -> Figure:
    """The networks of this run, above or below the line."""
    config, line = results.config, results.line
    sweep = {spec.name for spec in SWEEP}
    points = results.points
    points = points.assign(
        model=points.network + ", seed " + points.seed.astype(str),
        kind=points.network.where(~points.network.isin(sweep), "ERM with less training"),
        pair=points.seed.where(points.network.isin(["teacher", "student"])),
    )
    drawn, fitted = [], ""
    if line is not None:
        at = torch.linspace(0.02, 0.999, PLACES, dtype=torch.float64)
        columns = (at, line.expected(at), *line.interval(at))
        drawn = [
            {"id": id_, "ood": ood, "low": low, "high": high}
            for id_, ood, low, high in torch.stack(columns, dim=1).tolist()
        ]
        fitted = (
            f"The line is fitted to {line.count} standard networks (slope {line.slope:.2f}, "
            f"intercept {line.intercept:.2f} on logits, R² {line.r_squared:.2f}); its band is the "
            "95 % interval of Student's t. "
        )
    panels = [
        accuracies(
            points,
            title="Accuracy on ID and on shifted data",
            x=("id", "ID accuracy"),
            y=("ood", "mean OOD accuracy"),
            series=("kind", ""),
            name="model",
            line=drawn,
            join="pair",
        )
    ]
    robust = points[points.robustness.notna() & ~points.network.isin(sweep)]
    if len(robust):
        panels.append(
            bars(
                over_seeds(robust, ["network"], "robustness"),
                title="Effective robustness",
                x=("network", ""),
                y=("robustness", "accuracy above the line, points"),
            )
        )
    data = config.networks.data
    if data == "shapes":
        data = f"shapes on backgrounds, {config.networks.examples} training images"
    return Figure(
        f"This run: {data}",
        "Every mark is a network, with exact 95 % intervals of both accuracies; thin lines join a "
        f"teacher and its student. {fitted}Bars are means over {config.seeds} "
        f"seed{'s' if config.seeds > 1 else ''}; whiskers: all seeds.",
        "Fig. 1",
        tuple(panels),
        tuple(points.drop(columns=["pair", "kind"]).to_dict("records")),
    )


def _tests(results: DistillationResults) -> Figure:
    """Every network on every test."""
    scores = results.rows[results.rows.what == "score"]
    means = over_seeds(scores, ["network", "test"], "score")
    panel = matrix(
        means,
        title="Score by test set",
        x=("test", ""),
        y=("network", ""),
        value=("score", "score"),
    )
    return Figure(
        "Score of each network on each test",
        "Mean over seeds; the first column is the ID test.",
        "ours",
        (panel,),
        tuple(means),
    )


def _far(results: DistillationResults) -> Figure:
    """How far the student's features are from the teacher's."""
    rows = results.rows[results.rows.what == "distance"]
    means = over_seeds(rows, ["test"], "distance")
    panel = bars(
        means,
        title="Distance of the student's features from the teacher's",
        x=("test", ""),
        y=("distance", "squared distance over the teacher's variance"),
        wide=True,
    )
    return Figure(
        "The student matches its teacher on the data it learned from",
        "At 0 the features are equal; at 1 the teacher's mean feature would be as close as the "
        "student's. Whiskers: all seeds.",
        "ours",
        (panel,),
        tuple(means),
    )


def summarize(run: Run) -> str:
    """The ID and OOD scores, in two sentences."""
    points = read_results(run).points

    def means(column: str) -> str:
        values = by_network(points, column)
        shown = [name for name in ("teacher", "student", "ERM") if name in values]
        return ", ".join(f"{name} {fmean(values[name]):.0%}" for name in shown)

    scores = f"Score on ID images: {means('id')}; on shifted images: {means('ood')}."
    if not Config.model_validate(run.config).distill:
        return scores
    return f"{scores} The student was trained to match its teacher's features, without labels."
