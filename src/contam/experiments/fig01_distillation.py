"""A student learns its teacher's features on ID data alone, and loses much of its robustness."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Annotated, Any, NamedTuple

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
from contam.measures.published import imagenet_robustness, published
from contam.measures.robustness import (
    IMAGENET_LINES,
    Line,
    effective_robustness,
    fit_line,
    robustness_interval,
)
from contam.plots import Figure, accuracies, bars, matrix, over_seeds
from contam.run import DataFrame, Run
from contam.training.optimize import Recipe
from contam.training.probe import extract

LEARNED = 0.5
"""ID accuracy from which on a network has learned the embedded benchmark, which has ten classes."""
PLACES = 60
"""Points along a drawn line."""
HALF = (0.45, 0.55)
"""What "about half" means in every claim."""
PUBLISHED_PAIRS = (
    (2, "iWildCam", "ImageNet RN50", "Distilled RN50"),
    (3, "Camelyon17", "CLIP-ViT-B/16", "Distilled ViT-B/16"),
    (4, "DomainNet", "CLIP-RN50", "Distilled RN50"),
)
"""Tables 2 to 4: number, data, teacher, student."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are App. E.1's: CLIP-RN50 on ImageNet, its student, and a standard ResNet-50."""

    networks: Networks = Networks()
    remedies: bool = False
    """Ours: also train a standard network with centered maps, and one with instance norm."""
    sweep: bool = False
    """Ours: draw the line through weaker standard networks that are trained here."""
    least_id: Annotated[float, Field(ge=0, le=1)] = 0.55
    """Standard networks below this ID accuracy are left out of the line."""
    seeds: PositiveInt = 1


def _on(data: Any, teacher: str) -> Config:
    return Config(networks=Networks(data=data, teacher=teacher, standard=None))


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
        run.write(part, rows + _distances(zoo, seed))


def _members(config: Config) -> tuple[NetworkSpec, ...]:
    """The networks of a seed; the sweep leaves out those with more images than the data has."""
    sweep = [spec for spec in SWEEP if (spec.examples or 0) <= config.networks.examples]
    standard = (ERM,) if config.networks.standard is not None else ()
    remedies = (CENTERED, INSTANCE) if config.remedies else ()
    return (TEACHER, STUDENT, *standard, *remedies, *(sweep if config.sweep else ()))


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
    """The line through the standard networks that were trained here."""

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
        x, y = (torch.tensor(models[key].tolist(), dtype=torch.float64) for key in ("id", "ood"))
        line = fit_line(x, y)
    robustness = [_robustness(config, point, line) for point in points]
    table = table.drop(columns=["tests", "accuracies"]).join(_frame(robustness))
    return _Results(config, rows, table, line)


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
        id_accuracy, ood_accuracy = point["accuracies"]
        low, high = robustness_interval(id_accuracy, ood_accuracy, line)
        value = float(effective_robustness(own, ood, line))
        return {"robustness": value, "robustness_low": low, "robustness_high": high}
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
    pairs = imagenet_robustness()
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
    statements = [*PUBLISHED, *_distilled(TABLES[config.networks.data]), ROBUSTNESS[TEACHER]]
    if config.networks.standard is not None:
        statements.append(ROBUSTNESS[ERM])
    statements.append(ROBUSTNESS[STUDENT])
    if config.remedies:
        statements += REMEDIES
    return judge_all(statements, results, pairs=len(imagenet_robustness()))


def draw(run: Run) -> Sequence[Figure]:
    """The published tables, then the networks that were trained here."""
    results = _results(run)
    return [
        _published_imagenet(), _published_others(), _here(results), _tests(results),
        _far(results),
    ]  # fmt: skip


def _published_imagenet() -> Figure:
    """Figure 1 from Table 1, with the reference lines of standard ImageNet models."""
    table = published(1)
    rows: list[dict[str, Any]] = []
    robustness: list[dict[str, Any]] = []
    for pair in imagenet_robustness():
        for kind, name, mean in (
            ("CLIP teacher", f"CLIP-{pair.network}", pair.teacher_mean),
            ("distilled student", f"Distilled {pair.network}", pair.student_mean),
        ):
            shares = {key: value / 100 for key, value in table[name].items()}
            rows.append(
                {"model": name, "kind": kind, "pair": pair.network}
                | {"id": shares["ImageNet (ID) top-1"], "ood": shares["OOD average top-1"]}
            )
            robustness.append({"network": pair.network, "kind": kind, "robustness": mean})
    at = torch.linspace(0.55, 0.9, PLACES, dtype=torch.float64)
    expected = torch.stack([line.expected(at) for line in IMAGENET_LINES.values()]).mean(dim=0)
    panels = (
        accuracies(
            rows,
            title="ImageNet and the mean of its five shifts",
            x=("id", "ID accuracy"),
            y=("ood", "OOD accuracy"),
            series=("kind", ""),
            name="model",
            line=[{"id": x, "ood": y} for x, y in zip(at.tolist(), expected.tolist(), strict=True)],
            join="pair",
        ),
        bars(
            robustness,
            title="Effective robustness, mean of the five shifts",
            x=("network", ""),
            y=("robustness", "accuracy above the line, points"),
            series=("kind", ""),
        ),
    )
    return Figure(
        "Published: distillation from CLIP on ImageNet",
        "Accuracies of the paper's Table 1; nothing was trained for this figure. The line is the "
        "mean of the five shifts' lines of standard ImageNet models (84 or 85 models each, 80 for "
        "ImageNet-R), and effective robustness is measured from each shift's own line.",
        "Fig. 1",
        panels,
        tuple(rows + robustness),
    )


def _published_others() -> Figure:
    """Tables 2 to 4: teacher and student on three other benchmarks."""
    rows = [
        {"data": f"{data} {'ID' if ' ID ' in place else 'OOD'}", "kind": kind, "value": value}
        for number, data, teacher, student in PUBLISHED_PAIRS
        for kind, name in (("teacher", teacher), ("student", student))
        for place, value in published(number)[name].items()
    ]
    panel = bars(
        rows,
        title="Teacher and student, ID and OOD",
        x=("data", ""),
        y=("value", "accuracy (iWildCam: macro F1), %"),
        series=("kind", ""),
        wide=True,
    )
    return Figure(
        "Published: three other benchmarks",
        "Numbers of the paper's Tables 2 to 4; nothing was trained for this figure. On iWildCam "
        "the student is far behind on ID data, too.",
        "Tab. 2",
        (panel,),
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

    return (
        f"Score on ID images: {means('id')}; on shifted images: {means('ood')}. The student "
        "learned its teacher's features, without labels."
    )


EXPERIMENT = Experiment(
    name="fig01_distillation",
    title="Distillation: the same features on ID data, and much of the robustness gone",
    about="A student learns to copy the features of a robust teacher on ID images, without labels. "
    "Both are as good on new ID images; on shifted ones the student is much worse, though better "
    "than a standard network. The paper's tables are redrawn first; then teacher, student and "
    "standard networks are trained, by default on shapes whose backgrounds say nothing about them.",
    reproduces=("Fig. 1", "Tab. 1", "Tab. 2", "Tab. 3", "Tab. 4", "App. E.1", "App. E.2",
                "App. E.3", "App. E.4"),
    presets={
        "paper": PAPER,
        "iwildcam": Config(networks=IWILDCAM),
        "camelyon17": _on("camelyon17", "open_clip:ViT-B-16/openai"),
        "domainnet": _on("domainnet", "open_clip:RN50/openai"),
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
