"""Where in depth the class response becomes dependent on the background, and with which optimizer.

Perceptrons of several depths are trained on the paper's data, where V / U is known in every layer;
residual networks and vision transformers on the embedded benchmark, where features are unknown and
the attenuation and the interaction stand for it. Every layer or block is measured before and after
training.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas
import torch
from pydantic import BaseModel, PositiveFloat, PositiveInt, model_validator
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
from contam.experiments.support.deep_perceptrons import layer_effects
from contam.experiments.support.untrained_controls import (
    CONTROLS,
    DRAWN,
    TRAINED,
    controls,
    strictest,
)
from contam.measures.attenuation import above_one
from contam.measures.correlation import spearman
from contam.models.classifier import Classifier
from contam.models.deep import deep_resnet, deep_vit
from contam.models.observe import observe
from contam.models.readings import over_space, over_tokens
from contam.plots import Figure, Panel, bars, lines, over_seeds
from contam.run import Run
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.setting import Setting
from contam.theory.trajectory import simulate
from contam.training.checkpointed import checkpointed
from contam.training.optimize import TrainingState
from contam.training.supervised import fit

Kind = Literal["mlp", "linear", "resnet", "vit"]
Optimizer = Literal["sgd", "momentum", "adamw"]
NAMES: dict[Optimizer, str] = {"sgd": "SGD", "momentum": "SGD with momentum", "adamw": "AdamW"}
"""Names of the optimizers in figures."""
KINDS: dict[Kind, str] = {
    "mlp": "MLP", "linear": "linear MLP", "resnet": "ResNet", "vit": "ViT"
}  # fmt: skip
"""Names of the kinds of network; a linear MLP has no activation function."""
IMAGE_KINDS: tuple[Kind, ...] = ("resnet", "vit")
"""Networks for images."""
LEARNED: dict[Kind, float] = {"mlp": 0.9, "linear": 0.9, "resnet": 0.5, "vit": 0.5}
"""ID accuracy above which a network has learned; MLPs have two classes, the others ten."""

Table = Any
"""A pandas.DataFrame, whose methods type checkers know too little of."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """All ours: the paper trains networks of one depth with one optimizer."""

    hidden_layers: tuple[PositiveInt, ...] = (1, 2, 3, 4, 5)
    """Hidden layers of the MLPs; the deepest is trained without an activation function, too."""
    mlp: Setting = Setting(
        data=DataModel(FeatureModel(dictionary="rotated")), ambient=True, head="trained",
        loss="logistic", step_size=0.1, batch_size=256, steps=500,
    )  # fmt: skip
    """The data and the training of the MLPs; the step size is that of SGD."""
    mlp_momentum_step_size: PositiveFloat = 0.02
    """Step size of SGD with momentum for MLPs."""
    mlp_adamw_step_size: PositiveFloat = 1e-3
    """Step size of AdamW for MLPs."""
    examples: PositiveInt = 4000
    """Held-out examples of each distribution for MLPs."""
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

    @model_validator(mode="after")
    def _is_classification(self) -> "Config":
        if self.mlp.loss == "squared":
            raise ValueError("loss of mlp must be logistic or hinge: the networks are classifiers")
        return self


FULL = Config()
LAPTOP = FULL.model_copy(
    update={
        "hidden_layers": (1, 2, 3, 5),
        "mlp": replace(FULL.mlp, width=128, steps=300),
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
        "hidden_layers": (1, 2),
        "mlp": replace(
            FULL.mlp, data=DataModel(FeatureModel(8, 8, 32, "rotated")), width=32,
            batch_size=100, steps=100,
        ),
        "examples": 400,
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
)  # fmt: skip


def null(config: Config) -> Config:
    """The config with step sizes at which nothing is learned.

    >>> null(Config()).mlp.step_size == NULL_STEP_SIZE
    True
    """
    names = ("sgd", "momentum", "adamw", "mlp_momentum", "mlp_adamw")
    return config.model_copy(
        update={f"{name}_step_size": NULL_STEP_SIZE for name in names}
        | {"mlp": replace(config.mlp, step_size=NULL_STEP_SIZE)}
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
    """The networks of a config.

    >>> one = Config(hidden_layers=(1, 4), resnets=(), vits=(), optimizers=("sgd",))
    >>> [(network.kind, network.blocks) for network in networks(one)]
    [('mlp', 1), ('mlp', 4), ('linear', 4)]
    """
    layers = config.hidden_layers
    depths: dict[Kind, tuple[int, ...]] = {
        "mlp": layers, "linear": layers and (max(layers),),
        "resnet": config.resnets, "vit": config.vits,
    }  # fmt: skip
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


def perceptron(config: Config, network: TrainedNetwork) -> Setting:
    """The setting of an MLP.

    Args:
        config: the data, the sizes and the step sizes.
        network: its depth and its optimizer.

    Source: ours, the paper's data and networks of more layers.

    >>> setting = perceptron(Config(), TrainedNetwork("linear", 4, "adamw"))
    >>> setting.depth, setting.activation, setting.optimizer
    (4, 'identity', 'adamw')
    """
    step_sizes = {
        "sgd": config.mlp.step_size,
        "momentum": config.mlp_momentum_step_size,
        "adamw": config.mlp_adamw_step_size,
    }
    return replace(
        config.mlp,
        depth=network.blocks,
        activation="identity" if network.kind == "linear" else "relu",
        optimizer=network.optimizer,
        step_size=step_sizes[network.optimizer],
    )


def _rows_of_perceptron(config: Config, network: TrainedNetwork, seed: int) -> list[dict[str, Any]]:
    """Train an MLP; a row for each layer before and after."""
    setting = perceptron(config, network)
    return [
        {"state": TRAINED if state.step else DRAWN} | row
        for state in simulate(setting, seed, (0, setting.steps))
        for row in layer_effects(state, examples=config.examples, objects=config.objects)
    ]


def _train(config: Config, run: Run, network: TrainedNetwork, seed: int) -> Iterator[float]:
    """Train one network and write its part; yield the share of the work done."""
    part = network.part(seed)
    labels = network._asdict() | {"seed": seed}
    if run.has(part):
        return
    if network.kind in ("mlp", "linear"):
        run.write(part, [labels | row for row in _rows_of_perceptron(config, network, seed)])
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
    run.write(part, [labels | record for record in records])


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

    Source: ours, what is measured of every block, as rows.
    """
    scores = {
        "id_accuracy": _accuracy(model, shift.id_test),
        "ood_accuracy": fmean(_accuracy(model, domain) for domain in shift.ood_tests),
    }
    layers = [f"encoder.block{k + 1}" for k in range(network.blocks)]
    reading = over_space if network.kind == "resnet" else over_tokens
    values: dict[int, dict[str, Tensor]] = {}
    for images in (altered.plain, *altered.changed.values(), *altered.before):
        observations = list(observe(model, images, layers, reading))
        values[id(images)] = {
            layer: torch.cat([batch.layers[layer] for batch in observations]) for layer in layers
        }
    for number, layer in enumerate(layers, start=1):

        def features(images: Domain, layer: str = layer) -> Tensor:
            return values[id(images)][layer]

        effects = effects_on(features, altered, len(shift.classes))
        yield {
            "block": number, "depth": number / network.blocks, "attenuation": effects.attenuation,
            "interaction": effects.dependent,
        } | scores  # fmt: skip


