"""How often each block of a network fires for each class, before and after training."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any, Literal

import numpy as np
from torch import Tensor

from contam.experiment import Claim, Experiment, Stage, Statement, judge_all
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import UNTRAINED, NetworkSpec
from contam.experiments.support.per_network import (
    LAPTOP,
    PAPER,
    REFERENCE,
    SMOKE,
    VIT,
    Config,
    arrays_of,
    by_network,
    contiguous,
    largest_control,
    measure_each,
    network_table,
    null,
    one_image,
    profiled,
    trained,
)
from contam.measures.activation import activation_asymmetry, class_rates
from contam.models.blocks import blocks_of
from contam.plots import Figure, Panel, histogram, lines, over_seeds, share_axes
from contam.run import DataFrame, Run

NEAR_ZERO = 0.1
"""Rates below this count as close to zero; the paper gives no number."""
ASYMMETRIC = 0.1
"""The least asymmetry that counts; the paper shows histograms only."""
BINS = 40
FEW = 4
"""The most blocks whose panels have full size."""


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the missing networks, and measure the activation rates of their blocks on ID images."""
    yield from measure_each(run, config.networks, config.seeds, measure)


def measure(zoo: ModelZoo, spec: NetworkSpec) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Rates of every block: their mean for each class, and their asymmetry for each channel."""
    model, images = zoo.network(spec), zoo.benchmark(spec).shift.id_test
    blocks = blocks_of(model, one_image(model, images))
    labels = contiguous(images.y)
    (profiles,) = profiled(model, images, [block.last for block in blocks], [labels])
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Tensor] = {}
    for number, block in enumerate(blocks, start=1):
        rates = profiles[block.last].rates
        by_class, by_channel = class_rates(rates), activation_asymmetry(rates)
        rows.append(
            {"number": number, "block": block.name.removeprefix("encoder."), "layer": block.last}
            | {"classes": rates.shape[0], "channels": rates.shape[1]}
            | {"rate": float(by_class.mean()), "lowest": float(by_class.min())}
            | {"highest": float(by_class.max()), "asymmetry": float(by_channel.mean())}
            | {"classes_near_zero": float((by_class < NEAR_ZERO).double().mean())}
            | {"entries_near_zero": float((rates < NEAR_ZERO).double().mean())}
        )
        arrays |= {f"rates/{number}": by_class.float(), f"asymmetry/{number}": by_channel.float()}
    return rows, arrays


def _growth(table: DataFrame) -> list[float]:
    """The least growth of asymmetry over the larger control with the same blocks, by seed."""
    blocks = _blocks(table)
    growth = []
    for _, rows in table.groupby("seed"):
        asymmetry = rows.pivot(index="number", columns="network", values="asymmetry")
        alike = [name for name in trained(table) if blocks[name] == blocks[UNTRAINED.name]]
        changes = asymmetry[alike].sub(largest_control(asymmetry), axis=0)
        growth.append(changes.min(axis=None))
    return growth


def _of_block(
    column: str, number: Literal["min", "max"], *, pick: Callable[..., Any] | None
) -> Callable[[DataFrame], list[float]]:
    """A column of the first ("min") or last block, picked among the trained networks, by seed.

    Without `pick` it is the untrained network's.
    """

    def measure(table: DataFrame) -> list[float]:
        numbers = table.groupby("network").number.transform(number)
        values = by_network(table[table.number == numbers], column)
        if pick is None:
            return values[UNTRAINED.name].tolist()
        return [pick(row) for row in values[trained(table)].to_numpy().tolist()]

    return measure


STATEMENTS = (
    Statement(
        "Training makes the activation rates of every block more asymmetric",
        "Fig. 4",
        "asymmetry, trained minus untrained (the larger of both controls), least of all blocks and "
        "networks",
        _growth,
        low=0.0,
        every_seed=True,
    ),
    Statement(
        "After training, the last block's rates are asymmetric",
        "Fig. 4",
        "asymmetry of the last block, least trained network",
        _of_block("asymmetry", "max", pick=min),
        low=ASYMMETRIC,
        every_seed=True,
    ),
    Statement(
        "After training, the first block's rates are asymmetric too",
        "App. F.2",
        "asymmetry of the first block, least trained network",
        _of_block("asymmetry", "min", pick=min),
        low=ASYMMETRIC,
    ),
    Statement(
        "The last block's rates are asymmetric before any training",
        "App. F.2",
        "asymmetry of the last block, untrained",
        _of_block("asymmetry", "max", pick=None),
        low=ASYMMETRIC,
    ),
    Statement(
        "After training, the last block's rates are near zero for most classes",
        "Fig. 4",
        f"share of classes whose rate, mean over channels, is below {NEAR_ZERO:g}; last block, "
        "most of the trained networks",
        _of_block("classes_near_zero", "max", pick=max),
        low=0.5,
    ),
    Statement(
        "After training, most single channels of the last block hardly fire for most classes",
        "Sec. 5",
        f"share of the rates of a channel for a class that are below {NEAR_ZERO:g}; last block, "
        "most of the trained networks",
        _of_block("entries_near_zero", "max", pick=max),
        low=0.5,
    ),
)


def claims(run: Run) -> Sequence[Claim]:
    """Judge whether training makes rates asymmetric, most of all in the last block."""
    return judge_all(STATEMENTS, network_table(run))


def draw(run: Run) -> Sequence[Figure]:
    """A panel for each block, over classes as in the paper and over channels; then by depth."""
    config = Config.model_validate(run.config)
    table = network_table(run)
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, blocks in _blocks(table).items():
        groups.setdefault(blocks, []).append(name)
    figures = []
    for names in groups.values():
        rows = table[table.network.isin(names)]
        figures += [_over_classes(config, run, rows), _over_channels(run, rows)]
    return [*figures, _by_depth(table)]


def _over_classes(config: Config, run: Run, table: DataFrame) -> Figure:
    """The paper's histograms."""
    transformer = config.networks.teacher.partition(":")[2].startswith("ViT")
    return Figure(
        f"Activation rates of the classes in each block: {', '.join(table.network.unique())}",
        "The share of ID test images and positions for which the channels of a block are positive, "
        "averaged over the channels: one value for each class"
        f"{' and seed' if table.seed.nunique() > 1 else ''}. Where a block's channels prefer "
        "different classes, their mean hides it; the next figure shows single channels.",
        "Fig. 12" if transformer else "Fig. 4",
        _by_block(run, table, "rates", x="activation rate", y="share of classes"),
        _shown(table),
    )


