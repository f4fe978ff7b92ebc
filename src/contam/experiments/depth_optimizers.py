"""Where in depth the class response becomes dependent on the background, and with which optimizer.

Residual networks and vision transformers of several depths are trained on the embedded benchmark.
Every block is measured before and after training.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, PositiveFloat, PositiveInt
from scipy.stats import t
from torch import Tensor, nn

from contam.batch import Domain, Shift
from contam.data.shapes import shapes
from contam.experiment import (
    NULL_STEP_SIZE,
    Claim,
    Experiment,
    NotJudged,
    Stage,
    Statement,
    judge_all,
)
from contam.experiments.support.altered_backgrounds import Altered, altered_images, effects_on
from contam.experiments.support.untrained_controls import CONTROLS, TRAINED, controls, strictest
from contam.measures.attenuation import above_one
from contam.models.classifier import Classifier
from contam.models.deep import deep_resnet, deep_vit
from contam.models.observe import observe
from contam.models.readings import over_space, over_tokens
from contam.plots import Figure, bars, lines, over_seeds
from contam.run import Run
from contam.training.checkpointed import checkpointed
from contam.training.optimize import TrainingState
from contam.training.supervised import fit

Kind = Literal["resnet", "vit"]
Optimizer = Literal["sgd", "momentum", "adamw"]
NAMES: dict[Optimizer, str] = {"sgd": "SGD", "momentum": "SGD with momentum", "adamw": "AdamW"}
"""Names of the optimizers in figures."""
KINDS: dict[Kind, str] = {"resnet": "ResNet", "vit": "ViT"}
"""Names of the kinds of network."""
LEARNED = 0.5
"""ID accuracy above which a network has learned; chance is 0.1."""

Table = Any
"""A pandas.DataFrame, whose methods type checkers know too little of."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """All ours: the paper trains networks of one depth with one optimizer."""

    resnets: tuple[PositiveInt, ...] = (2, 4, 8)
    """Blocks of the residual networks."""
    vits: tuple[PositiveInt, ...] = (2, 4)
    """Blocks of the vision transformers."""
    optimizers: tuple[Optimizer, ...] = ("sgd", "momentum", "adamw")
    """Optimizers of every network."""
    sgd_step_size: PositiveFloat = 0.3
    """Largest step size of SGD; all step sizes warm up and follow a cosine."""
    momentum_step_size: PositiveFloat = 0.05
    """Largest step size of SGD with a momentum of 0.9."""
    adamw_step_size: PositiveFloat = 5e-3
    """Largest step size of AdamW."""
    resnet_width: PositiveInt = 16
    """Channels of the stem of residual networks."""
    vit_width: PositiveInt = 48
    """Size of a token of vision transformers, a multiple of 4."""
    epochs: PositiveInt = 12
    """Epochs of the residual networks; transformers take twice as many."""
    batch_size: PositiveInt = 32
    """Images of a minibatch."""
    train: PositiveInt = 4000
    """Training images, a multiple of 40."""
    id_test: PositiveInt = 1000
    """Images of the ID test, a multiple of 40."""
    ood_test: PositiveInt = 200
    """Images of each of the five OOD tests, a multiple of 10."""
    images: PositiveInt = 800
    """Images whose backgrounds are altered, a multiple of 40."""
    objects: PositiveInt = 100
    """Objects that are shown on every background of a list, a multiple of 10."""
    seeds: PositiveInt = 5
    """Seeds of images, initial weights and the order of examples."""


FULL = Config()
LAPTOP = FULL.model_copy(
    update={
        "resnet_width": 8,
        "vit_width": 32,
        "epochs": 8,
        "train": 2000,
        "images": 400,
        "seeds": 3,
    }
)
SMOKE = LAPTOP.model_copy(
    update={
        "resnets": (2,),
        "vits": (1,),
        "optimizers": ("sgd", "adamw"),
        "resnet_width": 4,
        "vit_width": 8,
        "epochs": 1,
        "batch_size": 20,
        "train": 200,
        "id_test": 200,
        "ood_test": 40,
        "images": 80,
        "objects": 20,
        "seeds": 2,
    }
)


def null(config: Config) -> Config:
    """The config with step sizes at which nothing is learned."""
    return config.model_copy(
        update={f"{name}_step_size": NULL_STEP_SIZE for name in ("sgd", "momentum", "adamw")}
    )


class TrainedNetwork(NamedTuple):
    """A network of the comparison: its kind, its number of blocks and its optimizer."""

    kind: Kind
    blocks: int
    optimizer: Optimizer

    def part(self, seed: int) -> str:
        """Name of the part of a run."""
        return f"{self.kind}-{self.blocks}/{self.optimizer}/seed{seed}"


def networks(config: Config) -> list[TrainedNetwork]:
    """The networks of a config."""
    depths: dict[Kind, tuple[int, ...]] = {"resnet": config.resnets, "vit": config.vits}
    return [
        TrainedNetwork(kind, blocks, optimizer)
        for kind, numbers in depths.items()
        for blocks in numbers
        for optimizer in config.optimizers
    ]


def built(config: Config, network: TrainedNetwork, seed: int) -> Classifier:
    """Build an untrained network; its weights depend on the kind, the depth and the seed."""
    if network.kind == "resnet":
        return deep_resnet(blocks=network.blocks, width=config.resnet_width, seed=seed)
    return deep_vit(blocks=network.blocks, width=config.vit_width, seed=seed)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train every network from every seed, and measure its blocks before and after training."""
    todo = [(network, seed) for seed in range(config.seeds) for network in networks(config)]
    for index, (network, seed) in enumerate(todo):
        for done in _train(config, run, network, seed):
            yield Stage((index + done) / len(todo), f"seed {seed}: {network.part(seed)}")


