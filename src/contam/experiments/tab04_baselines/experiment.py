"""Do algorithms of domain generalization help where feature contamination is the problem?"""

from collections.abc import Iterator, Sequence
from itertools import product

from pydantic import BaseModel

from contam.experiment import NULL_STEP_SIZE, Experiment, Stage
from contam.experiments.support.model_zoo import STORE
from contam.experiments.tab04_baselines.benchmarks import (
    BaselineNetworks,
    DataKind,
    DomainBenchmark,
    read_benchmark,
)
from contam.experiments.tab04_baselines.cells import TrainingCell
from contam.experiments.tab04_baselines.claims import claims
from contam.experiments.tab04_baselines.figures import draw
from contam.experiments.tab04_baselines.methods import (
    AFTER,
    DISTILLATION,
    ERM,
    FINE_TUNING,
    METHODS,
    TEACHER,
    Method,
    find_method,
)
from contam.experiments.tab04_baselines.results import (
    TRAINED_AGAIN,
    Config,
    comparison,
    read_results,
)
from contam.experiments.tab04_baselines.trainings import train_cell
from contam.run import Run

NAME = "tab04_baselines"
REPAIR_SHARE = 0.02
"""Duration of a repair, as a share of that of a training."""

SMALL_BUDGET = BaselineNetworks(
    network="resnet8",
    width=8,
    steps=300,
    report_every=100,
    step_size=1e-2,
    batch_size=24,
    scaled_steps=True,
)
FULL = Config()
PACS = FULL.model_copy(update={"data": ("pacs",)})
CAMELYON17 = FULL.model_copy(update={"data": ("camelyon17",)})
IWILDCAM = FULL.model_copy(update={"data": ("iwildcam",)})
LAPTOP = Config(networks=SMALL_BUDGET, data=("shapes", "digits"), draws=1, methods=tuple(METHODS))
SMOKE = Config(
    networks=SMALL_BUDGET.model_copy(
        update={
            "width": 4, "steps": 2, "report_every": 1, "batch_size": 4, "examples": 200,
            "id_examples": 40, "ood_examples": 20, "teacher_examples": 150, "teacher_steps": 2,
            "student_steps": 2, "altered": 40, "objects": 10,
        }
    ),
    data=("shapes",),
    methods=("ERM", "centering", "fresh head", TEACHER, DISTILLATION),
    trials=2,
    draws=1,
    least_id=0.0,
)  # fmt: skip


