"""How deep networks decide ten classes, from a square that gives the class away to photographs."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from contam.batch import Shift
from contam.data.small_images import CLASSES
from contam.data.ten_classes import MOVED, REMOVED, SQUARES, ten_classes
from contam.experiment import (
    NULL_STEP_SIZE,
    Claim,
    Experiment,
    NotJudged,
    Stage,
    Statement,
    judge_all,
)
from contam.experiments.support.prediction_depth import (
    convolutions,
    depth_row,
    network,
    over_nearest,
)
from contam.experiments.support.small_image_files import check_readable
from contam.experiments.support.untrained_controls import (
    CALIBRATED,
    CONTROLS,
    DRAWN,
    TRAINED,
    controls,
    strictest,
)
from contam.measures.accuracy import accuracy
from contam.measures.depth import Rule
from contam.plots import Figure, bars, channels_last, contact_sheet, histogram, over_seeds
from contam.run import Run
from contam.training.checkpointed import checkpointed
from contam.training.supervised import fit

MURALI = "Murali et al. (2023)"
LEARNED = 0.5
"""The least ID accuracy of a network that learned ten classes."""
SHOWN = 10
"""Number of pictures of a set in the figure."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are those of the published code unless a field says otherwise."""

    folder: Path | None = Path("data")
    """Folder with a folder for each data set, such as data/kmnist; None uses embedded sets."""
    sets: Annotated[tuple[str, ...], Field(min_length=2)] = (
        "kmnist-patch", "mnist", "fashion-mnist", "kmnist", "cifar10",
    )  # fmt: skip
    """The sets, from easy to hard; see `contam.data.ten_classes.ten_classes`."""
    network: str = "torchvision:vgg16_bn"
    """A name that `contam.models.sources.load` knows, or resnet8."""
    width: PositiveInt = 12
    """Channels of the first stage of resnet8."""
    epochs: PositiveInt = 5
    batch_size: PositiveInt = 256
    """Ours: none was published."""
    step_size: PositiveFloat = 0.1
    weight_decay: NonNegativeFloat = 5e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = 0.9
    """Momentum of SGD; None is AdamW."""
    schedule_epochs: PositiveInt | None = 200
    """Epochs in which the cosine reaches 0; None is a warm-up and a cosine over the training."""
    noise: NonNegativeFloat = 0.0
    """Ours: standard deviation of Gaussian noise on all pixels."""
    train: PositiveInt | None = None
    """Ours: number of training pictures; None for all."""
    test: PositiveInt | None = None
    """Ours: number of test pictures; None for all."""
    per_class: PositiveInt = 100
    """Ours: training pictures of each class in the support of prediction depth."""
    support: PositiveInt | None = 1000
    """Size of a support without balanced classes, as published, instead of `per_class`."""
    queries: PositiveInt | None = 100
    """Test pictures whose depth is measured; None for all."""
    probes: Literal["activations", "convolutions"] = "convolutions"
    """Probes of prediction depth: input, pooled activations and softmax (ours), or, as published,
    all 3 x 3 convolutions before their normalization, with maps resized to 8 x 8."""
    rule: Rule = Rule(k=29, metric="l1", reference="last probe")
    seeds: PositiveInt = 1


PAPER = Config()
LAPTOP = Config(
    folder=None,
    sets=("digits-patch", "digits", "digits-faint", "shapes"),
    network="resnet8",
    epochs=12,
    batch_size=32,
    step_size=3e-3,
    weight_decay=0.05,
    momentum=None,
    schedule_epochs=None,
    noise=0.2,
    test=600,
    per_class=80,
    support=None,
    queries=None,
    probes="activations",
    rule=Rule(reference="last probe"),
    seeds=3,
)
SMOKE = LAPTOP.model_copy(
    update={
        "width": 4, "epochs": 2, "batch_size": 20, "train": 120, "test": 80, "per_class": 5,
        "rule": Rule(k=5, reference="last probe"), "seeds": 2,
    }
)  # fmt: skip


def part_of(name: str, seed: int) -> str:
    """The part of a run that holds the rows of a set.

    >>> part_of("letters", 0)
    'net/letters/seed0'
    """
    return f"net/{name}/seed{seed}"


def _shift_of(config: Config, name: str, seed: int) -> Shift:
    """Return a set of a config.

    Raises:
        ValueError: as `ten_classes`.
    """
    return ten_classes(
        name, config.folder, train=config.train, test=config.test, noise=config.noise, seed=seed
    )


