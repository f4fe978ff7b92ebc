"""Figures of a comparison: accuracies with ERM's line, differences, ranks and contamination."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from contam.experiments.tab04_baselines.methods import ERM
from contam.experiments.tab04_baselines.results import (
    MEASURES,
    BaselineResults,
    by_selection,
    comparison,
    rank_table,
    read_results,
)
from contam.measures.attenuation import above_one
from contam.plots import Figure, accuracies, bars, ranks, scatter
from contam.run import DataFrame, Run
from contam.training.domainbed import SELECTIONS

PLACES = 40
"""Points along a drawn line."""
KINDS = {
    "algorithm": "algorithms",
    "change": "changes of ERM's training",
    "repair": "repairs of ERM's network",
    "reference": "with a pre-trained teacher",
}
"""Names of the kinds of methods."""


def draw(run: Run) -> Sequence[Figure]:
    """Accuracies, differences to ERM, ranks, contamination and selections."""
    results = read_results(run)
    table = comparison(results)
    table = table.assign(series=list(map(_series, table.method, table.kind)))
    figures = [_scores(results, table), _differences(results, table)]
    with contextlib.suppress(ValueError):  # too few methods or trials for ranks
        figures.append(_ranks(results))
    figures += [_contamination(table), _selections(results)]
    return [figure for figure in figures if figure.panels]


def _series(method: str, kind: str) -> str:
    return ERM if method == ERM else KINDS[kind]


def _scores(results: BaselineResults, table: DataFrame) -> Figure:
    panels = []
    for data, rows in table.groupby("data", sort=False):
        line = results.lines.get(str(data))
        points: list[dict[str, float]] = []
        if line is not None:
            lowest, highest = max(float(rows.id.min()), 0.01), min(float(rows.id.max()), 0.99)
            at = torch.linspace(lowest, highest, PLACES, dtype=torch.float64)
            low, high = line.interval(at)
            points = [
                {"id": x, "ood": y, "low": a, "high": b}
                for x, y, a, b in zip(
                    *(values.tolist() for values in (at, line.expected(at), low, high)), strict=True
                )
            ]
        panels.append(
            accuracies(
                rows.to_dict("records"), title=str(data), x=("id", "ID accuracy"),
                y=("ood", "OOD accuracy"), series=("series", ""), name="method", line=points,
            )
        )  # fmt: skip
    return Figure(
        "ID and OOD accuracy of every method",
        f"Means over {results.config.trials} trials; model selection: "
        f"{SELECTIONS[results.config.selection]}. The line with its 95 % band (Student's t) is "
        "fitted on logits to the checkpoints of ERM alone, so effective robustness is the distance "
        "to networks that trained in the same way for fewer steps."
        + "".join(f" Left out: {line}." for line in results.left_out_lines()),
        "Fig. 1",
        tuple(panels),
        tuple(_records(table, ["data", "method", "trials", "id", "id_error", "ood", "ood_error",
                               "worst", "robustness", "cost"])),
    )  # fmt: skip


def _differences(results: BaselineResults, table: DataFrame) -> Figure:
    rows = table[table.method != ERM].sort_values("difference", ascending=False, kind="stable")
    panels = tuple(
        bars(
            mine.to_dict("records"), title=str(data), x=("method", ""),
            y=("difference", "OOD accuracy minus ERM's"), wide=True,
        )
        for data, mine in rows.groupby("data", sort=False)
    )  # fmt: skip
    return Figure(
        "Difference to ERM",
        f"Mean paired difference of OOD accuracy over {results.config.trials} trials. Whiskers are "
        "95 % intervals over trials (Student's t), not corrected for the number of methods; "
        "p (Holm) in the table is. Methods with a note in 'uses' have more than the training "
        "domains.",
        "ours",
        panels,
        tuple(_records(rows, ["data", "method", "uses", "difference", "low", "high", "p",
                              "p_holm", "trials"])),
    )  # fmt: skip


def _ranks(results: BaselineResults) -> Figure:
    scores, compared = rank_table(results)
    kinds = results.networks.drop_duplicates("method").set_index("method").kind
    rows = [
        {"method": name, "rank": float(rank), "kind": _series(name, kinds[name])}
        for name, rank in zip(scores.columns, compared.ranks, strict=True)
    ]
    groups = [{scores.columns[k] for k in group} for group in compared.groups()]
    best = min(rows, key=lambda row: row["rank"])["method"]
    equal = len(groups[0]) if groups and best in groups[0] else 1
    panel = ranks(
        rows, title="Mean rank of OOD accuracy", name=("method", ""), rank=("rank", "mean rank"),
        series=("kind", ""), critical_difference=compared.critical_difference,
    )  # fmt: skip
    return Figure(
        "Which methods differ beyond chance",
        f"Ranks within {compared.blocks} blocks (a trial of a data set), 1 is the best, of the "
        "methods that use the training domains alone and were never left out. Whiskers are half "
        f"the critical difference of {compared.critical_difference:.2f} (Nemenyi, 5 %): methods "
        "whose whiskers do not overlap differ beyond chance. Friedman's test that all are equal: "
        f"p = {compared.p:.2g}. {equal} of {len(rows)} methods are not beyond chance of the best.",
        "ours",
        (panel,),
        tuple(sorted(rows, key=lambda row: row["rank"])),
    )


def _contamination(table: DataFrame) -> Figure:
    panels, columns = [], ["data", "method"]
    for name in ("attenuation", "dependent", "interchange"):
        if name not in table or table[name].isna().all():
            continue
        columns += [name, f"{name}_error"]
        for data, rows in table.groupby("data", sort=False):
            panels.append(
                scatter(
                    rows.to_dict("records"), title=f"{data}: {MEASURES[name]}",
                    x=(name, MEASURES[name]), y=("ood", "OOD accuracy"), series=("series", ""),
                )
            )  # fmt: skip
    return Figure(
        "Contamination and OOD accuracy",
        "Every mark is a method, mean over trials. Class-profile attenuation is the share of the "
        "last features' class profile that is lost on the test domains. The interaction is the "
        "share of the class response that depends on the background, and the accuracy lost by "
        "exchanged backgrounds compares the same objects on ID and on OOD backgrounds; both need "
        "masks.",
        "ours",
        tuple(panels),
        tuple(_records(table, columns)),
        above_one(table.get("attenuation", ())),
    )


def _selections(results: BaselineResults) -> Figure:
    table = by_selection(results)
    means = table.groupby(["data", "method", "selection"], sort=False).ood
    rows = means.mean().reset_index().assign(error=means.sem().to_numpy())
    rows["name"] = rows.selection.map(dict(SELECTIONS))
    panels = tuple(
        bars(
            mine.to_dict("records"), title=str(data), x=("method", ""),
            y=("ood", "OOD accuracy"), series=("name", "selection"), wide=True,
        )
        for data, mine in rows.groupby("data", sort=False)
    )  # fmt: skip
    return Figure(
        "OOD accuracy by model selection",
        "Mean over trials. The oracle selects on held-out images of the test domains, of last "
        "checkpoints only.",
        "ours",
        panels,
        tuple(_records(rows, ["data", "method", "name", "ood", "error"])),
    )


def _records(table: DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    present = [name for name in columns if name in table]
    some = table[present].astype(object)
    return some.where(some.notna(), None).to_dict("records")
