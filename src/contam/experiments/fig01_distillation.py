"""A student learns its teacher's features on ID data alone, and loses much of its robustness."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor

from contam.experiment import Claim, Experiment, NotJudged, Pooled, Stage, Statement, judge_all
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import (
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
from contam.experiments.support.per_network import by_network, null
from contam.measures.accuracy import Accuracy
from contam.measures.published import Pair, figure_1, imagenet_robustness
from contam.measures.robustness import (
    IMAGENET_LINES,
    Line,
    effective_robustness,
    fit_line,
    robustness_interval,
)
from contam.measures.standard_models import ModelTable, read_models, shipped_models
from contam.plots import Figure, accuracies, bars, matrix, over_seeds
from contam.run import DataFrame, Run, RunError
from contam.training.optimize import Recipe
from contam.training.probe import extract

LEARNED = 0.5
"""ID accuracy from which on a network has learned the embedded benchmark, which has ten classes."""
PLACES = 60
"""Points along a drawn line."""
HALF = (0.45, 0.55)
"""What "about half" means in every claim."""
TITLES = {
    "imagenet": "ImageNet, mean of its five shifts",
    "iwildcam": "iWildCam, macro F1",
    "camelyon17": "Camelyon17",
    "domainnet": "DomainNet",
}
"""The panels of Figure 1."""
CONVENTIONS: dict[Literal["all", "same_classes"], str] = {
    "all": "all classes",
    "same_classes": "the classes of each shift",
}
LEAST_DRAWN = 0.5
"""ImageNet models below this ID accuracy are not drawn in Figure 1."""
NAME = "fig01_distillation"


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are App. E.1's: CLIP-RN50 on ImageNet, its student, and a standard ResNet-50."""

    networks: Networks = Networks()
    distill: bool = True
    """Whether the teacher has a student. Table 4 has two teachers without one."""
    standard_models: Path | None = None
    """Ours: a CSV of standard models on the same data, from which the line is fitted. It has the
    columns `id` and `ood`, the mean OOD score; or those of ImageNet's testbed."""
    also: tuple[Path, ...] = ()
    """Ours: folders of finished runs of this experiment, drawn in the same Figure 1."""
    remedies: bool = False
    """Ours: also train a standard network with centered maps, and one with instance norm."""
    sweep: bool = False
    """Ours: draw the line through weaker standard networks that are trained here."""
    least_id: Annotated[float, Field(ge=0, le=1)] = 0.55
    """Standard networks below this ID accuracy are left out of the line."""
    seeds: PositiveInt = 1


def _on(data: Any, teacher: str, *, distill: bool = True) -> Config:
    networks = Networks(data=data, teacher=f"open_clip:{teacher}/openai", standard=None)
    return Config(networks=networks, distill=distill)


