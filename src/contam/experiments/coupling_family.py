"""What tells, over a family of networks, how much is lost when the background shifts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import nn

from contam.batch import Batch, Domain
from contam.data.backgrounds import ID
from contam.data.counterfactual import CHANGES, counterfactual
from contam.data.shapes import factorial, splits
from contam.experiment import Claim, Experiment, Stage, judge
from contam.experiments.support.model_zoo import (
    CAPTIONED,
    CENTERED,
    ERM,
    INSTANCE,
    SMALL_NETWORKS,
    STUDENT,
    SWEEP,
    TEACHER,
    TINY_NETWORKS,
    UNTRAINED,
    ModelZoo,
    Networks,
    NetworkSpec,
)
from contam.measures.attenuation import class_profile_attenuation
from contam.measures.class_means import ClassMeans
from contam.measures.correlation import Correlation, rank_correlation
from contam.measures.variance import variance_shares
from contam.plots import Figure, Panel, bars, matrix, on_same_axes, over_seeds, scatter
from contam.rng import generator_for
from contam.run import Run
from contam.training.probe import extract

LESS = (
    NetworkSpec("student, 4 epochs", "features", epochs=4),
    NetworkSpec("student, 1000 images", "features", examples=1000),
)
"""Students that learned with less than theirs."""
EACH = 2
"""Backgrounds of each family before which all objects are put."""
ENOUGH = 8
"""Networks that a correlation needs here."""
TRAINING = 0.8
"""Of an experiment's time, roughly."""
MEASURES = {
    "error": "ID error",
    "both": "class and background both, ID",
    "background": "background, ID",
    "interaction": "interaction, ID and OOD",
    "dependent": "interaction over class and interaction",
    "attenuation": "attenuation, ID to OOD",
    "counterfactual": "counterfactual attenuation",
}
"""What is held against the drop, and how it is called."""
NO_MASKS = "the data has no masks of its objects, so their backgrounds can't be changed"
FEW = "fewer networks than a correlation needs"


class Config(BaseModel, frozen=True, extra="forbid"):
    """The experiment is ours; the defaults are a published benchmark, teacher and student."""

    networks: Networks = Networks(data="domainnet", standard=None)
    family: bool = False
    """Also networks that learned with less, from captions or with another normalization."""
    images: Annotated[int, Field(gt=0, multiple_of=40)] = 1000
    """Images whose backgrounds are altered, a multiple of 40."""
    objects: Annotated[int, Field(gt=0, multiple_of=10)] = 100
    """Objects that are put before every background of a list, a multiple of 10."""
    least_id: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Networks below this ID accuracy are left out: there is too little to lose."""
    good: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Networks from this ID accuracy on are compared by themselves, too."""
    seeds: PositiveInt = 1


PAPER = Config()
LAPTOP = Config(networks=SMALL_NETWORKS, family=True, seeds=3)
SMOKE = LAPTOP.model_copy(
    update={"networks": TINY_NETWORKS, "images": 200, "objects": 20, "least_id": 0.0, "good": 0.0}
    | {"seeds": 1}
)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the networks that are not there yet, and measure each."""
    for seed in range(config.seeds):
        todo = {f"net/{each.part}/seed{seed}": each for each in _members(config)}
        todo = {part: spec for part, spec in todo.items() if not run.has(part)}
        zoo = ModelZoo(config.networks, seed, run.folder.parent)
        for stage in zoo.train([*todo.values()]):
            yield Stage((seed + TRAINING * stage.done) / config.seeds, stage.doing)
        altered = _altered(config, seed) if todo and _masked(config) else None
        for index, (part, spec) in enumerate(todo.items()):
            done = TRAINING + (1 - TRAINING) * index / len(todo)
            yield Stage((seed + done) / config.seeds, f"seed {seed}: coupling of {spec.name}")
            run.write(part, [{"network": spec.name, "seed": seed} | _row(zoo, spec, altered)])


def _members(config: Config) -> list[NetworkSpec]:
    """The networks of a seed; the family holds those that the data are enough for."""
    found = [TEACHER, STUDENT, *([ERM] if config.networks.standard is not None else [])]
    if config.family:
        found += [CAPTIONED, CENTERED, INSTANCE]
        enough = config.networks.examples
        found += [each for each in (*SWEEP, *LESS) if (each.examples or 0) <= enough]
    return [*found, UNTRAINED]


def _masked(config: Config) -> bool:
    """Whether it is known where the objects are, so that all else can be changed."""
    return config.networks.data == "shapes"


@dataclass(frozen=True)
class _Altered:
    """The embedded benchmark's test objects before backgrounds that were changed for them."""

    plain: Domain
    """Images like those of the ID test."""
    changed: dict[str, Domain]
    """The same with their backgrounds altered in one way each."""
    before: list[Domain]
    """The same objects before one background each: those of ID families, then the others."""


