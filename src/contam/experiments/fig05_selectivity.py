"""How selective a network's features are for classes, before and after training, ID and OOD."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from contam.batch import Domain
from contam.experiment import Claim, Experiment, NotJudged, Stage, Statement, judge_all
from contam.experiments.support.model_zoo import ModelZoo
from contam.experiments.support.networks import ERM, STUDENT, TEACHER, NetworkSpec
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
from contam.measures.class_profiles import Profile
from contam.measures.selectivity import selectivity
from contam.models.blocks import blocks_of
from contam.models.hooks import forward_once
from contam.models.observe import layers_of
from contam.plots import Figure, bars, histogram, matrix, over_seeds, share_axes
from contam.rng import generator_for
from contam.run import DataFrame, Run

FEATURES = "encoder"
"""The layer of a classifier that is its encoder's output."""
RISE = 0.1
"""The least rise of selectivity, over untrained networks, that counts as learning."""
BINS = 40
ROLES = {"whole": "ID", "id": "ID, as many", "ood": "OOD"}
"""The roles of a row: the whole ID test, and an OOD test beside as many ID images."""


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the missing networks, and measure their last features on every test."""
    yield from measure_each(run, config.networks, config.seeds, measure)


def measure(zoo: ModelZoo, spec: NetworkSpec) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Selectivity on the whole ID test, and on every OOD test beside as many ID images."""
    model, benchmark = zoo.network(spec), zoo.benchmark(spec)
    own, ood = benchmark.shift.id_test, benchmark.shift.ood_tests
    layers = feature_layers(model, own)
    eye = torch.eye(len(benchmark.shift.classes))
    pairs = [
        alike(own.y, test.y, meanings(benchmark.scores(test, eye)), seed=zoo.seed) for test in ood
    ]
    whole, *parts = profiled(
        model, own, layers, [contiguous(own.y), *(labels for labels, _ in pairs)]
    )
    others = [
        profiled(model, test, layers, [labels])[0]
        for test, (_, labels) in zip(ood, pairs, strict=True)
    ]
    profiles = [("whole", "ID", whole)]
    for test, mine, theirs in zip(ood, parts, others, strict=True):
        profiles += [("id", test.name, mine), ("ood", test.name, theirs)]
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Tensor] = {}
    for role, test, by_layer in profiles:
        values, others = _selectivity(by_layer), _selectivity(by_layer, "others")
        counts = next(iter(by_layer.values())).counts
        rows.append(
            {"role": role, "test": test, "layers": layers, "neurons": len(values)}
            | {"classes": len(counts), "images": int(counts.sum())}
            | {"selectivity": float(values.mean()), "median": float(values.median())}
            | {"against_others": float(others.mean()), "median_others": float(others.median())}
            | {"signed": any(bool((p.means < 0).any()) for p in by_layer.values())}
            | {"outside": float(((values < 0) | (values > 1)).double().mean())}
        )
        arrays[f"{role}/{test}"] = values.float()
    return rows, arrays


def feature_layers(model: nn.Module, images: Domain) -> list[str]:
    """The encoder's output, or every activation of the last block where neurons are tokens'."""
    x = one_image(model, images)
    last = layers_of(model, x)[-1]
    _, recorder = forward_once(model, x, [last], _axes)
    if int(recorder.outputs[last][0, 0]) == 3:
        return list(blocks_of(model, x)[-1].activations)
    return [FEATURES]


def _axes(output: Tensor) -> Tensor:
    return torch.full((len(output), 1), output.ndim)


def _selectivity(profiles: dict[str, Profile], against: Any = "all") -> Tensor:
    return torch.cat([selectivity(profile.means, against=against) for profile in profiles.values()])


def meanings(scores: Tensor) -> Int[Tensor, " classes"]:
    """The class of a test that each logit stands for, or -1, from the test's scores of unit logits.

    Args:
        scores: (classes, classes of the test), the scores of one-hot logits.

    Source: ours, a network of many logits is read on tests of fewer classes.

    >>> meanings(torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])).tolist()
    [1, -1, 0]
    """
    best, meant = scores.max(dim=1)
    return torch.where(best == 1, meant, -1)


