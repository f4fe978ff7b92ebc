"""What claims and figures read: scores, lines of standard models, effective robustness."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from contam.experiments.fig01_distillation.config import NAME, Config, added_pairs
from contam.experiments.support.networks import ERM, SWEEP
from contam.measures.accuracy import Accuracy
from contam.measures.robustness import (
    IMAGENET_LINES,
    Line,
    effective_robustness,
    fit_line,
    robustness_interval,
)
from contam.measures.standard_models import ModelTable, read_models
from contam.run import DataFrame, Run, RunError

BASELINES = "tab04_baselines"
"""Name of the experiment that compares baselines."""


class DistillationResults(NamedTuple):
    """What claims and figures read."""

    config: Config
    rows: DataFrame
    """The rows of all seeds."""
    points: DataFrame
    """A row for each network and seed: scores on ID and OOD data, and effective robustness."""
    line: Line | None
    """The line through the standard networks that were trained here, or those of a table."""
    others: list[dict[str, Any]]
    """Standard models of a table, and networks of other runs: `data`, `kind`, `id`, `ood`."""

    def standard(self) -> DataFrame:
        """The standard networks that the line goes through."""
        return _standard(self.config, self.points)


def read_results(run: Run) -> DistillationResults:
    """Read a run with all parts.

    Source: Fig. 1.
    """
    config = Config.model_validate(run.config)
    rows = run.table("seed")
    networks = _networks(rows)
    line = None
    if config.sweep:
        models = _standard(config, _frame(networks))
        # Networks that learned nothing are below `least_id` and determine no line.
        if models.id[models.id < 1].nunique() > 1:
            line = fitted(models.to_dict("records"))
    others = run.read("standard")
    if others:
        line = fitted(others)
    others += run.read("also")
    for name, pair in added_pairs(config).items():
        scored = _frame(_networks(run.table(f"pair/{name}/")))
        others += [row | {"added": name} for row in drawn_rows(pair, scored)]
    return DistillationResults(config, rows, _points(config, networks, line), line, others)


def _networks(rows: DataFrame) -> list[dict[str, Any]]:
    """A row for each network and seed, with its scores on the tests."""
    points = []
    scores = rows[rows.what == "score"]
    for (_, network), mine in scores.groupby(["seed", "network"], sort=False):
        (own,), others = mine[mine.role == "id"].to_dict("records"), mine[mine.role == "ood"]
        id_accuracy = Accuracy(own["correct"], own["count"])
        ood_accuracy = Accuracy(int(others.correct.sum()), int(others["count"].sum()))
        point = {"network": network, "seed": own["seed"], "id": own["score"]}
        point |= {"ood": fmean(others.score), "tests": others, "accuracies": None}
        if own["score"] == id_accuracy.share:  # an F1 score has no such interval
            point |= dict(zip(("id_low", "id_high"), id_accuracy.interval, strict=True))
            point |= dict(zip(("ood_low", "ood_high"), ood_accuracy.interval, strict=True))
        points.append(point | {"accuracies": (id_accuracy, ood_accuracy)})
    return points


def _points(config: Config, networks: list[dict[str, Any]], line: Line | None) -> DataFrame:
    """The networks with their effective robustness."""
    robustness = [_robustness(config, point, line) for point in networks]
    return _frame(networks).drop(columns=["tests", "accuracies"]).join(_frame(robustness))


def fitted(models: Sequence[dict[str, Any]]) -> Line:
    """The line through models with `id` and `ood` scores.

    Source: App. E.1.

    >>> line = fitted([{"id": 0.6, "ood": 0.6}, {"id": 0.8, "ood": 0.8}])
    >>> round(line.slope, 3)
    1.0
    """
    x, y = (torch.tensor([m[key] for m in models], dtype=torch.float64) for key in ("id", "ood"))
    return fit_line(x, y)


def _frame(rows: Sequence[dict[str, Any]]) -> DataFrame:
    import pandas

    return pandas.DataFrame(rows)


def _standard(config: Config, points: DataFrame) -> DataFrame:
    names = {ERM.name, *(spec.name for spec in SWEEP)}
    return points[points.network.isin(names) & (points.id >= config.least_id)]


def _robustness(config: Config, point: dict[str, Any], line: Line | None) -> dict[str, Any]:
    """Points above the line; on ImageNet the mean over the shifts, each above its own line."""
    own = torch.tensor([point["id"]], dtype=torch.float64)
    if line is not None:
        ood = torch.tensor([point["ood"]], dtype=torch.float64)
        robustness = {"robustness": float(effective_robustness(own, ood, line))}
        id_accuracy, ood_accuracy = point["accuracies"]
        pooled = (id_accuracy.share, ood_accuracy.share)
        if all(map(math.isclose, pooled, (point["id"], point["ood"]))):
            ends = robustness_interval(id_accuracy, ood_accuracy, line)
            robustness |= dict(zip(("robustness_low", "robustness_high"), ends, strict=True))
        return robustness
    if config.networks.data == "imagenet":
        values = [
            effective_robustness(own, own.new_tensor([score]), IMAGENET_LINES[name])
            for test, score in zip(point["tests"].test, point["tests"].score, strict=True)
            if (name := test.replace(" ", "-")) in IMAGENET_LINES
        ]
        return {"robustness": float(torch.stack(values).mean())}
    return {"robustness": None}


def standard_models(config: Config) -> list[dict[str, Any]]:
    """The ID and OOD scores of the user's standard models.

    Source: ours, a benchmark without a published table has the user's standard models.

    Raises:
        ValueError: the table cannot be read, lacks columns, or its models determine no line.

    >>> standard_models(Config())
    []
    """
    if config.standard_models is None:
        return []
    x, y = model_scores(read_models(config.standard_models))
    fit_line(x, y)  # fails before the networks are trained
    return scored_rows(config.networks.data, "standard model", x, y)


def model_scores(table: ModelTable, kind: str = "standard") -> tuple[Tensor, Tensor]:
    """ID and mean OOD scores of models, in [0, 1].

    Args:
        table: the models.
        kind: the kind of models to return.

    Source: Fig. 1.
    """
    if "ImageNet" in table.columns:
        own, *others = table.accuracies("ImageNet", *IMAGENET_LINES, kind=kind)
        return own, torch.stack(others).mean(dim=0)
    own, other = table.accuracies("id", "ood", kind=kind)
    return own, other


def scored_rows(data: str, kind: str, x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    """Scores of models of one kind as rows of Figure 1.

    Args:
        data: name of the benchmark.
        kind: the series in the figure.
        x: ID scores.
        y: OOD scores.

    Source: Fig. 1.
    """
    pairs = zip(x.tolist(), y.tolist(), strict=True)
    return [
        {"data": data, "model": kind, "kind": kind, "id": own, "ood": other} for own, other in pairs
    ]


def finished_rows(folder: Path) -> list[dict[str, Any]]:
    """The networks and standard models of a finished run, for Figure 1.

    Args:
        folder: a run of this experiment, or of the comparison of baselines.

    Source: Fig. 1.

    Raises:
        RunError: the folder holds no such run, or it is not finished.
    """
    other = Run.load(folder)
    if other.experiment not in (NAME, BASELINES) or not other.finished:
        raise RunError(f"{folder}: holds no finished run of {NAME} or {BASELINES}")
    if other.experiment == BASELINES:
        return baseline_rows(other.table("comparison"))
    results = read_results(other)
    added = [
        {key: value for key, value in row.items() if key != "added"}
        for row in results.others if "added" in row
    ]  # fmt: skip
    return [*other.read("standard"), *drawn_rows(results.config, results.points), *added]


def baseline_rows(table: DataFrame) -> list[dict[str, Any]]:
    """The methods of a comparison that change neither the network nor the data, as rows.

    Args:
        table: columns `data`, `method`, `kind`, and `id` and `ood`, the means over trials.

    Source: Fig. 1, App. E.4.

    >>> import pandas
    >>> row = {"data": "pacs", "method": "CORAL", "kind": "algorithm", "id": 0.9, "ood": 0.7}
    >>> baseline_rows(pandas.DataFrame([row]))[0]["kind"]
    'baseline, trained here'
    """
    series = {"ERM": "ERM", "teacher": "teacher", "distillation": "student"}
    shown = (table.kind == "algorithm") | table.method.isin(series)
    rows = table[shown].to_dict("records")
    # The embedded data of a comparison are split into domains, unlike those of this experiment.
    data = {name: f"{name}, domains" for name in ("shapes", "digits")}
    return [
        {"data": data.get(row["data"], row["data"])}
        | {"kind": f"{series.get(row['method'], 'baseline')}, trained here"}
        | {"model": f"{row['method']}, mean over trials", "id": row["id"], "ood": row["ood"]}
        | ({"pair": f"comparison, {row['data']}"} if row["kind"] == "reference" else {})
        for row in rows
    ]


def drawn_rows(config: Config, points: DataFrame) -> list[dict[str, Any]]:
    """Teacher, student and ERM, as rows of Figure 1.

    Args:
        config: their config.
        points: a row for each network and seed.

    Source: Fig. 1.
    """
    networks = config.networks
    points = points[points.network.isin(["teacher", "student", "ERM"])]
    return [
        {"data": networks.data, "kind": f"{point['network']}, trained here"}
        | {"model": f"{point['network']} ({networks.teacher}), seed {point['seed']}"}
        | {"id": point["id"], "ood": point["ood"]}
        | ({} if point["network"] == "ERM" else {"pair": f"{networks.teacher}, {point['seed']}"})
        for point in points.to_dict("records")
    ]