def _altered(config: Config, seed: int) -> _Altered:
    # Nothing learns from these images, so there are as few for learning as there can be.
    shown = splits(seed, train=40, id_val=40, id_test=config.images, ood_test=10)["id_test"]
    changed = {}
    for change in CHANGES:
        draws = generator_for(seed, f"coupling/{change}")
        x = counterfactual(shown.x, shown.mask, change, generator=draws)
        changed[change] = Domain(change, Batch(x, shown.y, shown.domain))
    grid = factorial(seed, n=config.objects, each=EACH)
    before = [Domain(str(k), each.batch) for k, each in enumerate(grid)]
    return _Altered(Domain("plain", shown.batch), changed, before)


def _row(zoo: ModelZoo, spec: NetworkSpec, altered: _Altered | None) -> dict[str, Any]:
    """A network's accuracies, and how coupled its features of the class are to the background."""
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

    # Tests that know some of the classes alone number them in a way of their own.
    plain = [test for test in shift.ood_tests if test.name not in benchmark.scorings]
    known = shift.id_test.y.unique()
    known = known[torch.isin(known, torch.cat([test.y for test in plain]))]
    own = means(shift.id_test)
    row: dict[str, Any] = {"id": right[0], "ood": fmean(right[1:]), "chance": 1 / classes}
    lost = class_profile_attenuation(own, means(*plain), noise_corrected=False)
    row |= {"error": 1 - right[0], "attenuation": lost.value}
    if altered is None:
        return row
    return row | _counterfactual(encoder, altered, classes)


def _counterfactual(encoder: nn.Module, altered: _Altered, classes: int) -> dict[str, float]:
    """What is measured on objects whose backgrounds were changed."""

    def means(images: Domain) -> ClassMeans:
        values = extract(encoder, images)
        return ClassMeans(classes, values.shape[1]).update(values, images.y)

    plain = means(altered.plain)
    lost = {
        name: class_profile_attenuation(plain, means(images), paired=True).value
        for name, images in altered.changed.items()
    }
    values = torch.stack([extract(encoder, images) for images in altered.before], dim=1)
    y = altered.before[0].y
    familiar = variance_shares(values[:, : EACH * len(ID)], y)
    everywhere = variance_shares(values, y)
    return {
        "counterfactual": float(torch.tensor([*lost.values()], dtype=torch.float64).mean()),
        **lost,
        "class": familiar.of_class,
        "background": familiar.of_background,
        "both": (familiar.of_class * familiar.of_background) ** 0.5,
        "interaction": everywhere.of_interaction,
        "dependent": everywhere.of_interaction / (everywhere.of_class + everywhere.of_interaction),
    }


def claims(run: Run) -> Sequence[Claim]:
    """What tracks the drop, given ID accuracy, and what does not; and who is how coupled."""
    config = Config.model_validate(run.config)
    rows = _rows(run)
    found = _correlations(config, rows)

    def tracks(
        says: str, key: str, ends: dict[str, Any], *, given: bool, good: bool = False
    ) -> Claim:
        what = "partial rank correlation given ID accuracy" if given else "rank correlation"
        among = f", networks of ID accuracy {config.good:g} or more" if good else ""
        quantity = f"{MEASURES[key]} and drop: {what}{among}"
        if key not in rows[0]:
            return Claim(says, "ours", quantity, not_judged=NO_MASKS, **ends)
        seen = found.get((key, given, good))
        if seen is None:
            return Claim(says, "ours", quantity, not_judged=FEW, **ends)
        return Claim(says, "ours", quantity, found=seen.value, n=config.seeds, **ends)

    return [
        tracks("Networks that err more on ID data lose more of their accuracy", "error",
               {"low": 0.5}, given=False),
        tracks("That class and background both explain a layer's variance does not track failure",
               "both", {"high": 0.3}, given=True),
        tracks("The variance that the background alone explains does not track failure",
               "background", {"high": 0.3}, given=True),
        tracks("The variance that class and background explain only together tracks failure",
               "interaction", {"low": 0.4}, given=True),
        tracks("The share of the class response that depends on the background tracks failure",
               "dependent", {"low": 0.4}, given=True),
        tracks("The loss of the class profile on OOD images tracks failure", "attenuation",
               {"low": 0.4}, given=True),
        tracks("Altered ID backgrounds foretell the drop without an OOD image", "counterfactual",
               {"low": 0.2}, given=True),
        tracks("Altered ID backgrounds foretell the drop among good networks, too",
               "counterfactual", {"low": 0.5}, given=False, good=True),
        tracks("Among good networks the loss of the class profile says nearly all", "attenuation",
               {"low": 0.7}, given=False, good=True),
        tracks("Among good networks the interaction says nearly all", "interaction",
               {"low": 0.7}, given=False, good=True),
        *_comparisons(config, rows),
    ]  # fmt: skip


