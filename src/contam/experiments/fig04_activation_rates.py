"""How often each block of a network fires for each class, before and after training."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from torch import Tensor

from contam.experiment import Claim, Experiment, Stage, judge
from contam.experiments.support.model_zoo import (
    UNTRAINED,
    ModelZoo,
    NetworkSpec,
)
from contam.experiments.support.per_network import (
    LAPTOP,
    PAPER,
    SMOKE,
    VIT,
    Config,
    arrays_of,
    look_into_each,
    names_in,
    one_image,
    profiled,
    seeds_in,
    seen_in,
    without_gaps,
)
from contam.measures.activation import activation_asymmetry, class_rates
from contam.models.blocks import blocks_of
from contam.plots import Figure, Panel, histogram, lines, on_same_axes, over_seeds
from contam.run import Run

NEAR_ZERO = 0.1
"""Rates below this are called close to zero; the paper gives no number."""
EXHIBITED = 0.1
"""From this asymmetry on, a block is said to show it; the paper shows histograms alone."""
BINS = 40
FEW = 4
"""Up to so many blocks have panels of full size."""


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the networks that are not there yet, and count when their blocks fire on ID images."""
    yield from look_into_each(run, config.networks, config.seeds, _look)


def _look(zoo: ModelZoo, spec: NetworkSpec) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Rates of every block: over classes, and how unequal they are for each channel."""
    model, images = zoo.network(spec), zoo.benchmark(spec).shift.id_test
    blocks = blocks_of(model, one_image(model, images))
    counting = without_gaps(images.y)
    (found,) = profiled(model, images, [block.last for block in blocks], [counting])
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Tensor] = {}
    for number, block in enumerate(blocks, start=1):
        rates = found[block.last].rates
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


def claims(run: Run) -> Sequence[Claim]:
    """Training makes rates unequal, most of all in the last block; and what is not seen here."""
    rows = seen_in(run)
    trained = [name for name in names_in(rows) if name != UNTRAINED.name]
    alike = [name for name in trained if _blocks(rows, name) == _blocks(rows, UNTRAINED.name)]

    def last(key: str, network: str) -> list[float]:
        return [_of(rows, network, seed)[-1][key] for seed in seeds_in(rows)]

    def each(pick: Any, names: Sequence[str], key: str, place: int) -> list[float]:
        return [pick(_of(rows, n, seed)[place][key] for n in names) for seed in seeds_in(rows)]

    growth = [
        min(
            after["asymmetry"] - before["asymmetry"]
            for name in alike
            for after, before in zip(
                _of(rows, name, seed), _of(rows, UNTRAINED.name, seed), strict=True
            )
        )
        for seed in seeds_in(rows)
    ]
    return [
        judge(
            "Training makes the activation rates of every block more asymmetric",
            growth,
            source="Fig. 4",
            quantity="asymmetry, trained minus untrained, least of all blocks and networks",
            low=0.0,
            every_seed=True,
        ),
        judge(
            "After training, the last block's rates are asymmetric",
            each(min, trained, "asymmetry", -1),
            source="Fig. 4",
            quantity="asymmetry of the last block, least trained network",
            low=EXHIBITED,
            every_seed=True,
        ),
        judge(
            "After training, the first block's rates are asymmetric too",
            each(min, trained, "asymmetry", 0),
            source="App. F.2",
            quantity="asymmetry of the first block, least trained network",
            low=EXHIBITED,
        ),
        judge(
            "The last block's rates are asymmetric before any training",
            last("asymmetry", UNTRAINED.name),
            source="App. F.2",
            quantity="asymmetry of the last block, untrained",
            low=EXHIBITED,
        ),
        judge(
            "After training, the last block's rates are near zero for most classes",
            each(max, trained, "classes_near_zero", -1),
            source="Fig. 4",
            quantity=f"share of classes whose rate, mean over channels, is below {NEAR_ZERO:g}; "
            "last block, most of the trained networks",
            low=0.5,
        ),
        judge(
            "After training, most single channels of the last block hardly fire for most classes",
            each(max, trained, "entries_near_zero", -1),
            source="Sec. 5",
            quantity=f"share of the rates of a channel for a class that are below {NEAR_ZERO:g}; "
            "last block, most of the trained networks",
            low=0.5,
        ),
    ]


def draw(run: Run) -> Sequence[Figure]:
    """A panel for each block, over classes as in the paper and over channels; then by depth."""
    config = Config.model_validate(run.config)
    rows = seen_in(run)
    figures = []
    for names in _same_blocks(rows):
        figures += [_over_classes(config, run, rows, names), _over_channels(run, rows, names)]
    return [*figures, _by_depth(rows)]


def _over_classes(
    config: Config, run: Run, rows: Sequence[dict[str, Any]], names: Sequence[str]
) -> Figure:
    """The paper's histograms."""
    panels = _by_block(run, rows, names, "rates", x="activation rate", y="share of classes")
    transformer = config.networks.teacher.partition(":")[2].startswith("ViT")
    return Figure(
        f"Activation rates of the classes, block by block: {', '.join(names)}",
        "How often the channels of a block are positive on ID test images, averaged over the "
        "channels and the positions in the image: one value for each class"
        f"{' and seed' if len(seeds_in(rows)) > 1 else ''}. Where a block's channels prefer "
        "different classes, their mean hides it; the next figure takes them one at a time.",
        "Fig. 12" if transformer else "Fig. 4",
        panels,
        tuple(_table(rows, names)),
    )


