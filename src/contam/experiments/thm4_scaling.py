"""The four theorems as slopes: how each quantity changes with the size of the problem."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from pydantic import BaseModel, PositiveFloat, PositiveInt, model_validator

from contam.experiment import (
    NULL_STEP_SIZE,
    Claim,
    Experiment,
    NotJudged,
    Stage,
    Statement,
    judge_all,
)
from contam.experiments.support.two_layer_runs import NAMES
from contam.plots import Figure, lines, over_seeds
from contam.rng import bit_generator_for
from contam.run import Run
from contam.theory.coverage import uncovered
from contam.theory.neurons import activation_probabilities, asymmetry, neuron_sets
from contam.theory.population import predict_contamination
from contam.theory.setting import Setting
from contam.theory.summary import summary
from contam.theory.trajectory import simulate

LEARNED = 0.5
"""Training risk below which a network counts as having learned: half of its initial value."""
ASYMMETRIC = 0.75
"""Activation asymmetry above which the neurons of Def. A.4 count as asymmetric, on average."""
MOST_STEPS = 500
"""Steps after which a network that learns nothing is given up."""
REGIMES = {"d = 4 d0": "proportional", "d = d0^1.5 / 2": "larger"}
"""How the dimension grows with the features, and the name of this growth in the run."""
NARROW, WIDE = REGIMES
LINEAR = "identity"


class Config(BaseModel, frozen=True, extra="forbid"):
    """All ours: the paper states the theorems and shows one size."""

    setting: Setting = Setting()
    """The data, the network and the optimizer; each part of the experiment changes the sizes that
    it is about. Linear twins differ in the activation function alone."""
    sizes: tuple[PositiveInt, ...] = (16, 64, 256, 1024)
    """Features d0 of the trained networks, half of them core; d = m = 4 d0."""
    widths: tuple[PositiveInt, ...] = (64, 128, 256, 512, 1024)
    """Widths m for the time to learn, and for the number of neurons active for one class only."""
    step_sizes: tuple[PositiveFloat, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Step sizes for the time to learn."""
    features: tuple[PositiveInt, ...] = (16, 32, 64, 128, 256)
    """Features d0 for the time to learn, half of them core."""
    dimensions: tuple[PositiveInt, ...] = (64, 256, 1024, 4096)
    """Input dimensions d of the linear networks, and for the time to become asymmetric."""
    predicted: tuple[PositiveInt, ...] = (64, 512, 4096, 32_768, 262_144, 1_048_576)
    """Features d0 of the population model's predictions, with d = 4 d0 and with d = d0^1.5 / 2."""
    neurons: PositiveInt = 4096
    """Largest number of neurons that the population model follows."""
    test_examples: PositiveInt = 20_000
    """Held-out examples for each risk and each rate."""
    seeds: PositiveInt = 8
    """Seeds of the trained networks."""

    @model_validator(mode="after")
    def _is_the_theorems(self) -> "Config":
        if self.setting.activation == LINEAR:
            raise ValueError("activation must not be identity, which is the linear twin's")
        if self.setting.loss != "hinge":
            raise ValueError("loss must be hinge, which the theorems are about")
        return self


FULL = Config()
LAPTOP = FULL.model_copy(
    update={
        "setting": Setting(batch_size=500),
        "sizes": (16, 64, 256),
        "widths": (64, 128, 256, 512),
        "test_examples": 8192,
        "neurons": 512,
        "seeds": 4,
    }
)
SMOKE = LAPTOP.model_copy(
    update={
        "setting": Setting(batch_size=200, steps=100),
        "sizes": (16, 32),
        "widths": (64, 128),
        "step_sizes": (1.0, 2.0),
        "features": (32, 64),
        "dimensions": (64, 256),
        "predicted": (64, 4096),
        "test_examples": 2000,
        "seeds": 2,
    }
)