def _train(config: Config, run: Run, network: TrainedNetwork, seed: int) -> Iterator[float]:
    """Train one network and write its part; yield the share of the work done."""
    part = network.part(seed)
    if run.has(part):
        return
    shift = shapes(seed, train=config.train, id_val=40, id_test=config.id_test,
                   ood_test=config.ood_test)  # fmt: skip
    altered = altered_images(seed, images=config.images, objects=config.objects)
    model = built(config, network, seed)

    def rows(state: str, one: Classifier) -> list[dict[str, Any]]:
        return [{"state": state} | row for row in measured(one, network, shift, altered)]

    def before() -> list[dict[str, Any]]:
        untrained = controls(model, shift.train, seed).items()
        return [row for state, one in untrained for row in rows(state, one)]

    def measure(stage: TrainingState) -> list[dict[str, Any]]:
        return rows(TRAINED, model) if stage.step == stage.steps else []

    epochs = config.epochs * (2 if network.kind == "vit" else 1)
    _, records = yield from checkpointed(
        run,
        part,
        partial(
            fit, model, shift, step_size=getattr(config, f"{network.optimizer}_step_size"),
            weight_decay=0.05 if network.optimizer == "adamw" else 5e-4,
            momentum={"sgd": 0.0, "momentum": 0.9, "adamw": None}[network.optimizer],
            batch_size=config.batch_size, epochs=epochs, seed=seed,
            report_every=config.train // config.batch_size,
        ),
        measure=measure,
        before=before,
    )  # fmt: skip
    labels = {"kind": network.kind, "blocks": network.blocks, "optimizer": network.optimizer}
    run.write(part, [labels | {"seed": seed} | record for record in records])


def measured(
    model: Classifier, network: TrainedNetwork, shift: Shift, altered: Altered
) -> Iterator[dict[str, Any]]:
    """Measure the accuracy of a network, and the effects of the background on every block.

    Args:
        model: the network.
        network: its kind and depth.
        shift: images for the accuracy.
        altered: objects on changed backgrounds.

    Yields:
        A row for each block: its depth, the attenuation of its class profile under changes of ID
        backgrounds, and the share of its class response that depends on the background.

    Source: ours.
    """
    scores = {
        "id_accuracy": accuracy(model, shift.id_test),
        "ood_accuracy": fmean(accuracy(model, domain) for domain in shift.ood_tests),
    }
    layers = [f"encoder.block{k + 1}" for k in range(network.blocks)]
    reading = over_space if network.kind == "resnet" else over_tokens
    values: dict[int, dict[str, Tensor]] = {}
    for images in (altered.plain, *altered.changed.values(), *altered.before):
        seen = list(observe(model, images, layers, reading))
        values[id(images)] = {
            layer: torch.cat([batch.layers[layer] for batch in seen]) for layer in layers
        }
    for number, layer in enumerate(layers, start=1):

        def features(images: Domain, layer: str = layer) -> Tensor:
            return values[id(images)][layer]

        effects = effects_on(features, altered, len(shift.classes))
        yield {
            "block": number, "depth": number / network.blocks, "attenuation": effects.attenuation,
            "interaction": effects.dependent,
        } | scores  # fmt: skip


def accuracy(model: nn.Module, domain: Domain) -> float:
    """The accuracy on a domain."""
    seen = list(observe(model, domain, layers=[]))
    right = torch.cat([batch.logits.argmax(dim=1) == batch.batch.y for batch in seen])
    return float(right.double().mean())


