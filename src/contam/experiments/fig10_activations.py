"""Beyond the theorems: other activations, a non-linear task, AdamW, both layers trained."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, NonNegativeFloat, PositiveFloat, PositiveInt

from contam.experiment import Claim, Experiment, Stage, judge
from contam.experiments.support.two_layer_runs import curve, train_into
from contam.plots import Figure, bars, lines
from contam.run import Run
from contam.theory.architecture import Activation
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.setting import Setting
from contam.theory.summary import summary
from contam.theory.trajectory import State

NAMES: dict[Activation, str] = {
    "relu": "ReLU",
    "gelu": "GELU",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "leaky_relu": "leaky ReLU",
    "identity": "linear",
}


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are the paper's (App. F.1) unless a field says otherwise."""

    activations: tuple[Activation, ...] = ("relu", "gelu", "sigmoid", "tanh")
    core: PositiveInt = 32
    """Core features, on a sphere of radius 1 for one class and of radius 2 for the other."""
    background: PositiveInt = 32
    """Background features."""
    dimension: PositiveInt = 256
    """Of the input space."""
    width: PositiveInt = 256
    """Hidden neurons."""
    examples: PositiveInt | None = 1000
    """Size of the fixed training set; none draws fresh examples for every step."""
    batch_size: PositiveInt = 1000
    """Examples a step."""
    step_size: PositiveFloat = 1e-3
    """Of AdamW. Ours: the paper names the optimizer alone."""
    weight_decay: NonNegativeFloat = 1e-3
    """Of AdamW. Ours, as in the paper's other experiments."""
    steps: PositiveInt = 5000
    """Ours: the paper shows the curves but not their length."""
    test_examples: PositiveInt = 10_000
    """Ours: held-out examples behind each risk."""
    points: PositiveInt = 40
    """Ours: measurements along each curve."""
    seeds: PositiveInt = 4
    """Ours: the paper does not say how many."""


PAPER = Config()
LAPTOP = PAPER.model_copy(
    update={
        "examples": None,
        "batch_size": 500,
        "step_size": 3e-3,
        "steps": 600,
        "test_examples": 3000,
        "points": 16,
        "seeds": 3,
    }
)
SMOKE = LAPTOP.model_copy(
    update={
        "activations": ("relu", "tanh"),
        "core": 8,
        "background": 8,
        "dimension": 32,
        "width": 64,
        "batch_size": 200,
        "steps": 100,
        "test_examples": 1000,
        "points": 5,
        "seeds": 2,
    }
)


