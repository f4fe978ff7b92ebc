"""Which measures predict, over a family of networks, the loss under a background shift?"""

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter
from statistics import fmean
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor

from contam.batch import Domain
from contam.experiment import Claim, Experiment, NotJudged, Pooled, Stage, Statement, judge_all
from contam.experiments.support.altered_backgrounds import (
    BackgroundEffects,
    altered_images,
    background_effects,
)
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import (
    CAPTIONED,
    CENTERED,
    ERM,
    INSTANCE,
    SMALL_NETWORKS,
    STUDENT,
    SWEEP,
    TEACHER,
    TINY_NETWORKS,
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
from contam.measures.attenuation import above_one, class_profile_attenuation
from contam.measures.class_means import ClassMeans
from contam.measures.correlation import Correlation, rank_correlation
from contam.plots import Figure, bars, matrix, over_seeds, scatter, share_axes
from contam.run import DataFrame, Run
from contam.training.probe import extract

LESS = (
    NetworkSpec("student, 4 epochs", "features", epochs=4),
    NetworkSpec("student, 1000 images", "features", examples=1000),
)
"""Students with fewer epochs or images."""
ENOUGH = 8
"""The fewest networks for a correlation."""
MEASURES = {
    "error": "ID error",
    "both": "class and background both, ID",
    "background": "background, ID",
    "interaction": "interaction, ID and OOD",
    "dependent": "interaction over class and interaction",
    "attenuation": "attenuation, ID to OOD",
    "counterfactual": "counterfactual attenuation",
}
"""The measures that are compared with the drop, and their names."""
NO_MASKS = "the data has no masks of its objects, so their backgrounds can't be changed"
FEW = "there are fewer networks than a correlation needs"


class Config(BaseModel, frozen=True, extra="forbid"):
    """The experiment is ours; the defaults are a published benchmark, teacher and student."""

    networks: Networks = Networks(data="domainnet", standard=None)
    family: bool = False
    """Also networks with less training, from captions, or with another normalization."""
    images: Annotated[int, Field(gt=0, multiple_of=40)] = 1000
    """Images whose backgrounds are altered, a multiple of 40."""
    objects: Annotated[int, Field(gt=0, multiple_of=10)] = 100
    """Objects that are shown on every background of a list, a multiple of 10."""
    least_id: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Networks below this ID accuracy are left out: they have too little to lose."""
    good: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Networks of at least this ID accuracy are also compared separately."""
    seeds: PositiveInt = 1


FULL = Config()
LAPTOP = Config(networks=SMALL_NETWORKS, family=True, seeds=3)
SMOKE = LAPTOP.model_copy(
    update={"networks": TINY_NETWORKS, "images": 200, "objects": 20, "least_id": 0.0, "good": 0.0}
    | {"seeds": 1}
)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the missing networks, and measure each."""
    yield from measure_each(
        run, config.networks, config.seeds, partial(_measure, config),
        chosen=_members(config), name=attrgetter("part"),
    )  # fmt: skip


def _members(config: Config) -> list[NetworkSpec]:
    """The networks of a seed; the family leaves out those with more images than the data has."""
    specs = [TEACHER, STUDENT, *([ERM] if config.networks.standard is not None else [])]
    if config.family:
        specs += [CAPTIONED, CENTERED, INSTANCE]
        examples = config.networks.examples
        specs += [spec for spec in (*SWEEP, *LESS) if (spec.examples or 0) <= examples]
    return [*specs, *CONTROLS]


def _measure(
    config: Config, zoo: ModelZoo, spec: NetworkSpec
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """A network's accuracies, and how much the background changes its class profile."""
    benchmark, model = zoo.benchmark(spec), zoo.network(spec)
    shift, encoder = benchmark.shift, model.encoder
    head = model.head.cpu()
    features = {test: extract(encoder, test) for test in (shift.id_test, *shift.ood_tests)}
    right = []
    for test, values in features.items():
        with torch.no_grad():
            scores = benchmark.scores(test, head(values))
        right.append(float((scores.argmax(dim=1) == test.y).double().mean()))
    classes = len(shift.classes)

    def means(*tests: Domain) -> ClassMeans:
        table = ClassMeans(len(known), features[tests[0]].shape[1])
        for test in tests:
            there = torch.isin(test.y, known)
            table.update(features[test][there], torch.bucketize(test.y[there], known))
        return table

    # Tests of some of the classes number them differently.
    plain = [test for test in shift.ood_tests if test.name not in benchmark.scorings]
    known = shift.id_test.y.unique()
    known = known[torch.isin(known, torch.cat([test.y for test in plain]))]
    own = means(shift.id_test)
    row: dict[str, Any] = {"id": right[0], "ood": fmean(right[1:]), "chance": 1 / classes}
    lost = class_profile_attenuation(own, means(*plain), noise_corrected=False)
    row |= {"error": 1 - right[0], "attenuation": lost.value}
    if config.networks.masked:
        altered = altered_images(zoo.seed, images=config.images, objects=config.objects)
        row |= counterfactual_row(background_effects(encoder, altered, classes))
    return [row], {}


def counterfactual_row(effects: BackgroundEffects) -> dict[str, float]:
    """The measures on objects whose backgrounds were changed.

    Source: ours, what changed backgrounds do to one network, as a row.
    """
    lost, familiar, everywhere = effects
    return {
        "counterfactual": effects.attenuation,
        **lost,
        "class": familiar.of_class,
        "background": familiar.of_background,
        "both": (familiar.of_class * familiar.of_background) ** 0.5,
        "interaction": everywhere.of_interaction,
        "dependent": effects.dependent,
    }


class FamilyResults(NamedTuple):
    """What claims and figures read."""

    config: Config
    table: DataFrame
    """A row for each network and seed."""
    points: DataFrame
    """The trained networks with something to lose, and their `drop`: the share of it lost."""
    measures: list[str]
    """The keys of `MEASURES` in the table."""
    correlations: dict[tuple[str, bool, bool], Correlation]
    """With the drop: by measure, given ID accuracy or not, and for good networks or all."""


def _results(run: Run) -> FamilyResults:
    config = Config.model_validate(run.config)
    return correlated(config, network_table(run, _members(config)))


def correlated(config: Config, table: DataFrame) -> FamilyResults:
    """The drop of each network, and its correlations with the measures.

    Source: ours, correlations over networks, with intervals over kinds of networks.
    """
    above = table.id - table.chance
    points = table.assign(drop=1 - (table.ood - table.chance) / above)
    kept = table.network.isin(trained(table)) & (table.id >= config.least_id) & (above != 0)
    points = points[kept]
    measures = [key for key in MEASURES if key in table]
    correlations = {}
    for good in (False, True):
        some = points[points.id >= config.good] if good else points
        if len(some) < ENOUGH:
            continue
        groups = torch.tensor(some.groupby("network", sort=False).ngroup().tolist())
        drop, accuracy = (torch.tensor(some[key].tolist(), dtype=torch.float64)
                          for key in ("drop", "id"))  # fmt: skip
        for key in measures:
            x = torch.tensor(some[key].tolist(), dtype=torch.float64)
            correlations[key, False, good] = rank_correlation(x, drop, groups=groups)
            if key != "error":
                correlations[key, True, good] = rank_correlation(
                    x, drop, given=accuracy, groups=groups
                )
    return FamilyResults(config, table, points, measures, correlations)


def _correlation(
    says: str,
    key: str,
    *,
    given: bool = False,
    good: bool = False,
    low: float | None = None,
    high: float | None = None,
) -> Statement:
    """A claim on the rank correlation of a measure with the drop."""

    def measure(results: FamilyResults) -> Pooled:
        if key not in results.measures:
            raise NotJudged(NO_MASKS)
        if (key, given, good) not in results.correlations:
            raise NotJudged(FEW)
        require_learning(results.table, "id", results.points.network.unique().tolist())
        return Pooled(results.correlations[key, given, good].value, results.config.seeds)

    kind = "partial rank correlation given ID accuracy" if given else "rank correlation"
    among = ", networks of ID accuracy {good:g} or more" if good else ""
    return Statement(says, "ours", f"{MEASURES[key]} and drop: {kind}{among}", measure, low, high)


def _difference(says: str, one: NetworkSpec, other: NetworkSpec, key: str) -> Statement:
    """A claim that one network has more of a measure than another, in every seed."""

    def measure(results: FamilyResults) -> list[float]:
        if key not in results.measures:
            raise NotJudged(NO_MASKS)
        first, second = compared(results.table, key, one, other)
        require_learning(results.table, "id", [one.name, other.name])
        return (first - second).tolist()

    quantity = f"{MEASURES[key]}: {one.name} minus {other.name}"
    return Statement(says, "ours", quantity, measure, low=0.0, every_seed=True)


def _passed_through(results: FamilyResults) -> list[float]:
    """The background's share in untrained networks, the smallest, minus a standard network's."""
    if "background" not in results.measures:
        raise NotJudged(NO_MASKS)
    require_learning(results.table, "id", [ERM.name])
    values = by_network(results.table, "background")
    return (smallest_control(values) - values[ERM.name]).tolist()


STATEMENTS = (
    _correlation("Networks with more errors on ID data lose more of their accuracy", "error",
                 low=0.5),
    _correlation("That class and background both explain a layer's variance does not predict "
                 "failure", "both", given=True, high=0.3),
    _correlation("The variance that the background alone explains does not predict failure",
                 "background", given=True, high=0.3),
    _correlation("The variance that class and background explain only together predicts failure",
                 "interaction", given=True, low=0.4),
    _correlation("The share of the class response that depends on the background predicts failure",
                 "dependent", given=True, low=0.4),
    _correlation("The attenuation of the class profile on OOD images predicts failure",
                 "attenuation", given=True, low=0.4),
    _correlation("Altered ID backgrounds predict the drop without an OOD image",
                 "counterfactual", given=True, low=0.2),
    _correlation("Altered ID backgrounds also predict the drop among good networks",
                 "counterfactual", good=True, low=0.5),
    _correlation("Among good networks the attenuation of the class profile predicts nearly all",
                 "attenuation", good=True, low=0.7),
    _correlation("Among good networks the interaction predicts nearly all", "interaction",
                 good=True, low=0.7),
    _difference("The student's class response is more coupled to the background than its teacher's",
                STUDENT, TEACHER, "attenuation"),
    _difference("A standard network's class response is more coupled than a student's",
                ERM, STUDENT, "attenuation"),
    _difference("Altered ID backgrounds, too, take more from the student than from its teacher",
                STUDENT, TEACHER, "counterfactual"),
    _difference("The features of a teacher that learned the names of backgrounds encode class and "
                "background", CAPTIONED, ERM, "both"),
    Statement("Untrained networks pass the background through", "ours",
              f"{MEASURES['background']}: the smallest of the untrained networks minus ERM",
              _passed_through, low=0.0, every_seed=True),
)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """Which measures predict the drop given ID accuracy, and how coupled which network is."""
    results = _results(run)
    return judge_all(STATEMENTS, results, good=results.config.good)


def draw(run: Run) -> Sequence[Figure]:
    """Each measure against the drop, their correlations, and all measures of each network."""
    results = _results(run)
    figures = [_against_drop(results)] if len(results.points) else []
    if results.correlations:
        figures.append(_correlations(results))
    return [*figures, _values(results)]


def _kind(network: str) -> str:
    """The series of a network in a scatter plot."""
    if network in (CAPTIONED.name, TEACHER.name):
        return "teachers"
    if network.startswith(STUDENT.name):
        return "students"
    return "ERM, other normalization" if network in (CENTERED.name, INSTANCE.name) else "ERM"


def _against_drop(results: FamilyResults) -> Figure:
    points = results.points.assign(kind=results.points.network.map(_kind))
    means = results.table[results.table.network.isin([spec.name for spec in CONTROLS])]
    random = means.groupby("network", sort=False)[results.measures].mean()
    panels = [
        scatter(
            points,
            title=f"{name[0].upper()}{name[1:]} ("
            + ", ".join(f"{control} {value:.2f}" for control, value in random[key].items())
            + ")",
            x=(key, f"{name} (share)"),
            y=("drop", "drop (share of ID accuracy above guessing)"),
            series=("kind", ""),
        )
        for key, name in MEASURES.items()
        if key in results.measures
    ]
    data = (
        "the embedded benchmark" if results.config.networks.masked else results.config.networks.data
    )
    return Figure(
        f"Measures against the drop on shifted data: {data}",
        "Every mark is a network from one seed. The drop is the share of the accuracy above "
        "guessing that is lost on shifted data. Shares of variance (class, background, "
        "interaction) and attenuation are of the last features; titles give the values of networks "
        "with random weights, as drawn and with calibrated batch norms.",
        "ours",
        share_axes(panels, "y"),
        tuple(points.drop(columns=["part", "chance", "kind"]).to_dict("records")),
        _above_one(points),
    )


def _correlations(results: FamilyResults) -> Figure:
    rows = [
        {"measure": MEASURES[key], "networks": "good" if good else "all"}
        | {"given": "given ID accuracy" if given else "alone", "correlation": correlation.value}
        | {"low": correlation.low, "high": correlation.high, "count": correlation.count}
        for (key, given, good), correlation in results.correlations.items()
    ]
    titles = {"all": "All trained networks", "good": f"ID accuracy {results.config.good:g} or more"}
    panels = []
    for networks, title in titles.items():
        some = [row for row in rows if row["networks"] == networks]
        if some:
            panels.append(
                bars(
                    some,
                    title=f"{title} ({some[0]['count']})",
                    x=("measure", ""),
                    y=("correlation", "rank correlation with the drop"),
                    series=("given", ""),
                )
            )
    kinds = results.points.network.nunique()
    return Figure(
        "Correlation of each measure with the drop",
        "ID accuracy alone is correlated with the drop, so the correlation given ID accuracy is "
        f"what counts. Whiskers are 95 % bootstrap intervals over {kinds} kinds of networks, "
        "resampled with all their seeds.",
        "ours",
        tuple(panels),
        tuple(rows),
    )


def _values(results: FamilyResults) -> Figure:
    """Every measure of every network."""
    drops = sorted(over_seeds(results.points, ["network"], "drop"), key=lambda row: row["drop"])
    order = [row["network"] for row in drops]
    order += [name for name in results.table.network.unique() if name not in order]
    cells = [{"network": row["network"], "measure": "drop", "value": row["drop"]} for row in drops]
    cells += [
        {"network": row["network"], "measure": MEASURES[key], "value": row[key]}
        for key in results.measures
        for row in over_seeds(results.table, ["network"], key)
    ]
    cells.sort(key=lambda cell: order.index(cell["network"]))
    panel = matrix(
        cells,
        title="Measures by network",
        x=("measure", ""),
        y=("network", ""),
        value=("value", "value"),
    )
    return Figure(
        "All measures of each network",
        "Means over seeds, the network with the smallest drop first. Untrained networks have no "
        "drop.",
        "ours",
        (panel,),
        tuple(cells),
        _above_one(results.table),
    )


def _above_one(table: DataFrame) -> tuple[str, ...]:
    return above_one(
        value for key in ("attenuation", "counterfactual") for value in table.get(key, ())
    )


def summarize(run: Run) -> str:
    """The correlations with the drop, or the attenuations, in two sentences."""
    results = _results(run)
    if ("both", True, False) not in results.correlations:
        means = over_seeds(results.table, ["network"], "attenuation")
        values = ", ".join(f"{row['network']} {row['attenuation']:.2f}" for row in means)
        return f"Attenuation of the class profile under the shift: {values}."
    partial_ = {key: results.correlations[key, True, False].value
                for key in ("counterfactual", "attenuation", "both")}  # fmt: skip
    return (
        "Partial rank correlations with the drop on shifted data, given ID accuracy: "
        f"{partial_['counterfactual']:.2f} for the attenuation of the class profile under altered "
        f"ID backgrounds, {partial_['attenuation']:.2f} for that on OOD images, and "
        f"{partial_['both']:.2f} for what class and background both explain."
    )


EXPERIMENT = Experiment(
    name="coupling_family",
    title="Coupling: which measure of contamination predicts failure",
    about="A neuron can be called contaminated if class and background both explain its variance. "
    "Over a family of networks this is not correlated with failure, since a network may encode the "
    "background additively. Coupling is correlated with failure: a new background changes how "
    "strongly a network responds to the class.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: ours, measures of contamination beside the failure that they should predict."""