IWILDCAM = Networks(
    data="iwildcam",
    teacher="torchvision:resnet50",
    # The settings of the WILDS repository; AdamW without weight decay is Adam.
    teacher_recipe=Recipe(3e-5, 0.0, 16, epochs=12, cosine=False),
    teacher_start_from="torchvision:resnet50",
    standard=None,
)
"""App. E.2: the teacher is fine-tuned on iWildCam from weights pre-trained on ImageNet."""
PAPER = Config()
LAPTOP = Config(networks=SMALL_NETWORKS, remedies=True, sweep=True, seeds=3)
DEMO = Config(
    networks=SMALL_NETWORKS.model_copy(update={"examples": 2000, "teacher_examples": 4500})
)
SMOKE = Config(networks=TINY_NETWORKS, remedies=True, sweep=True, least_id=0.0, seeds=2)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the networks from each seed, and score them on the ID test and every OOD test."""
    specs = _members(config)
    run.write("standard", _standard_models(config))
    run.write("also", [row for folder in config.also for row in _finished(folder)])
    for seed in range(config.seeds):
        part = f"seed{seed}"
        if run.has(part):
            continue
        zoo = ModelZoo(config.networks, seed, run.folder.parent)
        for stage in zoo.train(specs):
            yield Stage((seed + 0.95 * stage.done) / config.seeds, stage.doing)
        rows = []
        for index, spec in enumerate(specs):
            share = 0.95 + 0.04 * index / len(specs)
            yield Stage((seed + share) / config.seeds, f"seed {seed}: scoring {spec.name}")
            rows += [{"what": "score"} | row for row in zoo.judge(spec)]
        run.write(part, rows + (_distances(zoo, seed) if config.distill else []))


def _members(config: Config) -> tuple[NetworkSpec, ...]:
    """The networks of a seed; the sweep leaves out those with more images than the data has."""
    sweep = [spec for spec in SWEEP if (spec.examples or 0) <= config.networks.examples]
    standard = (ERM,) if config.networks.standard is not None else ()
    remedies = (CENTERED, INSTANCE) if config.remedies else ()
    student = (STUDENT,) if config.distill else ()
    return (TEACHER, *student, *standard, *remedies, *(sweep if config.sweep else ()))


def _standard_models(config: Config) -> list[dict[str, Any]]:
    """The ID and OOD scores of the user's standard models.

    Raises:
        ValueError: the table cannot be read, lacks columns, or its models determine no line.
    """
    if config.standard_models is None:
        return []
    x, y = _scores(read_models(config.standard_models))
    fit_line(x, y)  # fails before the networks are trained
    return _scored(config.networks.data, "standard model", x, y)


def _scores(table: ModelTable, kind: str = "standard") -> tuple[Tensor, Tensor]:
    """ID and mean OOD scores of models, in [0, 1]."""
    if "ImageNet" in table.columns:
        own, *others = table.accuracies("ImageNet", *IMAGENET_LINES, kind=kind)
        return own, torch.stack(others).mean(dim=0)
    own, other = table.accuracies("id", "ood", kind=kind)
    return own, other


def _scored(data: str, kind: str, x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    pairs = zip(x.tolist(), y.tolist(), strict=True)
    return [
        {"data": data, "model": kind, "kind": kind, "id": own, "ood": other} for own, other in pairs
    ]


def _finished(folder: Path) -> list[dict[str, Any]]:
    """The networks and standard models of a finished run, for Figure 1.

    Raises:
        RunError: the folder holds no finished run of this experiment.
    """
    other = Run.load(folder)
    if other.experiment != NAME or not other.finished:
        raise RunError(f"{folder}: holds no finished run of {NAME}")
    return [*other.read("standard"), *_drawn(_results(other))]


def _distances(zoo: ModelZoo, seed: int) -> list[dict[str, Any]]:
    """How far the student's features are from the teacher's on each test."""
    shift = zoo.benchmark(STUDENT).shift
    teacher, student = (zoo.network(spec).encoder for spec in (TEACHER, STUDENT))
    rows = []
    for role, domains in (("id", (shift.id_test,)), ("ood", shift.ood_tests)):
        for domain in domains:
            distance = relative_distance(extract(student, domain), extract(teacher, domain))
            rows.append(
                {"what": "distance", "seed": seed, "role": role, "test": domain.name}
                | {"distance": distance}
            )
    return rows


def relative_distance(student: Tensor, teacher: Tensor) -> float:
    """The squared distance of two tables of features over the teacher's total variance.

    Args:
        student: (examples, width).
        teacher: (examples, width).

    Returns:
        0 for equal features; 1 for a student that gives the teacher's mean for every example.

    Source: ours.

    >>> teacher = torch.tensor([[0.0], [2.0]])
    >>> relative_distance(teacher, teacher), relative_distance(torch.ones(2, 1), teacher)
    (0.0, 1.0)
    """
    spread = (teacher - teacher.mean(dim=0)).square().sum()
    return float((student - teacher).square().sum() / spread)


class _Results(NamedTuple):
    """What claims and figures read."""

    config: Config
    rows: DataFrame
    """The rows of all seeds."""
    points: DataFrame
    """A row for each network and seed: scores on ID and OOD data, and effective robustness."""
    line: Line | None
    """The line through the standard networks that were trained here, or those of a table."""
    others: list[dict[str, Any]]
    """Standard models of a table, and networks of other runs: `data`, `kind`, `id`, `ood`."""

    def standard(self) -> DataFrame:
        """The standard networks that the line goes through."""
        return _standard(self.config, self.points)


def _results(run: Run) -> _Results:
    config = Config.model_validate(run.config)
    rows = run.table("seed")
    points = []
    scores = rows[rows.what == "score"]
    for (_, network), mine in scores.groupby(["seed", "network"], sort=False):
        (own,), others = mine[mine.role == "id"].to_dict("records"), mine[mine.role == "ood"]
        id_accuracy = Accuracy(own["correct"], own["count"])
        ood_accuracy = Accuracy(int(others.correct.sum()), int(others["count"].sum()))
        point = {"network": network, "seed": own["seed"], "id": own["score"]}
        point |= {"ood": fmean(others.score), "tests": others, "accuracies": None}
        if own["score"] == id_accuracy.share:  # an F1 score has no such interval
            point |= dict(zip(("id_low", "id_high"), id_accuracy.interval, strict=True))
            point |= dict(zip(("ood_low", "ood_high"), ood_accuracy.interval, strict=True))
        points.append(point | {"accuracies": (id_accuracy, ood_accuracy)})
    table = _frame(points)
    line = None
    if config.sweep:
        models = _standard(config, table)
        # Networks that learned nothing are below `least_id` and determine no line.
        if models.id[models.id < 1].nunique() > 1:
            line = _fitted(models.to_dict("records"))
    others = run.read("standard")
    if others:
        line = _fitted(others)
    robustness = [_robustness(config, point, line) for point in points]
    table = table.drop(columns=["tests", "accuracies"]).join(_frame(robustness))
    return _Results(config, rows, table, line, others + run.read("also"))


def _fitted(models: Sequence[dict[str, Any]]) -> Line:
    x, y = (torch.tensor([m[key] for m in models], dtype=torch.float64) for key in ("id", "ood"))
    return fit_line(x, y)


def _frame(rows: Sequence[dict[str, Any]]) -> DataFrame:
    import pandas

    return pandas.DataFrame(rows)


def _standard(config: Config, points: DataFrame) -> DataFrame:
    names = {ERM.name, *(spec.name for spec in SWEEP)}
    return points[points.network.isin(names) & (points.id >= config.least_id)]


def _robustness(config: Config, point: dict[str, Any], line: Line | None) -> dict[str, Any]:
    """Points above the line; on ImageNet the mean over the shifts, each above its own line."""
    own = torch.tensor([point["id"]], dtype=torch.float64)
    if line is not None:
        ood = torch.tensor([point["ood"]], dtype=torch.float64)
        robustness = {"robustness": float(effective_robustness(own, ood, line))}
        id_accuracy, ood_accuracy = point["accuracies"]
        pooled = (id_accuracy.share, ood_accuracy.share)
        if all(map(math.isclose, pooled, (point["id"], point["ood"]))):
            ends = robustness_interval(id_accuracy, ood_accuracy, line)
            robustness |= dict(zip(("robustness_low", "robustness_high"), ends, strict=True))
        return robustness
    if config.networks.data == "imagenet":
        values = [
            effective_robustness(own, own.new_tensor([score]), IMAGENET_LINES[name])
            for test, score in zip(point["tests"].test, point["tests"].score, strict=True)
            if (name := test.replace(" ", "-")) in IMAGENET_LINES
        ]
        return {"robustness": float(torch.stack(values).mean())}
    return {"robustness": None}


def _difference(one: str, other: str, column: str) -> Callable[[_Results], list[float]]:
    """A column of one network minus another's, by seed."""

    def measure(results: _Results) -> list[float]:
        values = by_network(_judgeable(results, column), column)
        return (values[one] - values[other]).tolist()

    return measure