def _over_channels(run: Run, table: DataFrame) -> Figure:
    """The same for single channels."""
    return Figure(
        f"Asymmetry of single channels in each block: {', '.join(table.network.unique())}",
        "The activation rate of a channel for its favorite class, minus its mean over the classes: "
        "0 for a channel that fires equally often for all, and near 1 for one that fires for a "
        "single class of many.",
        "ours",
        _by_block(run, table, "asymmetry", x="favorite class minus mean", y="share of channels"),
        _shown(table),
    )


def _by_block(run: Run, table: DataFrame, kind: str, *, x: str, y: str) -> tuple[Panel, ...]:
    """A histogram for each block, on the same axes; the networks have the same blocks."""
    arrays = {name: arrays_of(run, name) for name in table.network.unique()}
    blocks = table.drop_duplicates("number").set_index("number").block
    samples = {
        number: {
            name: np.concatenate([seed[f"{kind}/{number}"].numpy() for seed in seeds])
            for name, seeds in arrays.items()
        }
        for number in blocks.index
    }
    top = 1.0
    if kind == "asymmetry":
        top = max(float(values.max()) for some in samples.values() for values in some.values())
    panels = [
        histogram(
            samples[number],
            title=f"Block {number}, {block}",
            x=x,
            y=y,
            edges=np.linspace(0, top, BINS + 1),
            small=len(blocks) > FEW,
        )[0]
        for number, block in blocks.items()
    ]
    return share_axes(panels)


def _by_depth(table: DataFrame) -> Figure:
    """The mean asymmetry along the network."""
    means = over_seeds(table, ["network", "number"], "asymmetry")
    panel = lines(
        means,
        title="Mean asymmetry of a block's channels",
        x=("number", "block, from the first to the last"),
        y=("asymmetry", "asymmetry of activation rates"),
        series=("network", ""),
        points=True,
        wide=True,
    )
    return Figure(
        "Asymmetry grows with training and with depth",
        "Means over the channels; bands: all seeds.",
        "ours",
        (panel,),
        tuple(means),
    )


def summarize(run: Run) -> str:
    """The asymmetry of the last block, in two sentences."""
    table = network_table(run)
    last = table[table.number == table.groupby("network").number.transform("max")]
    asymmetry = last.groupby("network", sort=False).asymmetry.agg(fmean)
    values = ", ".join(f"{name} {value:.2f}" for name, value in asymmetry.items())
    lowest = last[last.network.isin(trained(table))].lowest.min()
    return (
        "How much more often a channel of the last block fires for its favorite class than on "
        f"average: {values}. Averaged over channels, no class has a rate below {lowest:.2f} after "
        "training."
    )


def _blocks(table: DataFrame) -> dict[str, tuple[str, ...]]:
    """The blocks of each network, from the first to the last."""
    first = table[table.seed == table.seed.min()]
    return {str(name): tuple(rows.block) for name, rows in first.groupby("network", sort=False)}


def _shown(table: DataFrame) -> tuple[dict[str, Any], ...]:
    columns = ["network", "seed", "block", "rate", "lowest", "highest", "asymmetry"]
    return tuple(table[columns].to_dict("records"))


EXPERIMENT = Experiment(
    name="fig04_activation_rates",
    title="Activation rates: neurons come to fire for some classes more than for others",
    about="In the theory, a neuron of a trained network fires for one class only, and learns the "
    "background of that class's examples. This experiment measures how often each block of "
    "untrained and trained networks fires for each class, by default in small networks that "
    "learned shapes.",
    reproduces=("Fig. 4", "Fig. 11", "Fig. 12", "App. F.2"),
    presets={
        "paper": PAPER,
        "vit": VIT,
        "reference": REFERENCE,
        "laptop": LAPTOP,
        "smoke": SMOKE,
    },
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: Fig. 4, Fig. 11, Fig. 12."""
