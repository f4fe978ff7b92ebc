"""Figures of networks that learned dominoes."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contam.experiments.dominoes.cases import REVERSED, Case, pictured, profiled
from contam.experiments.dominoes.results import SECOND, Seen
from contam.plots import (
    Figure,
    Panel,
    bars,
    contact_sheet,
    histogram,
    lines,
    matrix,
    on_same_axes,
    over_seeds,
)
from contam.run import Run

TESTS = ("as in training", "top randomized", "top flipped")


def figures(run: Run) -> Sequence[Figure]:
    """The dominoes, how hard each feature is, what harms, what shows early, what layers say."""
    seen = Seen(run)
    return [
        _sheet(run, seen),
        _alone(seen),
        _harm(seen),
        _alarm(seen),
        _recovery(seen),
        _inside(seen),
    ]


def _sheet(run: Run, seen: Seen) -> Figure:
    shown = pictured(seen.config)
    rows = [
        [each.permute(1, 2, 0).numpy() for each in run.arrays(case.part(0))["pictures"]]
        for case in shown
    ]
    sheet = contact_sheet(
        rows,
        title="From above: " + ", ".join(shown.values()),
    )
    return Figure(
        "Dominoes",
        "The lower half says what the class is. The upper half shows the class as well while a "
        "network learns, and is random, flipped or black when it is judged. In the last row it is "
        "noise, and one of two patterns that say nothing lies under both halves.",
        "ours",
        (sheet,),
    )


def _alone(seen: Seen) -> Figure:
    config = seen.config
    rows = [
        {"feature": cue, key: value}
        for key in ("mean", "as in training")
        for cue in (config.core, *config.spurious)
        for value in seen.each(Case("alone", cue), key)
    ]
    panels, told = [], []
    for key, title, y in (
        ("mean", "Mean prediction depth", "probes"),
        ("as in training", "Accuracy", "share of the ID test"),
    ):
        means = over_seeds([row for row in rows if key in row], ["feature"], key)
        told += means
        panels.append(
            bars(
                means,
                title=title,
                x=("feature", "learned alone"),
                y=(key, y),
            )
        )
    samples = {}
    for cue in (config.spurious[0], config.core, config.spurious[-1]):
        shares = np.mean(seen.shares(Case("alone", cue)), axis=0)
        defined = np.rint(10_000 * shares).astype(int)
        samples[cue] = np.repeat(np.arange(len(shares)), defined).astype(float)
    edges = np.arange(len(shares) + 1) - 0.5
    chart, bins = histogram(
        samples,
        title="Where answers are decided",
        x="prediction depth, from the input to the softmax",
        edges=edges,
        y="share of pictures that have a depth",
        wide=True,
    )
    return Figure(
        "How hard each feature is",
        "Each network sees one feature beside noise. Prediction depth is the first probe from "
        f"which on {config.rule.k} neighbors say at every probe what the network says. Bars: mean "
        "over seeds; whiskers: all seeds.",
        SECOND,
        (*panels, chart),
        (*told, *bins),
    )


def _harm(seen: Seen) -> Figure:
    config = seen.config
    depth, core = seen.alone("mean"), seen.each(seen.core, "mean")
    harm, low, high = (seen.over(key) for key in ("harm", "harm_low", "harm_high"))
    rows = []
    for seed in seen.seeds:
        for place in np.argsort(depth[seed], kind="stable"):
            rows.append(
                {"series": f"seed {seed}", "depth": depth[seed, place]}
                | {"harm": harm[seed, place], "feature": config.spurious[place]}
                | {"low": low[seed, place], "high": high[seed, place]}
            )
    middle = statistics.fmean(core)
    top = max(0.5, float(harm.max()))
    rule = [
        {"series": f"{config.core} alone", "depth": middle, "harm": end, "feature": config.core}
        for end in (0.0, top)
    ]
    order = np.argsort(depth.mean(axis=0), kind="stable")
    curves = []
    for test in TESTS:
        table = seen.over(test)
        for place in order:
            values = table[:, place]
            curves.append(
                {"series": test.replace("top", "feature")}
                | {"depth": depth[:, place].mean(), "accuracy": values.mean()}
                | {"low": values.min(), "high": values.max(), "feature": config.spurious[place]}
            )
    panels = (
        lines(
            rows + rule,
            title="Harm of a spurious feature",
            x=("depth", "depth of the feature alone, probes"),
            y=("harm", "accuracy lost when it is random"),
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
        "What harms, and how much",
        "Dose and response: each point is a network that learned the same core below one of "
        f"{len(config.spurious)} features, which always agreed. The upright line is how deep the "
        "core is by itself. Left: a curve for each seed, bands: 95 % over its test pictures. "
        "Right: means over seeds, bands: all seeds.",
        "ours",
        panels,
        (*rows, *curves),
    )


def _alarm(seen: Seen) -> Figure:
    config = seen.config
    shown = {f"{config.core} alone": seen.core}
    shown |= {f"{cue} over {config.core}": Case("over", cue) for cue in config.spurious}
    shown[f"{config.spurious[0]} as the core"] = Case("as core", config.spurious[0])
    shown[f"{config.core} on backgrounds"] = seen.background
    ends = {"after one epoch": 1, f"after {config.epochs} epochs": config.epochs}
    rows = [
        {"network": name, "when": when, "early": value}
        for name, case in shown.items()
        for when, epoch in ends.items()
        for value in seen.each(case, "early", epoch)
    ]
    means = over_seeds(rows, ["network", "when"], "early")
    table = []
    for key in (*TESTS, "top blank", REVERSED, "undefined"):
        for name, case in shown.items():
            asked = key.startswith("top") and case.kind != "over"
            if not asked and (key != REVERSED or case == seen.background):
                table.append({"network": name, "what": key, "value": seen.mean(case, key)})
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
        "The early alarm, and what sets it off",
        "An easy spurious feature decides at the first probes after a single epoch. So does an "
        "easy core: depth says that something is easy, and not that it is spurious. A background "
        "that says nothing of the class sets nothing off. Whiskers: all seeds.",
        SECOND,
        panels,
        (*means, *table),
    )


def _recovery(seen: Seen) -> Figure:
    config = seen.config
    easy, hard = config.spurious[0], config.spurious[-1]
    panels, rows = [], []
    for cue, case in ((easy, seen.rare), (hard, seen.rare_hard)):
        curves = []
        for key, name in (
            ("top randomized", "accuracy, feature random"),
            ("follows", "answers that follow the feature"),
            ("early", "decided at the first two probes"),
        ):
            for epoch in range(1, config.epochs + 1):
                values = seen.each(case, key, epoch)
                curves.append(
                    {"what": name, "epoch": epoch, "share": statistics.fmean(values)}
                    | {"low": min(values), "high": max(values), "feature": cue}
                )
        panels.append(
            lines(
                curves,
                title=f"{cue} over {config.core}, agreeing in {config.agreement:.0%}",
                x=("epoch", "epochs"),
                y=("share", "share of test pictures"),
                series=("what", ""),
            )
        )
        rows += curves
    found = [
        {"feature": cue, "where": where, "auc": value}
        for cue, case in ((easy, seen.rare), (hard, seen.rare_hard))
        for where in ("in the data", "in the network")
        for value in seen.found(case, where)
    ]
    means = over_seeds(found, ["feature", "where"], "auc")
    panels.append(
        bars(
            means,
            title="Counter-examples found after one epoch",
            x=("feature", "feature that they contradict"),
            y=("auc", "area under the curve; 0.5 is chance"),
            series=("where", ""),
        )
    )
    return Figure(
        "With counter-examples",
        "A few training examples contradict the feature, and a network that began with it can "
        "recover. Prediction depth does not see that. In the data, counter-examples are those "
        "whose neighbors have another label; in the network, those of high loss. Bands and "
        "whiskers: all seeds.",
        "ours",
        (*on_same_axes(panels[:2], "y"), panels[2]),
        (*rows, *means),
    )


def _inside(seen: Seen) -> Figure:
    panels: list[Panel] = []
    rows: list[Mapping[str, Any]] = []
    for case, name in profiled(seen.config).items():
        other = "background" if case.kind == "background" else "spurious feature"
        curves = []
        for about, called in (("label", "class"), ("cue", other)):
            for state in ("trained", "untrained"):
                bits = seen.bits(case, about, state)
                curves += [
                    {
                        "network": name,
                        "what": called if state == "trained" else f"{called}, untrained",
                    }
                    | {"probe": place, "bits": values.mean()}
                    | {"low": values.min(), "high": values.max()}
                    for place, values in enumerate(bits.T)
                ]
        panels.append(
            lines(
                curves,
                title=name[0].upper() + name[1:],
                x=("probe", "probe, from the input to the softmax"),
                y=("bits", "usable information, bits"),
                series=("what", "about the"),
            )
        )
        rows += curves
    return Figure(
        "What the layers say",
        f"Information that {seen.config.rule.k} neighbors use about the class, and about what is "
        "independent of it where this is measured: the spurious feature, made random, or the "
        "background. Both have one bit. What untrained networks pass on was not learned. Bands: "
        "all seeds.",
        "ours",
        on_same_axes(panels),
        tuple(rows),
    )