def alike(
    own: Int[Tensor, " examples"],
    other: Int[Tensor, " others"],
    meant: Int[Tensor, " classes"],
    *,
    seed: int,
) -> tuple[Int[Tensor, " examples"], Int[Tensor, " others"]]:
    """Label two sets so that both have the same classes and equally many examples of each.

    Fewer examples or other classes change selectivity by themselves: the largest of several means
    grows with their noise.

    Args:
        own: the classes of one set.
        other: the classes of the other set.
        meant: for each class of the first set, the same class of the other set, or -1.
        seed: decides which examples are kept.

    Returns:
        For each set, contiguous labels from 0, and -1 for the examples that are left out.

    Source: ours, selectivity depends on the number of classes and examples.

    >>> own, other = alike(torch.tensor([0, 0, 1]), torch.tensor([0, 1]), torch.arange(2), seed=0)
    >>> sorted(own.tolist()), other.tolist()
    ([-1, 0, 1], [0, 1])
    """
    draws = generator_for(seed, "fig05/alike")
    own = meant[own]
    labels = tuple(torch.full_like(y, -1) for y in (own, other))
    shared = sorted({*own.tolist()} & {*other.tolist()})
    for place, k in enumerate(shared):
        pair = [(y == k).nonzero().flatten() for y in (own, other)]
        few = min(map(len, pair))
        for which, into in zip(pair, labels, strict=True):
            into[which[torch.randperm(len(which), generator=draws)[:few]]] = place
    return labels[0], labels[1]


def _typical(table: DataFrame, against: Literal["all", "others"] = "all") -> str:
    """The column of a network's selectivity: its mean over neurons, or median for signed features.

    The denominator of Eq. 61 crosses zero where class means have both signs, as those of CLIP's
    attention pool do. A few neurons then decide the mean.

    Source: ours, a few neurons would decide the mean where the denominator crosses zero.
    """
    if table.signed.any():
        return "median" if against == "all" else "median_others"
    return "selectivity" if against == "all" else "against_others"


def _kept(table: DataFrame, against: Literal["all", "others"] = "all") -> DataFrame:
    """OOD selectivity over that of as many ID images, mean over the tests; seeds by networks."""
    column = _typical(table, against)
    ood, own = (by_network(table[table.role == role], column) for role in ("ood", "id"))
    return ood / own


def _rise(table: DataFrame, names: Sequence[str]) -> list[float]:
    """The least selectivity of some networks on ID data, minus that of the larger control."""
    values = by_network(table[table.role == "whole"], _typical(table))
    if not set(names) <= set(values):
        raise NotJudged(f"there is no {' or '.join(names)} in this run")
    return (values[list(names)].min(axis=1) - largest_control(values)).tolist()


def _selective(table: DataFrame) -> None:
    """Require that training made every trained network more selective on ID data."""
    rise = min(_rise(table, trained(table)))
    if rise < RISE:
        raise NotJudged(f"a network did not learn: its selectivity rose by {rise:.2f} only")


def _teacher_advantage(table: DataFrame) -> list[float]:
    kept = _kept(table)[trained(table)]
    if len(kept.columns) == 1:
        raise NotJudged("there is no other trained network in this run")
    return (kept[TEACHER.name] - kept.drop(columns=TEACHER.name).max(axis=1)).tolist()


def _fall_by_training(table: DataFrame) -> list[float]:
    column = _typical(table)
    ood, own = (by_network(table[table.role == role], column) for role in ("ood", "id"))
    fall = own - ood
    network = STUDENT if STUDENT.name in fall else TEACHER
    return (fall[network.name] - largest_control(fall)).tolist()


STATEMENTS = (
    Statement(
        "A distilled network is much more selective than a random one",
        "Fig. 5",
        "selectivity on ID data, student minus untrained (the larger of both controls)",
        lambda table: _rise(table, [STUDENT.name]),
        low=RISE,
        every_seed=True,
    ),
    Statement(
        "A standard network is much more selective than a random one, too",
        "ours",
        "selectivity on ID data, ERM minus untrained (the larger of both controls)",
        lambda table: _rise(table, [ERM.name]),
        low=RISE,
        every_seed=True,
    ),
    Statement(
        "Under distribution shift the selectivity of every trained network falls",
        "Fig. 5",
        "OOD selectivity over that of as many ID images, where it is largest",
        lambda table: _kept(table)[trained(table)].max(axis=1).tolist(),
        high=0.95,
        every_seed=True,
        given=_selective,
    ),
    Statement(
        "Under distribution shift the teacher's selectivity falls the least",
        "ours",
        "OOD selectivity over that of as many ID images, teacher minus the best other",
        _teacher_advantage,
        low=0.02,
        every_seed=True,
        given=_selective,
    ),
    Statement(
        "Selectivity falls because of training: an untrained network has little to lose",
        "ours",
        "ID minus OOD selectivity, student (or else teacher) minus untrained (the larger control)",
        _fall_by_training,
        low=0.05,
        every_seed=True,
    ),
    Statement(
        "Selectivity against the other classes alone falls under shift, too",
        "ours",
        "the same ratio with the mean over the other classes, where it is largest",
        lambda table: _kept(table, "others")[trained(table)].max(axis=1).tolist(),
        high=0.95,
        every_seed=True,
        given=_selective,
    ),
    Statement(
        "A teacher is much more selective than a random network",
        "ours",
        "selectivity on ID data, teacher minus untrained (the larger of both controls)",
        lambda table: _rise(table, [TEACHER.name]),
        low=RISE,
        every_seed=True,
    ),
)