def _accuracy(model: nn.Module, domain: Domain) -> float:
    """The accuracy on a domain."""
    observations = list(observe(model, domain, layers=[]))
    right = torch.cat([batch.logits.argmax(dim=1) == batch.batch.y for batch in observations])
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


def _learned(kind: Kind) -> Any:
    """Require that the deepest networks of a kind recognize ID images, on average over seeds."""

    def require(results: DepthResults) -> None:
        scores = results.deepest(kind).groupby("optimizer")["id_accuracy"].mean()
        if not scores.min() >= LEARNED[kind]:
            raise NotJudged(
                f"a network did not learn: the ID accuracy of {KINDS[kind]}s is {scores.min():.2f}"
            )

    return require


def gained(kind: Kind, column: str, block: Literal["first", "last"]) -> Any:
    """What training adds to a column at a block, one number per seed.

    Of the two untrained networks, the one with more of it is subtracted.
    """

    def measure(results: DepthResults) -> list[float]:
        states = results.rows.loc[results.rows["kind"] == kind, "state"].unique()
        after, *before = (
            np.array(results.per_seed(results.deepest(kind, state), column, block))
            for state in (TRAINED, *(control for control in CONTROLS if control in states))
        )
        return strictest([after - values for values in before], at_least=True).tolist()

    return measure