def _comparisons(config: Config, rows: Sequence[dict[str, Any]]) -> list[Claim]:
    """Two networks of each seed against each other."""
    by = {(row["network"], row["seed"]): row for row in rows}
    wanted = (
        ("The student's class response is more coupled to the background than its teacher's",
         STUDENT, TEACHER, "attenuation"),
        ("A standard network's class response is more coupled than a student's",
         ERM, STUDENT, "attenuation"),
        ("Altered ID backgrounds, too, take more from the student than from its teacher",
         STUDENT, TEACHER, "counterfactual"),
        ("A teacher that learned to name backgrounds has class and background in its features",
         CAPTIONED, ERM, "both"),
        ("An untrained network passes the background through",
         UNTRAINED, ERM, "background"),
    )  # fmt: skip
    found = []
    for says, one, other, key in wanted:
        quantity = f"{MEASURES[key]}: {one.name} minus {other.name}"
        gone = [each.name for each in (one, other) if (each.name, 0) not in by]
        if gone or key not in rows[0]:
            why = f"there is no {gone[0]} here" if gone else NO_MASKS
            found.append(Claim(says, "ours", quantity, low=0.0, not_judged=why))
            continue
        pairs = [(by[one.name, seed], by[other.name, seed]) for seed in range(config.seeds)]
        differences = [a[key] - b[key] for a, b in pairs]
        found.append(
            judge(says, differences, source="ours", quantity=quantity, low=0.0, every_seed=True)
        )
    return found


def _correlations(
    config: Config, rows: Sequence[dict[str, Any]]
) -> dict[tuple[str, bool, bool], Correlation]:
    """By measure, given ID accuracy or not, and among good networks or all."""
    found = {}
    for good in (False, True):
        points = [row for row in _points(config, rows) if not good or row["id"] >= config.good]
        if len(points) < ENOUGH:
            continue
        names = list(dict.fromkeys(row["network"] for row in points))
        groups = torch.tensor([names.index(row["network"]) for row in points])
        drop, accuracy = (
            torch.tensor([row[key] for row in points], dtype=torch.float64)
            for key in ("drop", "id")
        )
        for key in _measured(rows):
            x = torch.tensor([row[key] for row in points], dtype=torch.float64)
            found[key, False, good] = rank_correlation(x, drop, groups=groups)
            if key != "error":
                found[key, True, good] = rank_correlation(x, drop, given=accuracy, groups=groups)
    return found


