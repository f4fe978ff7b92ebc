"""Figures of the dominoes experiment."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from contam.experiment import capitalized
from contam.experiments.dominoes.cases import REVERSED, Case, pictured, profiled
from contam.experiments.dominoes.results import MURALI, DominoesResults
from contam.experiments.support.untrained_controls import CONTROLS, TRAINED
from contam.plots import (
    Figure,
    Panel,
    bars,
    channels_last,
    contact_sheet,
    histogram,
    lines,
    matrix,
    over_seeds,
    share_axes,
)
from contam.run import Run

TESTS = ("as in training", "top randomized", "top flipped")


def draw(run: Run) -> Sequence[Figure]:
    """Dominoes, difficulty, accuracy drops, early decisions, counter-examples and layers."""
    results = DominoesResults(run)
    return [
        _sheet(run, results),
        _difficulty(results),
        _accuracy_drop(results),
        _alarm(results),
        _counterexamples(results),
        _information(results),
    ]


def _sheet(run: Run, results: DominoesResults) -> Figure:
    shown = pictured(results.config)
    rows = [channels_last(run.arrays(case.part(0))["pictures"]) for case in shown]
    return Figure(
        "Dominoes",
        "The lower half determines the class. The upper half also shows the class during training, "
        "and is random, flipped or black at test time. In the last row it is noise, and one of two "
        "patterns that are independent of the class is added to both halves.",
        "ours",
        (contact_sheet(rows, title="From top to bottom: " + ", ".join(shown.values())),),
    )


def _difficulty(results: DominoesResults) -> Figure:
    config = results.config
    panels, table = [], []
    for column, title, unit in (
        ("depth", "Mean prediction depth", "probes"),
        ("as in training", "Accuracy", "share of the ID test"),
    ):
        rows = [
            {"feature": feature, column: value}
            for feature in (config.core, *config.spurious)
            for value in results.values(Case("alone", feature), column)
        ]
        means = over_seeds(rows, ["feature"], column)
        table += means
        panels.append(bars(means, title=title, x=("feature", "learned alone"), y=(column, unit)))
    samples = {}
    for feature in (config.spurious[0], config.core, config.spurious[-1]):
        shares = np.mean(results.shares(Case("alone", feature)), axis=0)
        counts = np.rint(10_000 * shares).astype(int)
        samples[feature] = np.repeat(np.arange(len(shares)), counts).astype(float)
    chart, bins = histogram(
        samples,
        title="Distribution of prediction depth",
        x="prediction depth, from the input to the softmax",
        edges=np.arange(len(shares) + 1) - 0.5,
        y="share of pictures with a depth",
        wide=True,
    )
    return Figure(
        "Difficulty of each feature",
        "Each network learns one feature beside noise. Prediction depth is the first probe from "
        f"which on {config.rule.k} neighbors agree with the network's prediction at every probe. "
        "Bars: mean over seeds; whiskers: all seeds.",
        MURALI,
        (*panels, chart),
        (*table, *bins),
    )


def _accuracy_drop(results: DominoesResults) -> Figure:
    config = results.config
    depth = results.alone("depth")
    drop, low, high = (results.over(key) for key in ("accuracy_drop", "drop_low", "drop_high"))
    rows = [
        {"series": f"seed {seed}", "depth": depth[seed, place]}
        | {"accuracy_drop": drop[seed, place], "feature": config.spurious[place]}
        | {"low": low[seed, place], "high": high[seed, place]}
        for seed in results.seeds
        for place in np.argsort(depth[seed], kind="stable")
    ]
    core_depth = fmean(results.values(results.core, "depth"))
    core = [
        {"series": f"{config.core} alone", "depth": core_depth}
        | {"accuracy_drop": end, "feature": config.core}
        for end in (0.0, max(0.5, float(drop.max())))
    ]
    order = np.argsort(depth.mean(axis=0), kind="stable")
    curves = []
    for test in TESTS:
        accuracy = results.over(test)
        curves += [
            {"series": test.replace("top", "feature")}
            | {"depth": depth[:, place].mean(), "accuracy": accuracy[:, place].mean()}
            | {"low": accuracy[:, place].min(), "high": accuracy[:, place].max()}
            | {"feature": config.spurious[place]}
            for place in order
        ]
    panels = (
        lines(
            rows + core,
            title="Accuracy drop by difficulty",
            x=("depth", "depth of the feature alone, probes"),
            y=("accuracy_drop", "accuracy drop when it is random"),
            series=("series", ""),
            points=True,
        ),
        lines(
            curves,
            title="Accuracy on three tests",
            x=("depth", "depth of the feature alone, probes"),
            y=("accuracy", "accuracy"),
            series=("series", ""),
            points=True,
        ),
    )
    return Figure(
        "Harm of a spurious feature by its difficulty",
        "Each point is a network that learned the same core below one of "
        f"{len(config.spurious)} features that always agreed with the class. The vertical line is "
        "the depth of the core alone. Left: a curve for each seed; bands: 95 % over test pictures. "
        "Right: means over seeds; bands: all seeds.",
        "ours",
        panels,
        (*rows, *curves),
    )


def _alarm(results: DominoesResults) -> Figure:
    config = results.config
    shown = {f"{config.core} alone": results.core}
    shown |= {f"{name} over {config.core}": Case("over", name) for name in config.spurious}
    shown[f"{config.spurious[0]} as the core"] = results.easy_core
    shown[f"{config.core} on backgrounds"] = results.background
    epochs = {"after one epoch": 1, f"after {config.epochs} epochs": config.epochs}
    rows = [
        {"network": name, "when": when, "early": value}
        for name, case in shown.items()
        for when, epoch in epochs.items()
        for value in results.values(case, "early", epoch)
    ]
    means = over_seeds(rows, ["network", "when"], "early")
    table = []
    for column in (*TESTS, "top blank", REVERSED, "undefined"):
        for name, case in shown.items():
            without = column.startswith("top") and case.kind != "over"
            if not without and (column != REVERSED or case == results.background):
                value = fmean(results.values(case, column))
                table.append({"network": name, "what": column, "value": value})
    panels = (
        bars(
            means,
            title="Decided at the input or the first layer",
            x=("network", ""),
            y=("early", "share of pictures"),
            series=("when", ""),
            wide=True,
        ),
        matrix(
            table,
            title="After training: accuracy on every test, and the share without a depth",
            x=("what", ""),
            y=("network", ""),
            value=("value", "share"),
        ),
    )
    return Figure(
        "The early alarm, and its false alarms",
        "An easy spurious feature decides predictions at the first probes after a single epoch. So "
        "does an easy core: depth shows that a feature is easy, not that it is spurious. A "
        "background that is independent of the class raises no alarm. Whiskers: all seeds.",
        MURALI,
        panels,
        (*means, *table),
    )


def _counterexamples(results: DominoesResults) -> Figure:
    config = results.config
    contradicted = {
        config.spurious[0]: results.easy_contradicted,
        config.spurious[-1]: results.hard_contradicted,
    }
    panels, rows = [], []
    for feature, case in contradicted.items():
        curves = []
        for column, name in (
            ("top randomized", "accuracy, feature random"),
            ("follows", "predictions that follow the feature"),
            ("early", "decided at the first two probes"),
        ):
            for epoch in range(1, config.epochs + 1):
                values = results.values(case, column, epoch)
                curves.append(
                    {"what": name, "epoch": epoch, "share": values.mean()}
                    | {"low": values.min(), "high": values.max(), "feature": feature}
                )
        panels.append(
            lines(
                curves,
                title=f"{feature} over {config.core}, agreeing in {config.agreement:.0%}",
                x=("epoch", "epochs"),
                y=("share", "share of test pictures"),
                series=("what", ""),
            )
        )
        rows += curves
    detected = [
        {"feature": feature, "score": name, "auc": value}
        for feature, case in contradicted.items()
        for score, name in (("neighbors", "neighbors in pixel space"), ("loss", "loss"))
        for value in results.auc(case, score)
    ]
    means = over_seeds(detected, ["feature", "score"], "auc")
    panels.append(
        bars(
            means,
            title="Detection of counter-examples after one epoch",
            x=("feature", "feature that they contradict"),
            y=("auc", "area under the curve; 0.5 is chance"),
            series=("score", ""),
        )
    )
    return Figure(
        "Training with counter-examples",
        "A few training examples contradict the feature, so a network that relied on it first can "
        "recover. Prediction depth does not show this. Counter-examples are ranked by the number "
        "of their nearest neighbors with another label, or by the network's loss. Bands and "
        "whiskers: all seeds.",
        "ours",
        (*share_axes(panels[:2], "y"), panels[2]),
        (*rows, *means),
    )


def _information(results: DominoesResults) -> Figure:
    panels: list[Panel] = []
    rows: list[Mapping[str, Any]] = []
    for case, name in profiled(results.config).items():
        domain = "background" if case.kind == "background" else "spurious feature"
        curves = []
        for column, about in (("label", "class"), ("domain", domain)):
            for state in (TRAINED, *CONTROLS):
                curves += [
                    {"network": name, "what": about if state == TRAINED else f"{about}, {state}"}
                    | {"probe": place, "bits": values.mean()}
                    | {"low": values.min(), "high": values.max()}
                    for place, values in enumerate(results.bits(case, column, state).T)
                ]
        panels.append(
            lines(
                curves,
                title=capitalized(name),
                x=("probe", "probe, from the input to the softmax"),
                y=("bits", "usable information, bits"),
                series=("what", "about the"),
            )
        )
        rows += curves
    return Figure(
        "Usable information of the layers",
        f"Information that {results.config.rule.k} neighbors use about the class, and about the "
        "spurious feature or the background, which is independent of the class in these tests. "
        "Both have one bit. What untrained networks pass on, as drawn or with calibrated batch "
        "norms, was not learned. Bands: all seeds.",
        "ours",
        share_axes(panels),
        tuple(rows),
    )
