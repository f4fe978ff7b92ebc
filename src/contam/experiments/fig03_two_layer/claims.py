"""What is claimed of two-layer networks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from contam.experiment import SETTINGS_DIFFER, Claim, Statement, difference, ratio
from contam.experiments.fig03_two_layer.config import CLASSES, LINEAR_CLASSIFIER, LINEAR_REGRESSION
from contam.experiments.fig03_two_layer.results import (
    Measure,
    TwoLayerResults,
    at_end,
    at_start,
    learned,
)
from contam.experiments.support.two_layer_runs import NAMES
from contam.run import Run


def _share_of_neurons(kind: str, when: Literal["first", "last"]) -> Measure:
    """The share of neurons that respond to as many classes, before or after training."""

    def shares(results: TwoLayerResults) -> list[float]:
        table = results.responses
        at = table["time"].min() if when == "first" else table["time"].max()
        return (table[table["time"] == at]["kind"] == kind).groupby(table["part"]).mean().tolist()

    return shares


def _magnitude(measure: Measure, minus: float = 0.0) -> Measure:
    """Absolute values of the differences to a number."""
    return lambda r: [abs(value - minus) for value in measure(r)]


def _excess_over_decay(results: TwoLayerResults) -> list[float]:
    """Final background norm of the linear network over its decayed initial one, minus 1."""
    norms = (
        when("background_norm", "classification/identity")(results) for when in (at_end, at_start)
    )
    return [end / (start * results.decay) - 1 for end, start in zip(*norms, strict=True)]


STANDARD, ANY = "standard sizes", "any size"
"""Whether a claim's range is known at the standard sizes only."""

