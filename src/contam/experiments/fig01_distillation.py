"""A student learns its teacher's features on ID data alone, and loses much of its robustness."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor

from contam.experiment import Claim, Experiment, Stage, judge
from contam.experiments.support.model_zoo import (
    CENTERED,
    ERM,
    INSTANCE,
    SMALL_NETWORKS,
    STUDENT,
    SWEEP,
    TEACHER,
    TINY_NETWORKS,
    ModelZoo,
    Networks,
    NetworkSpec,
)
from contam.measures.accuracy import Accuracy
from contam.measures.published import imagenet_robustness, published
from contam.measures.robustness import (
    IMAGENET_LINES,
    Line,
    bootstrap_band,
    effective_robustness,
    fit_line,
    robustness_interval,
)
from contam.plots import Figure, accuracies, bars, matrix, over_seeds
from contam.run import Run
from contam.training.probe import extract

PLACES = 60
"""Points at which a line is drawn."""
PUBLISHED_PAIRS = (
    (2, "iWildCam", "ImageNet RN50", "Distilled RN50", "macro F1"),
    (3, "Camelyon17", "CLIP-ViT-B/16", "Distilled ViT-B/16", "accuracy"),
    (4, "DomainNet", "CLIP-RN50", "Distilled RN50", "accuracy"),
)
"""Tables 2 to 4: data, teacher, student, and what was measured."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are App. E.1's: CLIP-RN50 on ImageNet, its student, and a standard ResNet-50."""

    networks: Networks = Networks()
    remedies: bool = False
    """Ours: also train a standard network with centered maps, and one with instance norm."""
    sweep: bool = False
    """Ours: draw the line through standard networks that are trained here, with less of all."""
    least_id: Annotated[float, Field(ge=0, le=1)] = 0.55
    """Standard networks below this ID accuracy are left out of the line."""
    seeds: PositiveInt = 1


def _on(data: Any, teacher: str) -> Config:
    return Config(networks=Networks(data=data, teacher=teacher, standard=None))