def _check_sets(config: Config) -> None:
    """Read all sets of a config, so that all that is missing is reported at once.

    Raises:
        ValueError: at least one set is unknown, or its files are missing or malformed.
    """
    check_readable(partial(_shift_of, config, name, 0) for name in config.sets)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train a network on every set for each seed, and measure it before and after."""
    _check_sets(config)
    todo = [(name, seed) for seed in range(config.seeds) for name in config.sets]
    for index, (name, seed) in enumerate(todo):
        for done in _train(config, run, name, seed):
            yield Stage((index + done) / len(todo), f"seed {seed}: {name}")


def _train(config: Config, run: Run, name: str, seed: int) -> Iterator[float]:
    """Train one network and write its part; yield the share of the work done."""
    if run.has(part_of(name, seed)):
        return
    shift = _shift_of(config, name, seed)
    model = network(config.network, config.width, seed, CLASSES)
    probes: dict[str, Any] = {}
    if config.probes == "convolutions":
        probes = {"layers": convolutions(model), "reduce": over_nearest}
    epoch = max(len(shift.train[0]) // config.batch_size, 1)

    def measured(state: str, one: nn.Module) -> dict[str, Any]:
        row: dict[str, Any] = {"set": name, "seed": seed, "state": state}
        for test in (shift.id_test, *shift.ood_tests):
            row[test.name] = accuracy(one, test).share
        depth = depth_row(
            one, shift, per_class=config.per_class, rule=config.rule, seed=seed,
            support=config.support, queries=config.queries, **probes,
        )  # fmt: skip
        return row | depth

    def before() -> list[dict[str, Any]]:
        return [measured(*control) for control in controls(model, shift.train, seed).items()]

    def after(epochs: int) -> list[dict[str, Any]]:
        return [measured(TRAINED, model)] if epochs == config.epochs else []

    _, rows = yield from checkpointed(
        run,
        part_of(name, seed),
        partial(
            fit, model, shift, epochs=config.epochs, batch_size=config.batch_size,
            step_size=config.step_size, weight_decay=config.weight_decay,
            momentum=config.momentum, schedule_epochs=config.schedule_epochs, seed=seed,
            report_every=epoch,
        ),
        measure=lambda stage: after(stage.step // epoch),
        before=before,
    )  # fmt: skip
    arrays = {"pictures": shift.id_test.data.x[:SHOWN]} if seed == 0 else None
    run.write(part_of(name, seed), rows, arrays)


class DifficultyResults:
    """The rows of a run by set and state."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        self.table = run.table("net/").set_index(["set", "state", "seed"]).sort_index()

    def values(self, name: str, column: str, state: str = TRAINED) -> np.ndarray:
        """(seeds,) a column of the network of a set.

        Raises:
            NotJudged: the run has no such set or number.
        """
        if name not in self.config.sets or column not in self.table:
            raise NotJudged(f"there is no {name} in this run")
        return self.table.loc[(name, state), column].to_numpy(dtype=float)

    def lasting(self, column: str, name: str, other: str, *, at_least: bool) -> list[float]:
        """For each seed, a column of one set minus that of another, minus the same untrained.

        Of the two untrained networks, it is the one that supports the claim the least.
        """
        self.require_learning(name, other)
        after, *before = (
            self.values(name, column, state) - self.values(other, column, state)
            for state in (TRAINED, *CONTROLS)
        )
        return strictest([after - control for control in before], at_least=at_least).tolist()

    def accuracy_drop(self, name: str) -> list[float]:
        """For each seed, the accuracy that a square of another class takes."""
        self.require_learning(name)
        return (self.values(name, "as in training") - self.values(name, MOVED)).tolist()

    def require_learning(self, *names: str) -> None:
        """Require networks that learned their set.

        Raises:
            NotJudged: one did not.
        """
        for name in names:
            if (accuracy := self.values(name, "as in training").min()) < LEARNED:
                raise NotJudged(f"{name} did not learn: its ID accuracy is {accuracy:.2f}")

    def squared(self, ending: str) -> str:
        """The first set whose name has an ending.

        Raises:
            NotJudged: the run has no such set.
        """
        names = [name for name in self.config.sets if name.endswith(ending)]
        if not names:
            raise NotJudged(f"no set of this run ends in {ending}")
        return names[0]

    def plain(self, ending: str) -> str:
        """The same set without squares."""
        return self.squared(ending).removesuffix(ending)

    def hardest(self) -> str:
        """The last set without squares."""
        return [name for name in self.config.sets if not name.endswith(tuple(SQUARES))][-1]


def _drop_of(ending: str) -> Any:
    return lambda results: results.accuracy_drop(results.squared(ending))