def _judgeable(results: _Results, column: str) -> DataFrame:
    if column == "robustness" and results.points.robustness.isna().any():
        raise NotJudged("too few standard networks were trained to draw their line")
    return results.points


def _learned(results: _Results) -> None:
    """Require that the networks of the embedded benchmark recognize half of its ID test or more.

    Published benchmarks have scores on other scales, and weights from files.
    """
    if results.config.networks.data != "shapes":
        return
    networks = results.points[results.points.network.isin([TEACHER.name, STUDENT.name, ERM.name])]
    score = float(networks.id.min())
    if score < LEARNED:
        raise NotJudged(f"a network did not learn: ID accuracy {score:.2f}")


def _distance_ratio(results: _Results) -> list[float]:
    distances = results.rows[results.rows.what == "distance"]
    means = {
        (row["seed"], row["role"]): row["distance"]
        for row in over_seeds(distances, ["seed", "role"], "distance")
    }
    return [means[seed, "ood"] / means[seed, "id"] for seed in range(results.config.seeds)]


def _kept(results: _Results) -> list[float]:
    """The share of the teacher's effective robustness that its student keeps."""
    values = by_network(_judgeable(results, "robustness"), "robustness")
    if (values.teacher <= 0).any():
        raise NotJudged("a teacher is not above the line of standard networks")
    return (values.student / values.teacher).tolist()


