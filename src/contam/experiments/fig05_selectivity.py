"""How selective a network's features are for classes, before and after training, ID and OOD."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from contam.batch import Domain
from contam.experiment import Claim, Experiment, Stage, judge
from contam.experiments.support.model_zoo import (
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
from contam.measures.class_profiles import Profile
from contam.measures.selectivity import selectivity
from contam.models.blocks import blocks_of
from contam.models.hooks import forward_once
from contam.models.observe import layers_of
from contam.plots import Figure, bars, histogram, matrix, on_same_axes, over_seeds
from contam.rng import generator_for
from contam.run import Run

FEATURES = "encoder"
"""The encoder's output in a classifier."""
BINS = 40


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the networks that are not there yet, and read their last features on every test."""
    yield from look_into_each(run, config.networks, config.seeds, _look)


def _look(zoo: ModelZoo, spec: NetworkSpec) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Selectivity on the whole ID test, and on every OOD test beside as many ID images."""
    model, benchmark = zoo.network(spec), zoo.benchmark(spec)
    own, ood = benchmark.shift.id_test, benchmark.shift.ood_tests
    layers = _layers(model, own)
    eye = torch.eye(len(benchmark.shift.classes))
    pairs = [
        alike(own.y, test.y, meanings(benchmark.scores(test, eye)), seed=zoo.seed) for test in ood
    ]
    whole, *parts = profiled(
        model, own, layers, [without_gaps(own.y), *(mine for mine, _ in pairs)]
    )
    others = [
        profiled(model, test, layers, [theirs])[0]
        for test, (_, theirs) in zip(ood, pairs, strict=True)
    ]
    read = [("whole", "ID", whole)]
    for test, mine, theirs in zip(ood, parts, others, strict=True):
        read += [("id", test.name, mine), ("ood", test.name, theirs)]
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Tensor] = {}
    for role, test, found in read:
        values = _selectivity(found)
        counts = next(iter(found.values())).counts
        rows.append(
            {"role": role, "test": test, "layers": layers, "neurons": len(values)}
            | {"classes": len(counts), "images": int(counts.sum())}
            | {"selectivity": float(values.mean()), "median": float(values.median())}
            | {"against_others": float(_selectivity(found, "others").mean())}
        )
        arrays[f"{role}/{test}"] = values.float()
    return rows, arrays


def _layers(model: nn.Module, images: Domain) -> list[str]:
    """The encoder's output, or every activation of the last block where neurons are tokens'."""
    x = one_image(model, images)
    last = layers_of(model, x)[-1]
    _, recorder = forward_once(model, x, [last], _axes)
    if int(recorder.outputs[last][0, 0]) == 3:
        return list(blocks_of(model, x)[-1].activations)
    return [FEATURES]


def _axes(output: Tensor) -> Tensor:
    return torch.full((len(output), 1), output.ndim)


def _selectivity(found: dict[str, Profile], against: Any = "all") -> Tensor:
    return torch.cat([selectivity(each.means, against=against) for each in found.values()])