def _measured(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [key for key in MEASURES if key in rows[0]]


def _points(config: Config, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every trained network that has something to lose, with the share of it that is lost."""
    found = []
    for row in rows:
        above = row["id"] - row["chance"]
        if row["network"] != UNTRAINED.name and row["id"] >= config.least_id and above:
            found.append(row | {"drop": 1 - (row["ood"] - row["chance"]) / above})
    return found


def draw(run: Run) -> Sequence[Figure]:
    """Each measure against the drop, how well it goes with it, and what it is in each network."""
    config = Config.model_validate(run.config)
    rows = _rows(run)
    figures = [_against_drop(config, rows)] if _points(config, rows) else []
    found = _correlations(config, rows)
    if found:
        figures.append(_told(config, rows, found))
    return [*figures, _values(config, rows)]


def _kind(network: str) -> str:
    """The series of a network in a picture."""
    for spec, kind in ((CAPTIONED, "teachers"), (TEACHER, "teachers")):
        if network == spec.name:
            return kind
    if network.startswith(STUDENT.name):
        return "students"
    return "ERM, other normalization" if network in (CENTERED.name, INSTANCE.name) else "ERM"


def _against_drop(config: Config, rows: Sequence[dict[str, Any]]) -> Figure:
    points = [row | {"kind": _kind(row["network"])} for row in _points(config, rows)]
    panels = [_scatter(points, key, rows) for key in _measured(rows)]
    return Figure(
        f"What goes with the drop on shifted data: {_data(config)}",
        "Every mark is a network from one seed. The drop is the share that shifted data takes of "
        "the accuracy above guessing. Shares of variance (class, background, interaction) and "
        "attenuation are of the last features; the untrained network's value stands above each.",
        "ours",
        on_same_axes(panels, "y"),
        tuple({key: row[key] for key in row if key not in ("chance", "kind")} for row in points),
    )


def _scatter(points: Sequence[dict[str, Any]], key: str, rows: Sequence[dict[str, Any]]) -> Panel:
    start = fmean(row[key] for row in rows if row["network"] == UNTRAINED.name)
    name = MEASURES[key]
    return scatter(
        points,
        title=f"{name[0].upper()}{name[1:]} (untrained {start:.2f})",
        x=(key, f"{name} (share)"),
        y=("drop", "drop (share of ID accuracy above guessing)"),
        series=("kind", ""),
    )


def _told(
    config: Config,
    rows: Sequence[dict[str, Any]],
    found: dict[tuple[str, bool, bool], Correlation],
) -> Figure:
    table = [
        {"measure": MEASURES[key], "networks": "good" if good else "all"}
        | {"given": "given ID accuracy" if given else "alone", "correlation": seen.value}
        | {"low": seen.low, "high": seen.high, "count": seen.count}
        for (key, given, good), seen in found.items()
    ]
    titles = {"all": "All trained networks", "good": f"ID accuracy {config.good:g} or more"}
    panels = []
    for which in dict.fromkeys(row["networks"] for row in table):
        mine = [row for row in table if row["networks"] == which]
        mine.sort(key=lambda row: [*MEASURES.values()].index(row["measure"]))
        panels.append(
            bars(
                mine,
                title=f"{titles[which]} ({mine[0]['count']})",
                x=("measure", ""),
                y=("correlation", "rank correlation with the drop"),
                series=("given", ""),
            )
        )
    kinds = len({row["network"] for row in _points(config, rows)})
    return Figure(
        "How well each measure goes with the drop",
        "ID accuracy alone goes with the drop, so what counts is the correlation that is left "
        f"given it. Whiskers are 95 % bootstrap intervals over {kinds} kinds of networks, drawn "
        "with all their seeds.",
        "ours",
        tuple(panels),
        tuple(table),
    )


def _values(config: Config, rows: Sequence[dict[str, Any]]) -> Figure:
    """Every measure in every network."""
    cells = [
        {"network": row["network"], "measure": MEASURES[key], "value": row[key]}
        for key in _measured(rows)
        for row in over_seeds(rows, ["network"], key)
    ]
    drops = over_seeds(_points(config, rows), ["network"], "drop")
    cells = [
        {"network": row["network"], "measure": "drop", "value": row["drop"]} for row in drops
    ] + cells
    names = list(dict.fromkeys(row["network"] for row in rows))
    lowest = sorted(drops, key=lambda row: row["drop"])
    ranks = [row["network"] for row in lowest]
    names.sort(key=lambda name: ranks.index(name) if name in ranks else len(ranks))
    cells.sort(key=lambda cell: names.index(cell["network"]))
    panel = matrix(
        cells,
        title="Measures by network",
        x=("measure", ""),
        y=("network", ""),
        value=("value", "value"),
    )
    return Figure(
        "What each network has",
        "Means over seeds, the network that loses least first. An untrained network has no drop "
        "to speak of.",
        "ours",
        (panel,),
        tuple(cells),
    )


def summarize(run: Run) -> str:
    """What was found, in two sentences."""
    config = Config.model_validate(run.config)
    rows = _rows(run)
    found = _correlations(config, rows)
    if ("both", True, False) not in found:
        shown = over_seeds(rows, ["network"], "attenuation")
        told = ", ".join(f"{row['network']} {row['attenuation']:.2f}" for row in shown)
        return f"Share of the class profile that is lost under the shift: {told}."
    partial = {key: found[key, True, False].value for key in MEASURES if key != "error"}
    return (
        "Given ID accuracy, the drop on shifted data goes with what is lost of the class profile "
        f"under altered ID backgrounds (partial rank correlation {partial['counterfactual']:.2f}) "
        f"and on OOD images ({partial['attenuation']:.2f}). With what class and background both "
        f"explain, it is {partial['both']:.2f}."
    )


def _data(config: Config) -> str:
    return "the embedded benchmark" if _masked(config) else config.networks.data


def _rows(run: Run) -> list[dict[str, Any]]:
    """The row of every network, in the order in which the config names them."""
    names = [spec.name for spec in _members(Config.model_validate(run.config))]
    rows = [row for part in run.parts("net/") for row in run.read(part)]
    return sorted(rows, key=lambda row: (row["seed"], names.index(row["network"])))


EXPERIMENT = Experiment(
    name="coupling_family",
    title="Coupling: which measure of contamination goes with failure",
    about="A neuron can be called contaminated if both class and background explain what it does. "
    "Over a family of networks that does not go with failure, since a network may encode the "
    "background and add it. What goes with failure is coupling: a new background changes how "
    "strongly a network responds to the class.",
    reproduces=(),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
)
"""Source: ours, measures of contamination beside what they should foretell."""