PAPER = Config()
LAPTOP = Config(networks=SMALL_NETWORKS, remedies=True, sweep=True, seeds=3)
DEMO = Config(
    networks=SMALL_NETWORKS.model_copy(update={"examples": 2000, "teacher_examples": 4500})
)
SMOKE = Config(networks=TINY_NETWORKS, remedies=True, sweep=True, least_id=0.0, seeds=2)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train what is compared, from each seed, and judge it on the ID and on every OOD test."""
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
            yield Stage((seed + share) / config.seeds, f"seed {seed}: judging {spec.name}")
            rows += [{"what": "score"} | row for row in zoo.judge(spec)]
        run.write(part, rows + _distances(zoo, seed))


def _members(config: Config) -> tuple[NetworkSpec, ...]:
    """The networks of a seed; a sweep holds those that the data are enough for."""
    sweep = [each for each in SWEEP if (each.examples or 0) <= config.networks.examples]
    standard = (ERM,) if config.networks.standard is not None else ()
    remedies = (CENTERED, INSTANCE) if config.remedies else ()
    return (TEACHER, STUDENT, *standard, *remedies, *(sweep if config.sweep else ()))


def _distances(zoo: ModelZoo, seed: int) -> list[dict[str, Any]]:
    """How far the student's features are from the teacher's, where it learned and elsewhere."""
    shift = zoo.benchmark(STUDENT).shift
    teacher, student = (zoo.network(spec).encoder for spec in (TEACHER, STUDENT))
    rows = []
    for role, domains in (("id", (shift.id_test,)), ("ood", shift.ood_tests)):
        for domain in domains:
            found = relative_distance(extract(student, domain), extract(teacher, domain))
            rows.append(
                {"what": "distance", "seed": seed, "role": role, "test": domain.name}
                | {"distance": found}
            )
    return rows


def relative_distance(student: Tensor, teacher: Tensor) -> float:
    """The squared distance of two tables of features over the teacher's variance in all.

    0 for equal features; 1 is what the teacher's own mean would reach on these examples.
    """
    spread = (teacher - teacher.mean(dim=0)).square().sum()
    return float((student - teacher).square().sum() / spread)


def claims(run: Run) -> Sequence[Claim]:
    """The student is as good as its teacher on ID data, worse elsewhere, better than ERM."""
    config = Config.model_validate(run.config)
    points = _points(run)
    found = [*_published_claims()]

    def each(network: str, key: str) -> list[float]:
        return [row[key] for row in points if row["network"] == network]

    def apart(one: str, other: str, key: str) -> list[float]:
        return [a - b for a, b in zip(each(one, key), each(other, key), strict=True)]

    where = "Sec. 2" if config.networks.data == "shapes" else _table(config)
    found += [
        judge(
            "On ID data the student is about as good as its teacher",
            apart("student", "teacher", "id"),
            source=where,
            quantity="ID score, student minus teacher",
            low=-0.05,
        ),
        judge(
            "On shifted data the student is far worse than its teacher",
            apart("student", "teacher", "ood"),
            source=where,
            quantity="mean OOD score, student minus teacher",
            high=-0.02,
            every_seed=True,
        ),
    ]
    distances = over_seeds(
        [row for row in _rows(run) if row["what"] == "distance"], ["seed", "role"], "distance"
    )
    by_seed = {(row["seed"], row["role"]): row["distance"] for row in distances}
    found.append(
        judge(
            "The student has its teacher's features on ID data, and others on shifted data",
            [by_seed[seed, "ood"] / by_seed[seed, "id"] for seed in range(config.seeds)],
            source="ours",
            quantity="relative distance of the features, OOD over ID",
            low=2.0,
            every_seed=True,
        )
    )
    return found + _robust_claims(config, points)


def _robust_claims(config: Config, points: Sequence[dict[str, Any]]) -> list[Claim]:
    """What is said of effective robustness; without a line of standard networks, why it is not."""
    sentences = {
        "teacher": "The teacher is more robust than its student at the same ID accuracy",
        "student": "The student is more robust than a standard network at the same ID accuracy",
    }
    quantities = {
        "teacher": "effective robustness, teacher minus student, points",
        "student": "effective robustness, student minus ERM, points",
    }
    if any(row["robustness"] is None for row in points):
        why = "too few standard networks were trained to draw their line"
        return [
            Claim(says, "Sec. 2", quantities[who], low=0.0, not_judged=why)
            for who, says in sentences.items()
        ]
    by = {(row["network"], row["seed"]): row for row in points}
    seeds = range(config.seeds)

    def difference(one: str, other: str, key: str) -> list[float]:
        return [by[one, seed][key] - by[other, seed][key] for seed in seeds]

    found = [
        judge(
            sentences[one],
            difference(one, other, "robustness"),
            source="Fig. 1",
            quantity=quantities[one],
            low=0.0,
            every_seed=True,
        )
        for one, other in (("teacher", "student"), ("student", "ERM"))
        if (other, 0) in by
    ]
    found.append(_kept(by, config.seeds))
    for spec in (CENTERED, INSTANCE) if config.remedies else ():
        found.append(
            judge(
                f"A standard network is more robust when trained with {_change(spec)}",
                difference(spec.name, "ERM", "ood"),
                source="ours",
                quantity=f"mean OOD accuracy, {spec.name} minus ERM",
                low=0.05,
                every_seed=True,
            )
        )
    if config.remedies:
        found.append(_beyond_coverage(by, config.seeds))
    return found


def _kept(by: Mapping[tuple[str, int], dict[str, Any]], seeds: int) -> Claim:
    """How much of the teacher's effective robustness its student has."""
    pairs = [
        tuple(by[network, seed]["robustness"] for network in ("student", "teacher"))
        for seed in range(seeds)
    ]
    says = "Distillation keeps about half of the teacher's effective robustness"
    quantity = "share of the teacher's effective robustness that the student has"
    if any(teacher <= 0 for _, teacher in pairs):
        why = "a teacher is not above the line of standard networks"
        return Claim(says, "Sec. 2", quantity, low=0.3, high=0.7, not_judged=why)
    return judge(
        says,
        [student / teacher for student, teacher in pairs],
        source="Sec. 2",
        quantity=quantity,
        low=0.3,
        high=0.7,
        published="about half",
    )