Table = Any
"""A pandas.DataFrame, whose methods type checkers know too little of."""
RunPart = tuple[str, Callable[[], dict[str, Any]]]
"""The name of a part and the function that computes its one record."""


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Predict large sizes, train small sizes, and measure how fast networks learn."""
    parts = [
        *_predictions(config),
        *_trainings(config),
        *_learning_times(config),
        *_asymmetries(config),
    ]
    for index, (part, work) in enumerate(parts):
        yield Stage(index / len(parts), part)
        if not run.has(part):
            run.write(part, [work()])


def null(config: Config) -> Config:
    """The config with step sizes at which nothing is learned.

    >>> null(Config()).setting.step_size == NULL_STEP_SIZE
    True
    """
    return config.model_copy(
        update={
            "setting": replace(config.setting, step_size=NULL_STEP_SIZE),
            "step_sizes": tuple(NULL_STEP_SIZE * size for size in config.step_sizes),
        }
    )


def _resized(
    setting: Setting, *, features: int | None = None, dimension: int | None = None,
    width: int | None = None,
) -> Setting:  # fmt: skip
    """A setting with other sizes; half of the features are core features."""
    model = setting.data.features
    if features is not None:
        model = replace(
            model,
            core=features // 2,
            background=features - features // 2,
            dimension=dimension or model.dimension,
        )
    elif dimension is not None:
        model = replace(model, dimension=dimension)
    data = replace(setting.data, features=model)
    return replace(setting, data=data, width=width or setting.width)


def _predictions(config: Config) -> Iterator[RunPart]:
    for regime, name in REGIMES.items():
        for d0 in config.predicted:
            d = 4 * d0 if regime == NARROW else max(d0, round(d0**1.5 / 2))
            setting = _resized(config.setting, features=d0, dimension=d, width=4 * d0)
            if uncovered(setting) is None:
                work = partial(_predict, config, setting, regime=regime, d0=d0)
                yield f"predicted/{name}/{d0}", work


def _predict(config: Config, setting: Setting, **labels: Any) -> dict[str, Any]:
    prediction = predict_contamination(setting, neurons=config.neurons, report_at=(setting.steps,))
    return labels | prediction.records()[-1]


def _trainings(config: Config) -> Iterator[RunPart]:
    for seed in range(config.seeds):
        for activation in (config.setting.activation, LINEAR):
            for d0 in config.sizes:
                setting = _resized(config.setting, features=d0, dimension=4 * d0, width=4 * d0)
                setting = replace(setting, activation=activation)
                work = partial(_train, config, setting, seed, activation=activation, d0=d0)
                yield f"size/{activation}/{d0}/seed{seed}", work
        for d in config.dimensions:
            setting = replace(_resized(config.setting, dimension=d), activation=LINEAR)
            yield f"dimension/{d}/seed{seed}", partial(_train, config, setting, seed, d=d)


def _train(config: Config, setting: Setting, seed: int, **labels: Any) -> dict[str, Any]:
    (state,) = simulate(setting, seed)
    return {"seed": seed} | labels | summary(state, examples=config.test_examples)


def _learning_times(config: Config) -> Iterator[RunPart]:
    for seed in range(config.seeds):
        for kind, values in (
            ("width", config.widths),
            ("step_size", config.step_sizes),
            ("features", config.features),
        ):
            for value in values:
                if kind == "step_size":
                    setting = replace(config.setting, step_size=value)
                else:
                    setting = _resized(config.setting, **{kind: int(value)})
                ratio = setting.width / (setting.step_size * setting.data.features.size)
                # Learning takes about 11 times the ratio; twice that is enough to observe it.
                setting = replace(setting, steps=min(MOST_STEPS, math.ceil(25 * ratio) + 5))
                work = partial(_time, setting, seed, kind=kind, value=value)
                yield f"time/{kind}/{value}/seed{seed}", work


def _time(setting: Setting, seed: int, **labels: Any) -> dict[str, Any]:
    return labels | {"seed": seed, "steps": _time_to_learn(setting, seed)}


def _time_to_learn(setting: Setting, seed: int) -> float | None:
    """Steps until the training risk falls below `LEARNED`, interpolated; None if it never does."""
    before = 1.0
    for state in simulate(setting, seed, range(1, setting.steps + 1)):
        assert state.loss is not None
        if state.loss < LEARNED:
            # The loss of step t is that of the network after t - 1 steps.
            return state.step - 2 + (before - LEARNED) / (before - state.loss)
        before = state.loss
    return None


def _asymmetries(config: Config) -> Iterator[RunPart]:
    """The time to become asymmetric over d, and the number of asymmetric neurons over m."""
    for seed in range(config.seeds):
        for d in config.dimensions:
            # A quarter of the step size resolves the short times of large dimensions.
            setting = replace(
                _resized(config.setting, dimension=d), step_size=config.setting.step_size / 4
            )
            ratio = setting.width / setting.step_size
            ratio /= math.sqrt(d * setting.data.features.size)
            setting = replace(setting, steps=min(MOST_STEPS, math.ceil(25 * ratio) + 5))
            yield f"asymmetry/{d}/seed{seed}", partial(_asymmetry_time, setting, seed, d=d)
        for m in config.widths:
            # In proportion to m, so that all widths are trained equally far.
            step_size = config.setting.step_size * m / config.setting.width
            setting = replace(config.setting, width=m, step_size=step_size)
            yield f"width/{m}/seed{seed}", partial(_train, config, setting, seed, m=m)


def _asymmetry_time(setting: Setting, seed: int, **labels: Any) -> dict[str, Any]:
    return labels | {"seed": seed, "steps": time_to_asymmetry(setting, seed)}


def time_to_asymmetry(setting: Setting, seed: int, examples: int = 2000) -> float | None:
    """Steps until the neurons of Def. A.4 are asymmetric, interpolated; None if they never are.

    Args:
        setting: a two-layer network with a fixed head.
        seed: names all random draws.
        examples: held-out examples for the activation probabilities.

    Returns:
        The number of steps until the mean asymmetry of the neurons that are in N_-1 or N_+1 at
        initialization reaches `ASYMMETRIC`; 0 if it has at initialization.
    """
    sample = setting.data.sample(examples, bit_generator_for(seed, "asymmetry over time"))
    members, before = None, 0.0
    for state in simulate(setting, seed, range(setting.steps + 1)):
        if members is None:
            members = neuron_sets(state.W, state.a, setting.data).any(dim=0)
        (probability,) = activation_probabilities(state.network, sample, setting.data)
        mean = float(asymmetry(probability)[members].mean())
        if mean >= ASYMMETRIC:
            return max(0.0, state.step - (mean - ASYMMETRIC) / (mean - before))
        before = mean
    return None


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of log y over log x; NaN when a value is missing or not positive.

    >>> round(slope([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    if not all(value is not None and value > 0 for value in y):
        return math.nan
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


class ScalingResults:
    """The tables of a run."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        tables: list[Table] = [
            run.table(f"{part}/")
            for part in ("size", "time", "dimension", "predicted", "asymmetry", "width")
        ]
        self.sizes, self.times, self.dimensions, self._predicted = tables[:4]
        self.asymmetries, self.widths = tables[4:]

    @property
    def nonlinear(self) -> Table:
        """Rows of the networks that are not linear, over sizes."""
        return self.sizes[self.sizes["activation"] == self.config.setting.activation]

    def predictions(self, regime: str) -> Table:
        """Rows of the predictions, in the order of d0."""
        if self._predicted.empty:
            raise NotJudged("the population model does not cover this setting")
        return self._predicted[self._predicted["regime"] == regime].sort_values("d0")

    def predicted(self, regime: str, column: str) -> list[float]:
        """A column of the predictions, in the order of d0."""
        return self.predictions(regime)[column].tolist()