class _TrialKey(BaseModel, frozen=True):
    """The settings that determine the results of a training."""

    networks: BaselineNetworks
    data: DataKind
    trial: int


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train and evaluate the missing cells of every data set and trial, then compare."""
    methods = _methods(config)
    first = {}
    for data in config.data:
        yield Stage(0.0, f"{data}: reading of the data")
        first[data, 0] = read_benchmark(data, config.networks, trial=0)
        _check_domains(config, methods, first[data, 0])
    todo: list[tuple[DataKind, int]] = [*product(config.data, range(config.trials))]
    for place, (data, trial) in enumerate(todo):
        yield Stage(place / len(todo), f"{data}, trial {trial}: reading of the data")
        key = _TrialKey(networks=config.networks, data=data, trial=trial)
        with Run.start(run.folder.parent / STORE, "baselines", key, wait=True) as store:
            benchmark = first.pop((data, trial), None)
            benchmark = benchmark or read_benchmark(data, config.networks, trial=trial)
            cells = cells_of(config, methods, benchmark)
            weights = [REPAIR_SHARE if c.method.kind == "repair" else 1.0 for c in cells]
            for index, cell in enumerate(cells):
                part = f"cells/{data}/trial{trial}/{cell.part}"
                if run.has(part):
                    continue
                if not store.has(cell.part):
                    for done in train_cell(cell, benchmark, config.networks, store, trial=trial):
                        share = (sum(weights[:index]) + done * weights[index]) / sum(weights)
                        doing = f"{data}, trial {trial}: {cell.method.name}"
                        yield Stage((place + share) / len(todo), doing)
                fixed = {
                    "data": data, "method": cell.method.name, "kind": cell.method.kind,
                    "uses": cell.method.uses, "trial": trial, "draw": cell.draw,
                    "left_out": cell.left_out, "classes": len(benchmark.classes),
                }  # fmt: skip
                run.write(part, [fixed | row for row in store.read(cell.part)])
    if not run.has("comparison"):
        table = comparison(read_results(run))
        run.write("comparison", table.to_dict("records"))


def _methods(config: Config) -> list[Method]:
    """The methods in the order of their trainings: ERM first, references after those they need.

    Raises:
        ValueError: a method is unknown, or its code is not that of the config.
    """
    methods = [find_method(name) for name in config.methods]
    if codes := {method.code for method in methods} - {"", *config.codes}:
        raise ValueError(
            f"the code of a method of your own changed, or is not known to this run ({codes}); "
            "compare it with 'contam compare --method package.module:object'"
        )
    needed = {name for method in methods for name in AFTER.get(method.name, ())}
    first = [METHODS[name] for name in (ERM, TEACHER, FINE_TUNING) if name in {ERM, *needed}]
    unique = {method.name: method for method in (*first, *methods)}
    order = {ERM: 0, TEACHER: 1, FINE_TUNING: 2}
    return sorted(
        unique.values(), key=lambda m: (order.get(m.name, 3), m.kind == "repair")
    )  # fmt: skip


def _check_domains(config: Config, methods: Sequence[Method], benchmark: DomainBenchmark) -> None:
    """Check that every algorithm has as many training domains as it needs.

    Args:
        config: whether domains are left out, and the selection.
        methods: the methods.
        benchmark: the data.

    Raises:
        ValueError: an algorithm needs more domains, or the selection needs trainings that the
            config does not have.

    Source: ours, too few domains are reported before the first training.
    """
    if config.selection == "leave-one-out" and not config.leave_one_out:
        raise ValueError(
            "leave-one-out selection trains again without each training domain; set leave_one_out"
        )
    domains = len(benchmark.train) - config.leave_one_out
    lacking = [m for m in methods if m.kind == "algorithm" and m.target.needs_domains > domains]
    if lacking:
        needed = max(method.target.needs_domains for method in lacking)
        names = ", ".join(method.name for method in lacking)
        left = f"without each, a training has {domains}; " if config.leave_one_out else ""
        raise ValueError(
            f"{benchmark.name} has {len(benchmark.train)} training domains; {left}at least "
            f"{needed} are needed by {names}; add a domain, choose another selection, or "
            "leave out these methods"
        )


def cells_of(
    config: Config, methods: Sequence[Method], benchmark: DomainBenchmark
) -> list[TrainingCell]:
    """Return the trainings of a trial: every draw, and those without a domain.

    Args:
        config: draws, and whether domains are left out.
        methods: the methods, ERM first.
        benchmark: the data.

    Source: App. E.4.
    """
    cells = []
    for number in range(config.draws):
        for method in methods:
            # References have no settings to search.
            if number and method.kind == "reference":
                continue
            cells.append(TrainingCell(method, number))
            if config.leave_one_out and method.kind in TRAINED_AGAIN:
                cells += [
                    TrainingCell(method, number, split.inner.name) for split in benchmark.train
                ]
    return cells


def summarize(run: Run) -> str:
    """ERM, the best baseline, distillation and the teacher, with their differences."""
    results = read_results(run)
    table = comparison(results)
    sentences = []
    for data, rows in table.groupby("data", sort=False):
        by_name = rows.set_index("method")
        baselines = rows[rows.method.isin(results.baselines(str(data)))]
        text = f"On {data}, ERM has an OOD accuracy of {by_name.ood[ERM]:.3f}"
        if len(baselines):
            best = baselines.loc[baselines.ood.idxmax()]
            text += f", the best of the other algorithms ({best.method}) {best.ood:.3f}"
        for name in (DISTILLATION, TEACHER):
            if name in by_name.index:
                text += f", {name} {by_name.ood[name]:.3f}"
        sentences.append(f"{text}.")
    return " ".join(sentences)


def null(config: Config) -> Config:
    """The config with a step size at which nothing is learned; probes are fitted.

    Source: ours, the same methods with step sizes that change nothing.
    """
    networks = config.networks.model_copy(update={"step_size": NULL_STEP_SIZE})
    return config.model_copy(update={"networks": networks})


EXPERIMENT = Experiment(
    name=NAME,
    title="Baselines of domain generalization, distillation and repairs on equal terms",
    about="Fifteen algorithms of domain generalization and some newer ones learn from the same "
    "training domains as ERM, by DomainBed's protocol. The experiment asks whether one of them "
    "closes the gap to a network that was pre-trained on more diverse data, whether differences to "
    "ERM are beyond chance, and whether methods that are more robust are less contaminated.",
    reproduces=(),
    presets={
        "paper": FULL,
        "pacs": PACS,
        "camelyon17": CAMELYON17,
        "iwildcam": IWILDCAM,
        "laptop": LAPTOP,
        "smoke": SMOKE,
    },
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    notes=lambda run: [f"left out: {line}" for line in read_results(run).left_out_lines()],
    null=null,
)
"""Source: App. E.4, Fig. 1."""