CLAIMS: tuple[tuple[str, Statement], ...] = (
    (STANDARD, Statement(
        "Most {name} neurons end up active for one class only", "Thm. 4.1",
        "share of neurons active on over 90 % of one class and under 10 % of the other",
        at_end("good_share"), low=0.75, published="Θ(m) neurons")),
    (STANDARD, Statement(
        "Neurons that are active for one class are rarely active for the other", "Thm. 4.1",
        "their activation rate on the other class",
        at_end("other_class_rate"), high=0.08, published="o(1)", given=learned())),
    (ANY, Statement(
        "Neurons of {name} networks come to respond to one class only during training", "Fig. 7",
        "share of neurons with a positive mean response to one class only, end minus start",
        difference(_share_of_neurons("one class", "last"), _share_of_neurons("one class", "first")),
        low=0.2, every_seed=True)),
    (ANY, Statement(
        "Neurons of {name} networks end with a positive response to at most one class", "Fig. 7",
        "share of neurons with a positive mean response to both classes, after training",
        _share_of_neurons("both classes", "last"), high=0.05, every_seed=True,
        published="at most one class of examples")),
    (STANDARD, Statement(
        "{name} networks learn the core features", "Thm. 4.2",
        "U, the summed core projections in the sign of the output weight, mean over neurons",
        at_end("U"), low=2.45, high=2.58, published="Θ(1)")),
    (STANDARD, Statement(
        "{name} networks also learn background features, which are independent of the label",
        "Thm. 4.2", "V, the summed background projections, mean over neurons",
        at_end("V"), low=1.75, high=1.95, published="Θ(1), up to logarithms")),
    (STANDARD, Statement(
        "{name} networks solve the training distribution", "Thm. 4.3", "ID {loss} risk",
        at_end("id_{loss}"), high=0.008, published="o(1)")),
    (STANDARD, Statement(
        "{name} networks fail when the background shifts", "Thm. 4.3", "OOD {loss} risk",
        at_end("ood_{loss}"), low=0.82, high=0.88, published="Θ(1)")),
    (STANDARD, Statement(
        "{name} networks fail most under the worst background", "Eq. 1",
        "{loss} risk with every background weight at -1, minus ID risk",
        difference(at_end("worst_{loss}"), at_end("id_{loss}")), low=0.97, high=1.03)),
    (STANDARD, Statement(
        "The failure is one of risk: few shifted examples are misclassified", "ours",
        "OOD classification error", at_end("ood_error"), high=0.02)),
    (STANDARD, Statement(
        "Linear networks learn no background", "Thm. 4.4", "|V| of the linear network",
        _magnitude(at_end("V", LINEAR_CLASSIFIER)), high=0.08, given=learned(LINEAR_CLASSIFIER))),
    (STANDARD, Statement(
        "No background projection of a linear network exceeds the order of its initial value",
        "Thm. 4.4",
        "largest background projection of the linear network, times the square root of d",
        at_end("largest_background", LINEAR_CLASSIFIER), high=4.5,
        published="O(1), up to logarithms", given=learned(LINEAR_CLASSIFIER))),
    (ANY, Statement(
        "The initial background of a linear network only decays", "Thm. 4.4",
        "background norm over start times weight decay, minus 1",
        _excess_over_decay, low=-0.02, high=0.02, given=learned(LINEAR_CLASSIFIER))),
    (STANDARD, Statement(
        "The shift costs a linear network nothing", "Thm. 4.4",
        "|OOD - ID| {loss} risk of the linear network",
        _magnitude(difference(at_end("ood_{loss}", LINEAR_CLASSIFIER),
                             at_end("id_{loss}", LINEAR_CLASSIFIER))), high=0.003,
        given=learned(LINEAR_CLASSIFIER))),
    (STANDARD, Statement(
        "{name} networks have a larger background norm than linear ones", "Fig. 8",
        "background norm, {name} over linear",
        ratio(at_end("background_norm"), at_end("background_norm", LINEAR_CLASSIFIER)),
        low=1.5, high=1.7)),
    (STANDARD, Statement(
        "{name} networks keep the background against weight decay, long after learning", "ours",
        "background norm, {name} over linear, after {long_steps} steps of size 1",
        ratio(at_end("background_norm", "long"), at_end("background_norm", "long/identity")),
        low=15.0)),
    (ANY, Statement(
        "{name} networks that regress on the core features learn background features, too",
        "Fig. 9", "V in regression, {name} minus linear",
        difference(at_end("V", "regression"), at_end("V", LINEAR_REGRESSION)),
        low=0.05, every_seed=True)),
    (ANY, Statement(
        "The norm of the background in {name} regression grows over training", "Fig. 9",
        "background norm in {name} regression, end over start",
        ratio(at_end("background_norm", "regression"), at_start("background_norm", "regression")),
        low=1.05)),
    (STANDARD, Statement(
        "It grows from the published code's initialization (biases, uniform weights)", "Fig. 9",
        "background norm in {name} regression from that initialization, end over start",
        ratio(at_end("background_norm", "script-regression/relu"),
              at_start("background_norm", "script-regression/relu")), low=1.05)),
    (ANY, Statement(
        "The shift costs {name} regression many times its ID error", "Fig. 9",
        "squared error of the {name} network, OOD over ID",
        ratio(at_end("ood_squared", "regression"), at_end("id_squared", "regression")),
        low=5.0, every_seed=True)),
    (ANY, Statement(
        "The shift costs linear regression nothing", "Fig. 9",
        "|OOD - ID| squared error of the linear network, per output",
        _magnitude(difference(at_end("ood_squared", LINEAR_REGRESSION),
                             at_end("id_squared", LINEAR_REGRESSION))), high=0.002, every_seed=True,
        given=learned(LINEAR_REGRESSION, "squared"))),
    (STANDARD, Statement(
        "The population model predicts the core projections without training", "ours",
        "predicted over trained U, minus 1",
        _magnitude(ratio(at_end("U", "prediction"), at_end("U")), minus=1), high=0.01,
        given=learned())),
    (STANDARD, Statement(
        "The population model predicts the background projections", "ours",
        "predicted over trained V, minus 1",
        _magnitude(ratio(at_end("V", "prediction"), at_end("V")), minus=1), high=0.01,
        given=learned())),
    (STANDARD, Statement(
        "The population model predicts the OOD risk", "ours",
        "|predicted - trained| OOD hinge risk",
        _magnitude(difference(at_end("ood_hinge", "prediction"), at_end("ood_hinge"))), high=0.012,
        given=learned())),
    (STANDARD, Statement(
        "The published code's initialization (a bias, uniform weights) shows the same failure",
        "ours", "OOD {loss} risk from the published code's initialization",
        at_end("ood_{loss}", "script/relu"), low=0.75, high=0.79)),
    (STANDARD, Statement(
        "From that initialization, core norms agree with the published code", "ours",
        "norm of the core projections from that initialization, mean over neurons",
        at_end("core_norm", "script/relu"), low=0.465, high=0.485)),
    (STANDARD, Statement(
        "From that initialization, background norms agree with the published code", "ours",
        "norm of the background projections from that initialization, mean over neurons",
        at_end("background_norm", "script/relu"), low=0.35, high=0.37)),
    (ANY, Statement(
        "With {classes} classes, {name} networks learn background features, too", "ours",
        "V with {classes} classes, {name} minus linear",
        difference(at_end("V", "several"), at_end("V", "several/identity")),
        low=0.1, every_seed=True)),
    (ANY, Statement(
        "With {classes} classes, the shift costs {name} networks risk", "ours",
        "OOD - ID logistic risk with {classes} classes",
        difference(at_end("ood_logistic", "several"), at_end("id_logistic", "several")),
        low=0.05, every_seed=True, given=learned("several", "logistic"))),
    (ANY, Statement(
        "With {classes} classes, the shift costs linear networks nothing", "ours",
        "|OOD - ID| logistic risk of the linear network with {classes} classes",
        _magnitude(difference(at_end("ood_logistic", "several/identity"),
                             at_end("id_logistic", "several/identity"))),
        high=0.01, given=learned("several/identity", "logistic"))),
    (STANDARD, Statement(
        "With dependent background features, {name} networks learn the background, too", "ours",
        "V with dependent backgrounds and skewed core weights, {name} minus linear",
        difference(at_end("V", "general"), at_end("V", "general/identity")),
        low=1.0, every_seed=True)),
    (STANDARD, Statement(
        "With dependent background features, {name} networks misclassify shifted examples", "ours",
        "OOD - ID error with dependent backgrounds and skewed core weights",
        difference(at_end("ood_error", "general"), at_end("id_error", "general")),
        low=0.05, every_seed=True, given=learned("general"))),
    (STANDARD, Statement(
        "With dependent background features, the shift costs linear networks nothing", "ours",
        "|OOD - ID| {loss} risk of the linear network with dependent backgrounds",
        _magnitude(difference(at_end("ood_{loss}", "general/identity"),
                             at_end("id_{loss}", "general/identity"))),
        high=0.01, given=learned("general/identity"))),
)  # fmt: skip
"""The four theorems, the numbers of the standard setting, and Appendix F.1."""


def claims(run: Run) -> Sequence[Claim]:
    """Judge the table of claims."""
    results = TwoLayerResults(run)
    setting, long_steps = results.config.setting, results.config.long_steps
    words = {"name": NAMES[setting.activation], "loss": setting.loss, "long_steps": long_steps,
             "classes": CLASSES}  # fmt: skip
    differ = f"{SETTINGS_DIFFER}: d0 64 of d 256, m 256 and training time 200"
    judged = []
    for sizes, statement in CLAIMS:
        claim = statement.judge(results, **words)
        if sizes == STANDARD and not results.is_standard:
            claim = replace(claim, not_judged=claim.not_judged or differ)
        judged.append(claim)
    return judged
