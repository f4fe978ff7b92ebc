"""Does diverse pre-training linearize the background, and does this explain its robustness?

The conjecture of Section 6.1 says so. Here the diversity of the pre-training data is a dose: the
number of families of backgrounds, at equal numbers of images and of steps.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter
from statistics import fmean
from typing import Annotated, Any, NamedTuple

import pandas
import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor

from contam.experiment import Claim, Experiment, NotJudged, Pooled, Stage, Statement, judge_all
from contam.experiments.support.altered_backgrounds import altered_images, background_effects
from contam.experiments.support.domain_images import domains_of, unseen_objects
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import (
    CALIBRATED,
    ERM,
    SMALL_NETWORKS,
    TINY_NETWORKS,
    UNTRAINED,
    Networks,
    NetworkSpec,
)
from contam.experiments.support.per_network import (
    CONTROLS,
    by_network,
    compared,
    measure_each,
    network_table,
    null,
    require_learning,
    smallest_control,
    trained,
)
from contam.measures.attenuation import above_one
from contam.measures.correlation import spearman
from contam.measures.mediation import Mediation, mediation
from contam.measures.separability import domain_error
from contam.plots import Figure, bars, lines, matrix, over_seeds, scatter
from contam.run import DataFrame, Run
from contam.training.optimize import Recipe
from contam.training.probe import extract

LABELS, CAPTIONS, TUNED = "labels", "captions", "labels, fine-tuned"
"""Series of networks over the dose: a linear probe after pre-training on labels of the objects, or
on captions, which also name the background; and fine-tuning on ID data after the first."""
MEASURES = {
    "ood": "OOD accuracy",
    "id": "ID accuracy",
    "dependent": "share of the class response that depends on the background",
    "background": "share of the variance that the background explains additively",
    "linear": "additive share of the background's effect",
    "decodability": "accuracy of a linear classifier of the background's family",
}
"""What is drawn over the dose, and its name on an axis."""
MEDIATORS = {
    "dependent": "interaction",
    "background": "additive background",
    "decodability": "decodability",
    "counterfactual": "altered ID backgrounds",
    "id": "ID accuracy",
}
"""Measures through which diversity may act on OOD accuracy, and their names."""
SHARES = {"class": "class", "background": "background", "interaction": "interaction",
          "rest": "objects"}  # fmt: skip


def _count(families: int) -> str:
    return "1 family" if families == 1 else f"{families} families"


class Config(BaseModel, frozen=True, extra="forbid"):
    """The experiment is ours: the paper states the conjecture and does not vary pre-training."""

    networks: Networks = SMALL_NETWORKS.model_copy(
        update={
            "teacher_recipe": Recipe(3e-3, 0.05, 128, epochs=24),
            "width": 32,
        }
    )
    """The embedded benchmark; the teacher's fields are those of pre-training."""
    families: Annotated[
        tuple[Annotated[int, Field(ge=1, le=11)], ...], Field(min_length=2)
    ] = (1, 2, 3, 5, 7, 9, 11)  # fmt: skip
    """Numbers of families of backgrounds in pre-training, none of them in the OOD tests."""
    images: Annotated[int, Field(gt=0, multiple_of=40)] = 1000
    """Images whose backgrounds are altered, a multiple of 40."""
    objects: Annotated[int, Field(gt=0, multiple_of=10)] = 100
    """Objects that are shown on every background of a list, a multiple of 10."""
    seeds: PositiveInt = 10

    @property
    def series(self) -> dict[str, dict[int, NetworkSpec]]:
        """The networks of each series by number of families; 0 is without pre-training."""
        labels, captions, tuned = {0: UNTRAINED}, {0: UNTRAINED}, {0: ERM}
        for k in sorted({*self.families}):
            number = _count(k)
            labels[k] = NetworkSpec(f"{LABELS}, {number}", "pretraining", families=k)
            # The caption of a single family's images is the label.
            captions[k] = (
                labels[k] if k == 1
                else NetworkSpec(f"{CAPTIONS}, {number}", "captions", families=k)
            )  # fmt: skip
            tuned[k] = NetworkSpec(f"{LABELS}, {number}, fine-tuned", "labels", families=k,
                                   start="pretraining")  # fmt: skip
        return {LABELS: labels, CAPTIONS: captions, TUNED: tuned}

    @property
    def specs(self) -> list[NetworkSpec]:
        """All networks of a seed."""
        series = (spec for specs in self.series.values() for spec in specs.values())
        return list(dict.fromkeys([*series, CALIBRATED]))