def _over_depth(kind: Kind, column: str) -> Any:
    """A column at the last block minus the first, one number per seed."""

    def measure(results: DepthResults) -> list[float]:
        rows = results.deepest(kind)
        first, last = (results.per_seed(rows, column, block) for block in ("first", "last"))
        return [b - a for a, b in zip(first, last, strict=True)]

    return measure


def _between(kind: Kind, column: str, over: Optimizer, under: Optimizer) -> Any:
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


def _accuracy_drop(kind: Kind) -> Any:
    """ID minus OOD accuracy, one number per seed: means over optimizers."""

    def measure(results: DepthResults) -> list[float]:
        rows = results.deepest(kind)
        drops = rows["id_accuracy"] - rows["ood_accuracy"]
        return drops.groupby(rows["seed"]).mean().tolist()

    return measure


def rise_of_background(results: DepthResults) -> list[float]:
    """What training adds to V of the last layer of the deepest MLPs; the smallest of optimizers."""

    def last(state: str) -> Table:
        rows = results.deepest("mlp", state)
        rows = rows[rows["block"] == rows["block"].max()]
        return rows.pivot(index="seed", columns="optimizer", values="V")

    return (last(TRAINED) - last(DRAWN)).min(axis=1).tolist()


def learned_by_linear(results: DepthResults) -> list[float]:
    """Largest |change of V| in training over layers and optimizers of linear MLPs, per seed."""
    keys = ["seed", "optimizer", "block"]
    after, before = (
        results.deepest("linear", state).set_index(keys)["V"] for state in (TRAINED, DRAWN)
    )
    return (after - before).abs().groupby("seed").max().tolist()


def agreement(column: str) -> Any:
    """Rank correlation of V / U and a column over layers, depths and optimizers, per seed."""

    def measure(results: DepthResults) -> list[float]:
        results.deepest("mlp")
        rows = results.rows
        rows = rows[(rows["kind"] == "mlp") & (rows["state"] == TRAINED)]
        return [
            spearman(*(torch.tensor(part[name].tolist()) for name in ("contamination", column)))
            for _, part in rows.groupby("seed")
        ]

    return measure


CLAIMS: tuple[Statement, ...] = (
    Statement(
        "MLPs learn background in their last layer, with every optimizer", "ours",
        "V of the last of the deepest MLP's hidden layers, trained minus untrained, smallest over "
        "optimizers", rise_of_background, low=0.1, given=_learned("mlp")),
    Statement(
        "In MLPs, every layer passes contamination on, and later ones add to it", "ours",
        "V / U, last hidden layer minus first, deepest MLP, mean over optimizers",
        _over_depth("mlp", "contamination"), low=0.2, given=_learned("mlp")),
    Statement(
        "MLPs without activation functions learn none in any layer", "ours",
        "largest change of |V| in training over layers and optimizers, deepest linear MLP",
        learned_by_linear, high=0.1, given=_learned("linear")),
    Statement(
        "Where features are unknown, the attenuation can stand for V / U", "ours",
        "rank correlation of V / U and class-profile attenuation over layers, depths and "
        "optimizers, MLPs", agreement("attenuation"), low=0.5, given=_learned("mlp")),
    Statement(
        "So can the interaction of class and background", "ours",
        "rank correlation of V / U and the interaction over layers, depths and optimizers, MLPs",
        agreement("interaction"), low=0.5, given=_learned("mlp")),
    Statement(
        "Untrained networks are no baseline for it: training lowers it while V rises", "ours",
        "interaction of class and background at the last layer, trained minus untrained, MLP",
        gained("mlp", "interaction", "last"), high=-0.02, given=_learned("mlp")),
    Statement(
        "Residual networks fail in front of new backgrounds, whatever the optimizer", "ours",
        "ID minus OOD accuracy, deepest ResNet, mean over optimizers",
        _accuracy_drop("resnet"), low=0.1, given=_learned("resnet")),
    Statement(
        "Training makes the class response of ResNets depend on the background", "ours",
        "interaction of class and background at the last block, trained minus untrained, ResNet",
        gained("resnet", "interaction", "last"), low=0.02, given=_learned("resnet")),
    Statement(
        "In ResNets, the class profile of the last block is attenuated, more than the first's",
        "ours", "class-profile attenuation, last block minus first, ResNet",
        _over_depth("resnet", "attenuation"), low=0.02, given=_learned("resnet")),
    Statement(
        "ViTs fail in front of new backgrounds, too", "ours",
        "ID minus OOD accuracy, deepest ViT, mean over optimizers",
        _accuracy_drop("vit"), low=0.1, given=_learned("vit")),
    Statement(
        "The optimizer changes the attenuation of ResNets little", "ours",
        "class-profile attenuation at the last block, AdamW minus SGD, ResNet",
        _between("resnet", "attenuation", "adamw", "sgd"), low=-0.2, high=0.2,
        given=_learned("resnet")),
)  # fmt: skip
"""What the blocks of deep networks show."""