def _beyond_coverage(by: Mapping[tuple[str, int], dict[str, Any]], seeds: int) -> Claim:
    """How much of what a standard network loses is kept by one that saw the same images."""
    says = "Images that were never seen are not all that makes a standard network fail"
    quantity = "share of ERM's loss under shift that centering takes away, the same images seen"
    losses = [by["ERM", seed]["id"] - by["ERM", seed]["ood"] for seed in range(seeds)]
    gains = [by[CENTERED.name, seed]["ood"] - by["ERM", seed]["ood"] for seed in range(seeds)]
    if min(losses) <= 0:
        return Claim(
            says, "ours", quantity, low=0.2, not_judged="the standard network loses nothing"
        )
    return judge(
        says,
        [gain / loss for gain, loss in zip(gains, losses, strict=True)],
        source="ours",
        quantity=quantity,
        low=0.2,
        every_seed=True,
    )


def _change(spec: NetworkSpec) -> str:
    return {"centered": "every map centered", "instance": "instance norm"}[spec.normalization]


def _published_claims() -> list[Claim]:
    """What follows from the accuracies in print, without any training."""
    pairs = imagenet_robustness()
    gone = [pair.teacher_mean - pair.student_mean for pair in pairs]
    count = len(pairs)
    return [
        Claim(
            "In print: every CLIP teacher loses effective robustness when it is distilled",
            "Tab. 1",
            f"least loss over {count} pairs on ImageNet's shifts, points",
            found=min(gone),
            n=count,
            of="pair",
            low=0.0,
        ),
        Claim(
            "In print: students keep some of it, more than standard networks have",
            "Tab. 1",
            f"least effective robustness of {count} students, points",
            found=min(pair.student_mean for pair in pairs),
            n=count,
            of="pair",
            low=0.0,
        ),
        Claim(
            "In print: students keep about half of it",
            "Sec. 2",
            f"share kept, mean over {count} pairs",
            found=fmean(pair.kept for pair in pairs),
            n=count,
            of="pair",
            low=0.45,
            high=0.55,
            published="about half",
        ),
    ]


def draw(run: Run) -> Sequence[Figure]:
    """The published tables, then what was trained here."""
    config = Config.model_validate(run.config)
    points = _points(run)
    return [_in_print(), _other_tables(), _here(config, run, points), _tests(run), _far(run)]


def _in_print() -> Figure:
    """Figure 1 from Table 1, with the reference lines of standard ImageNet models."""
    table = published(1)
    rows: list[dict[str, Any]] = []
    robust: list[dict[str, Any]] = []
    for pair in imagenet_robustness():
        for who, name, mean in (
            ("CLIP teacher", f"CLIP-{pair.network}", pair.teacher_mean),
            ("distilled student", f"Distilled {pair.network}", pair.student_mean),
        ):
            printed = {key: value / 100 for key, value in table[name].items()}
            rows.append(
                {"model": name, "kind": who, "pair": pair.network}
                | {"id": printed["ImageNet (ID) top-1"], "ood": printed["OOD average top-1"]}
            )
            robust.append({"network": pair.network, "kind": who, "robustness": mean})
    at = torch.linspace(0.55, 0.9, PLACES, dtype=torch.float64)
    expected = torch.stack([line.expected(at) for line in IMAGENET_LINES.values()]).mean(dim=0)
    line = [{"id": float(x), "ood": float(y)} for x, y in zip(at, expected, strict=True)]
    panels = (
        accuracies(
            rows,
            title="ImageNet and the mean of its five shifts",
            x=("id", "ID accuracy"),
            y=("ood", "OOD accuracy"),
            series=("kind", ""),
            name="model",
            line=line,
            join="pair",
        ),
        bars(
            robust,
            title="Effective robustness, mean of the five shifts",
            x=("network", ""),
            y=("robustness", "accuracy above the line, points"),
            series=("kind", ""),
        ),
    )
    return Figure(
        "In print: distillation from CLIP on ImageNet",
        "Accuracies of the paper's Table 1; nothing was trained for this picture. The line is the "
        "mean of the five shifts' lines of standard ImageNet models (84 or 85 models each, 80 for "
        "ImageNet-R), and effective robustness is measured from each shift's own line.",
        "Fig. 1",
        panels,
        tuple(rows + robust),
    )


