"""The pairs of a run, and how well a measure of the plain network predicts their gaps."""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import pandas
import torch
from jaxtyping import Float
from torch import Tensor

from contam.experiment import NotJudged
from contam.experiments.contamination_pairs.config import TWO_LAYER, Config
from contam.experiments.support.background_readings import FROM_ANSWERS, FROM_FEATURES
from contam.experiments.support.untrained_controls import CONTROLS
from contam.measures.correlation import Correlation, rank_correlation, spearman
from contam.measures.held_out_choice import held_out_choice
from contam.measures.intervals import Estimate, bootstrap
from contam.rng import generator_for
from contam.run import DataFrame, Run

MEASURES = {
    "loss": "OOD loss",
    **FROM_FEATURES,
    **FROM_ANSWERS,
    "centering": "OOD accuracy gained by centering without training",
    "product": "OOD loss times relative background variance",
}
"""Measures of the plain network that may predict the gap, and their names."""
KNOWN = {key: name for key, name in MEASURES.items() if key in FROM_FEATURES | FROM_ANSWERS}
"""The measures that two-layer networks have, too."""
MEAN = "mean"
"""The mean of the gaps over all ways to block contamination."""
FEW = 10
"""The fewest pair settings for a correlation. Over nine, the roundings of two processors gave rank
correlations that differ by 0.4."""
SHUFFLES = 400
"""Shufflings of the gaps among pairs."""
LEARNED = 0.3
"""The smallest mean ID accuracy of plain networks that learned; guessing gives 0.1."""
PARTS = {"setting": "pair settings", "core": "contents", "architecture": "architectures"}
"""What is held out, and its name."""
ENOUGH = 6
"""The fewest pair settings on which a measure is chosen."""


class GapPrediction(NamedTuple):
    """How well the gap is predicted for contents or architectures that were held out."""

    correlation: Correlation
    """Rank correlation of predictions and gaps."""
    shuffled: float
    """The 95 % quantile of this correlation with shuffled gaps."""
    chosen: list[str]
    """The measure that was chosen when each part was held out."""
    error: float
    """Mean absolute error of the predictions, in accuracy."""


class PairResults(NamedTuple):
    """What claims and figures read."""

    config: Config
    theory: DataFrame
    """A row for each two-layer network."""
    networks: DataFrame
    """A row for each network of the pairs."""
    pairs: DataFrame
    """A row for each pair and for the mean of the ways: `way`, `gap`, `id gap`, measures."""

    def of(self, way: str) -> DataFrame:
        """The pairs of one way to block contamination, or of the mean of all."""
        return self.pairs[self.pairs.way == way]


def read_results(run: Run) -> PairResults:
    """Read a run.

    Source: ours, the rows of a run joined to pairs of plain and blocked networks.
    """
    config = Config.model_validate(run.config)
    theory = run.table("theory/")
    order = theory.network.map(TWO_LAYER.index)
    theory = theory.assign(order=order).sort_values(["seed", "order"], ignore_index=True)
    networks = run.table("pair/")
    by_variant = {
        name: table.set_index(["setting", "seed"]) for name, table in networks.groupby("variant")
    }
    plain = by_variant["plain"]
    plain = plain[plain.id >= config.least_id]
    common = plain[["core", "architecture", "families", "id", "ood", *MEASURES]]
    for name in CONTROLS:
        common = common.join(by_variant[name][[*FROM_FEATURES]].add_prefix(f"{name} "))
    pairs = []
    for way in config.ways:
        blocked = by_variant[way].loc[plain.index]
        gaps = {"gap": blocked.ood - plain.ood, "id_gap": blocked.id - plain.id}
        pairs.append(common.assign(way=way, **gaps))
    means = {key: sum(table[key] for table in pairs) / len(pairs) for key in ("gap", "id_gap")}
    pairs.append(common.assign(way=MEAN, **means))
    return PairResults(config, theory, networks, pandas.concat(pairs).reset_index())


def column(table: DataFrame, name: str) -> Float[Tensor, " rows"]:
    """A column as a tensor.

    Source: ours, one measure of every pair, in a fixed order.

    >>> import pandas
    >>> column(pandas.DataFrame({"gap": [1, 2]}), "gap")
    tensor([1., 2.], dtype=torch.float64)
    """
    return torch.tensor(table[name].tolist(), dtype=torch.float64)


def _groups(table: DataFrame, name: str) -> Tensor:
    return torch.tensor(table.groupby(name, sort=True).ngroup().tolist())