def claims(run: Run) -> Sequence[Claim]:
    """Judge the table of claims."""
    return judge_all(CLAIMS, DepthResults(run))


MEASURES = {
    "V": "V",
    "interaction": "interaction of class and background",
    "attenuation": "class-profile attenuation",
}
"""The measures of a block, and their names."""


def draw(run: Run) -> Sequence[Figure]:
    """The measures over the blocks of each network, and accuracies."""
    rows = DepthResults(run).rows
    rows = rows.assign(what=_series(rows))
    figures = []
    if (rows["kind"] == "mlp").any():
        figures.append(_perceptrons(rows[rows["kind"].isin(["mlp", "linear"])]))
    for kind in IMAGE_KINDS:
        if (rows["kind"] == kind).any():
            figures.append(_blocks_of_images(rows[rows["kind"] == kind], KINDS[kind]))
    of_images = rows[rows["kind"].isin(IMAGE_KINDS)]
    return [*figures, _accuracies(of_images)] if len(of_images) else figures


def _series(rows: Table) -> Table:
    """The name of each row's curve: its optimizer, or its state before training."""
    names = rows["optimizer"].map(NAMES).where(rows["state"] == TRAINED, rows["state"])
    return names.where(rows["kind"] != "linear", "without activation function, " + names)


def _perceptrons(rows: Table) -> Figure:
    """V / U of every layer, and what stands for it in networks for images."""
    trained = rows[rows["state"] == TRAINED]
    mlps, number = rows[rows["kind"] == "mlp"], int(rows["blocks"].max())
    deepest, last = mlps[mlps["blocks"] == number], trained[trained["block"] == trained["blocks"]]
    linear = trained[(trained["kind"] == "linear") & (trained["optimizer"] == "sgd")]
    # V / U is undefined where nothing is learned of the core, as before training.
    compared = pandas.concat([deepest[deepest["state"] == TRAINED], linear])
    x, over = ("block", "hidden layer"), f"by hidden layer of {number}"
    drawn = [
        _curves(compared, x, "contamination", "V / U", over),
        _curves(last[last["kind"] == "mlp"], ("blocks", "number of hidden layers"),
                "contamination", "V / U", "last layer"),
        *(_curves(deepest, x, column, title, over) for column, title in MEASURES.items()),
    ]  # fmt: skip
    return Figure(
        "Where in depth: MLPs on the paper's data",
        "V / U is the background that a layer's neurons have learned per unit of core: the slopes "
        "of their pre-activations, which are the weights of the first layer. The attenuation is "
        "the share of a layer's class signal that is lost on OOD backgrounds; the interaction is "
        "the share of its class response that depends on the background. Bands: 95 % intervals "
        "over seeds.",
        "ours", *_joined(drawn),
    )  # fmt: skip