def _other_tables() -> Figure:
    """Tables 2 to 4: teacher and student on three other problems."""
    rows = []
    for number, data, teacher, student, metric in PUBLISHED_PAIRS:
        table = published(number)
        for who, name in (("teacher", teacher), ("student", student)):
            for place, value in table[name].items():
                where = "ID" if " ID " in place else "OOD"
                rows.append({"data": f"{data} {where}", "kind": who, "value": value, "of": metric})
    panel = bars(
        rows,
        title="Teacher and student, ID and OOD",
        x=("data", ""),
        y=("value", "accuracy (iWildCam: macro F1), %"),
        series=("kind", ""),
        wide=True,
    )
    return Figure(
        "In print: three other problems",
        "Numbers of the paper's Tables 2 to 4; nothing was trained for this picture. On iWildCam "
        "the student is far behind on ID data, too.",
        "Tab. 2",
        (panel,),
        tuple(rows),
    )


def _here(config: Config, run: Run, points: list[dict[str, Any]]) -> Figure:
    """What was trained in this run, above or below the line."""
    rows = [row | {"model": f"{row['network']}, seed {row['seed']}"} for row in points]
    sweep = {spec.name for spec in SWEEP}
    for row in rows:
        row["kind"] = "ERM with less" if row["network"] in sweep else row["network"]
        row["pair"] = row["seed"] if row["network"] in ("teacher", "student") else None
    line, drawn = _line(config, points), []
    if line is not None:
        models = _standard(config, points)
        x, y = (
            torch.tensor([m[key] for m in models], dtype=torch.float64) for key in ("id", "ood")
        )
        at = torch.linspace(0.02, 0.999, PLACES, dtype=torch.float64)
        band = bootstrap_band(x, y, at)
        drawn = [
            {"id": float(a), "ood": float(o), "low": float(low), "high": float(high)}
            for a, o, low, high in zip(at, line.expected(at), band.low, band.high, strict=True)
        ]
    panels = [
        accuracies(
            rows,
            title="Accuracy on ID and on shifted data",
            x=("id", "ID accuracy"),
            y=("ood", "mean OOD accuracy"),
            series=("kind", ""),
            name="model",
            line=drawn,
            join="pair",
        )
    ]
    known = [row for row in rows if row["robustness"] is not None and row["network"] not in sweep]
    if known:
        means = over_seeds(known, ["network"], "robustness")
        panels.append(
            bars(
                means,
                title="Effective robustness",
                x=("network", ""),
                y=("robustness", "accuracy above the line, points"),
            )
        )
    told = "" if line is None else _told(line)
    return Figure(
        f"Trained here: {_problem_name(config)}",
        f"Every mark is a network, with exact 95 % intervals of both accuracies; thin lines join "
        f"a teacher with its student. {told}Bars are means over {config.seeds} "
        f"seed{'s' if config.seeds > 1 else ''}, whiskers all seeds.",
        "Fig. 1",
        tuple(panels),
        tuple({key: row[key] for key in row if key not in ("pair", "kind")} for row in rows),
    )


def _told(line: Line) -> str:
    return (
        f"The line is fitted to {line.count} standard networks (slope {line.slope:.2f}, intercept "
        f"{line.intercept:.2f} on logits, R² {line.r_squared:.2f}), its band is a 95 % bootstrap. "
    )


def _problem_name(config: Config) -> str:
    if config.networks.data == "shapes":
        return f"shapes on backgrounds, {config.networks.examples} training images"
    return config.networks.data


def _tests(run: Run) -> Figure:
    """Every network on every test."""
    scores = [row for row in _rows(run) if row["what"] == "score"]
    means = over_seeds(scores, ["network", "test"], "score")
    panel = matrix(
        means,
        title="Score by test set",
        x=("test", ""),
        y=("network", ""),
        value=("score", "score"),
    )
    return Figure(
        "Where each network fails",
        "Mean over seeds; the first column is the ID test.",
        "ours",
        (panel,),
        tuple(means),
    )


def _far(run: Run) -> Figure:
    """How far the student's features are from the teacher's."""
    rows = [row for row in _rows(run) if row["what"] == "distance"]
    means = over_seeds(rows, ["test"], "distance")
    panel = bars(
        means,
        title="Distance of the student's features from the teacher's",
        x=("test", ""),
        y=("distance", "squared distance over the teacher's variance"),
        wide=True,
    )
    return Figure(
        "The student knows its teacher where it saw it",
        "At 0 the features are equal; at 1 the teacher's mean feature would do as well as the "
        "student. Whiskers: all seeds.",
        "ours",
        (panel,),
        tuple(means),
    )