def _slopes(table: Table, x: str, y: str) -> list[float]:
    """Slopes of log y over log x, one per seed."""
    return [
        slope(rows[x].tolist(), rows[y].tolist())
        for _, rows in table.sort_values(x).groupby("seed")
    ]


def _over_size(y: str) -> Callable[[ScalingResults], list[float]]:
    """Slopes over d0 of the networks that are not linear."""
    return lambda results: _slopes(results.nonlinear, "d0", y)


def _time_over(kind: str) -> Callable[[ScalingResults], list[float]]:
    """Slopes of the steps to learn over width, step size or features."""
    return lambda r: _slopes(r.times[r.times["kind"] == kind], "value", "steps")


def _smallest_rises(results: ScalingResults) -> list[float]:
    """Smallest difference of the OOD hinge risk between successive sizes up to 256, per seed."""
    rows = results.nonlinear[results.nonlinear["d0"] <= 256].sort_values("d0")
    return [float(risks.diff().min()) for _, risks in rows.groupby("seed")["ood_hinge"]]


def _good_neurons_over_width(results: ScalingResults) -> list[float]:
    """Slopes over m of the number of neurons that are active for one class only."""
    table = results.widths
    return _slopes(table.assign(good=table["good_share"] * table["m"]), "m", "good")


def _own_class_misses(results: ScalingResults) -> list[float]:
    """The largest share of its own class that a good neuron misses, times sqrt(d0)."""
    rates = zip(
        sorted(results.config.predicted), results.predicted(WIDE, "own_class_rate"), strict=True
    )
    # A NaN, where no neuron is good, must not disappear in max().
    return [float(np.max([(1 - rate) * math.sqrt(d0) for d0, rate in rates]))]


