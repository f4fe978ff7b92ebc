"""Claims about dominoes as a table: harm, difficulty, early decisions, layers and controls."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch

from contam.experiment import Claim, NotJudged, Pooled, Statement, judge_all
from contam.experiments.dominoes.cases import Case
from contam.experiments.dominoes.results import MURALI, DominoesResults
from contam.experiments.support.untrained_controls import CONTROLS, TRAINED, strictest
from contam.measures.correlation import spearman
from contam.run import Run

HARMFUL = 0.1
"""Accuracy drop that separates harmful from benign features; its interval must exclude it."""
LEARNED = 0.7
"""ID accuracy in every seed from which on a network has learned; chance is 0.5."""
FEWEST = 4
"""Fewest features for a rank correlation."""

Measure = Callable[[DominoesResults], list[float]]
Network = Literal[
    "core", "easy", "hard", "easy_contradicted", "hard_contradicted", "background", "easy_core"
]
"""A case of `DominoesResults`."""


def _learned(network: Network, measure: Measure) -> Measure:
    """A measure of networks that learned the class, and whose feature is as easy as its name says.

    Otherwise the claim is not judged, since an untrained network would satisfy it, too.
    """

    def guarded(results: DominoesResults) -> list[float]:
        case = getattr(results, network)
        accuracy = float(results.values(case, "as in training").min())
        if accuracy < LEARNED:
            raise NotJudged(f"a network did not learn: ID accuracy {accuracy:.2f} ({case.name})")
        for start, sign, relation in (("easy", -1, "easier"), ("hard", 1, "harder")):
            if network.startswith(start) and not (results.order(case.feature) == sign).all():
                raise NotJudged(
                    f"{case.feature} is not {relation} than {results.config.core} in every seed: "
                    "the intervals of their depths overlap, or the order is reversed"
                )
        return measure(results)

    return guarded


def _column(
    network: Network, column: str, epoch: int | None = None, *, state: str = TRAINED
) -> Measure:
    return lambda results: results.values(
        getattr(results, network), column, epoch, state=state
    ).tolist()


def _minus(
    network: Network, other: Network, column: str, epoch: int, state: str = TRAINED
) -> Measure:
    """A column of one network minus the column of another."""

    def measure(results: DominoesResults) -> list[float]:
        one, two = (
            results.values(getattr(results, name), column, epoch, state=state)
            for name in (network, other)
        )
        return (one - two).tolist()

    return measure


def _change(network: Network, column: str) -> Measure:
    """A column after the last epoch minus the column after the first."""

    def measure(results: DominoesResults) -> list[float]:
        case = getattr(results, network)
        return (results.values(case, column) - results.values(case, column, 1)).tolist()

    return measure


def _learned_change(measure: Callable[[str], Measure], *, at_least: bool) -> Measure:
    """A measure minus that of the untrained networks that supports the claim the least.

    Args:
        measure: The measure of a state.
        at_least: Whether the claim is that the change is large, and not small.
    """

    def change(results: DominoesResults) -> list[float]:
        trained, *others = (np.array(measure(state)(results)) for state in (TRAINED, *CONTROLS))
        return strictest([trained - other for other in others], at_least=at_least).tolist()

    return change


def _depth_gap(place: int, state: str = TRAINED) -> Measure:
    """The mean depth of a spurious feature alone minus that of the core alone."""

    def measure(results: DominoesResults) -> list[float]:
        feature = Case("alone", results.config.spurious[place])
        depths = (results.values(case, "depth", state=state) for case in (feature, results.core))
        return np.subtract(*depths).tolist()

    return measure


def _auc(network: Network, score: str) -> Measure:
    return lambda results: results.auc(getattr(results, network), score).tolist()


def _at_input(results: DominoesResults) -> list[float]:
    return results.shares(results.easy)[:, 0].tolist()


def _rank_correlation(results: DominoesResults) -> list[float]:
    depth, drop = results.alone("depth"), results.over("accuracy_drop")
    if depth.shape[1] < FEWEST:
        raise NotJudged(f"a rank correlation needs {FEWEST} features, got {depth.shape[1]}")
    if np.isnan(depth).any() or not (np.ptp(depth, axis=1) * np.ptp(drop, axis=1)).all():
        raise NotJudged("in a seed, a feature has no depth, or all accuracy drops are equal")
    pairs = zip(torch.from_numpy(depth), torch.from_numpy(drop), strict=True)
    return [spearman(one, other) for one, other in pairs]


def _agreement(results: DominoesResults) -> Pooled:
    """The share of features and seeds with clear intervals where easier features are harmful."""
    if float(results.values(results.core, "as in training").min()) < LEARNED:
        raise NotJudged("a network did not learn the core feature")
    features = results.config.spurious
    order = np.stack([results.order(feature) for feature in features], axis=1)
    harmful = results.over("drop_low") > HARMFUL
    clear = (order != 0) & (harmful | (results.over("drop_high") < HARMFUL))
    if not clear.any():
        raise NotJudged("every feature's interval of depth or accuracy drop leaves it open")
    return Pooled(float(np.mean((order < 0)[clear] == harmful[clear])), int(clear.sum()), "pair")


def _least_accuracy(results: DominoesResults) -> list[float]:
    core = results.values(results.core, "as in training")[:, None]
    return (results.over("as in training") - core).min(axis=1).tolist()


def _class_bits(results: DominoesResults) -> list[float]:
    return results.bits(results.easy, "label", "trained").max(axis=1).tolist()


def _bits_learned(results: DominoesResults, case: Case, about: str) -> np.ndarray:
    """(seeds, probes) bits that the untrained networks do not have, the larger of the two gains."""
    trained, *others = (results.bits(case, about, state) for state in (TRAINED, *CONTROLS))
    return np.maximum(*(trained - other for other in others))


def _class_bits_learned(results: DominoesResults) -> list[float]:
    return _bits_learned(results, results.easy, "label").max(axis=1).tolist()


def _easy_bits_of_input(results: DominoesResults) -> list[float]:
    return results.bits(results.easy, "domain", "trained")[:, 0].tolist()


def _class_minus_hard_bits(results: DominoesResults) -> list[float]:
    label, domain = (
        results.bits(results.hard, about, "trained")[:, -2] for about in ("label", "domain")
    )
    return (label - domain).tolist()


def _background_bits_learned(results: DominoesResults) -> list[float]:
    gains = _bits_learned(results, results.background, "domain")
    return gains[:, 1:-1].max(axis=1).tolist()


def _easy_core_gap(results: DominoesResults) -> list[float]:
    return np.abs(_minus("easy_core", "easy", "early", 1)(results)).tolist()


STATEMENTS = (
    Statement("Alone, the core feature can be learned", "ours", "accuracy, {core} alone",
              _column("core", "as in training"), low=0.9),
    Statement("Prediction depth ranks the easy feature before the core feature", MURALI,
              "mean depth alone, {easy} minus {core}, probes", _learned("easy", _depth_gap(0)),
              high=0.0, every_seed=True),
    Statement("Prediction depth ranks the hard feature behind the core feature", MURALI,
              "mean depth alone, {hard} minus {core}, probes", _learned("hard", _depth_gap(-1)),
              low=0.0, every_seed=True),
    Statement("The easy feature is further before the core feature than in untrained networks",
              "ours", "depth gap of {easy}, trained minus untrained, probes",
              _learned("easy", _learned_change(partial(_depth_gap, 0), at_least=False)),
              high=-0.2, every_seed=True),
    Statement("The hard feature is further behind the core feature than in untrained networks",
              "ours", "depth gap of {hard}, trained minus untrained, probes",
              _learned("hard", _learned_change(partial(_depth_gap, -1), at_least=True)),
              low=0.2, every_seed=True),
    Statement("An easy spurious feature is harmful: accuracy is at chance when it is random",
              MURALI, "accuracy when {easy} is random",
              _learned("easy", _column("easy", "top randomized")),
              low=0.4, high=0.6, every_seed=True),
    Statement("When the easy feature shows the other class, the network predicts it", "ours",
              "accuracy when {easy} is flipped", _column("easy", "top flipped"), high=0.05,
              every_seed=True),
    Statement("A hard spurious feature is benign: accuracy stays high when it is random", MURALI,
              "accuracy drop when {hard} is random",
              _learned("hard", _column("hard", "accuracy_drop")), high=0.05),
    Statement("With the easy feature, nearly all predictions are decided at the input", MURALI,
              "share decided at the input, {easy} over {core}", _at_input, low=0.98,
              every_seed=True),
    Statement("The deeper a spurious feature alone, the smaller its accuracy drop", "ours",
              "rank correlation of depth and accuracy drop over {count} features",
              _rank_correlation, high=-0.8, every_seed=True),
    Statement("A feature is harmful if and only if it is easier than the core feature", MURALI,
              f"share of features and seeds with clear intervals; harmful: drop above {HARMFUL:g}",
              _agreement, low=0.9),
    Statement("ID accuracy does not show which features are harmful", MURALI,
              "lowest ID accuracy over {count} features, minus that of the core alone",
              _learned("core", _least_accuracy), low=-0.02),
    Statement("After one epoch, nearly all predictions with the easy feature are decided early",
              MURALI, "share decided at the first two probes, {easy} over {core}, epoch 1",
              _column("easy", "early", 1), low=0.98, every_seed=True),
    Statement("With the easy feature, more is decided early than for the core alone, and the "
              "difference is greater than in untrained networks: an alarm", MURALI,
              "share decided early, {easy} over {core} minus {core} alone, epoch 1 minus 0",
              _learned("easy", _learned_change(partial(_minus, "easy", "core", "early", 1),
                                               at_least=True)),
              low=0.1, every_seed=True),
    Statement("With the hard feature, no more is decided early than for the core alone: no alarm",
              MURALI, "share decided early, {hard} over {core} minus {core} alone, epoch 1",
              _learned("hard", _minus("hard", "core", "early", 1)), high=0.05, every_seed=True),
    Statement("After one epoch, the loss identifies examples that contradict an easy feature",
              "ours", "AUC of the loss, {easy}", _auc("easy_contradicted", "loss"), low=0.9),
    Statement("After one epoch, the loss does not identify examples that contradict a hard "
              "feature", "ours", "AUC of the loss, {hard}",
              _learned("hard_contradicted", _auc("hard_contradicted", "loss")), low=0.4, high=0.65),
    Statement("Neighbors in pixel space identify examples that contradict an easy feature",
              "ours", "AUC of the neighbors, {easy}", _auc("easy_contradicted", "neighbors"),
              low=0.9, about_learning=False),
    Statement("Neighbors in pixel space also point at examples that contradict a hard feature, "
              "which is benign", "ours", "AUC of the neighbors, {hard}",
              _auc("hard_contradicted", "neighbors"), low=0.55, about_learning=False),
    Statement("With the easy feature, no layer has information about the class", "ours",
              "highest usable information about the class over layers, {easy} random, bits",
              _learned("easy", _class_bits), high=0.1, every_seed=True),
    Statement("With the easy feature, training adds no information about the class to any layer",
              "ours", "highest gain over the untrained networks, {easy} random, bits",
              _learned("easy", _class_bits_learned), high=0.1, every_seed=True),
    Statement("The input has all information about the easy feature", MURALI,
              "usable information about {easy} in the input, bits", _easy_bits_of_input, low=0.9,
              every_seed=True, about_learning=False),
    Statement("With the hard feature, the last layer has information about the class rather than "
              "the feature", "ours", "usable information, class minus {hard}, last layer, bits",
              _learned("hard", _class_minus_hard_bits), low=0.3, every_seed=True),
    Statement("Prediction depth can't distinguish an easy core from an easy spurious feature",
              "ours", "absolute difference of the shares decided early after one epoch",
              _learned("easy_core", _easy_core_gap), high=0.02, every_seed=True),
    Statement("A background that is independent of the class can cost accuracy when reversed",
              "ours", "accuracy drop on reversed backgrounds",
              _learned("background", _column("background", "accuracy_drop")), low=0.01,
              every_seed=True),
    Statement("Prediction depth gives no alarm for a background that is independent of the class",
              "ours", "share decided early after one epoch, with backgrounds minus without",
              _learned("background", _minus("background", "core", "early", 1)), high=0.05,
              every_seed=True),
    Statement("Layers pass information about the background on without learning it", "ours",
              "highest information about it in a layer, trained minus untrained, bits",
              _learned("background", _background_bits_learned), high=0.1, every_seed=True),
    Statement("With counter-examples, a network recovers from the easy feature", "ours",
              "accuracy when it is random, last epoch minus first",
              _change("easy_contradicted", "top randomized"), low=0.1, every_seed=True),
    Statement("Prediction depth does not show that a network recovers from the easy feature",
              "ours", "share decided early, last epoch minus first",
              _learned("easy_contradicted", _change("easy_contradicted", "early")), low=-0.05,
              every_seed=True),
    Statement("A network that recovers follows the easy feature less often", "ours",
              "share of predictions that follow a random feature, last epoch minus first",
              _change("easy_contradicted", "follows"), high=-0.1, every_seed=True),
    Statement("The network has less usable information about pictures of greater depth, beyond "
              "what holds for untrained networks", MURALI,
              "rank correlation of depth and information, {core} alone, trained minus untrained",
              _learned("core", _learned_change(
                  lambda state: _column("core", "information_correlation", state=state),
                  at_least=False)), high=-0.1, every_seed=True),
)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """Judge whether harmful features are the easy ones, and which measures show them early."""
    results = DominoesResults(run)
    config = results.config
    return judge_all(
        STATEMENTS,
        results,
        core=config.core,
        easy=config.spurious[0],
        hard=config.spurious[-1],
        count=len(config.spurious),
    )
