"""The known answer of the theory, the gaps of the pairs, and what predicts them."""

from collections.abc import Callable, Sequence

from contam.experiment import Claim, NotJudged, Pooled, Statement, judge_all
from contam.experiments.contamination_pairs.results import (
    KNOWN,
    MEAN,
    MEASURES,
    PARTS,
    PairResults,
    agreement_of,
    correlated,
    gap_estimate,
    predicted,
    read_results,
    reproduced,
    require_learning,
    require_pairs,
)
from contam.experiments.support.background_readings import FROM_FEATURES
from contam.experiments.support.paired_networks import BLOCKED
from contam.experiments.support.untrained_controls import CONTROLS
from contam.measures.correlation import Correlation
from contam.run import Run

RISKS = {
    "id": "ID",
    "flipped": "background flipped",
    "added": "new directions added",
    "added 4": "new directions added, four times the size",
    "replaced": "new directions instead of the background",
}
"""Test distributions of two-layer networks, and their names."""


def _two_layer_learned(results: PairResults) -> None:
    if (risk := results.theory.id.mean()) > 0.3:
        raise NotJudged(f"the two-layer networks did not learn: their ID risk is {risk:.2f}")


def _theory(says: str, network: str, test: str, source: str, *, low: float | None = None,
            high: float | None = None) -> Statement:  # fmt: skip
    def risk(results: PairResults) -> list[float]:
        rows = results.theory[results.theory.network == network]
        return (rows[test] - rows.id).tolist()

    return Statement(
        says, source, f"hinge risk of {network} networks: {RISKS[test]} minus ID", risk, low, high,
        every_seed=True, given=_two_layer_learned if high is not None else None,
    )  # fmt: skip


def _reproduces(measure: str) -> Statement:
    def value(results: PairResults) -> Pooled:
        return Pooled(reproduced(results, measure)[0], len(results.theory), "network")

    return Statement(
        "The measure reproduces the known answer of the theory", "ours",
        "rank correlation with the risk that flipped backgrounds add to two-layer networks: "
        f"{KNOWN[measure]}",
        value, low=0.8, given=_two_layer_learned,
    )  # fmt: skip


def _require_way(results: PairResults, way: str) -> None:
    if way not in results.config.ways:
        raise NotJudged(f"this run does not block contamination by {BLOCKED[way]}")


def _gap(way: str) -> Statement:
    def value(results: PairResults) -> Pooled:
        _require_way(results, way)
        require_learning(results)
        return Pooled(gap_estimate(results, way).low, len(results.of(way)), "pair")

    return Statement(
        f"At equal coverage, OOD accuracy is higher with {BLOCKED[way]}", "ours",
        f"gap of pairs, {BLOCKED[way]}: lower end of the 95 % interval of the mean", value, low=0.0,
    )  # fmt: skip


def _over_pairs(
    number: Callable[[PairResults], float], part: str | None = None
) -> Callable[[PairResults], Pooled]:
    """A number over all pairs of a run that has enough of them; see `require_pairs`."""

    def value(results: PairResults) -> Pooled:
        require_pairs(results, part)
        return Pooled(number(results), len(results.of(MEAN)), "pair")

    return value


def _beyond(correlation: Correlation, edge: float) -> float:
    """A correlation whose 95 % interval leaves no doubt of the side of an edge where it is.

    Over nine pairs, the roundings of a processor can move it across.

    Raises:
        NotJudged: the interval contains the edge.
    """
    if correlation.low < edge <= correlation.high:
        raise NotJudged(
            f"{correlation.value:.2f} over {correlation.count} pairs has a 95 % interval that "
            f"contains {edge:g} ({correlation.low:.2f} to {correlation.high:.2f})"
        )
    return correlation.value


def _agreement(one: str, other: str, low: float = 0.8) -> Statement:
    def agreement(results: PairResults) -> float:
        for way in (one, other):
            _require_way(results, way)
        return _beyond(agreement_of(results, one, other), low)

    return Statement(
        "What contamination costs does not depend on how it is blocked", "ours",
        f"rank correlation of the gaps: {BLOCKED[one]} and {BLOCKED[other]}",
        _over_pairs(agreement), low=low,
    )  # fmt: skip


def _correlation(measure: str, *, given: str | None = None, low: float) -> Statement:
    more = "" if given is None else f" given {MEASURES[given]}"
    return Statement(
        "The measure predicts what contamination costs" if given is None else
        "The measure adds to what the loss predicts", "ours",
        f"rank correlation with the mean gap{more}: {MEASURES[measure]}",
        _over_pairs(lambda r: _beyond(correlated(r, measure, given=given), low)), low=low,
    )  # fmt: skip


def _out_of_sample(part: str, low: float = 0.8) -> tuple[Statement, Statement]:
    def beyond(results: PairResults) -> float:
        result = predicted(results, part)
        return result.correlation.value - result.shuffled

    return (
        Statement(
            "A measure that was chosen on other networks predicts what contamination costs", "ours",
            f"rank correlation of predicted and measured mean gap, {PARTS[part]} held out",
            _over_pairs(lambda r: _beyond(predicted(r, part).correlation, low), part), low=low,
        ),
        Statement(
            "The prediction is better than those of shuffled pairs", "ours",
            f"the same, {PARTS[part]} held out, minus the 95 % quantile of shuffled pairs",
            _over_pairs(beyond, part), low=0.0,
        ),
    )  # fmt: skip


def _largest_control(results: PairResults) -> float:
    return max(
        abs(correlated(results, f"{control} {measure}").value)
        for measure in FROM_FEATURES
        for control in CONTROLS
    )


STATEMENTS = (
    _theory("A flipped background costs ReLU networks risk", "ReLU", "flipped", "Thm. 4.3",
            low=0.5),
    _theory("New directions beside the background cost nothing", "ReLU", "added", "ours",
            high=0.02),
    _theory("Nor do new directions of four times the size", "ReLU", "added 4", "ours", high=0.05),
    _theory("A missing background costs ReLU networks risk, too", "ReLU", "replaced", "ours",
            low=0.2),
    _theory("Linear networks lose nothing", "linear", "flipped", "Thm. 4.4", high=0.02),
    _theory("Linear networks lose nothing in new directions", "linear", "added 4", "ours",
            high=0.02),
    *map(_reproduces, KNOWN),
    *map(_gap, BLOCKED),
    *(_agreement("centered", way) for way in BLOCKED if way != "centered"),
    _correlation("loss", low=0.5),
    _correlation("relative", low=0.5),
    _correlation("relative", given="loss", low=0.3),
    *(statement for part in PARTS for statement in _out_of_sample(part)),
    Statement(
        "The same measures of untrained networks predict nothing", "ours",
        "largest absolute rank correlation with the mean gap, untrained networks",
        _over_pairs(_largest_control), high=0.4,
    ),
)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """The known answer, the gaps, and what predicts them."""
    return judge_all(STATEMENTS, read_results(run))