def _regained(results: _Results) -> list[float]:
    """The share of a standard network's loss that one with centered maps does not have."""
    ids, oods = (by_network(results.points, key) for key in ("id", "ood"))
    losses = ids[ERM.name] - oods[ERM.name]
    if losses.min() <= 0:
        raise NotJudged("the standard network loses nothing")
    return ((oods[CENTERED.name] - oods[ERM.name]) / losses).tolist()


def _published_losses(_: object) -> Pooled:
    pairs = imagenet_robustness()
    return Pooled(min(pair.teacher_mean - pair.student_mean for pair in pairs), len(pairs), "pair")


def _published_robustness(_: object) -> Pooled:
    pairs = imagenet_robustness()
    return Pooled(min(pair.student_mean for pair in pairs), len(pairs), "pair")


def _published_share(_: object) -> Pooled:
    return _share(imagenet_robustness())


def _published_share_of_classes(_: object) -> Pooled:
    return _share(imagenet_robustness("same_classes"))


def _share(pairs: Sequence[Pair]) -> Pooled:
    return Pooled(fmean(pair.kept for pair in pairs), len(pairs), "pair")


PUBLISHED = (
    Statement("Published: every CLIP teacher loses effective robustness when it is distilled",
              "Tab. 1", "least loss over {pairs} pairs on ImageNet's shifts, points",
              _published_losses, low=0.0, about_learning=False),
    Statement("Published: students keep some of it, more than standard networks have",
              "Tab. 1", "least effective robustness of {pairs} students, points",
              _published_robustness, low=0.0, about_learning=False),
    Statement("Published: students keep about half of it", "Sec. 2",
              "share kept, mean over {pairs} pairs", _published_share, low=HALF[0], high=HALF[1],
              published="about half", about_learning=False),
    Statement("Published: students keep about half of it by the testbed's convention, too", "ours",
              "share kept, mean over {pairs} pairs, ID accuracy on the classes of each shift",
              _published_share_of_classes, low=HALF[0], high=HALF[1],
              published="about half", about_learning=False),
)  # fmt: skip
ROBUSTNESS = {
    TEACHER: Statement(
        "The teacher is more robust than its student at the same ID accuracy", "Fig. 1",
        "effective robustness, teacher minus student, points",
        _difference("teacher", "student", "robustness"), low=0.0, every_seed=True,
        given=_learned),
    ERM: Statement(
        "The student is more robust than a standard network at the same ID accuracy", "Fig. 1",
        "effective robustness, student minus ERM, points",
        _difference("student", "ERM", "robustness"), low=0.0, every_seed=True, given=_learned),
    STUDENT: Statement(
        "Distillation keeps about half of the teacher's effective robustness", "Sec. 2",
        "share of the teacher's effective robustness that the student keeps", _kept,
        low=HALF[0], high=HALF[1], published="about half"),
}  # fmt: skip
REMEDIES = (
    *(Statement(f"A standard network is more robust when trained with {change}", "ours",
                f"mean OOD accuracy, {spec.name} minus ERM", _difference(spec.name, "ERM", "ood"),
                low=0.05, every_seed=True)
      for spec, change in ((CENTERED, "every map centered"), (INSTANCE, "instance norm"))),
    Statement("Unseen images are not the only reason why a standard network fails", "ours",
              "share of ERM's loss under shift that centering removes, with the same images",
              _regained, low=0.2, every_seed=True),
)  # fmt: skip
TABLES = {"shapes": "Sec. 2", "imagenet": "Tab. 1", "iwildcam": "Tab. 2", "camelyon17": "Tab. 3",
          "domainnet": "Tab. 4"}  # fmt: skip
