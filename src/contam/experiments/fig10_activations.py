"""Beyond the theorems: other activations, a non-linear task, AdamW, both layers trained."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, PositiveInt, model_validator

from contam.experiment import Claim, Experiment, Stage, Statement, judge_all
from contam.experiments.support.two_layer_runs import NAMES, Columns, curve, ends, train_into
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
    examples=1000,
    steps=5000,
)


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are the paper's (App. F.1) unless a field says otherwise."""

    activations: tuple[Activation, ...] = ("relu", "gelu", "sigmoid", "tanh")
    """Activation functions, one network each."""
    setting: Setting = PUBLISHED
    """The data and the network; core features lie on a sphere of radius 1 for one class and of
    radius 2 for the other. Ours: the step size and weight decay of AdamW, and the number of steps,
    which the paper does not give."""
    test_examples: PositiveInt = 10_000
    """Ours: held-out examples for each risk."""
    points: PositiveInt = 40
    """Ours: measurements along each curve."""
    seeds: PositiveInt = 4
    """Ours: the paper does not give a number."""

    @model_validator(mode="after")
    def _is_classification(self) -> "Config":
        if self.setting.activation != "relu":
            raise ValueError("activation is set by activations, which may be several")
        if self.setting.loss == "squared":
            raise ValueError("loss must be logistic or hinge: the claims are about classification")
        return self


PAPER = Config()
LAPTOP = PAPER.model_copy(
    update={
        "setting": replace(PUBLISHED, examples=None, batch_size=500, step_size=3e-3, steps=600),
        "test_examples": 3000,
        "points": 16,
        "seeds": 3,
    }
)
SMOKE = LAPTOP.model_copy(
    update={
        "activations": ("relu", "tanh"),
        "setting": replace(
            LAPTOP.setting,
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

    networks = [(a, seed) for seed in range(config.seeds) for a in config.activations]
    for index, (activation, seed) in enumerate(networks):
        part, setting = f"{activation}/seed{seed}", replace(config.setting, activation=activation)
        for share in train_into(run, part, setting, seed, points=config.points, measure=measure):
            yield Stage((index + share) / len(networks), part)


Ends = tuple[Columns, Columns]
"""Values before and after training, one per seed; the argument of every claim below."""


def minus(over: str, under: str) -> Callable[[Ends], list[float]]:
    """Difference of two columns when training ends, seed by seed."""
    return lambda ends: [a - b for a, b in zip(ends[1](over), ends[1](under), strict=True)]


def background_growth(ends: Ends) -> list[float]:
    """Background norm when training ends over that before training, seed by seed."""
    first, last = (columns("background_norm") for columns in ends)
    return [end / start for start, end in zip(first, last, strict=True)]


def statements(loss: str) -> tuple[Statement, ...]:
    """The claims about each activation function."""
    return (
        Statement(
            "{name} networks learn the classes", "Fig. 10",
            "held-out ID error (chance .5), {name}",
            lambda ends: ends[1]("id_error"), high=0.15),
        Statement(
            "{name} networks turn towards background features", "Fig. 3, Fig. 10",
            "background norm, end over start, {name}",
            background_growth, low=1.0, every_seed=True),
        Statement(
            "{name} networks lose out of distribution", "Fig. 10",
            "OOD minus held-out ID {loss} risk, {name}",
            minus(f"ood_{loss}", f"id_{loss}"), low=0.1, every_seed=True),
    )  # fmt: skip


def memorized(loss: str) -> Statement:
    """The claim about a fixed training set."""
    return Statement(
        "A fixed training set is partly memorized: its risk understates the held-out risk", "ours",
        "held-out ID minus training {loss} risk, {name}",
        minus(f"id_{loss}", f"train_{loss}"), low=0.02)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """Judge the claims for every activation function, and what a fixed training set hides."""
    config = Config.model_validate(run.config)
    loss, judged = config.setting.loss, []
    for activation in config.activations:
        results, name = ends(run, activation), NAMES[activation]
        judged += judge_all(statements(loss), results, name=name, loss=loss)
    if config.setting.examples is not None:
        first = config.activations[0]
        judged.append(memorized(loss).judge(ends(run, first), name=NAMES[first], loss=loss))
    return judged


STEP = ("step", "step")


def draw(run: Run) -> Sequence[Figure]:
    """Figures 3d and 10: projections and risks over training, for each activation function."""
    config = Config.model_validate(run.config)
    background = [
        row
        for a in config.activations
        for row in curve(run, a, "step", "background_norm", NAMES[a])
    ]
    panel = lines(
        background,
        title="Background projections over training",
        x=STEP,
        y=("value", "norm of the background projections"),
        series=("what", "activation"),
        wide=True,
    )
    panels, rows = [], []
    for activation in config.activations:
        name = NAMES[activation]
        norms = curve(run, activation, "step", "core_norm", "core")
        norms += curve(run, activation, "step", "background_norm", "background")
        y = ("value", "norm of the projections")
        panels.append(lines(norms, title=f"{name}: projections", x=STEP, y=y, series=("what", "")))
        rows += [{"activation": name} | row for row in norms]
    errors = [
        {"activation": NAMES[a], "where": label}
        | {column: row[column] for column in ("value", "low", "high")}
        for a in config.activations
        for key, label in (("id_error", "ID, held out"), ("ood_error", "OOD"))
        for row in curve(run, a, "step", key, label)[-1:]
    ]
    panels.append(
        bars(
            errors,
            title="Error after training",
            x=("activation", ""),
            y=("value", "classification error"),
            series=("where", ""),
            wide=True,
        )
    )
    return [
        Figure(
            "Background features, whatever the activation",
            "Two trained layers with biases, AdamW, and classes that lie on two spheres: the "
            "neurons still learn background features. Bands: all seeds.",
            "Fig. 3",
            (panel,),
            tuple(background),
        ),
        Figure(
            "Each activation in full",
            "Core and background projections, and the error that a background shift causes. Bands "
            "and whiskers: all seeds.",
            "Fig. 10",
            tuple(panels),
            (*rows, *errors),
        ),
    ]


def summarize(run: Run) -> str:
    """The result in a sentence."""
    config = Config.model_validate(run.config)
    loss, changes = config.setting.loss, []
    for activation in config.activations:
        _, last = ends(run, activation)
        in_distribution, shifted = (
            statistics.fmean(last(f"{where}_{loss}")) for where in ("id", "ood")
        )
        changes.append(f"{NAMES[activation]} {in_distribution:.3f} to {shifted:.2f}")
    return (
        "With two trained layers, AdamW and classes on two spheres, a background shift raises the "
        f"{loss} risk for every activation function: {', '.join(changes)}."
    )


EXPERIMENT = Experiment(
    name="fig10_activations",
    title="Other activations, a non-linear task, AdamW: contamination remains",
    about="The core part of an input lies on a sphere of radius 1 or 2, so no linear function of "
    "it separates the classes; both layers are trained, with biases. Errors are always those of "
    "held-out examples.",
    reproduces=("Fig. 10",),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
)
"""Source: Fig. 3, Fig. 10."""