def setting(config: Config, activation: Activation) -> Setting:
    """The network of one activation function: two trained layers with biases."""
    features = FeatureModel(config.core, config.background, config.dimension)
    return Setting(
        data=DataModel(features, core_shape="spheres"),
        width=config.width,
        activation=activation,
        bias="all",
        head="trained",
        initialization="uniform",
        loss="logistic",
        optimizer="adamw",
        step_size=config.step_size,
        weight_decay=config.weight_decay,
        batch_size=config.batch_size,
        examples=config.examples,
        steps=config.steps,
    )


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train one network for each activation function and seed."""

    def measure(state: State) -> dict[str, Any]:
        return {"train_logistic": state.loss} | summary(state, examples=config.test_examples)

    todo: list[tuple[Activation, int]] = [
        (a, seed) for seed in range(config.seeds) for a in config.activations
    ]
    for index, (activation, seed) in enumerate(todo):
        part = f"{activation}/seed{seed}"
        shares = train_into(
            run, part, setting(config, activation), seed, points=config.points, measure=measure
        )
        for share in shares:
            yield Stage((index + share) / len(todo), part)


def claims(run: Run) -> Sequence[Claim]:
    """Contamination for every activation function; what a fixed training set hides."""
    config = Config.model_validate(run.config)
    found = []
    for activation in config.activations:
        name = NAMES[activation]
        rows = [run.read(f"{activation}/seed{seed}") for seed in range(config.seeds)]
        ends = [curve[-1] for curve in rows]
        found += [
            judge(
                f"{name} networks learn the classes",
                [end["id_error"] for end in ends],
                source="Fig. 10",
                quantity=f"held-out ID error (chance .5), {name}",
                high=0.15,
            ),
            judge(
                f"{name} networks turn towards background features",
                [curve[-1]["background_norm"] / curve[0]["background_norm"] for curve in rows],
                source="Fig. 3, Fig. 10",
                quantity=f"background norm, end over start, {name}",
                low=1.0,
                every_seed=True,
            ),
            judge(
                f"{name} networks lose out of distribution",
                [end["ood_logistic"] - end["id_logistic"] for end in ends],
                source="Fig. 10",
                quantity=f"OOD minus held-out ID logistic risk, {name}",
                low=0.1,
                every_seed=True,
            ),
        ]
    if config.examples is not None:
        ends = [run.read(f"relu/seed{seed}")[-1] for seed in range(config.seeds)]
        found.append(
            judge(
                "A fixed training set is partly memorized: training risk flatters the network",
                [end["id_logistic"] - end["train_logistic"] for end in ends],
                source="ours",
                quantity="held-out ID minus training logistic risk, ReLU",
                low=0.02,
            )
        )
    return found


def draw(run: Run) -> Sequence[Figure]:
    """Figures 3d and 10: projections and risks over training, for each activation function."""
    config = Config.model_validate(run.config)

    background = [
        row
        for a in config.activations
        for row in curve(run, a, "step", "background_norm", NAMES[a])
    ]
    first = Figure(
        "Background features, whatever the activation",
        "Two trained layers with biases, AdamW, and classes that lie on two spheres: the neurons "
        "still turn towards the background. Bands: all seeds.",
        "Fig. 3",
        (
            lines(
                background,
                title="Background projections over training",
                x=("step", "step"),
                y=("value", "norm of the background projections"),
                series=("what", "activation"),
                wide=True,
            ),
        ),
        tuple(background),
    )
    panels, rows = [], []
    for activation in config.activations:
        norms = curve(run, activation, "step", "core_norm", "core") + curve(
            run, activation, "step", "background_norm", "background"
        )
        panels.append(
            lines(
                norms,
                title=f"{NAMES[activation]}: projections",
                x=("step", "step"),
                y=("value", "norm of the projections"),
                series=("what", ""),
            )
        )
        rows += [{"activation": NAMES[activation]} | row for row in norms]
    ends = [
        {"activation": NAMES[a], "where": label}
        | {"value": row["value"], "low": row["low"], "high": row["high"]}
        for a in config.activations
        for key, label in (("id_error", "ID, held out"), ("ood_error", "OOD"))
        for row in curve(run, a, "step", key, label)[-1:]
    ]
    panels.append(
        bars(
            ends,
            title="Error after training",
            x=("activation", ""),
            y=("value", "classification error"),
            series=("where", ""),
            wide=True,
        )
    )
    second = Figure(
        "Each activation in full",
        "Core and background projections, and the error that a background shift causes. Bands and "
        "whiskers: all seeds.",
        "Fig. 10",
        tuple(panels),
        tuple(rows + ends),
    )
    return [first, second]


def summarize(run: Run) -> str:
    """What happened, in a sentence."""
    config = Config.model_validate(run.config)
    told = []
    for activation in config.activations:
        ends = [run.read(f"{activation}/seed{seed}")[-1] for seed in range(config.seeds)]
        risk_id, risk_ood = (
            sum(end[f"{where}_logistic"] for end in ends) / len(ends) for where in ("id", "ood")
        )
        told.append(f"{NAMES[activation]} {risk_id:.3f} to {risk_ood:.2f}")
    return (
        "With two trained layers, AdamW and classes on two spheres, a background shift raises the "
        f"logistic risk for every activation function: {', '.join(told)}."
    )


EXPERIMENT = Experiment(
    name="fig10_activations",
    title="Other activations, a non-linear task, AdamW: contamination remains",
    about="The core part of an input lies on a sphere of radius 1 or 2, so no linear function of "
    "it tells the classes apart; both layers are trained, with biases. Errors are always those "
    "of held-out examples.",
    reproduces=("Fig. 10",),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
)
"""Source: Fig. 3, Fig. 10."""