def require_learning(results: PairResults) -> None:
    """Require plain networks that learned.

    Source: ours, networks that did not learn are no evidence about contamination.

    Raises:
        NotJudged: their mean ID accuracy is below `LEARNED`, or none reaches `least_id`.
    """
    table = results.networks[results.networks.variant == "plain"]
    if (score := table.id.mean()) < LEARNED or results.pairs.empty:
        raise NotJudged(f"the plain networks did not learn: their ID accuracy is {score:.2f}")


def require_pairs(results: PairResults, part: str | None = None) -> None:
    """Require enough pairs of networks that learned.

    Args:
        results: the results.
        part: what is held out; enough pair settings have to remain.

    Source: ours, a correlation over few pairs says nothing.

    Raises:
        NotJudged: the networks did not learn, or there are too few pairs.
    """
    require_learning(results)
    table = results.of(MEAN)
    if table.setting.nunique() < FEW:
        raise NotJudged(f"a correlation needs {FEW} pair settings, not {table.setting.nunique()}")
    if part is None:
        return
    outside = table.setting.nunique() - table.groupby(part).setting.nunique().max()
    if outside < ENOUGH:
        raise NotJudged(
            f"choosing a measure needs {ENOUGH} pair settings outside each of {PARTS[part]}, not "
            f"{outside}"
        )


def correlated(
    results: PairResults, measure: str, way: str = MEAN, *, given: str | None = None
) -> Correlation:
    """Rank correlation of a measure with the gap; pairs of one setting are resampled together.

    Source: ours, rank correlations, because measures have other units than gaps.
    """
    table = results.of(way)
    return rank_correlation(
        column(table, measure),
        column(table, "gap"),
        groups=_groups(table, "setting"),
        given=None if given is None else column(table, given),
    )


def agreement_of(results: PairResults, one: str, other: str) -> Correlation:
    """Rank correlation of the gaps of two ways to block contamination, over the same networks.

    Source: ours, two ways that block the same thing order the networks alike.
    """
    gaps = (column(results.of(way), "gap") for way in (one, other))
    return rank_correlation(*gaps, groups=_groups(results.of(one), "setting"))


def predicted(
    results: PairResults, part: str, way: str = MEAN, measures: Sequence[str] = (*MEASURES,)
) -> GapPrediction:
    """Predict the gaps of each content or architecture by a measure chosen on the others.

    Args:
        results: the results.
        part: `setting`, `core` or `architecture`.
        way: the way to block contamination.
        measures: the candidates.

    Source: ours, measures are chosen on other pairs than they are judged on.
    """
    table = results.of(way)
    values = torch.stack([column(table, name) for name in measures])
    gap, parts = column(table, "gap"), _groups(table, part)
    choice = held_out_choice(values, gap, parts)
    draws = generator_for(0, "pairs/shuffled")
    order = torch.stack([torch.randperm(len(gap), generator=draws) for _ in range(SHUFFLES)])
    shuffled = held_out_choice(values, gap[order], parts).predicted
    null = [spearman(one, gap[row]) for one, row in zip(shuffled, order, strict=True)]
    return GapPrediction(
        rank_correlation(choice.predicted, gap, groups=_groups(table, "setting")),
        float(torch.tensor(null, dtype=torch.float64).quantile(0.95)),
        [measures[int(k)] for k in choice.chosen],
        float((choice.predicted - gap).abs().mean()),
    )


def judged_parts(results: PairResults) -> list[str]:
    """The parts of `PARTS` that a run is large enough to hold out.

    Source: ours, parts of a few pairs can't be judged.
    """
    parts = []
    for part in PARTS:
        with contextlib.suppress(NotJudged):
            require_pairs(results, part)
            parts.append(part)
    return parts


def gap_estimate(results: PairResults, way: str, name: str = "gap") -> Estimate:
    """The mean gap of a way with its interval over pairs.

    Source: ours, the mean gap of the pairs with an interval over pairs.
    """
    values = column(results.of(way), name)
    return bootstrap(lambda rows: values[rows].mean(), [len(values)])


def reproduced(results: PairResults, measure: str) -> tuple[float, float]:
    """How well a measure reproduces the known answer of the theory.

    Args:
        results: the results.
        measure: one of `KNOWN`.

    Returns:
        The rank correlation with the risk that flipped backgrounds add, over two-layer networks,
        and the measure of linear networks relative to that of ReLU networks.

    Source: ours; Thm. 4.3, Thm. 4.4.
    """
    table = results.theory
    values = column(table, measure)
    means = table.groupby("network")[measure].mean()
    ratio = float(means["linear"] / means["ReLU"]) if means["ReLU"] else float("nan")
    constant = bool((values == values[0]).all())
    return 0.0 if constant else spearman(values, column(table, "negative")), ratio