STATEMENTS = (
    Statement("Training with a square decides pictures earlier than training without", MURALI,
              "mean depth of the set with a square minus the same set without, minus the same "
              "untrained, probes",
              lambda r: r.lasting("depth", r.squared("-patch"), r.plain("-patch"),
                                  at_least=False), high=-0.3, every_seed=True),
    Statement("The hardest set is decided later than that set", MURALI,
              "mean depth of the last set minus the set of the square, minus the same untrained, "
              "probes", lambda r: r.lasting("depth", r.hardest(), r.plain("-patch"),
                                            at_least=True), low=0.3, every_seed=True),
    Statement("A square that is easier than the picture harms", MURALI,
              "accuracy that a white square of another class takes", _drop_of("-patch"), low=0.5,
              every_seed=True),
    Statement("A square that is harder to see than the picture does not harm", MURALI,
              "accuracy that a faint square of another class takes", _drop_of("-faint"), high=0.1,
              every_seed=True),
    Statement("The faint square does not make decisions earlier", "ours",
              "mean depth of the set with a faint square minus the same set without, minus the "
              "same untrained, probes",
              lambda r: r.lasting("depth", r.squared("-faint"), r.plain("-faint"),
                                  at_least=True), low=-0.3, every_seed=True),
)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """Judge the order of the axis, and which squares harm."""
    return judge_all(STATEMENTS, DifficultyResults(run))


def draw(run: Run) -> Sequence[Figure]:
    """Pictures, the axis of mean depths, the distributions of depths, and what squares cost."""
    results = DifficultyResults(run)
    names = results.config.sets
    rows = [channels_last(run.arrays(part_of(name, 0))["pictures"]) for name in names]
    figures = [
        Figure(
            "Ten classes",
            "ID test pictures of each set. A square is at the place of the picture's class; class "
            "9 has none.",
            "ours",
            (contact_sheet(rows, title="From top to bottom: " + ", ".join(names)),),
        )
    ]
    table = results.table.reset_index()
    table["order"] = table.set.map(names.index)
    table["when"] = table.state.map([*CONTROLS, TRAINED].index)
    table = table.sort_values(["order", "when", "seed"], ignore_index=True)
    means = over_seeds(table, ["set", "state"], "depth")
    axis = bars(
        means,
        title="Mean prediction depth",
        x=("set", "learned set"),
        y=("depth", "probes"),
        series=("state", ""),
        wide=True,
    )
    after = table[table.state == TRAINED]
    shares = {name: np.mean(after[after.set == name]["shares"].tolist(), axis=0) for name in names}
    samples = {
        name: np.repeat(np.arange(len(share)), np.rint(10_000 * share).astype(int)).astype(float)
        for name, share in shares.items()
    }
    panels = [axis]
    if all(map(len, samples.values())):
        chart, _ = histogram(
            samples,
            title="Distribution of prediction depth, trained",
            x="prediction depth, from the first probe",
            edges=np.arange(max(map(len, shares.values())) + 1) - 0.5,
            y="share of pictures with a depth",
            wide=True,
        )
        panels.append(chart)
    columns = ["set", "state", "seed", "depth", "early", "undefined", "as in training"]
    figures.append(
        Figure(
            "Difficulty of ten classes",
            "Depth is the first probe from which on the nearest neighbors agree with the reference "
            "class. Untrained networks, as drawn and with calibrated batch norms, show what data "
            "and metric decide alone. Bars: mean over seeds; whiskers: all seeds.",
            MURALI,
            tuple(panels),
            tuple(table[columns].to_dict("records")),
        )
    )
    squared = [name for name in names if name.endswith(tuple(SQUARES))]
    if squared:
        kinds = ("as in training", MOVED, REMOVED)
        long = [
            {"set": name, "test": kind, "accuracy": value}
            for name in squared
            for kind in kinds
            for value in results.values(name, kind)
        ]
        accuracy = over_seeds(long, ["set", "test"], "accuracy")
        panel = bars(
            accuracy,
            title="Accuracy with, without and against the square",
            x=("set", ""),
            y=("accuracy", "share of test pictures"),
            series=("test", ""),
        )
        figures.append(
            Figure(
                "What the squares cost",
                "The same test pictures with the square of their class, the square of another "
                "class, and no square. Guessing is right in 10 %.",
                MURALI,
                (panel,),
                tuple(accuracy),
            )
        )
    return figures


def summarize(run: Run) -> str:
    """The mean depths of the sets, in one sentence."""
    results = DifficultyResults(run)
    depths = ", ".join(
        f"{name} {np.mean(results.values(name, 'depth')):.2f} (untrained "
        f"{np.mean(results.values(name, 'depth', DRAWN)):.2f}, calibrated "
        f"{np.mean(results.values(name, 'depth', CALIBRATED)):.2f})"
        for name in results.config.sets
    )
    return f"Mean prediction depths, in probes: {depths}."


EXPERIMENT = Experiment(
    name="difficulty_axis",
    title="Difficulty: how deep networks decide ten classes",
    about="Murali et al. (2023) order data sets by the mean prediction depth of networks that "
    "learn them, from pictures with a square that gives the class away to photographs, and show "
    "that not every square harms. Here each set is compared with untrained networks, since "
    "neighbors in the pixels decide much of the depth alone.",
    reproduces=("Murali reference axis", "Murali Fig. 6"),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=lambda config: config.model_copy(update={"step_size": NULL_STEP_SIZE}),
)
"""Source: Murali et al. (2023), reference axis and Fig. 6."""
