"""A student learns its teacher's features on ID data alone, and loses much of its robustness."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from contam.experiment import Experiment, Stage
from contam.experiments.fig01_distillation.claims import claims
from contam.experiments.fig01_distillation.config import (
    DEMO,
    FIGURE_1,
    FIVE_PAIRS,
    IMAGENET_PAIRS,
    LAPTOP,
    NAME,
    OTHER_PAIRS,
    PAPER,
    SMOKE,
    Config,
    added_pairs,
)
from contam.experiments.fig01_distillation.figures import draw, summarize
from contam.experiments.fig01_distillation.results import finished_rows, standard_models
from contam.experiments.support.model_zoo import ModelZoo, require_files
from contam.experiments.support.networks import (
    CENTERED,
    ERM,
    INSTANCE,
    STUDENT,
    SWEEP,
    TEACHER,
    NetworkSpec,
)
from contam.experiments.support.per_network import null
from contam.run import Run
from contam.training.probe import extract


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the networks from each seed, and score them on the ID test and every OOD test."""
    specs = _members(config)
    pairs = added_pairs(config)
    if pairs:
        # All files of all pairs are required before any training.
        every = [(config, specs), *((other, _pair(other)) for other in pairs.values())]
        require_files([
            message for other, members in every
            for message in ModelZoo(other.networks, 0, run.folder.parent).missing_files(members)
        ])  # fmt: skip
    run.write("standard", standard_models(config))
    run.write("also", [row for folder in config.also for row in finished_rows(folder)])
    works = [
        ("seed", config, specs),
        *((f"pair/{name}/seed", o, _pair(o)) for name, o in pairs.items()),
    ]
    total = config.seeds * len(works)
    for seed in range(config.seeds):
        for index, (part, one, members) in enumerate(works):
            for stage in _scored(run, one, members, seed, f"{part}{seed}"):
                yield Stage((seed * len(works) + index + stage.done) / total, stage.doing)


def _scored(
    run: Run, config: Config, specs: Sequence[NetworkSpec], seed: int, part: str
) -> Iterator[Stage]:
    """Train and score the networks of one seed, and write a part for them."""
    if run.has(part):
        return
    zoo = ModelZoo(config.networks, seed, run.folder.parent)
    for stage in zoo.train(specs):
        yield Stage(0.95 * stage.done, stage.doing)
    rows = []
    for index, spec in enumerate(specs):
        share = 0.95 + 0.04 * index / len(specs)
        yield Stage(share, f"seed {seed}: scoring {spec.name}")
        rows += [{"what": "score"} | row for row in zoo.judge(spec)]
    run.write(part, rows + (_distances(zoo, seed) if config.distill else []))


def _pair(config: Config) -> tuple[NetworkSpec, ...]:
    """The teacher of an added pair, and its student if it has one."""
    return (TEACHER, STUDENT) if config.distill else (TEACHER,)


def _members(config: Config) -> tuple[NetworkSpec, ...]:
    """The networks of a seed; the sweep leaves out those with more images than the data has."""
    sweep = [spec for spec in SWEEP if (spec.examples or 0) <= config.networks.examples]
    standard = (ERM,) if config.networks.standard is not None else ()
    remedies = (CENTERED, INSTANCE) if config.remedies else ()
    student = (STUDENT,) if config.distill else ()
    return (TEACHER, *student, *standard, *remedies, *(sweep if config.sweep else ()))


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

    Source: ours, a distance without units, so that teachers can be compared.

    >>> import torch
    >>> teacher = torch.tensor([[0.0], [2.0]])
    >>> relative_distance(teacher, teacher), relative_distance(torch.ones(2, 1), teacher)
    (0.0, 1.0)
    """
    spread = (teacher - teacher.mean(dim=0)).square().sum()
    return float((student - teacher).square().sum() / spread)


EXPERIMENT = Experiment(
    name=NAME,
    title="Distillation: the same features on ID data, and much of the robustness gone",
    about="A student learns to copy the features of a robust teacher on ID images, without labels. "
    "Both are as good on new ID images; on shifted ones the student is much worse. "
    "The paper's tables are redrawn first; then teacher, student and "
    "standard networks are trained, by default on shapes whose backgrounds say nothing about them.",
    reproduces=("Fig. 1", "Tab. 1", "Tab. 2", "Tab. 3", "Tab. 4", "App. E.1", "App. E.2",
                "App. E.3", "App. E.4"),
    presets={
        "paper": PAPER,
        **IMAGENET_PAIRS,
        **OTHER_PAIRS,
        "five_pairs": FIVE_PAIRS,
        "figure_1": FIGURE_1,
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