def meanings(scores: Tensor) -> Int[Tensor, " classes"]:
    """Which class of a test each logit means, or -1, from the test's scores of unit logits.

    Source: ours.
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
    """Two sets counted so that both have the same classes and as many examples of each.

    `meant` says which class of the other set each own one is. Which examples count is drawn; the
    rest are -1. Fewer examples or other classes alone change selectivity, since the largest of
    several means is the larger the less they are averaged.

    Source: ours.
    """
    draws = generator_for(seed, "fig05/alike")
    own = meant[own]
    counted = tuple(torch.full_like(y, -1) for y in (own, other))
    shared = sorted({*own.tolist()} & {*other.tolist()})
    for place, k in enumerate(shared):
        pair = [(y == k).nonzero().flatten() for y in (own, other)]
        few = min(map(len, pair))
        for which, into in zip(pair, counted, strict=True):
            into[which[torch.randperm(len(which), generator=draws)[:few]]] = place
    return counted[0], counted[1]


def claims(run: Run) -> Sequence[Claim]:
    """Training raises selectivity, and the shift takes some of it, least from the teacher."""
    rows = seen_in(run)
    seeds = seeds_in(rows)
    trained = [name for name in names_in(rows) if name != UNTRAINED.name]
    rivals = [name for name in trained if name != TEACHER.name]

    def rise(names: Sequence[str]) -> list[float]:
        before = _by_seed(rows, UNTRAINED.name, "whole")
        after = [_by_seed(rows, name, "whole") for name in names]
        return [min(each[seed] for each in after) - before[seed] for seed in seeds]

    def left(name: str, key: str = "selectivity") -> list[float]:
        own, ood = (_by_seed(rows, name, role, key) for role in ("id", "ood"))
        return [ood[seed] / own[seed] for seed in seeds]

    def most(names: Sequence[str], pick: Callable[..., float], key: str) -> list[float]:
        return [pick(each) for each in zip(*(left(name, key) for name in names), strict=True)]

    def fall(name: str) -> list[float]:
        own, ood = (_by_seed(rows, name, role) for role in ("id", "ood"))
        return [own[seed] - ood[seed] for seed in seeds]

    return [
        judge(
            "A distilled network is much more selective than a random one",
            rise([STUDENT.name]),
            source="Fig. 5",
            quantity="selectivity on ID data, student minus untrained",
            low=0.1,
            every_seed=True,
        ),
        judge(
            "Other trained networks are much more selective than a random one, too",
            rise([name for name in trained if name != STUDENT.name]),
            source="ours",
            quantity="selectivity on ID data, the least of the others minus untrained",
            low=0.1,
            every_seed=True,
        ),
        judge(
            "Under distribution shift the selectivity of every trained network falls",
            most(trained, max, "selectivity"),
            source="Fig. 5",
            quantity="OOD selectivity over that of as many ID images, where it is largest",
            high=0.95,
            every_seed=True,
        ),
        judge(
            "Under distribution shift the teacher's selectivity falls the least",
            [
                mine - theirs
                for mine, theirs in zip(
                    left(TEACHER.name), most(rivals, max, "selectivity"), strict=True
                )
            ],
            source="Fig. 5",
            quantity="share of selectivity that the shift leaves, teacher minus the best other",
            low=0.0,
            every_seed=True,
        ),
        judge(
            "Selectivity falls because of training: an untrained network has little to lose",
            [a - b for a, b in zip(fall(STUDENT.name), fall(UNTRAINED.name), strict=True)],
            source="ours",
            quantity="ID minus OOD selectivity, student minus untrained",
            low=0.05,
            every_seed=True,
        ),
        judge(
            "Selectivity against the other classes alone falls under shift, too",
            most(trained, max, "against_others"),
            source="ours",
            quantity="the same ratio with the mean over the other classes, where it is largest",
            high=0.95,
            every_seed=True,
        ),
    ]


def draw(run: Run) -> Sequence[Figure]:
    """Means as in the paper, their distribution, and every test by itself."""
    rows = seen_in(run)
    return [_means(rows), _distributions(run, rows), _tests(rows)]


def _means(rows: Sequence[dict[str, Any]]) -> Figure:
    told = {"id": "ID", "ood": "OOD"}
    each = [
        {"network": name, "seed": seed, "data": told[role], "selectivity": found}
        for name in names_in(rows)
        for role in told
        for seed, found in _by_seed(rows, name, role).items()
    ]
    means = over_seeds(each, ["network", "data"], "selectivity")
    panel = bars(
        means,
        title="Mean selectivity of the last features",
        x=("network", ""),
        y=("selectivity", "selectivity, mean over neurons"),
        series=("data", ""),
        wide=True,
    )
    return Figure(
        "Selectivity rises with training and falls under shift",
        "0: a neuron is as active for every class; near 1: for one class alone. OOD is the mean "
        "over the OOD tests; ID takes, for each of them, the same classes and as many images of "
        "each, since fewer images alone make neurons look more selective. Whiskers: all seeds.",
        "Fig. 5",
        (panel,),
        tuple(means),
    )


def _distributions(run: Run, rows: Sequence[dict[str, Any]]) -> Figure:
    """Neuron by neuron."""
    panels = []
    for role, title in (("id", "ID images"), ("ood", "OOD images")):
        samples = {
            name: torch.cat(
                [
                    values
                    for arrays in arrays_of(run, name)
                    for place, values in arrays.items()
                    if place.startswith(f"{role}/")
                ]
            ).numpy()
            for name in names_in(rows)
        }
        panel, _ = histogram(
            samples,
            title=title,
            x="selectivity",
            edges=np.linspace(0, 1, BINS + 1),
        )
        panels.append(panel)
    return Figure(
        "Selectivity, neuron by neuron",
        "All OOD tests, and all seeds, together. Neurons that go below zero may have values "
        "outside [0, 1]; they count in the outermost bins.",
        "Fig. 5",
        on_same_axes(panels, "y"),
        tuple(_table(rows)),
    )


def _quartiles(values: np.ndarray) -> list[float]:
    return np.quantile(values, (0.25, 0.5, 0.75)).tolist()


def _tests(rows: Sequence[dict[str, Any]]) -> Figure:
    """Every network on every test."""
    shown = [
        {"network": r["network"], "test": r["test"], "selectivity": r["selectivity"]}
        for r in rows
        if r["role"] != "id"
    ]
    means = over_seeds(shown, ["network", "test"], "selectivity")
    panel = matrix(
        means,
        title="Mean selectivity by test set",
        x=("test", ""),
        y=("network", ""),
        value=("selectivity", "selectivity"),
    )
    return Figure(
        "Which shift takes how much",
        "Means over seeds. The first column is the whole ID test; it has more images than each of "
        "the others, which lowers the untrained network's value most.",
        "ours",
        (panel,),
        tuple(means),
    )


def summarize(run: Run) -> str:
    """What happened, in two sentences."""
    rows = seen_in(run)

    def told(role: str) -> str:
        return ", ".join(
            f"{name} {fmean(_by_seed(rows, name, role).values()):.2f}" for name in names_in(rows)
        )

    return (
        f"How much the last features prefer one class, on ID images: {told('id')}. On shifted "
        f"images: {told('ood')}."
    )


def _by_seed(
    rows: Sequence[dict[str, Any]], network: str, role: str, key: str = "selectivity"
) -> dict[int, float]:
    """The mean over the tests, for each seed."""
    mine = [row for row in rows if (row["network"], row["role"]) == (network, role)]
    return {seed: fmean(row[key] for row in mine if row["seed"] == seed) for seed in seeds_in(mine)}


def _table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {"whole": "ID", "id": "ID, as many", "ood": "OOD"}
    keys = ("network", "seed", "test", "classes", "images", "selectivity", "median")
    return [{"data": names[row["role"]]} | {key: row[key] for key in keys} for row in rows]


EXPERIMENT = Experiment(
    name="fig05_selectivity",
    title="Selectivity: what a network prefers, and how a shift weakens it",
    about="Trained networks have features that are active for one class more than for others. "
    "If a background is coupled with them, another background weakens them. Selectivity of the "
    "last features is compared before and after training, on known and on shifted data.",
    reproduces=("Fig. 5", "App. F.3"),
    presets={"paper": PAPER, "vit": VIT, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
)
"""Source: Fig. 5."""
