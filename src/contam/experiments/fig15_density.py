"""How many units of the first block are active, and how strongly, in a teacher and its student."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contam.experiment import Claim, Experiment, Stage, Statement, judge_all
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import ERM, STUDENT, TEACHER, NetworkSpec
from contam.experiments.support.per_network import (
    LAPTOP,
    PAPER,
    REFERENCE,
    SMOKE,
    Config,
    arrays_of,
    by_network,
    compared,
    largest_control,
    measure_each,
    network_table,
    null,
    one_image,
    trained,
)
from contam.measures.accuracy import Hits
from contam.measures.density import Density, common_edges
from contam.models.blocks import blocks_of
from contam.models.observe import observe
from contam.models.readings import flat
from contam.plots import Figure, bars, histogram, over_seeds
from contam.run import DataFrame, Run

BATCH = 32
"""Images in a batch: a unit is one position of one channel, and the first block has many."""
BINS = 50
DENSER = 1.1
"""The least ratio that counts as denser; the paper says "considerably" and shows a histogram."""


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the missing networks, and measure their first block on ID images."""
    yield from measure_each(run, config.networks, config.seeds, measure)


def measure(zoo: ModelZoo, spec: NetworkSpec) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Mean activation and active share of every unit after the first block's last ReLU."""
    model, images = zoo.network(spec), zoo.benchmark(spec).shift.id_test
    layer = blocks_of(model, one_image(model, images))[0].last
    density, hits = None, Hits()
    for observation in observe(model, images.batches(BATCH), [layer], flat):
        units = observation.layers[layer]
        density = (density or Density(units.shape[1])).update(units)
        hits.update(observation.logits, observation.batch.y)
    assert density is not None, "every test has an example"
    units = density.compute()
    mean, active = units.mean.float(), units.active.float()
    row = {"layer": layer, "units": len(mean), "accuracy": hits.compute().share}
    row |= {"mean": float(units.mean.mean()), "active": float(units.active.mean())}
    return [row], {"mean": mean, "active": active}


def _ratio(table: DataFrame, column: str, other: NetworkSpec) -> list[float]:
    teacher, under = compared(table, column, TEACHER, other)
    return (teacher / under).tolist()


def _over_controls(table: DataFrame) -> list[float]:
    active = by_network(table, "active")
    return (active[TEACHER.name] / largest_control(active)).tolist()


STATEMENTS = (
    Statement(
        "The teacher's first block is more active than its student's",
        "Fig. 15",
        "mean activation of the first block's units, teacher over student",
        lambda table: _ratio(table, "mean", STUDENT),
        low=DENSER,
    ),
    Statement(
        "More of the first block's units are active in the teacher than in its student",
        "App. G.2",
        "active share of the first block's units, teacher over student",
        lambda table: _ratio(table, "active", STUDENT),
        low=DENSER,
    ),
    Statement(
        "More of the first block's units are active in the teacher than in a standard network",
        "ours",
        "active share of the first block's units, teacher over ERM",
        lambda table: _ratio(table, "active", ERM),
        low=DENSER,
    ),
    Statement(
        "Training makes more of the first block's units active than random weights do",
        "ours",
        "active share of the first block's units, teacher over untrained (the larger control)",
        _over_controls,
        low=DENSER,
    ),
)


def claims(run: Run) -> Sequence[Claim]:
    """The teacher's first block is denser than its student's, as the paper reports."""
    return judge_all(STATEMENTS, network_table(run))


def draw(run: Run) -> Sequence[Figure]:
    """The paper's histogram, the same for active shares, and the means of both."""
    table = network_table(run)
    return [_histograms(run, table), _means(table)]


def _histograms(run: Run, table: DataFrame) -> Figure:
    def pooled(key: str) -> dict[str, np.ndarray]:
        return {
            name: torch.cat([arrays[key] for arrays in arrays_of(run, name)]).numpy()
            for name in table.network.unique()
        }

    means = {name: values for name, values in pooled("mean").items() if name in trained(table)}
    edges = common_edges([torch.from_numpy(values) for values in means.values()], bins=BINS)
    first, shares = histogram(
        means,
        title="Mean activation of each unit",
        x="mean activation on ID test images, in the network's units",
        y="share of units",
        edges=edges.numpy(),
    )
    second, _ = histogram(
        pooled("active"),
        title="How often each unit is active",
        x="share of ID test images for which the unit is positive",
        y="share of units",
        edges=np.linspace(0, 1, BINS + 1),
    )
    seeds = "All seeds together. " if table.seed.nunique() > 1 else ""
    return Figure(
        "Density of the first residual block",
        "A unit is one position of one channel after the block's last activation; denser networks "
        f"have more of them to the right. {seeds}The untrained networks are only in the right "
        "panel: their activations have another scale.",
        "Fig. 15",
        (first, second),
        tuple(shares),
    )


def _means(table: DataFrame) -> Figure:
    """Both measures of every network, including the untrained ones."""
    panels = [
        bars(over_seeds(table, ["network"], key), title=title, x=("network", ""), y=(key, unit))
        for key, title, unit in (
            ("mean", "Mean activation", "mean over units, in the network's units"),
            ("active", "Active share", "mean share of images with a positive unit"),
        )
    ]
    columns = ["network", "seed", "units", "mean", "active", "accuracy"]
    return Figure(
        "Density of each network",
        "Means over seeds, whiskers: all seeds. Mean activations depend on the scale of a "
        "network's units; active shares do not.",
        "ours",
        tuple(panels),
        tuple(table[columns].to_dict("records")),
    )


def summarize(run: Run) -> str:
    """The two densities of each network, in two sentences."""
    means = network_table(run).groupby("network", sort=False)[["active", "mean"]].agg(fmean)
    active = ", ".join(f"{name} {share:.0%}" for name, share in means.active.items())
    mean = ", ".join(f"{name} {value:.2f}" for name, value in means["mean"].items())
    return (
        f"Share of the first block's units that are active for an image: {active}. Their mean "
        f"activation: {mean}."
    )


EXPERIMENT = Experiment(
    name="fig15_density",
    title="Density: does broad pre-training make more of a network active?",
    about="If a teacher's features are less contaminated than its student's, more of its neurons "
    "should be active for each image. The paper reports this of the first residual block of CLIP; "
    "here the same block is measured, by default in small networks that learned shapes.",
    reproduces=("Fig. 15", "App. G.2"),
    presets={"paper": PAPER, "reference": REFERENCE, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: Fig. 15."""