def _over_channels(run: Run, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Figure:
    """The same one channel at a time."""
    panels = _by_block(
        run, rows, names, "asymmetry", x="favorite class minus mean", y="share of channels"
    )
    return Figure(
        f"Asymmetry of single channels, block by block: {', '.join(names)}",
        "The activation rate of a channel for its favorite class, minus its mean over the classes: "
        "0 for a channel that fires equally often for all, and near 1 for one that fires for a "
        "single class of many.",
        "ours",
        panels,
        tuple(_table(rows, names)),
    )


def _by_block(
    run: Run, rows: Sequence[dict[str, Any]], names: Sequence[str], kind: str, *, x: str, y: str
) -> tuple[Panel, ...]:
    """A histogram for each block, with the same axes."""
    blocks = _blocks(rows, names[0])
    panels = []
    found = {
        name: [
            np.concatenate([arrays[f"{kind}/{number}"].numpy() for arrays in arrays_of(run, name)])
            for number in range(1, len(blocks) + 1)
        ]
        for name in names
    }
    top = 1.0
    if kind == "asymmetry":
        top = max(float(values.max()) for each in found.values() for values in each)
    for place, block in enumerate(blocks):
        samples = {name: each[place] for name, each in found.items()}
        panel, _ = histogram(
            samples,
            title=f"Block {place + 1}, {block}",
            x=x,
            y=y,
            edges=np.linspace(0, top, BINS + 1),
            small=len(blocks) > FEW,
        )
        panels.append(panel)
    return on_same_axes(panels)


def _by_depth(rows: Sequence[dict[str, Any]]) -> Figure:
    """The mean asymmetry along the network."""
    means = over_seeds(rows, ["network", "number"], "asymmetry")
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
        "Means over the channels; the band reaches from the lowest to the highest seed.",
        "ours",
        (panel,),
        tuple(means),
    )


def summarize(run: Run) -> str:
    """What happened, in two sentences."""
    rows = seen_in(run)
    last = {
        name: fmean(_of(rows, name, seed)[-1]["asymmetry"] for seed in seeds_in(rows))
        for name in names_in(rows)
    }
    told = ", ".join(f"{name} {value:.2f}" for name, value in last.items())
    lowest = min(
        row["lowest"]
        for row in rows
        if row["network"] != UNTRAINED.name and row["layer"] == _last(rows, row["network"])
    )
    return (
        "How much more often a channel of the last block fires for its favorite class than on "
        f"average: {told}. Averaged over channels, no class has a rate below {lowest:.2f} after "
        "training."
    )


def _of(rows: Sequence[dict[str, Any]], network: str, seed: int) -> list[dict[str, Any]]:
    """The blocks of a network, the first one first."""
    mine = [row for row in rows if (row["network"], row["seed"]) == (network, seed)]
    return sorted(mine, key=lambda row: row["number"])


def _last(rows: Sequence[dict[str, Any]], network: str) -> str:
    return _of(rows, network, seeds_in(rows)[0])[-1]["layer"]


def _blocks(rows: Sequence[dict[str, Any]], network: str) -> tuple[str, ...]:
    return tuple(row["block"] for row in _of(rows, network, seeds_in(rows)[0]))


def _same_blocks(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The networks in groups that have the same blocks, and can share their panels."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names_in(rows):
        groups.setdefault(_blocks(rows, name), []).append(name)
    return list(groups.values())


def _table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    keys = ("network", "seed", "block", "rate", "lowest", "highest", "asymmetry")
    return [{key: row[key] for key in keys} for row in rows if row["network"] in names]


EXPERIMENT = Experiment(
    name="fig04_activation_rates",
    title="Activation rates: neurons come to fire for some classes more than for others",
    about="In the theory, neurons of a trained network fire for one class only, and collect the "
    "background while they do. Here each block of untrained and trained networks is asked how "
    "often it fires for each class: by default in small networks that learned shapes.",
    reproduces=("Fig. 4", "Fig. 11", "Fig. 12", "App. F.2"),
    presets={"paper": PAPER, "vit": VIT, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
)
"""Source: Fig. 4, Fig. 11, Fig. 12."""