def summarize(run: Run) -> str:
    """What happened, in two sentences."""
    points = _points(run)

    def means(key: str) -> str:
        shown = [n for n in ("teacher", "student", "ERM") if any(p["network"] == n for p in points)]
        values = [fmean(p[key] for p in points if p["network"] == name) for name in shown]
        told = [f"{name} {value:.0%}" for name, value in zip(shown, values, strict=True)]
        return ", ".join(told)

    return (
        f"Right on new images of the known kind: {means('id')}; on shifted images: "
        f"{means('ood')}. The student was taught its teacher's features, and no labels."
    )


def _rows(run: Run) -> list[dict[str, Any]]:
    return [row for part in run.parts("seed") for row in run.read(part)]


def _points(run: Run) -> list[dict[str, Any]]:
    """Every network of every seed: its ID and mean OOD score, and its effective robustness."""
    config = Config.model_validate(run.config)
    points = []
    scores = [row for row in _rows(run) if row["what"] == "score"]
    for network, seed in dict.fromkeys((row["network"], row["seed"]) for row in scores):
        mine = [row for row in scores if (row["network"], row["seed"]) == (network, seed)]
        own = next(row for row in mine if row["role"] == "id")
        others = [row for row in mine if row["role"] == "ood"]
        within = Accuracy(own["correct"], own["count"])
        beyond = Accuracy(sum(r["correct"] for r in others), sum(r["count"] for r in others))
        point = {"network": network, "seed": seed, "id": own["score"]}
        point |= {"ood": fmean(row["score"] for row in others), "tests": others}
        if own["score"] == within.share:  # an F1 score has no such interval
            point |= dict(zip(("id_low", "id_high"), within.interval, strict=True))
            point |= dict(zip(("ood_low", "ood_high"), beyond.interval, strict=True))
        points.append(point | {"within": within, "beyond": beyond})
    line = _line(config, points)
    private = ("tests", "within", "beyond")
    return [
        {key: point[key] for key in point if key not in private} | _robustness(config, point, line)
        for point in points
    ]


def _robustness(config: Config, point: dict[str, Any], line: Line | None) -> dict[str, Any]:
    """Points above the line; on ImageNet the mean over the shifts, each above its own line."""
    own = torch.tensor([point["id"]], dtype=torch.float64)
    if line is not None:
        ood = torch.tensor([point["ood"]], dtype=torch.float64)
        low, high = robustness_interval(point["within"], point["beyond"], line)
        found = float(effective_robustness(own, ood, line))
        return {"robustness": found, "robustness_low": low, "robustness_high": high}
    if config.networks.data == "imagenet":
        each = [
            effective_robustness(own, own.new_tensor([test["score"]]), IMAGENET_LINES[name])
            for test in point["tests"]
            if (name := test["test"].replace(" ", "-")) in IMAGENET_LINES
        ]
        return {"robustness": float(torch.stack(each).mean())}
    return {"robustness": None}


def _standard(config: Config, points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The standard networks that the line goes through."""
    names = {ERM.name, *(spec.name for spec in SWEEP)}
    return [p for p in points if p["network"] in names and p["id"] >= config.least_id]


def _line(config: Config, points: Sequence[dict[str, Any]]) -> Line | None:
    """The line through the standard networks that were trained here, if a sweep of them was."""
    if not config.sweep:
        return None
    models = _standard(config, points)
    x, y = (torch.tensor([m[key] for m in models], dtype=torch.float64) for key in ("id", "ood"))
    return fit_line(x, y)


def _table(config: Config) -> str:
    tables = {"imagenet": 1, "iwildcam": 2, "camelyon17": 3, "domainnet": 4}
    return f"Tab. {tables[config.networks.data]}"


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
        "iwildcam": _on("iwildcam", "torchvision:resnet50"),
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
)  # fmt: skip
"""Source: Fig. 1, Tab. 1, Tab. 2, Tab. 3, Tab. 4."""