class DepthResults:
    """The rows of a run."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        self.rows: Table = run.table()

    def deepest(self, kind: Kind, state: str = TRAINED) -> Table:
        """Rows of the deepest networks of a kind, all optimizers.

        Raises:
            NotJudged: there is none.
        """
        rows = self.rows[(self.rows["kind"] == kind) & (self.rows["state"] == state)]
        if rows.empty:
            raise NotJudged(f"the config has no {KINDS[kind]}")
        return rows[rows["blocks"] == rows["blocks"].max()]

    def per_seed(self, rows: Table, column: str, block: Literal["first", "last"]) -> list[float]:
        """A column at the first or last block, one number per seed: means over optimizers."""
        at = rows["block"].min() if block == "first" else rows["block"].max()
        return rows[rows["block"] == at].groupby("seed")[column].mean().tolist()


def learned(kind: Kind) -> Any:
    """Require that the deepest networks of a kind recognize ID images, on average over seeds."""

    def require(results: DepthResults) -> None:
        scores = results.deepest(kind).groupby("optimizer")["id_accuracy"].mean()
        if not scores.min() >= LEARNED:
            raise NotJudged(f"a {KINDS[kind]} did not learn: its ID accuracy is {scores.min():.2f}")

    return require


def gained(kind: Kind, column: str, block: Literal["first", "last"]) -> Any:
    """What training adds to a column at a block, one number per seed.

    Of the two untrained networks, the one with more of it is subtracted.
    """

    def measure(results: DepthResults) -> list[float]:
        after, *before = (
            np.array(results.per_seed(results.deepest(kind, state), column, block))
            for state in (TRAINED, *CONTROLS)
        )
        return strictest([after - values for values in before], at_least=True).tolist()

    return measure


def over_depth(kind: Kind, column: str) -> Any:
    """A column at the last block minus the first, one number per seed."""

    def measure(results: DepthResults) -> list[float]:
        rows = results.deepest(kind)
        first, last = (results.per_seed(rows, column, block) for block in ("first", "last"))
        return [b - a for a, b in zip(first, last, strict=True)]

    return measure


def between(kind: Kind, column: str, over: Optimizer, under: Optimizer) -> Any:
    """A column of the last block with one optimizer minus that with another, per seed."""

    def measure(results: DepthResults) -> list[float]:
        rows = results.deepest(kind)
        values = [
            results.per_seed(rows[rows["optimizer"] == name], column, "last")
            for name in (over, under)
        ]
        if not all(values):
            raise NotJudged(f"the config does not have both {NAMES[over]} and {NAMES[under]}")
        return [a - b for a, b in zip(*values, strict=True)]

    return measure


def accuracy_drop(kind: Kind) -> Any:
    """ID minus OOD accuracy, one number per seed: means over optimizers."""

    def measure(results: DepthResults) -> list[float]:
        rows = results.deepest(kind)
        drops = rows["id_accuracy"] - rows["ood_accuracy"]
        return drops.groupby(rows["seed"]).mean().tolist()

    return measure


CLAIMS: tuple[Statement, ...] = (
    Statement(
        "Residual networks fail in front of new backgrounds, whatever the optimizer", "ours",
        "ID minus OOD accuracy, deepest ResNet, mean over optimizers",
        accuracy_drop("resnet"), low=0.1, given=learned("resnet")),
    Statement(
        "Training makes the class response of ResNets depend on the background", "ours",
        "interaction of class and background at the last block, trained minus untrained, ResNet",
        gained("resnet", "interaction", "last"), low=0.02, given=learned("resnet")),
    Statement(
        "In ResNets, the class profile of the last block is attenuated, more than the first's",
        "ours", "class-profile attenuation, last block minus first, ResNet",
        over_depth("resnet", "attenuation"), low=0.02, given=learned("resnet")),
    Statement(
        "ViTs fail in front of new backgrounds, too", "ours",
        "ID minus OOD accuracy, deepest ViT, mean over optimizers",
        accuracy_drop("vit"), low=0.1, given=learned("vit")),
    Statement(
        "The optimizer changes the attenuation of ResNets little", "ours",
        "class-profile attenuation at the last block, AdamW minus SGD, ResNet",
        between("resnet", "attenuation", "adamw", "sgd"), low=-0.2, high=0.2,
        given=learned("resnet")),
)  # fmt: skip
"""What the blocks of deep networks show."""


def claims(run: Run) -> Sequence[Claim]:
    """Judge the table of claims."""
    return judge_all(CLAIMS, DepthResults(run))


MEASURES = {
    "interaction": "interaction of class and background",
    "attenuation": "class-profile attenuation",
}
"""The measures of a block, and their names."""


def draw(run: Run) -> Sequence[Figure]:
    """Both measures over the blocks of each network, and accuracies."""
    results, figures = DepthResults(run), []
    for kind, name in KINDS.items():
        rows = results.rows[results.rows["kind"] == kind]
        if len(rows):
            figures.append(_by_block(rows, name))
    return [*figures, _accuracies(results.rows)]


def _by_block(rows: Table, name: str) -> Figure:
    """Measures by block of the deepest networks, and of the last block over depths."""
    deepest = rows[rows["blocks"] == rows["blocks"].max()]
    last = rows[(rows["block"] == rows["blocks"]) & (rows["state"] == TRAINED)]
    panels, shown = [], []
    for column, title in MEASURES.items():
        for table, x, label, where in (
            (deepest, "block", "block", f"by block of {int(deepest['blocks'].max())}"),
            (last, "blocks", "number of blocks", "last block"),
        ):
            points = _with_intervals(table, x, column)
            panels.append(
                lines(points, title=f"{title.capitalize()}, {where}", x=(x, label),
                      y=("value", title), series=("what", ""), points=True)
            )  # fmt: skip
            shown += [{"of": title} | point for point in points]
    return Figure(
        f"Where in depth: {name}",
        "The interaction is the share of a block's class response that depends on the background. "
        "The attenuation is the share of its class signal that is lost when ID backgrounds are "
        "changed. Bands: 95 % intervals over seeds.",
        "ours",
        tuple(panels),
        tuple(shown),
        above_one(point["value"] for point in shown if point["of"] == MEASURES["attenuation"]),
    )


def _with_intervals(table: Table, x: str, column: str) -> list[dict[str, Any]]:
    """Means of a column over seeds by network and `x`, with 95 % t intervals."""
    # Before training, the networks of all optimizers are the same.
    names = table["optimizer"].map(NAMES).where(table["state"] == TRAINED, table["state"])
    table = table.assign(what=names).drop_duplicates(["what", "seed", x])
    points = []
    for (name, at), values in table.groupby(["what", x])[column]:
        point = {x: at, "what": name, "value": values.mean()}
        if values.count() > 1:
            half = float(t.ppf(0.975, values.count() - 1) * values.sem())
            point |= {"low": point["value"] - half, "high": point["value"] + half}
        points.append(point)
    return points


def _accuracies(rows: Table) -> Figure:
    """ID and OOD accuracy of every network."""
    trained = rows[(rows["state"] == "trained") & (rows["block"] == 1)]
    shown = [
        {"network": f"{KINDS[row['kind']]}-{row['blocks']}, {NAMES[row['optimizer']]}",
         "where": where, "accuracy": row[column], "low": row["low"], "high": row["high"]}
        for where, column in (("ID", "id_accuracy"), ("OOD", "ood_accuracy"))
        for row in over_seeds(trained, ["kind", "blocks", "optimizer"], column)
    ]  # fmt: skip
    panel = bars(shown, title="Accuracy", x=("network", ""), y=("accuracy", "accuracy"),
                 series=("where", ""), wide=True)  # fmt: skip
    return Figure(
        "Accuracy before and after the shift",
        "The number after the kind of network is that of its blocks. The OOD accuracy is the mean "
        "over five families of new backgrounds. Whiskers: all seeds.",
        "ours", (panel,), tuple(shown),
    )  # fmt: skip


def summarize(run: Run) -> str:
    """The attenuation of the last block by optimizer, and the accuracies, in two sentences."""
    results, parts = DepthResults(run), []
    for kind, name in KINDS.items():
        rows = results.rows[(results.rows["kind"] == kind) & (results.rows["state"] == "trained")]
        last = rows[(rows["blocks"] == rows["blocks"].max()) & (rows["block"] == rows["blocks"])]
        for optimizer, group in last.groupby("optimizer"):
            means = group[["id_accuracy", "ood_accuracy", "interaction"]].mean()
            parts.append(
                f"{name}-{group['blocks'].iloc[0]} with {NAMES[optimizer]} {means.iloc[2]:.2f} "
                f"(accuracy {means.iloc[0]:.0%} ID, {means.iloc[1]:.0%} OOD)"
            )
    return (
        "Share of the last block's class response that depends on the background, deepest "
        f"networks: {'; '.join(parts)}."
    )


EXPERIMENT = Experiment(
    name="depth_optimizers",
    title="Where in depth contamination arises, and with which optimizer",
    about="Residual networks and vision transformers of several depths learn ten shapes in front "
    "of four families of backgrounds, with SGD, SGD with momentum and AdamW. Each block is then "
    "shown the same objects in front of other backgrounds.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: ours, the questions of Sec. 7 about depth and optimizers."""