FULL = Config()
LAPTOP = Config(
    networks=SMALL_NETWORKS.model_copy(
        update={
            "teacher_recipe": Recipe(3e-3, 0.05, 128, epochs=10),
            "standard_recipe": Recipe(3e-3, 0.05, 128, epochs=8),
            "teacher_examples": 3600,
        }
    ),
    families=(1, 3, 5, 9),
    images=400,
    seeds=3,
)
SMOKE = LAPTOP.model_copy(
    update={"networks": TINY_NETWORKS, "families": (1, 3), "images": 200, "objects": 20}
    | {"seeds": 1}
)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the missing networks, and measure each."""
    yield from measure_each(
        run, config.networks, config.seeds, partial(_measure, config),
        chosen=config.specs, name=attrgetter("part"),
    )  # fmt: skip


def _measure(
    config: Config, zoo: ModelZoo, spec: NetworkSpec
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """A network's accuracies, and how its features depend on the background."""
    shift, encoder = zoo.benchmark(spec).shift, zoo.network(spec).encoder
    scores = zoo.judge(spec)
    row: dict[str, Any] = {
        role: fmean(score["score"] for score in scores if score["role"] == role)
        for role in ("id", "ood")
    }
    parts = domains_of(shift)
    features = torch.cat([extract(encoder, part) for part in parts])
    domain = torch.cat([part.origin for part in parts])
    row["decodability"] = 1 - domain_error(features, domain, unseen_objects(parts, zoo.seed))
    altered = altered_images(zoo.seed, images=config.images, objects=config.objects)
    effects = background_effects(encoder, altered, len(shift.classes))
    shares = effects.everywhere
    row |= {
        "class": shares.of_class,
        "background": shares.of_background,
        "interaction": shares.of_interaction,
        "rest": shares.of_rest,
        "dependent": effects.dependent,
        "linear": shares.of_background / (shares.of_background + shares.of_interaction),
        "counterfactual": effects.attenuation,
    }
    return [row], {}


class DoseResults(NamedTuple):
    """What claims and figures read."""

    config: Config
    table: DataFrame
    """A row for each network and seed."""
    points: DataFrame
    """The rows with `series` and `families`; a network of two series has a row in each."""


def _results(run: Run) -> DoseResults:
    config = Config.model_validate(run.config)
    table = network_table(run, config.specs)
    points = [
        table[table.network == spec.name].assign(series=series, families=k)
        for series, specs in config.series.items()
        for k, spec in specs.items()
    ]
    return DoseResults(config, table, pandas.concat(points, ignore_index=True))


def mediated(results: DoseResults, mediator: str, *, given: str | None = None) -> Mediation:
    """How much of the effect of diversity on OOD accuracy goes through a measure.

    The dose is the logarithm to base 2 of the number of families. Networks without pre-training are
    left out, since they differ in the number of images, too. Series and seeds have intercepts.

    Args:
        results: the networks.
        mediator: a column of the table.
        given: a column that is held constant.

    Source: Sec. 6.1, "hence mitigating feature contamination and improving OOD generalization".

    Raises:
        NotJudged: there is one seed, or a network did not learn.
    """
    trained = results.points[results.points.families > 0]
    require_learning(results.table, "id", trained.network.unique().tolist())
    if results.config.seeds == 1:
        raise NotJudged("one seed gives no interval")

    def column(name: str) -> Tensor:
        return torch.tensor(trained[name].tolist(), dtype=torch.float64)

    return mediation(
        column("families").log2(), column(mediator), column("ood"),
        groups=torch.tensor(trained.groupby(["series", "seed"]).ngroup().tolist()),
        clusters=torch.tensor(trained.seed.tolist()),
        given=None if given is None else column(given),
    )  # fmt: skip


