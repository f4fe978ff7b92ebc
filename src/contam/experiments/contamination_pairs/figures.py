"""Figures of the known answer, the gaps, and how well measures predict them."""

from collections.abc import Sequence
from itertools import product
from typing import Any

from contam.experiment import NotJudged, capitalized
from contam.experiments.contamination_pairs.claims import RISKS
from contam.experiments.contamination_pairs.results import (
    FEW,
    KNOWN,
    MEAN,
    MEASURES,
    PARTS,
    PairResults,
    column,
    correlated,
    gap_estimate,
    judged_parts,
    predicted,
    read_results,
    reproduced,
    require_pairs,
)
from contam.experiments.support.paired_networks import BLOCKED
from contam.measures.attenuation import above_one
from contam.measures.correlation import Correlation, spearman
from contam.plots import Figure, bars, matrix, scatter, share_axes
from contam.run import Run


def draw(run: Run) -> Sequence[Figure]:
    """The known answer, the gaps of the pairs, and how well each measure predicts them."""
    results = read_results(run)
    figures = [_known_answer(results)]
    if len(results.pairs):
        figures.append(_gaps(results))
    try:
        require_pairs(results)
    except NotJudged:
        return figures
    return [*figures, _against_gap(results), _correlations(results), _held_out(results)]


def _known_answer(results: PairResults) -> Figure:
    table = results.theory
    risks = [
        {"network": name, "test": label, "risk": float(rows[key].mean()),
         "low": float(rows[key].min()), "high": float(rows[key].max())}
        for name, rows in table.groupby("network", sort=False)
        for key, label in RISKS.items()
    ]  # fmt: skip
    scores = []
    for key, name in KNOWN.items():
        correlation, ratio = reproduced(results, key)
        scores.append({"measure": name, "correlation": correlation, "linear over ReLU": ratio})
    return Figure(
        "The known answer: two-layer networks of the theory",
        "Left, hinge risk on each test distribution (mean and range of the seeds). New directions "
        "are a change of background without contamination. Right, rank correlation of each measure "
        "with the risk that flipped backgrounds add. Here losses are of hinge risk, negative ID "
        "backgrounds are the flip itself, and noise is new directions instead of the background.",
        "Thm. 4.3",
        (
            bars(risks, title="Risk of two-layer networks", x=("network", ""),
                 y=("risk", "hinge risk"), series=("test", "")),
            bars(scores, title="Measures against the known answer", x=("measure", ""),
                 y=("correlation", "rank correlation")),
        ),
        tuple(scores) + tuple(risks),
    )  # fmt: skip


def _gaps(results: PairResults) -> Figure:
    rows = [
        {"way": BLOCKED[way], "accuracy": label, "n": len(results.of(way))}
        | vars(gap_estimate(results, way, key))
        for way in results.config.ways
        for key, label in (("gap", "OOD"), ("id_gap", "ID"))
    ]
    gaps = {way: column(results.of(way), "gap") for way in results.config.ways}
    cells = [
        {"one": BLOCKED[one], "other": BLOCKED[other],
         "agreement": spearman(gaps[one], gaps[other])}
        for one, other in product(gaps, gaps)
        if len(gaps[one]) >= FEW
    ]  # fmt: skip
    panels = [
        bars(rows, title="Accuracy gained when contamination is blocked", x=("way", ""),
             y=("value", "accuracy, blocked minus plain"), series=("accuracy", ""))
    ]  # fmt: skip
    if cells:
        panels.append(
            matrix(cells, title="Rank correlation of the gaps of two ways", x=("other", ""),
                   y=("one", ""), value=("agreement", "rank correlation"), wide=False)
        )  # fmt: skip
    return Figure(
        "What contamination costs, by the way it is blocked",
        "Both networks of a pair learn from identical images in the same order, from the same "
        "initial weights. Whiskers are 95 % bootstrap intervals over pairs.",
        "ours",
        tuple(panels),
        tuple(rows),
    )


def _against_gap(results: PairResults) -> Figure:
    table = results.of(MEAN)
    panels = [
        scatter(table, title=capitalized(name), x=(key, name),
                y=("gap", "mean gap in OOD accuracy"), series=("core", ""),
                shape=("architecture", ""))
        for key, name in MEASURES.items()
    ]  # fmt: skip
    return Figure(
        "Measures of plain networks against the gap",
        "Every mark is a pair setting; the gap is the mean over the ways to block contamination.",
        "ours",
        share_axes(panels, "y"),
        tuple(table.drop(columns=["way"]).to_dict("records")),
        above_one(table.attenuation),
    )


def _with_interval(result: Correlation) -> dict[str, Any]:
    return {"correlation": result.value, "low": result.low, "high": result.high, "n": result.count}


def _correlations(results: PairResults) -> Figure:
    rows = []
    for key, name in MEASURES.items():
        for label, measure, given in (
            ("alone", key, None), ("given the OOD loss", key, "loss"),
            ("of untrained networks", f"untrained {key}", None),
            ("of calibrated networks", f"calibrated {key}", None),
        ):  # fmt: skip
            if measure not in results.pairs or (given and key == given):
                continue
            value = correlated(results, measure, given=given)
            rows.append({"measure": name, "kind": label} | _with_interval(value))
    return Figure(
        "Rank correlation of each measure with the gap",
        f"{rows[0]['n']} pairs. Whiskers are 95 % bootstrap intervals over pair settings. These "
        "are correlations on the networks on which a measure would be chosen.",
        "ours",
        (bars(rows, title="Rank correlation with the mean gap", x=("measure", ""),
              y=("correlation", "rank correlation"), series=("kind", ""), wide=True),),
        tuple(rows),
    )  # fmt: skip


def _held_out(results: PairResults) -> Figure:
    rows = []
    for part, way in product(judged_parts(results), [MEAN, *results.config.ways]):
        result = predicted(results, part, way)
        rows.append(
            {"way": BLOCKED.get(way, "mean of the ways"), "held out": PARTS[part]}
            | _with_interval(result.correlation)
            | {"shuffled, 95 %": result.shuffled, "mean absolute error": result.error}
            | {"chosen": ", ".join(MEASURES[key] for key in dict.fromkeys(result.chosen))}
        )
    return Figure(
        "Predicting the gap out of sample",
        "The measure and its calibration come from the other pair settings, contents or "
        "architectures. Whiskers are 95 % bootstrap intervals over pair settings; the table gives "
        "the 95 % quantile of shuffled pairs.",
        "ours",
        (bars(rows, title="Rank correlation of predicted and measured gap", x=("way", ""),
              y=("correlation", "rank correlation"), series=("held out", "")),),
        tuple(rows),
    )  # fmt: skip


def summarize(run: Run) -> str:
    """The known answer, the gaps, and the prediction out of sample."""
    results = read_results(run)
    risks = results.theory[results.theory.network == "ReLU"][[*RISKS]].mean()
    gaps = ", ".join(
        f"{BLOCKED[way]} {results.of(way).gap.mean():+.3f}" for way in results.config.ways
    )
    text = (
        f"Two-layer ReLU networks have an OOD hinge risk of {risks['flipped']:.2f} on flipped "
        f"backgrounds and {risks['added']:.2f} with new directions. Accuracy gained by blocking "
        f"contamination: {gaps}."
    )
    try:
        require_pairs(results)
    except NotJudged as reason:
        return f"{text} No prediction is judged: {reason}."
    numbers = ", ".join(
        f"{predicted(results, part).correlation.value:.2f} with {PARTS[part]} held out"
        for part in judged_parts(results)
    )
    return f"{text} Rank correlation of predicted and measured gaps: {numbers}."