def _blocks_of_images(rows: Table, name: str) -> Figure:
    """Measures by block of the deepest networks, and of the last block over depths."""
    number = int(rows["blocks"].max())
    deepest = rows[rows["blocks"] == number]
    last = rows[(rows["block"] == rows["blocks"]) & (rows["state"] == TRAINED)]
    drawn = [
        _curves(table, x, column, MEASURES[column], where)
        for column in ("interaction", "attenuation")
        for table, x, where in (
            (deepest, ("block", "block"), f"by block of {number}"),
            (last, ("blocks", "number of blocks"), "last block"),
        )
    ]
    return Figure(
        f"Where in depth: {name}",
        "The interaction is the share of a block's class response that depends on the background. "
        "The attenuation is the share of its class signal that is lost when ID backgrounds are "
        "changed. Bands: 95 % intervals over seeds.",
        "ours",
        *_joined(drawn),
    )


def _joined(
    drawn: Sequence[tuple[Panel, list[dict[str, Any]]]],
) -> tuple[tuple[Panel, ...], tuple[dict[str, Any], ...], tuple[str, ...]]:
    """Panels, all their points, and a note if an attenuation is above 1."""
    shown = tuple(row for _, points in drawn for row in points)
    notes = above_one(point["value"] for point in shown if point["of"] == MEASURES["attenuation"])
    return tuple(panel for panel, _ in drawn), shown, notes


def _curves(
    table: Table, x: tuple[str, str], column: str, title: str, where: str
) -> tuple[Panel, list[dict[str, Any]]]:
    """A panel of a column over `x`, with 95 % intervals, and its points."""
    points = _with_intervals(table, x[0], column)
    panel = lines(points, title=f"{title[0].upper()}{title[1:]}, {where}", x=x,
                  y=("value", title), series=("what", ""), points=True)  # fmt: skip
    return panel, [{"of": title} | point for point in points]


def _with_intervals(table: Table, x: str, column: str) -> list[dict[str, Any]]:
    """Means of a column over seeds by network and `x`, with 95 % t intervals."""
    # Before training, the networks of all optimizers are the same.
    table = table.drop_duplicates(["what", "seed", x])
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
    """V / U by layer of MLPs, and what the last blocks of networks for images depend on."""
    results, parts = DepthResults(run), []
    rows = results.rows[(results.rows["kind"] == "mlp") & (results.rows["state"] == TRAINED)]
    deepest = rows[rows["blocks"] == rows["blocks"].max()]
    layers = deepest.groupby("block")["contamination"].mean()
    text = (
        f"V / U of MLPs, from the first to the last of {len(layers)} hidden layers, mean over "
        f"optimizers: {', '.join(f'{value:.2f}' for value in layers)}."
        if len(layers)
        else ""
    )
    for kind in IMAGE_KINDS:
        name = KINDS[kind]
        rows = results.rows[(results.rows["kind"] == kind) & (results.rows["state"] == TRAINED)]
        last = rows[(rows["blocks"] == rows["blocks"].max()) & (rows["block"] == rows["blocks"])]
        for optimizer, group in last.groupby("optimizer"):
            means = group[["id_accuracy", "ood_accuracy", "interaction"]].mean()
            parts.append(
                f"{name}-{group['blocks'].iloc[0]} with {NAMES[optimizer]} {means.iloc[2]:.2f} "
                f"(accuracy {means.iloc[0]:.0%} ID, {means.iloc[1]:.0%} OOD)"
            )
    if parts:
        text += (
            " Share of the last block's class response that depends on the background, deepest "
            f"networks: {'; '.join(parts)}."
        )
    return text.strip()


EXPERIMENT = Experiment(
    name="depth_optimizers",
    title="Where in depth contamination arises, and with which optimizer",
    about="Perceptrons learn the paper's data, and residual networks and vision transformers of "
    "several depths learn ten shapes in front of four families of backgrounds, with SGD, SGD with "
    "momentum and AdamW. Each layer or block is then shown the same objects in front of other "
    "backgrounds.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: ours, the questions of Sec. 7 about depth and optimizers."""
