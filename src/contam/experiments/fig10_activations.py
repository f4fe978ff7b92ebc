"""Beyond the theorems: other activations, a non-linear task, AdamW, both layers trained."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PositiveInt, model_validator

from contam.experiment import Claim, Experiment, Stage, Statement, judge_all
from contam.experiments.support.two_layer_runs import (
    NAMES,
    Columns,
    curve,
    ends,
    null_setting,
    train_into,
)
from contam.plots import Figure, bars, lines
from contam.run import Run
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.setting import Activation, Setting
from contam.theory.summary import summary
from contam.theory.trajectory import State

PUBLISHED = Setting(
    data=DataModel(core_shape="spheres"),
    bias="all",
    head="trained",
    initialization="uniform",
    loss="logistic",
    optimizer="adamw",
    step_size=1e-3,
    weight_decay=1e-3,
    batch_size=1000,
    examples=1000,
    steps=20_000,
)
"""As in the published script `toy.py`, whose two spheres have the radii of ours exchanged: there
positive examples lie on the sphere of radius 1. It trains for 20,000 full-batch steps."""

Dictionary = Literal["rotated", "axes"]


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are those of the published script (App. F.1) unless a field says otherwise."""

    dictionaries: Annotated[tuple[Dictionary, ...], Field(min_length=1)] = ("rotated",)
    """Directions of the features: random orthonormal ones, as published, or the axes of the
    coordinates. AdamW scales each coordinate on its own, so the results depend on it."""
    activations: tuple[Activation, ...] = ("relu", "gelu", "sigmoid", "tanh")
    """Activation functions, one network each."""
    setting: Setting = PUBLISHED
    """The data and the network; core features lie on a sphere of radius 1 for one class and of
    radius 2 for the other."""
    test_examples: PositiveInt = 10_000
    """Ours: held-out examples for each risk. The published script reuses the core features of its
    training examples in its OOD examples."""
    points: PositiveInt = 40
    """Ours: measurements along each curve."""
    seeds: PositiveInt = 4
    """Ours: one was published."""

    @model_validator(mode="after")
    def _is_classification(self) -> "Config":
        if self.setting.activation != "relu":
            raise ValueError("activation is set by activations, which may be several")
        if self.setting.data.features.dictionary != "axes" or self.setting.ambient:
            raise ValueError("dictionary and ambient are set by dictionaries")
        if self.setting.loss == "squared":
            raise ValueError("loss must be logistic or hinge: the claims are about classification")
        return self