def _difference(
    column: str, one: NetworkSpec, other: NetworkSpec, results: DoseResults
) -> list[float]:
    first, second = compared(results.table, column, one, other)
    if other is UNTRAINED:
        # The claims say that a trained network has less, so the smallest control is the strictest.
        second = smallest_control(by_network(results.table, column))
    learned = [spec.name for spec in (one, other) if spec not in CONTROLS]
    require_learning(results.table, "id", learned)
    return (first - second).tolist()


def _over_dose(
    says: str, series: str, column: str, *, low: float | None = None, high: float | None = None
) -> Statement:
    """A claim on a measure after pre-training on the most families, minus on the fewest."""

    def measure(results: DoseResults) -> list[float]:
        fewest, *_, most = sorted({*results.config.families})
        specs = results.config.series[series]
        return _difference(column, specs[most], specs[fewest], results)

    return Statement(
        f"{says} ({series})", "Sec. 6.1",
        f"{MEASURES[column]}, {{most}} minus {{fewest}} ({series})",
        measure, low, high, every_seed=True,
    )  # fmt: skip


def _against(
    says: str,
    column: str,
    one: tuple[str, str],
    other: tuple[str, str],
    *,
    low: float | None = None,
    high: float | None = None,
) -> Statement:
    """A claim on two networks: a series and its dose, which is "none", "fewest" or "most"."""

    def measure(results: DoseResults) -> list[float]:
        doses = [0, *sorted({*results.config.families})]
        at = {"none": 0, "fewest": doses[1], "most": doses[-1]}
        first, second = (results.config.series[series][at[dose]] for series, dose in (one, other))
        return _difference(column, first, second, results)

    controls = {(LABELS, "none"): "the smallest of the untrained networks",
                (TUNED, "none"): ERM.name}  # fmt: skip
    first, second = (
        controls.get((series, dose), f"{series}, {{{dose}}}") for series, dose in (one, other)
    )
    return Statement(
        says, "ours", f"{MEASURES[column]}: {first} minus {second}", measure, low, high,
        every_seed=True,
    )  # fmt: skip


def _share(results: DoseResults, mediator: str) -> float:
    mediation = mediated(results, mediator)
    if mediation.total.low <= 0 <= mediation.total.high:
        raise NotJudged(
            "the interval of the effect of diversity on OOD accuracy includes 0, so there is no "
            "effect to mediate"
        )
    return mediation.share.value


def _tracks(results: DoseResults) -> Pooled:
    networks = results.table[results.table.network.isin(trained(results.table))]
    require_learning(results.table, "id")
    interaction, ood = (
        torch.tensor(networks[key].tolist(), dtype=torch.float64) for key in ("dependent", "ood")
    )
    return _pooled(spearman(interaction, ood), results)


def _pooled(value: float, results: DoseResults) -> Pooled:
    return Pooled(value, results.config.seeds)