"""Where the paper compares teacher and student on each data set."""


def _distilled(source: str) -> tuple[Statement, ...]:
    return (
        Statement("On ID data the student is about as good as its teacher", source,
                  "ID score, student minus teacher", _difference("student", "teacher", "id"),
                  low=-0.05, given=_learned),
        Statement("On shifted data the student is far worse than its teacher", source,
                  "mean OOD score, student minus teacher",
                  _difference("student", "teacher", "ood"), high=-0.02, every_seed=True,
                  given=_learned),
        Statement("The student has its teacher's features on ID data, and others on shifted data",
                  "ours", "relative distance of the features, OOD over ID", _distance_ratio,
                  low=2.0, every_seed=True, given=_learned),
    )  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """The student is as good as its teacher on ID data, worse on OOD data, and better than ERM."""
    results = _results(run)
    config = results.config
    statements = list(PUBLISHED)
    if config.distill:
        statements += [*_distilled(TABLES[config.networks.data]), ROBUSTNESS[TEACHER]]
        if config.networks.standard is not None:
            statements.append(ROBUSTNESS[ERM])
        statements.append(ROBUSTNESS[STUDENT])
    if config.remedies:
        statements += REMEDIES
    return judge_all(statements, results, pairs=len(imagenet_robustness()))


def draw(run: Run) -> Sequence[Figure]:
    """The published tables, then the networks that were trained here."""
    results = _results(run)
    figures = [_figure_1(results), _published_robustness_bars(), _here(results), _tests(results)]
    return [*figures, _far(results)] if results.config.distill else figures


def _drawn(results: _Results) -> list[dict[str, Any]]:
    """Teacher, student and ERM of a run, as rows of Figure 1."""
    networks = results.config.networks
    points = results.points[results.points.network.isin(["teacher", "student", "ERM"])]
    return [
        {"data": networks.data, "kind": f"{point['network']}, trained here"}
        | {"model": f"{point['network']} ({networks.teacher}), seed {point['seed']}"}
        | {"id": point["id"], "ood": point["ood"]}
        | ({} if point["network"] == "ERM" else {"pair": f"{networks.teacher}, {point['seed']}"})
        for point in points.to_dict("records")
    ]


def _figure_1(results: _Results) -> Figure:
    """Tables 1 to 4, with this run, other runs, standard models and their lines."""
    shipped = shipped_models()
    published = [
        {"data": row.data, "model": row.name, "kind": f"{row.kind}, published"}
        | {"pair": row.pair, "id": row.id, "ood": row.ood}
        for row in figure_1()
    ]
    others = [row for row in results.others if row["kind"] != "standard model"]
    rows = [row for row in published + others + _drawn(results) if row["data"] in TITLES]
    panels = []
    for data, title in TITLES.items():
        standard = [
            row for row in results.others if row["kind"] == "standard model" and row["data"] == data
        ]
        around = list(standard)
        if data == "imagenet" and not standard:
            standard = _scored(data, "standard model", *_scores(shipped))
            robust = _scored(data, "robustly trained", *_scores(shipped, "robust"))
            around = [row for row in standard + robust if row["id"] >= LEAST_DRAWN]
        marks = [row for row in rows if row["data"] == data]
        panels.append(
            accuracies(
                marks + around,
                title=title,
                x=("id", "ID score" if data == "iwildcam" else "ID accuracy"),
                y=("ood", "OOD score" if data == "iwildcam" else "OOD accuracy"),
                series=("kind", ""),
                name="model",
                line=_curve(_fitted(standard), marks + around) if standard else (),
                join="pair",
            )
        )
    return Figure(
        "Figure 1: teachers, their students and standard models",
        "Every network of Tables 1 to 4; thin lines join a teacher and its student. The line and "
        "its 95 % band (Student's t) are fitted on logits to standard models: for ImageNet, those "
        "of the testbed of Taori et al. (2020), trained on ImageNet alone. For the other "
        "benchmarks no table of standard models is shipped; give one with --standard-models. "
        "Networks of this run stand beside the published ones, and --also adds finished runs. "
        "DomainNet has two teachers without a student.",
        "Fig. 1",
        tuple(panels),
        tuple(
            {key: row.get(key) for key in ("data", "model", "kind", "id", "ood")} for row in rows
        ),
    )