PAPER = Config()
LAPTOP = PAPER.model_copy(
    update={
        "dictionaries": ("rotated", "axes"),
        "setting": replace(PUBLISHED, steps=2000),
        "points": 16,
        "seeds": 3,
    }
)
"""A tenth of the published steps, which take about ten seconds for each network."""
DEMO = LAPTOP.model_copy(
    update={
        "setting": replace(PUBLISHED, examples=None, batch_size=500, step_size=3e-3, steps=600),
        "test_examples": 3000,
        "seeds": 2,
    }
)
"""Fresh examples in every step, so that nothing is memorized."""
SMOKE = DEMO.model_copy(
    update={
        "activations": ("relu", "tanh"),
        "setting": replace(
            DEMO.setting,
            data=DataModel(FeatureModel(8, 8, 32), core_shape="spheres"),
            width=64,
            batch_size=200,
            steps=100,
        ),
        "test_examples": 1000,
        "points": 5,
        "seeds": 2,
    }
)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train one network for each activation function and seed."""

    def measure(state: State) -> dict[str, Any]:
        return {f"train_{config.setting.loss}": state.loss} | summary(
            state, examples=config.test_examples
        )

    networks = [(network, seed) for seed in range(config.seeds) for network in _compared(config)]
    for index, ((dictionary, activation), seed) in enumerate(networks):
        part = f"{dictionary}/{activation}/seed{seed}"
        setting = _with_dictionary(config.setting, dictionary, activation)
        for share in train_into(run, part, setting, seed, points=config.points, measure=measure):
            yield Stage((index + share) / len(networks), part)


def _compared(config: Config) -> list[tuple[Dictionary, Activation]]:
    """The networks of a config, by dictionary and activation function."""
    return [(d, a) for d in config.dictionaries for a in config.activations]


def _with_dictionary(setting: Setting, dictionary: Dictionary, activation: Activation) -> Setting:
    """The setting with this dictionary and activation; rotated features need ambient weights."""
    features = replace(setting.data.features, dictionary=dictionary)
    return replace(
        setting,
        activation=activation,
        data=replace(setting.data, features=features),
        ambient=dictionary == "rotated",
    )


def label_of(dictionary: Dictionary, activation: Activation) -> str:
    """The name of a network in claims and charts.

    >>> label_of("axes", "gelu")
    'GELU, axes dictionary'
    """
    return f"{NAMES[activation]}, {dictionary} dictionary"


Ends = tuple[Columns, Columns]
"""Values before and after training, one per seed; the argument of every claim below."""


def _minus(over: str, under: str) -> Callable[[Ends], list[float]]:
    """Difference of two columns when training ends, seed by seed."""
    return lambda ends: [a - b for a, b in zip(ends[1](over), ends[1](under), strict=True)]


def _background_growth(ends: Ends) -> list[float]:
    """Background norm when training ends over that before training, seed by seed."""
    first, last = (columns("background_norm") for columns in ends)
    return [end / start for start, end in zip(first, last, strict=True)]


def _statements(loss: str) -> tuple[Statement, ...]:
    """The claims about each activation function and dictionary."""
    return (
        Statement(
            "Networks learn the classes: {name}", "Fig. 10",
            "held-out ID error (chance .5), {name}",
            lambda ends: ends[1]("id_error"), high=0.15),
        Statement(
            "Background features grow in the weights: {name}", "Fig. 3, Fig. 10",
            "background norm, end over start, {name}",
            _background_growth, low=1.1, every_seed=True),
        Statement(
            "A background shift raises the risk: {name}", "ours",
            "OOD minus held-out ID {loss} risk, {name}",
            _minus(f"ood_{loss}", f"id_{loss}"), low=0.1, every_seed=True),
    )  # fmt: skip


def _memorized(loss: str) -> Statement:
    """The claim about a fixed training set."""
    return Statement(
        "A fixed training set is partly memorized: its risk understates the held-out risk", "ours",
        "held-out ID minus training {loss} risk, {name}",
        _minus(f"id_{loss}", f"train_{loss}"), low=0.02)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """Judge the claims for every activation function, and what a fixed training set hides."""
    config = Config.model_validate(run.config)
    loss, judged = config.setting.loss, []
    for dictionary, activation in _compared(config):
        results, name = ends(run, f"{dictionary}/{activation}"), label_of(dictionary, activation)
        judged += judge_all(_statements(loss), results, name=name, loss=loss)
    if config.setting.examples is not None:
        first = _compared(config)[0]
        judged.append(
            _memorized(loss).judge(ends(run, "/".join(first)), name=label_of(*first), loss=loss)
        )
    return judged


STEP = ("step", "step")


def draw(run: Run) -> Sequence[Figure]:
    """Figures 3d and 10: projections and risks over training, for each network."""
    config = Config.model_validate(run.config)
    loss, background, panels = config.setting.loss, [], []
    for dictionary in config.dictionaries:
        rows = [
            row
            for a in config.activations
            for row in curve(run, f"{dictionary}/{a}", "step", "background_norm", NAMES[a])
        ]
        background += [{"dictionary": dictionary} | row for row in rows]
        panels.append(
            lines(
                rows,
                title=f"Background projections over training, {dictionary} dictionary",
                x=STEP,
                y=("value", "norm of the background projections"),
                series=("what", "activation"),
                wide=len(config.dictionaries) == 1,
            )
        )
    details, norms = [], []
    for dictionary, activation in _compared(config):
        name, label = f"{dictionary}/{activation}", label_of(dictionary, activation)
        rows = curve(run, name, "step", "core_norm", "core")
        rows += curve(run, name, "step", "background_norm", "background")
        y = ("value", "norm of the projections")
        details.append(lines(rows, title=label, x=STEP, y=y, series=("what", "")))
        norms += [{"dictionary": dictionary, "activation": NAMES[activation]} | r for r in rows]
    risks = [
        {"network": f"{NAMES[a]}, {d}", "where": where, "value": row["value"]}
        | {end: row[end] for end in ("low", "high")}
        for d, a in _compared(config)
        for key, where in ((f"id_{loss}", "ID, held out"), (f"ood_{loss}", "OOD"))
        for row in curve(run, f"{d}/{a}", "step", key, where)[-1:]
    ]
    shift = bars(
        risks,
        title="Risk after training",
        x=("network", ""),
        y=("value", f"{loss} risk"),
        series=("where", ""),
        wide=True,
    )
    return [
        Figure(
            "Background features, whatever the activation",
            "Two trained layers with biases, AdamW, and classes that lie on two spheres: the "
            "neurons still learn background features. AdamW depends on the coordinates, so the "
            "published random rotation of the features and the axes differ. Bands: all seeds.",
            "Fig. 3",
            tuple(panels),
            tuple(background),
        ),
        Figure(
            "Each network in full",
            "Core and background projections, and the risk before and after a background shift. "
            "Bands and whiskers: all seeds.",
            "Fig. 10",
            (*details, shift),
            (*norms, *risks),
        ),
    ]


def summarize(run: Run) -> str:
    """The result in two sentences."""
    config = Config.model_validate(run.config)
    loss, growth, changes = config.setting.loss, [], []
    for dictionary, activation in _compared(config):
        results = ends(run, f"{dictionary}/{activation}")
        growth.append(statistics.fmean(_background_growth(results)))
        in_distribution, shifted = (
            statistics.fmean(results[1](f"{where}_{loss}")) for where in ("id", "ood")
        )
        name = f"{NAMES[activation]} ({dictionary})"
        changes.append(f"{name} {in_distribution:.2f} to {shifted:.2f}")
    return (
        "With two trained layers, AdamW and classes on two spheres, the norm of the background "
        f"features in the weights grows {min(growth):.1f} to {max(growth):.1f} times. A background "
        f"shift changes the {loss} risk as follows: {', '.join(changes)}."
    )


EXPERIMENT = Experiment(
    name="fig10_activations",
    title="Other activations, a non-linear task, AdamW: background features are learned",
    about="The core part of an input lies on a sphere of radius 1 or 2, so no linear function of "
    "it separates the classes; both layers are trained, with biases. Risks are always those of "
    "held-out examples. Whether a background shift raises them depends on the activation, on the "
    "directions of the features and on the training set.",
    reproduces=("Fig. 10",),
    presets={"paper": PAPER, "laptop": LAPTOP, "demo": DEMO, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null_setting,
)
"""Source: Fig. 3, Fig. 10."""