def _learned(rows: Callable[[ScalingResults], Table]) -> Callable[[ScalingResults], None]:
    """Require that every network of a table learned: its ID hinge risk is below `LEARNED`."""

    def require(results: ScalingResults) -> None:
        risk = float(rows(results)["id_hinge"].max())
        if not risk < LEARNED:
            raise NotJudged(f"a network did not learn: ID hinge risk {risk:.2f}")

    return require


CLAIMS: tuple[Statement, ...] = (
    Statement(
        "The other class's activation rate vanishes as d0 grows, when d >> d0", "Thm. 4.1",
        "slope of the predicted other-class rate over d0, d = d0^1.5 / 2 (log-log)",
        lambda r: [slope(r.config.predicted, r.predicted(WIDE, "other_class_rate"))], high=-0.2),
    Statement(
        "The other class's activation rate levels off when d is a fixed multiple of d0", "Thm. 4.1",
        "predicted other-class rate at d0 = {largest}, d = 4 d0",
        lambda r: r.predicted(NARROW, "other_class_rate")[-1:], low=0.01, high=0.04,
        published="o(1), for d large against d0",
        given=_learned(lambda r: r.predictions(NARROW).tail(1))),
    Statement(
        "Neurons are active for nearly all of their own class, up to O(d0^-1/2)", "Thm. 4.1",
        "largest (1 - own-class rate) * sqrt(d0) of neurons active for one class only, predicted, "
        "d = d0^1.5 / 2", _own_class_misses, high=0.1, published="O(1)"),
    Statement(
        "The number of neurons that are active for one class only grows like the width m",
        "Thm. 4.1", "slope of this number over m (log-log)",
        _good_neurons_over_width, low=0.9, high=1.15, published="1, from Θ(m)",
        given=_learned(lambda r: r.widths)),
    Statement(
        "Neurons become asymmetric after a time that shrinks like 1 / sqrt(d)", "Thm. 4.1",
        "slope of the steps to a mean asymmetry of 0.75 over d (log-log)",
        lambda r: _slopes(r.asymmetries, "d", "steps"), low=-0.55, high=-0.45,
        published="-1/2, from T0 = Θ(m / (η sqrt(d)))"),
    Statement(
        "Learned core features stay of order one at any size", "Thm. 4.2",
        "slope of U over d0 (log-log)", _over_size("U"), low=-0.1, high=0.1,
        given=_learned(lambda r: r.nonlinear)),
    Statement(
        "Learned background features stay of order one, too", "Thm. 4.2",
        "slope of V over d0 (log-log)", _over_size("V"), low=-0.1, high=0.25,
        given=_learned(lambda r: r.nonlinear)),
    Statement(
        "Learning takes longer in proportion to the width m", "Thm. 4.2",
        "slope of the steps to learn over m (log-log)",
        _time_over("width"), low=0.9, high=1.1, published="1"),
    Statement(
        "Learning takes longer in inverse proportion to the step size", "Thm. 4.3",
        "slope of the steps to learn over eta (log-log)",
        _time_over("step_size"), low=-1.1, high=-0.9, published="-1"),
    Statement(
        "Learning takes longer in inverse proportion to the number of features d0", "Thm. 4.3",
        "slope of the steps to learn over d0 (log-log)",
        _time_over("features"), low=-1.15, high=-0.85, published="-1"),
    Statement(
        "The ID risk vanishes as the benchmark grows", "Thm. 4.3",
        "slope of the ID hinge risk over d0 (log-log)", _over_size("id_hinge"), high=-0.5),
    Statement(
        "The OOD risk does not vanish: it grows with d0", "Thm. 4.3",
        "smallest rise of the OOD hinge risk between sizes up to d0 = 256",
        _smallest_rises, low=0.02),
    Statement(
        "A linear network's background projections shrink like 1 / sqrt(d)", "Thm. 4.4",
        "slope of the largest background projection over d (log-log)",
        # The column is in units of 1 / sqrt(d).
        lambda r: [value - 0.5 for value in _slopes(r.dimensions, "d", "largest_background")],
        low=-0.6, high=-0.4, published="-1/2, up to logarithms",
        given=_learned(lambda r: r.dimensions)),
)  # fmt: skip
"""Theorems 4.1 to 4.4 as slopes, and the outcome where a condition of theirs fails."""


