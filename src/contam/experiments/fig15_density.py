"""How many units of the first block take part, and how much, in a teacher and in its student."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contam.experiment import Claim, Experiment, Stage, judge
from contam.experiments.support.model_zoo import (
    ERM,
    STUDENT,
    TEACHER,
    UNTRAINED,
    ModelZoo,
    NetworkSpec,
)
from contam.experiments.support.per_network import (
    LAPTOP,
    PAPER,
    SMOKE,
    Config,
    arrays_of,
    look_into_each,
    names_in,
    one_image,
    seeds_in,
    seen_in,
)
from contam.measures.accuracy import Hits
from contam.measures.density import Density, common_edges
from contam.models.blocks import blocks_of
from contam.models.observe import observe
from contam.models.readings import flat
from contam.plots import Figure, bars, histogram, over_seeds
from contam.run import Run

BATCH = 32
"""Images at a time: a unit is one position of one channel, and the first block has many."""
BINS = 50
DENSER = 1.1
"""How many times as dense counts as denser; the paper says considerably, and shows a picture."""


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the networks that are not there yet, and read their first block on ID images."""
    yield from look_into_each(run, config.networks, config.seeds, _look)


def _look(zoo: ModelZoo, spec: NetworkSpec) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Mean activation and active share of every unit behind the first block's last ReLU."""
    model, images = zoo.network(spec), zoo.benchmark(spec).shift.id_test
    layer = blocks_of(model, one_image(model, images))[0].last
    density, hits = None, Hits()
    for seen in observe(model, images.batches(BATCH), [layer], flat):
        units = seen.layers[layer]
        density = (density or Density(units.shape[1])).update(units)
        hits.update(seen.logits, seen.batch.y)
    assert density is not None, "every test has an example"
    found = density.compute()
    mean, active = found.mean.float(), found.active.float()
    row = {"layer": layer, "units": len(mean), "accuracy": hits.compute().share}
    row |= {"mean": float(found.mean.mean()), "active": float(found.active.mean())}
    return [row], {"mean": mean, "active": active}


def claims(run: Run) -> Sequence[Claim]:
    """The teacher's first block is denser than its student's, as the paper saw it."""
    rows = seen_in(run)
    by = {(row["network"], row["seed"]): row for row in rows}

    def ratio(one: NetworkSpec, other: NetworkSpec, key: str) -> list[float]:
        pairs = [(by[one.name, s][key], by[other.name, s][key]) for s in seeds_in(rows)]
        return [mine / theirs for mine, theirs in pairs]

    found = [
        judge(
            "The teacher's first block is more active than its student's",
            ratio(TEACHER, STUDENT, "mean"),
            source="Fig. 15",
            quantity="mean activation of the first block's units, teacher over student",
            low=DENSER,
        ),
        judge(
            "More of the first block's units are active in the teacher than in its student",
            ratio(TEACHER, STUDENT, "active"),
            source="App. G.2",
            quantity="active share of the first block's units, teacher over student",
            low=DENSER,
        ),
    ]
    if ERM.name in names_in(rows):
        found.append(
            judge(
                "More of the first block's units are active in the teacher than in a standard "
                "network",
                ratio(TEACHER, ERM, "active"),
                source="ours",
                quantity="active share of the first block's units, teacher over ERM",
                low=DENSER,
            )
        )
    return found


def draw(run: Run) -> Sequence[Figure]:
    """The paper's histogram, the same of active shares, and both means."""
    rows = seen_in(run)
    names = names_in(rows)
    learned = [name for name in names if name != UNTRAINED.name]
    found = {name: arrays_of(run, name) for name in names}
    return [_histograms(rows, found, learned), _means(rows)]


def _histograms(
    rows: Sequence[dict[str, Any]], found: dict[str, list[Any]], learned: Sequence[str]
) -> Figure:
    def pooled(key: str, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {n: torch.cat([arrays[key] for arrays in found[n]]).numpy() for n in names}

    means = pooled("mean", learned)
    edges = common_edges([torch.from_numpy(each) for each in means.values()], bins=BINS)
    first, drawn = histogram(
        means,
        title="Mean activation of each unit",
        x="mean activation on ID test images, in the network's units",
        y="share of units",
        edges=edges.numpy(),
    )
    active = pooled("active", list(found))
    second, _ = histogram(
        active,
        title="How often each unit is active",
        x="share of ID test images at which the unit is positive",
        y="share of units",
        edges=np.linspace(0, 1, BINS + 1),
    )
    seeds = len(seeds_in(rows))
    return Figure(
        "Density of the first residual block",
        "A unit is one position of one channel behind the block's last activation; denser "
        f"networks have more of them to the right. {'All seeds together. ' if seeds > 1 else ''}"
        "The untrained network is shown on the right alone: its activations are on another scale.",
        "Fig. 15",
        (first, second),
        tuple(drawn),
    )


def _means(rows: Sequence[dict[str, Any]]) -> Figure:
    """Both numbers of every network, the untrained one's too."""
    panels = []
    for key, title, unit in (
        ("mean", "Mean activation", "mean over units, in the network's units"),
        ("active", "Active share", "mean share of images with a positive unit"),
    ):
        means = over_seeds(rows, ["network"], key)
        panels.append(bars(means, title=title, x=("network", ""), y=(key, unit)))
    keys = ("network", "seed", "units", "mean", "active", "accuracy")
    return Figure(
        "Density, network by network",
        "Means over seeds, whiskers all seeds. Mean activations depend on how a network scales its "
        "units; active shares do not.",
        "ours",
        tuple(panels),
        tuple({key: row[key] for key in keys} for row in rows),
    )


def summarize(run: Run) -> str:
    """What happened, in two sentences."""
    rows = seen_in(run)

    def told(key: str, form: str) -> str:
        return ", ".join(
            f"{name} {fmean(row[key] for row in rows if row['network'] == name):{form}}"
            for name in names_in(rows)
        )

    return (
        f"Share of the first block's units that are active for an image: {told('active', '.0%')}. "
        f"Their mean activation: {told('mean', '.2f')}."
    )


EXPERIMENT = Experiment(
    name="fig15_density",
    title="Density: does broad pre-training make more of a network active?",
    about="If a teacher couples its features less than its student, more of its neurons should "
    "take part in each image. The paper sees this in the first residual block of CLIP; here it is "
    "measured in the same place, by default in small networks that learned shapes.",
    reproduces=("Fig. 15", "App. G.2"),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
)
"""Source: Fig. 15."""