def _curve(line: Line, marks: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Points of a line with its band, over the ID scores of some networks."""
    inside = [mark["id"] for mark in marks if 0 < mark["id"] < 1]
    ends = torch.tensor([min(inside), max(inside)], dtype=torch.float64).logit()
    at = torch.linspace(float(ends[0]) - 0.3, float(ends[1]) + 0.3, PLACES).double().sigmoid()
    columns = torch.stack((at, line.expected(at), *line.interval(at)), dim=1).tolist()
    return [dict(zip(("id", "ood", "low", "high"), row, strict=True)) for row in columns]


def _published_robustness_bars() -> Figure:
    """Effective robustness from Table 1, by both conventions of the ID accuracy."""
    rows = [
        {"network": pair.network, "kind": kind, "robustness": mean, "convention": convention}
        for convention in CONVENTIONS
        for pair in imagenet_robustness(convention)
        for kind, mean in (("teacher", pair.teacher_mean), ("student", pair.student_mean))
    ]
    panels = tuple(
        bars(
            [row for row in rows if row["convention"] == convention],
            title=f"ID accuracy on {words}",
            x=("network", ""),
            y=("robustness", "accuracy above the line, points"),
            series=("kind", ""),
        )
        for convention, words in CONVENTIONS.items()
    )
    return Figure(
        "Published: effective robustness on ImageNet's shifts",
        "Mean over the five shifts, each above its own line of standard models, from the "
        "accuracies of Table 1; nothing was trained for this figure. The second panel takes the ID "
        "accuracy on the classes of ImageNet-R, ImageNet-A and ObjectNet, which follows from that "
        "on all classes by the relation of standard models.",
        "Tab. 1",
        panels,
        tuple(rows),
    )


def _here(results: _Results) -> Figure:
    """The networks of this run, above or below the line."""
    config, line = results.config, results.line
    sweep = {spec.name for spec in SWEEP}
    points = results.points
    points = points.assign(
        model=points.network + ", seed " + points.seed.astype(str),
        kind=points.network.where(~points.network.isin(sweep), "ERM with less training"),
        pair=points.seed.where(points.network.isin(["teacher", "student"])),
    )
    drawn, fitted = [], ""
    if line is not None:
        at = torch.linspace(0.02, 0.999, PLACES, dtype=torch.float64)
        columns = (at, line.expected(at), *line.interval(at))
        drawn = [
            {"id": id_, "ood": ood, "low": low, "high": high}
            for id_, ood, low, high in torch.stack(columns, dim=1).tolist()
        ]
        fitted = (
            f"The line is fitted to {line.count} standard networks (slope {line.slope:.2f}, "
            f"intercept {line.intercept:.2f} on logits, R² {line.r_squared:.2f}); its band is the "
            "95 % interval of Student's t. "
        )
    panels = [
        accuracies(
            points,
            title="Accuracy on ID and on shifted data",
            x=("id", "ID accuracy"),
            y=("ood", "mean OOD accuracy"),
            series=("kind", ""),
            name="model",
            line=drawn,
            join="pair",
        )
    ]
    robust = points[points.robustness.notna() & ~points.network.isin(sweep)]
    if len(robust):
        panels.append(
            bars(
                over_seeds(robust, ["network"], "robustness"),
                title="Effective robustness",
                x=("network", ""),
                y=("robustness", "accuracy above the line, points"),
            )
        )
    data = config.networks.data
    if data == "shapes":
        data = f"shapes on backgrounds, {config.networks.examples} training images"
    return Figure(
        f"This run: {data}",
        "Every mark is a network, with exact 95 % intervals of both accuracies; thin lines join a "
        f"teacher and its student. {fitted}Bars are means over {config.seeds} "
        f"seed{'s' if config.seeds > 1 else ''}; whiskers: all seeds.",
        "Fig. 1",
        tuple(panels),
        tuple(points.drop(columns=["pair", "kind"]).to_dict("records")),
    )


def _tests(results: _Results) -> Figure:
    """Every network on every test."""
    scores = results.rows[results.rows.what == "score"]
    means = over_seeds(scores, ["network", "test"], "score")
    panel = matrix(
        means,
        title="Score by test set",
        x=("test", ""),
        y=("network", ""),
        value=("score", "score"),
    )
    return Figure(
        "Score of each network on each test",
        "Mean over seeds; the first column is the ID test.",
        "ours",
        (panel,),
        tuple(means),
    )


def _far(results: _Results) -> Figure:
    """How far the student's features are from the teacher's."""
    rows = results.rows[results.rows.what == "distance"]
    means = over_seeds(rows, ["test"], "distance")
    panel = bars(
        means,
        title="Distance of the student's features from the teacher's",
        x=("test", ""),
        y=("distance", "squared distance over the teacher's variance"),
        wide=True,
    )
    return Figure(
        "The student matches its teacher on the data it learned from",
        "At 0 the features are equal; at 1 the teacher's mean feature would be as close as the "
        "student's. Whiskers: all seeds.",
        "ours",
        (panel,),
        tuple(means),
    )


def summarize(run: Run) -> str:
    """The ID and OOD scores, in two sentences."""
    points = _results(run).points

    def means(column: str) -> str:
        values = by_network(points, column)
        shown = [name for name in ("teacher", "student", "ERM") if name in values]
        return ", ".join(f"{name} {fmean(values[name]):.0%}" for name in shown)

    scores = f"Score on ID images: {means('id')}; on shifted images: {means('ood')}."
    if not Config.model_validate(run.config).distill:
        return scores
    return f"{scores} The student learned its teacher's features, without labels."


EXPERIMENT = Experiment(
    name=NAME,
    title="Distillation: the same features on ID data, and much of the robustness gone",
    about="A student learns to copy the features of a robust teacher on ID images, without labels. "
    "Both are as good on new ID images; on shifted ones the student is much worse, though better "
    "than a standard network. The paper's tables are redrawn first; then teacher, student and "
    "standard networks are trained, by default on shapes whose backgrounds say nothing about them.",
    reproduces=("Fig. 1", "Tab. 1", "Tab. 2", "Tab. 3", "Tab. 4", "App. E.1", "App. E.2",
                "App. E.3", "App. E.4"),
    presets={
        "paper": PAPER,
        "rn101": _on("imagenet", "RN101"),
        "vit": _on("imagenet", "ViT-B-16"),
        "rn50x4": _on("imagenet", "RN50x4"),
        "rn50x16": _on("imagenet", "RN50x16"),
        "iwildcam": Config(networks=IWILDCAM),
        "camelyon17": _on("camelyon17", "ViT-B-16"),
        "domainnet": _on("domainnet", "RN50"),
        "domainnet_rn101": _on("domainnet", "RN101", distill=False),
        "domainnet_vit": _on("domainnet", "ViT-B-32", distill=False),
        "laptop": LAPTOP,
        "demo": DEMO,
        "smoke": SMOKE,
    },
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)  # fmt: skip
"""Source: Fig. 1, Tab. 1, Tab. 2, Tab. 3, Tab. 4."""