STATEMENTS = (
    *(
        statement
        for series in (LABELS, CAPTIONS, TUNED)
        for statement in (
            _over_dose("Diverse pre-training improves OOD accuracy", series, "ood", low=0.05),
            _over_dose("Diverse pre-training mitigates feature contamination", series, "dependent",
                       high=-0.02),
            _over_dose("Diverse pre-training does not remove the background", series, "background",
                       low=-0.1),
            _over_dose("Diverse pre-training keeps the background linearly decodable", series,
                       "decodability", low=-0.05),
            _over_dose("Diverse pre-training makes the background's effect additive", series,
                       "linear", low=0.02),
        )
    ),
    Statement(
        "Networks with less interaction have a higher OOD accuracy",
        "Sec. 6.1",
        "rank correlation of interaction and OOD accuracy, trained networks",
        _tracks,
        high=-0.5,
    ),
    Statement(
        "The interaction mediates the effect of diversity on OOD accuracy",
        "Sec. 6.1",
        "indirect effect per doubling of the families, lower end of the 95 % interval",
        lambda results: _pooled(mediated(results, "dependent").indirect.low, results),
        low=0.005,
    ),
    Statement(
        "The interaction mediates at least half of the effect",
        "ours",
        "share of the effect that the interaction mediates",
        lambda results: _pooled(_share(results, "dependent"), results),
        low=0.5,
    ),
    Statement(
        "The interaction mediates the effect at equal ID accuracy, too",
        "ours",
        "indirect effect given ID accuracy, lower end of the 95 % interval",
        lambda results: _pooled(mediated(results, "dependent", given="id").indirect.low, results),
        low=0.005,
    ),
    Statement(
        "The interaction mediates more of the effect than decodability does",
        "Sec. 6.1",
        "share of the effect that is mediated, interaction minus decodability",
        lambda results: _pooled(
            _share(results, "dependent") - _share(results, "decodability"),
            results,
        ),
        low=0.2,
    ),
    _against("Captions keep the background decodable, and labels do not", "decodability",
             (CAPTIONS, "most"), (LABELS, "most"), low=0.1),
    _against("Networks that learn labels on many backgrounds discard the background",
             "decodability", (LABELS, "most"), (LABELS, "none"), high=-0.1),
    _against("Robustness by discarding the background: labels on many families beat training from "
             "scratch", "ood", (LABELS, "most"), (TUNED, "none"), low=0.05),
    _against("Robustness by a separate representation: captions on many families beat training "
             "from scratch", "ood", (CAPTIONS, "most"), (TUNED, "none"), low=0.05),
    _against("More images alone do not help: pre-training on few families does not improve OOD "
             "accuracy", "ood", (TUNED, "fewest"), (TUNED, "none"), high=0.05),
)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """The conjecture's parts over the dose, the mediation, and two ways to robustness."""
    results = _results(run)
    fewest, *_, most = sorted({*results.config.families})
    return judge_all(STATEMENTS, results, fewest=_count(fewest), most=_count(most))


def draw(run: Run) -> Sequence[Figure]:
    """Every measure over the dose, the mediation, and the shares of the variance."""
    results = _results(run)
    return [_over_families(results), _mediation(results), _variance(results)]


def _over_families(results: DoseResults) -> Figure:
    means = {
        key: over_seeds(results.points, ["series", "families"], key) for key in MEASURES
    }  # fmt: skip
    panels = tuple(
        lines(
            means[key],
            title=name[0].upper() + name[1:],
            x=("families", "families of backgrounds in pre-training"),
            y=(key, "share"),
            series=("series", ""),
            points=True,
        )
        for key, name in MEASURES.items()
    )
    columns = ["network", "series", "families", "seed", *MEASURES, "counterfactual"]
    return Figure(
        "Diversity of pre-training as a dose",
        "Numbers of images and steps are the same at every dose of 1 or more, and no family is in "
        "the OOD tests. 0 is an untrained network with a linear probe; for the fine-tuned series, "
        "it is a network that learns the ID data from scratch. Bands: all seeds.",
        "Sec. 6.1",
        panels,
        tuple(results.points[columns].to_dict("records")),
        above_one(results.points.counterfactual),
    )