def claims(run: Run) -> Sequence[Claim]:
    """Judge the table of claims."""
    results = ScalingResults(run)
    return judge_all(CLAIMS, results, largest=results.config.predicted[-1])


def draw(run: Run) -> Sequence[Figure]:
    """Risks and projections over size, time to learn over its three causes, and predictions."""
    results = ScalingResults(run)
    figures = [_over_sizes(results), _times(results), _dimensions(results)]
    if run.parts("predicted/"):
        figures.insert(2, _predicted_sizes(results))
    return figures


def _curve(table: Table, x: str, y: str, label: str) -> list[dict[str, Any]]:
    """Means over seeds with their range, in the order of x."""
    rows = over_seeds(table.sort_values(x).to_dict("records"), [x], y)
    return [
        {"what": label, "x": row[x], "y": row[y], "low": row["low"], "high": row["high"]}
        for row in rows
    ]


def _panel(rows: list[dict[str, Any]], title: str, x: str, y: str, log: str = "xy") -> Any:
    return lines(
        rows, title=title, x=("x", x), y=("y", y), series=("what", ""), log=log, points=True
    )


def _over_sizes(results: ScalingResults) -> Figure:
    table, name = results.nonlinear, NAMES[results.config.setting.activation]
    linear = results.sizes[results.sizes["activation"] == LINEAR]
    linear = linear.assign(V=linear["V"].abs())
    risks = _curve(table, "d0", "id_hinge", f"{name}, ID")
    risks += _curve(table, "d0", "ood_hinge", f"{name}, OOD")
    risks += _curve(linear, "d0", "ood_hinge", "linear, OOD")
    sums = _curve(table, "d0", "U", f"core (U), {name}")
    sums += _curve(table, "d0", "V", f"background (V), {name}")
    sums += _curve(linear, "d0", "V", "background (|V|), linear")
    x = "features d0 (d = m = 4 d0)"
    return Figure(
        "Larger problems",
        f"As the number of features grows the ID risk vanishes and the OOD risk stays; the core "
        f"and background that {name} networks learn keep their size. Bands: all seeds.",
        "Thm. 4.3",
        (
            _panel(risks, "Risk after training", x, "hinge risk"),
            _panel(sums, "Learned features", x, "summed projections", log="x"),
        ),
        tuple(risks + sums),
    )