def claims(run: Run) -> Sequence[Claim]:
    """Training raises selectivity; the shift lowers it, and the teacher's least."""
    return judge_all(STATEMENTS, network_table(run))


def draw(run: Run) -> Sequence[Figure]:
    """Means as in the paper, their distribution, and every test by itself."""
    table = network_table(run)
    return [_means(table), _distributions(run, table), _tests(table)]


def _means(table: DataFrame) -> Figure:
    column = _typical(table)
    average = "median" if table.signed.any() else "mean"
    paired = table[table.role != "whole"]
    paired = paired.assign(data=paired.role.map({"id": "ID", "ood": "OOD"}))
    by_seed = paired.groupby(["network", "data", "seed"], sort=False)[column].agg(fmean)
    means = over_seeds(by_seed.reset_index(), ["network", "data"], column)
    panel = bars(
        means,
        title=f"{average.title()} selectivity of the last features",
        x=("network", ""),
        y=(column, f"selectivity, {average} over neurons"),
        series=("data", ""),
        wide=True,
    )
    return Figure(
        "Selectivity rises with training and falls under shift",
        "0: a neuron is equally active for every class; near 1: it is active for one class only. "
        "OOD is the mean over the OOD tests; for each of them, ID takes the same classes and "
        "equally many images of each, since fewer images alone make neurons look more selective. "
        "Whiskers: all seeds.",
        "Fig. 5",
        (panel,),
        tuple(means),
    )


def _distributions(run: Run, table: DataFrame) -> Figure:
    """Neuron by neuron."""

    def pooled(network: str, role: str) -> np.ndarray:
        seeds = [arrays.items() for arrays in arrays_of(run, network)]
        values = [v for arrays in seeds for name, v in arrays if name.startswith(f"{role}/")]
        return torch.cat(values).numpy()

    panels = [
        histogram(
            {name: pooled(name, role) for name in table.network.unique()},
            title=f"{role.upper()} images",
            x="selectivity",
            edges=np.linspace(0, 1, BINS + 1),
        )[0]
        for role in ("id", "ood")
    ]
    columns = ["network", "seed", "test", "classes", "images", "selectivity", "median", "outside"]
    shown = table.assign(data=table.role.map(ROLES))[["data", *columns]]
    return Figure(
        "Selectivity, neuron by neuron",
        "All OOD tests and all seeds together. Neurons with negative activations may have values "
        "outside [0, 1]; they count in the outermost bins, and `outside` is their share.",
        "Fig. 5",
        share_axes(panels, "y"),
        tuple(shown.to_dict("records")),
    )


def _tests(table: DataFrame) -> Figure:
    """Every network on every test."""
    column = _typical(table)
    average = "Median" if table.signed.any() else "Mean"
    means = over_seeds(table[table.role != "id"], ["network", "test"], column)
    panel = matrix(
        means,
        title=f"{average} selectivity by test set",
        x=("test", ""),
        y=("network", ""),
        value=(column, "selectivity"),
    )
    return Figure(
        "Selectivity on each test",
        "Means over seeds. The first column is the whole ID test; it has more images than each of "
        "the others, which lowers the untrained network's value most.",
        "ours",
        (panel,),
        tuple(means),
    )


def summarize(run: Run) -> str:
    """Selectivity on ID and OOD images, in two sentences."""
    table = network_table(run)

    def means(role: str) -> str:
        values = by_network(table[table.role == role], _typical(table))
        return ", ".join(f"{name} {fmean(values[name]):.2f}" for name in values)

    average = "Median" if table.signed.any() else "Mean"
    return (
        f"{average} selectivity of the last features on ID images: {means('id')}. On OOD images: "
        f"{means('ood')}."
    )


EXPERIMENT = Experiment(
    name="fig05_selectivity",
    title="Selectivity: what a network prefers, and how a shift weakens it",
    about="Trained networks have features that are more active for one class than for others. If "
    "such a feature is contaminated by the background, another background weakens it. The "
    "selectivity of the last features is compared before and after training, on ID and OOD data.",
    reproduces=("Fig. 5", "App. F.3"),
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
"""Source: Fig. 5."""