def _mediation(results: DoseResults) -> Figure:
    trained = results.points[results.points.families > 0].assign(
        dose=lambda points: points.families.astype(str)
    )
    panels = [
        scatter(
            trained,
            title="OOD accuracy against the interaction",
            x=("dependent", MEASURES["dependent"]),
            y=("ood", "OOD accuracy"),
            series=("series", ""),
            shape=("dose", "families"),
        )
    ]
    rows, caption = [], ""
    try:
        for key, name in MEDIATORS.items():
            rows += _effects(name, mediated(results, key))
        rows += _effects("interaction, given ID accuracy",
                         mediated(results, "dependent", given="id"))  # fmt: skip
    except NotJudged as reason:
        caption = f" No mediation is estimated: {reason}."
    else:
        panels.append(
            bars(
                [row for row in rows if row["effect"] == "indirect"],
                title="OOD accuracy per doubling of the families that goes through a measure",
                x=("measure", ""),
                y=("value", f"indirect effect (total {rows[0]['value']:.3f})"),
            )
        )
        caption = (
            " Whiskers are 95 % bootstrap intervals over the seeds, "
            f"which are too narrow for {results.config.seeds} seeds."
        )
    return Figure(
        "What explains the effect of diversity on OOD accuracy",
        "Left, every mark is a network of one seed. Right, OOD accuracy is regressed on the "
        "logarithm of the number of families, with and without a measure; the difference is the "
        f"indirect effect.{caption}",
        "ours",
        tuple(panels),
        tuple(rows) or tuple(trained[["network", "seed", "dependent", "ood"]].to_dict("records")),
    )


def _effects(name: str, mediation: Mediation) -> list[dict[str, Any]]:
    """A row for each effect, in the order of the fields."""
    return [
        {"measure": name, "effect": effect, **getattr(mediation, effect)._asdict()}
        for effect in ("total", "direct", "indirect", "share")
    ]


def _variance(results: DoseResults) -> Figure:
    cells = [
        {"network": row["network"], "part": name, "share": row[key]}
        for key, name in SHARES.items()
        for row in over_seeds(results.table, ["network"], key)
    ]
    panel = matrix(
        cells,
        title="Shares of the variance of the last features",
        x=("part", "explained by"),
        y=("network", ""),
        value=("share", "share of the variance"),
    )
    return Figure(
        "Class, background and their interaction in each network",
        "The same objects on every background of the ID and OOD families. Background is what it "
        "adds to the features of all classes alike, and interaction is what it changes in the "
        "response to the class. Means over seeds.",
        "ours",
        (panel,),
        tuple(cells),
    )


def summarize(run: Run) -> str:
    """What diversity changes, and how much of it the interaction mediates."""
    results = _results(run)
    fewest, *_, most = sorted({*results.config.families})
    specs = results.config.series[LABELS]
    means = results.table.groupby("network")[[*MEASURES]].mean()
    few, many = (means.loc[specs[k].name] for k in (fewest, most))
    changes = ", ".join(
        f"{name} from {few[key]:.2f} to {many[key]:.2f}"
        for key, name in (("ood", "OOD accuracy"), ("dependent", "the interaction"),
                          ("decodability", "decodability of the background"))
    )  # fmt: skip
    try:
        indirect = mediated(results, "dependent").indirect
    except NotJudged as reason:
        sentence = f"No mediation is estimated: {reason}."
    else:
        sentence = (
            f"Through the interaction, OOD accuracy changes by {indirect.value:+.3f} for each "
            f"doubling of the families ({indirect.low:+.3f} to {indirect.high:+.3f})."
        )
    return (
        f"Pre-training on {most} families of backgrounds instead of {fewest}: {changes}. {sentence}"
    )


EXPERIMENT = Experiment(
    name="conjecture_pretraining",
    title="The conjecture: does diverse pre-training linearize the background?",
    about="The paper conjectures that diverse pre-training does not remove uncorrelated features, "
    "but linearizes them, which mitigates feature contamination and improves OOD accuracy. Here "
    "networks are pre-trained on 1 to 9 families of backgrounds, at equal numbers of images, and "
    "tested on others. The effect of the background on their features is split into an additive "
    "part and an interaction with the class.",
    reproduces=("Sec. 6.1",),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: Sec. 6.1, the conjecture as a dose of diversity."""
