"""Claims about baselines, distillation and what blocks contamination, judged from a run."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

from contam.experiment import Claim, NotJudged, Pooled, Statement
from contam.experiments.tab04_baselines.benchmarks import EMBEDDED
from contam.experiments.tab04_baselines.methods import DISTILLATION, ERM, TEACHER
from contam.experiments.tab04_baselines.results import (
    BaselineResults,
    comparison,
    read_results,
)
from contam.measures.correlation import spearman
from contam.measures.published import figure_1
from contam.run import DataFrame, Run

LEARNED = 0.4
"""The smallest ID accuracy, as a share of the way from guessing to 1, of a network that learned."""
LEVEL = 0.05
"""Largest p-value, after Holm's correction, of a difference that is beyond chance."""
CENTERING = "centering"
STUDENT = "Distilled RN50"
"""The published student in Table 4."""


def _require_learning(results: BaselineResults, data: str) -> None:
    """Require that ERM learned a data set in every trial.

    Source: ours; what baselines do not do is claimed of networks that learned.

    Raises:
        NotJudged: it did not.
    """
    rows = results.of(data, ERM, "id")
    if _learned(results, data, float(rows.min())) < LEARNED:
        raise NotJudged(f"ERM did not learn {data}: its ID accuracy is {rows.min():.2f}")


def _learned(results: BaselineResults, data: str, accuracy: float) -> float:
    """An ID accuracy as a share of the way from guessing to 1."""
    chance = 1 / results.classes(data)
    return (accuracy - chance) / (1 - chance)


def _best(results: BaselineResults, data: str) -> DataFrame:
    """The OOD accuracy, by trial, of the baseline with the highest mean."""
    names = results.baselines(data)
    if not names:
        raise NotJudged("there is no baseline besides ERM in this run")
    return max((results.of(data, name) for name in names), key=lambda values: values.mean())


def _differences(ours: DataFrame, others: DataFrame) -> list[float]:
    """Differences by trial, over the trials in which neither was left out."""
    return (ours - others).dropna().tolist()


def _against_teacher(data: str, results: BaselineResults) -> list[float]:
    _require_learning(results, data)
    return _differences(results.of(data, TEACHER), _best(results, data))


def _distilled(data: str, results: BaselineResults) -> list[float]:
    _require_learning(results, data)
    return _differences(results.of(data, DISTILLATION), results.of(data, ERM))


def _distilled_over_best(data: str, results: BaselineResults) -> list[float]:
    _require_learning(results, data)
    return _differences(results.of(data, DISTILLATION), _best(results, data))


def _published_over_best(data: str, results: BaselineResults) -> list[float]:
    _require_learning(results, data)
    (ood,) = (row.ood for row in figure_1() if row.data == data and row.name == STUDENT)
    return (ood - _best(results, data)).tolist()


def _significant(data: str, results: BaselineResults) -> Pooled:
    _require_learning(results, data)
    table = comparison(results)
    table = table[(table.data == data) & table.method.isin(results.baselines(data))]
    if results.config.trials < 2 or not len(table):
        raise NotJudged("a comparison needs a baseline besides ERM and two trials")
    better = (table.p_holm < LEVEL) & (table.difference > 0)
    return Pooled(float(better.sum()), len(table), "baseline")


def _centering(data: str, results: BaselineResults) -> list[float]:
    _require_learning(results, data)
    return _differences(results.of(data, CENTERING), results.of(data, ERM))


def _attenuation(data: str, results: BaselineResults) -> Pooled:
    _require_learning(results, data)
    table = results.networks[(results.networks.data == data) & (results.networks.uses == "")]
    means = table.groupby("method")[["id", "ood", "attenuation"]].mean().dropna()
    # A network that did not learn has no class profile to lose.
    means = means[means["id"].map(lambda accuracy: _learned(results, data, accuracy) >= LEARNED)]
    if len(means) < 8:
        raise NotJudged(f"a correlation needs 8 methods that learned, not {len(means)}")
    ood, lost = (torch.tensor(means[key].tolist()).double() for key in ("ood", "attenuation"))
    value = spearman(ood, lost)
    return Pooled(0.0 if math.isnan(value) else value, len(means), "method")


def _statements(data: str) -> list[Statement]:
    def of(measure: Callable[[str, BaselineResults], Sequence[float] | Pooled]) -> Callable:
        return partial(measure, data)

    embedded = data in EMBEDDED
    statements = [
        Statement("No baseline is better than ERM beyond chance",
                  "Gulrajani & Lopez-Paz (2021)",
                  f"{data}: baselines whose OOD accuracy is above ERM's with p < {LEVEL:g} (Holm)",
                  of(_significant), high=0),
        Statement("The more of the class profile a method keeps under shift, the more accurate it "
                  "is there", "ours",
                  f"{data}: rank correlation of attenuation and OOD accuracy over methods that "
                  "learned",
                  of(_attenuation), high=-0.4),
    ]  # fmt: skip
    if embedded:
        return [
            Statement("No baseline closes the gap to the teacher", "Fig. 1",
                      f"{data}: OOD accuracy, teacher minus the best baseline",
                      of(_against_teacher), low=0.02, every_seed=True),
            Statement("Representation distillation is more robust than ERM", "Fig. 1",
                      f"{data}: OOD accuracy, distillation minus ERM", of(_distilled), low=0.02,
                      every_seed=True),
            Statement("Representation distillation is more robust than every baseline", "Fig. 1",
                      f"{data}: OOD accuracy, distillation minus the best baseline",
                      of(_distilled_over_best), low=0.0, every_seed=True),
            *statements,
            Statement("Centering before batch norm makes ERM more robust", "ours",
                      f"{data}: OOD accuracy, centering minus ERM", of(_centering), low=0.02,
                      every_seed=True),
        ]  # fmt: skip
    if data == "domainnet":
        statements.insert(0, Statement(
            "No baseline reaches the published student", "Fig. 1, Tab. 4",
            f"{data}: OOD accuracy, published student minus the best baseline",
            of(_published_over_best), low=0.0, every_seed=True))  # fmt: skip
    return statements


def claims(run: Run) -> Sequence[Claim]:
    """No baseline closes the gap to the teacher, and distillation is above ERM."""
    results = read_results(run)
    return [
        statement.judge(results) for data in results.config.data for statement in _statements(data)
    ]