def _times(results: ScalingResults) -> Figure:
    panels, rows = [], []
    for kind, x, power in (
        ("width", "width m", 1),
        ("step_size", "step size eta", -1),
        ("features", "features d0", -1),
    ):
        table = results.times[results.times["kind"] == kind]
        trained = _curve(table, "value", "steps", "trained")
        middle = trained[len(trained) // 2]
        theory = [
            {"what": "m / (eta d0)", "x": row["x"],
             "y": middle["y"] * (row["x"] / middle["x"]) ** power}
            for row in trained
        ]  # fmt: skip
        panels.append(_panel(trained + theory, f"Over the {x}", x, "steps to learn"))
        rows += [{"over": kind} | row for row in trained + theory]
    trained = _curve(results.asymmetries, "d", "steps", "trained")
    first = trained[0]
    theory = [
        {"what": "m / (eta sqrt(d))", "x": row["x"],
         "y": first["y"] * math.sqrt(first["x"] / row["x"])}
        for row in trained
    ]  # fmt: skip
    panels.append(_panel(trained + theory, "Over the dimension", "dimension d",
                         "steps to asymmetry"))  # fmt: skip
    rows += [{"over": "dimension"} | row for row in trained + theory]
    return Figure(
        "How long learning takes",
        "Steps until the training risk has halved, and the order that the theorems give, "
        "m / (eta d0), drawn through the middle point; and steps until neurons are asymmetric, "
        f"with a mean asymmetry of {ASYMMETRIC}.",
        "Thm. 4.2",
        tuple(panels),
        tuple(rows),
    )


def _predicted_sizes(results: ScalingResults) -> Figure:
    def curves(y: str) -> list[dict[str, Any]]:
        return [
            {"what": regime, "x": d0, "y": value}
            for regime in sorted(REGIMES)
            for d0, value in zip(
                sorted(results.config.predicted), results.predicted(regime, y), strict=True
            )
        ]

    rates, risks = curves("other_class_rate"), curves("ood_hinge")
    return Figure(
        "A million features, without training",
        "Predictions of the population model. The activation rate on the other class vanishes only "
        "when the dimension outgrows the features; the OOD risk stays in both cases.",
        "Thm. 4.1",
        (
            _panel(rates, "Activation rate on the other class", "features d0", "activation rate"),
            _panel(risks, "OOD risk", "features d0", "hinge risk", log="x"),
        ),
        tuple({"of": "rate"} | row for row in rates) + tuple({"of": "risk"} | r for r in risks),
    )


def _dimensions(results: ScalingResults) -> Figure:
    table = results.dimensions
    table = table.assign(largest=table["largest_background"] / table["d"] ** 0.5)
    trained = _curve(table, "d", "largest", "largest background projection")
    first = trained[0]
    theory = [
        {"what": "1 / sqrt(d)", "x": row["x"], "y": first["y"] * math.sqrt(first["x"] / row["x"])}
        for row in trained
    ]
    return Figure(
        "Linear networks are not drawn towards the background",
        "The largest projection of a linear network's neurons on any background feature, at the "
        "end of training.",
        "Thm. 4.4",
        (_panel(trained + theory, "Largest background projection", "input dimension d",
                "projection"),),
        tuple(trained + theory),
    )  # fmt: skip


def summarize(run: Run) -> str:
    """The result in two sentences."""
    results = ScalingResults(run)
    risks = _curve(results.nonlinear, "d0", "ood_hinge", "")
    first, last = risks[0], risks[-1]
    text = (
        f"Larger problems fail more, not less: the OOD hinge risk rises from {first['y']:.2f} at "
        f"{first['x']} features to {last['y']:.2f} at {last['x']} (trained)"
    )
    if run.parts("predicted/"):
        risk = results.predicted(NARROW, "ood_hinge")[-1]
        text += f" and {risk:.2f} at {max(results.config.predicted):,} (predicted)"
    return text + ". The time to learn follows m / (eta d0), as the theorems say."


EXPERIMENT = Experiment(
    name="thm4_scaling",
    title="The theorems as slopes over size, width, step size and dimension",
    about="The theorems speak of orders of magnitude. Here they become slopes on logarithmic axes: "
    "networks of several sizes are trained, and the population model predicts networks of a "
    "million features. The theorems state orders; the expected ranges of the slopes are ours.",
    reproduces=("Thm. 4.1", "Thm. 4.2", "Thm. 4.3", "Thm. 4.4"),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
