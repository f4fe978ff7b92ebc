"""The four theorems as slopes: what grows, shrinks or stays as the benchmark gets larger."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import BaseModel, NonNegativeFloat, PositiveFloat, PositiveInt

from contam.experiment import Claim, Experiment, Stage, judge
from contam.plots import Figure, lines, over_seeds
from contam.run import Run
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.population import predict_contamination
from contam.theory.setting import Setting
from contam.theory.summary import summary
from contam.theory.trajectory import simulate

LEARNED = 0.5
"""The training risk at which a network counts as having learned: half of where it starts."""


REGIMES = {"d = 4 d0": "proportional", "d = d0^1.5 / 2": "larger"}
"""How the dimension grows with the features, and the name of it in the run."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """All ours: the paper states the theorems and shows one size."""

    sizes: tuple[PositiveInt, ...] = (16, 64, 256, 1024)
    """Features d0 of the trained networks, half of them core; d = m = 4 d0."""
    widths: tuple[PositiveInt, ...] = (64, 128, 256, 512, 1024)
    """Widths m over which the time to learn is measured, at d0 64 of d 256."""
    step_sizes: tuple[PositiveFloat, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Step sizes over which the time to learn is measured, at d0 64 of d 256 and m 256."""
    features: tuple[PositiveInt, ...] = (16, 32, 64, 128, 256)
    """Features d0 over which the time to learn is measured, at d 256 and m 256."""
    dimensions: tuple[PositiveInt, ...] = (64, 256, 1024, 4096)
    """Input dimensions d over which linear networks are watched, at d0 64 and m 256."""
    predicted: tuple[PositiveInt, ...] = (64, 512, 4096, 32_768, 262_144, 1_048_576)
    """Features d0 for which the population model answers, with d = 4 d0 and with d = d0^1.5 / 2."""
    neurons: PositiveInt = 4096
    """Neurons that the population model follows of a network that is wider."""
    steps: PositiveInt = 200
    """Steps of the trained and predicted networks, of size 1."""
    weight_decay: NonNegativeFloat = 1e-3
    batch_size: PositiveInt = 1000
    """Fresh examples a step."""
    test_examples: PositiveInt = 20_000
    """Fresh examples behind each risk and each rate."""
    seeds: PositiveInt = 8


PAPER = Config()
LAPTOP = PAPER.model_copy(
    update={
        "sizes": (16, 64, 256),
        "widths": (64, 128, 256, 512),
        "batch_size": 500,
        "test_examples": 8192,
        "neurons": 512,
        "seeds": 4,
    }
)
SMOKE = LAPTOP.model_copy(
    update={
        "sizes": (16, 32),
        "widths": (64, 128),
        "step_sizes": (1.0, 2.0),
        "features": (32, 64),
        "dimensions": (64, 256),
        "predicted": (64, 4096),
        "steps": 100,
        "batch_size": 200,
        "test_examples": 2000,
        "seeds": 2,
    }
)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train small sizes, time how fast networks learn, and predict large sizes."""
    parts = [*_predictions(config), *_trained(config), *_timed(config)]
    for index, (part, work) in enumerate(parts):
        yield Stage(index / len(parts), part)
        if not run.has(part):
            run.write(part, [work()])


def _setting(config: Config, *, d0: int = 64, d: int = 256, m: int = 256, **more: Any) -> Setting:
    half = d0 // 2
    defaults: dict[str, Any] = {"batch_size": config.batch_size, "steps": config.steps}
    return Setting(
        data=DataModel(FeatureModel(half, d0 - half, d)),
        width=m,
        weight_decay=config.weight_decay,
        **defaults | more,
    )


def _predictions(config: Config):
    for regime in REGIMES:
        for d0 in config.predicted:
            d = 4 * d0 if regime == "d = 4 d0" else max(d0, round(d0**1.5 / 2))

            def work(d0: int = d0, d: int = d, regime: str = regime) -> dict[str, Any]:
                found = predict_contamination(
                    core=d0 // 2,
                    background=d0 - d0 // 2,
                    dimension=d,
                    width=4 * d0,
                    weight_decay=config.weight_decay,
                    steps=config.steps,
                    neurons=config.neurons,
                    report_at=(config.steps,),
                )
                return {"regime": regime, "d0": d0} | found.records()[-1]

            yield _part(regime, d0), work


def _part(regime: str, d0: int) -> str:
    return f"predicted/{REGIMES[regime]}/{d0}"


def _trained(config: Config):
    for seed in range(config.seeds):
        for activation in ("relu", "identity"):
            for d0 in config.sizes:
                setting = _setting(config, d0=d0, d=4 * d0, m=4 * d0, activation=activation)
                yield (
                    f"size/{activation}/{d0}/seed{seed}",
                    _last(config, setting, seed, activation=activation, d0=d0),
                )
        for d in config.dimensions:
            setting = _setting(config, d=d, activation="identity")
            yield f"dimension/{d}/seed{seed}", _last(config, setting, seed, d=d)


def _last(config: Config, setting: Setting, seed: int, **about: Any):
    def work() -> dict[str, Any]:
        (state,) = simulate(setting, seed)
        return {"seed": seed, **about} | dict(summary(state, examples=config.test_examples))

    return work


def _timed(config: Config):
    """How many steps it takes until the training risk is half of what it was."""
    for seed in range(config.seeds):
        for kind, values in (
            ("width", config.widths),
            ("step_size", config.step_sizes),
            ("features", config.features),
        ):
            for value in values:
                key = {"width": "m", "features": "d0"}.get(kind, kind)
                more: dict[str, Any] = {key: value}
                ratio = more.get("m", 256) / (more.get("step_size", 1.0) * more.get("d0", 64))
                # Learning takes about 11 times the ratio; twice that is enough to see it.
                setting = _setting(config, steps=math.ceil(25 * ratio) + 5, **more)

                def work(setting=setting, kind=kind, value=value, seed=seed) -> dict[str, Any]:
                    steps = time_to_learn(setting, seed)
                    return {"kind": kind, "value": value, "seed": seed, "steps": steps}

                yield f"time/{kind}/{value}/seed{seed}", work


def time_to_learn(setting: Setting, seed: int) -> float | None:
    """Steps until the training risk falls below `LEARNED`, between steps by interpolation.

    None when it never does.
    """
    before = 1.0
    for state in simulate(setting, seed, range(1, setting.steps + 1)):
        assert state.loss is not None
        if state.loss < LEARNED:
            # The loss of step t is that of the network after t - 1 steps.
            return state.step - 2 + (before - LEARNED) / (before - state.loss)
        before = state.loss
    return None


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of log y over log x; nan when a value is missing or not positive."""
    if any(value is None or value <= 0 for value in y):
        return math.nan
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def claims(run: Run) -> Sequence[Claim]:
    """Theorems 4.1 to 4.4 as slopes, and what happens where a condition of theirs fails."""
    config = Config.model_validate(run.config)
    sized, timed, dims = _rows(run, "size/"), _rows(run, "time/"), _rows(run, "dimension/")
    seeds = range(config.seeds)

    def slopes(rows: list[dict[str, Any]], x: str, y: str, **which: Any) -> list[float]:
        wanted = [row for row in rows if all(row[k] == v for k, v in which.items())]
        found = []
        for seed in seeds:
            own = sorted((row for row in wanted if row["seed"] == seed), key=lambda row: row[x])
            found.append(slope([row[x] for row in own], [row[y] for row in own]))
        return found

    def predicted(regime: str, y: str) -> list[float]:
        rows = sorted(
            (row for row in _rows(run, "predicted/") if row["regime"] == regime),
            key=lambda row: row["d0"],
        )
        return [row[y] for row in rows]

    wide, narrow = "d = d0^1.5 / 2", "d = 4 d0"
    rise = []
    for seed in seeds:
        own = sorted(
            (
                row
                for row in sized
                if row["seed"] == seed and row["activation"] == "relu" and row["d0"] <= 256
            ),
            key=lambda r: r["d0"],
        )
        rise.append(min(b["ood_hinge"] - a["ood_hinge"] for a, b in pairwise(own)))
    return [
        judge(
            "The other class's activation rate vanishes as d0 grows, when d >> d0",
            [slope(config.predicted, predicted(wide, "other_class_rate"))],
            source="Thm. 4.1",
            quantity="slope of the predicted other-class rate over d0, d = d0^1.5 / 2 (log-log)",
            high=-0.2,
        ),
        judge(
            "The other class's activation rate levels off when d is a fixed multiple of d0",
            [predicted(narrow, "other_class_rate")[-1]],
            source="Thm. 4.1",
            quantity=f"predicted other-class rate at d0 = {config.predicted[-1]}, d = 4 d0",
            published="o(1), for d large against d0",
            low=0.01,
            high=0.04,
        ),
        judge(
            "Learned core features stay of order one at any size",
            slopes(sized, "d0", "U", activation="relu"),
            source="Thm. 4.2",
            quantity="slope of U over d0 (log-log)",
            low=-0.1,
            high=0.1,
        ),
        judge(
            "Learned background features stay of order one, too",
            slopes(sized, "d0", "V", activation="relu"),
            source="Thm. 4.2",
            quantity="slope of V over d0 (log-log)",
            low=-0.1,
            high=0.25,
        ),
        judge(
            "Learning takes longer in proportion to the width m",
            slopes(timed, "value", "steps", kind="width"),
            source="Thm. 4.2",
            published="1",
            quantity="slope of the steps to learn over m (log-log)",
            low=0.9,
            high=1.1,
        ),
        judge(
            "Learning takes longer in inverse proportion to the step size",
            slopes(timed, "value", "steps", kind="step_size"),
            source="Thm. 4.3",
            published="-1",
            quantity="slope of the steps to learn over eta (log-log)",
            low=-1.1,
            high=-0.9,
        ),
        judge(
            "Learning takes longer in inverse proportion to the number of features d0",
            slopes(timed, "value", "steps", kind="features"),
            source="Thm. 4.3",
            published="-1",
            quantity="slope of the steps to learn over d0 (log-log)",
            low=-1.15,
            high=-0.85,
        ),
        judge(
            "The ID risk vanishes as the benchmark grows",
            slopes(sized, "d0", "id_hinge", activation="relu"),
            source="Thm. 4.3",
            quantity="slope of the ID hinge risk over d0 (log-log)",
            high=-0.5,
        ),
        judge(
            "The OOD risk does not vanish: it grows with d0",
            rise,
            source="Thm. 4.3",
            quantity="smallest rise of the OOD hinge risk between sizes up to d0 = 256",
            low=0.02,
        ),
        judge(
            "A linear network's background projections shrink like 1 / sqrt(d)",
            [value - 0.5 for value in slopes(dims, "d", "largest_background")],
            source="Thm. 4.4",
            published="-1/2, up to logarithms",
            quantity="slope of the largest background projection over d (log-log)",
            low=-0.6,
            high=-0.4,
        ),
    ]


def _rows(run: Run, prefix: str) -> list[dict[str, Any]]:
    return [row for part in run.parts(prefix) for row in run.read(part)]


def draw(run: Run) -> Sequence[Figure]:
    """Risks and projections over size, time to learn over its three causes, and predictions."""
    sized, timed = _rows(run, "size/"), _rows(run, "time/")
    told = sorted(_rows(run, "predicted/"), key=lambda row: (row["regime"], row["d0"]))
    return [_sizes(sized), _times(timed), _large(told), _dimensions(_rows(run, "dimension/"))]


def _series(rows: list[dict[str, Any]], x: str, y: str, label: str) -> list[dict[str, Any]]:
    """Means over seeds with their range, in the order of x."""
    found = [
        {"what": label, "x": row[x], "y": row[y], "low": row["low"], "high": row["high"]}
        for row in over_seeds(rows, [x], y)
    ]
    return sorted(found, key=lambda row: row["x"])


def _panel(rows: list[dict[str, Any]], title: str, x: str, y: str, log: str = "xy"):
    return lines(
        rows,
        title=title,
        x=("x", x),
        y=("y", y),
        series=("what", ""),
        log=log,
        points=True,
    )


def _sizes(rows: list[dict[str, Any]]) -> Figure:
    relu = [row for row in rows if row["activation"] == "relu"]
    linear = [row for row in rows if row["activation"] == "identity"]
    risks = _series(relu, "d0", "id_hinge", "ReLU, ID") + _series(
        relu, "d0", "ood_hinge", "ReLU, OOD"
    )
    risks += _series(linear, "d0", "ood_hinge", "linear, OOD")
    sums = _series(relu, "d0", "U", "core (U), ReLU") + _series(
        relu, "d0", "V", "background (V), ReLU"
    )
    linear_v = [row | {"V": abs(row["V"])} for row in linear]
    sums += _series(linear_v, "d0", "V", "background (|V|), linear")
    x = "features d0 (d = m = 4 d0)"
    return Figure(
        "Larger problems",
        "As the number of features grows the ID risk vanishes and the OOD risk stays; what ReLU "
        "networks learn of core and background keeps its size. Bands: all seeds.",
        "Thm. 4.3",
        (
            _panel(risks, "Risk after training", x, "hinge risk"),
            _panel(sums, "What the neurons have learned", x, "summed projections", log="x"),
        ),
        tuple(risks + sums),
    )


def _times(rows: list[dict[str, Any]]) -> Figure:
    panels, all_rows = [], []
    for kind, x in (
        ("width", "width m"),
        ("step_size", "step size eta"),
        ("features", "features d0"),
    ):
        curve = _series([r for r in rows if r["kind"] == kind], "value", "steps", "trained")
        middle = curve[len(curve) // 2]
        power = 1 if kind == "width" else -1
        curve += [
            {
                "what": "m / (eta d0)",
                "x": row["x"],
                "y": middle["y"] * (row["x"] / middle["x"]) ** power,
            }
            for row in list(curve)
        ]
        panels.append(_panel(curve, f"Over the {x}", x, "steps to learn"))
        all_rows += [{"over": kind} | row for row in curve]
    return Figure(
        "How long learning takes",
        "Steps until the training risk has halved, against the order that the theorems give, "
        "m / (eta d0), drawn through the middle point.",
        "Thm. 4.2",
        tuple(panels),
        tuple(all_rows),
    )


def _large(rows: list[dict[str, Any]]) -> Figure:
    def curves(y: str) -> list[dict[str, Any]]:
        return [{"what": row["regime"], "x": row["d0"], "y": row[y]} for row in rows]

    rates, risks = curves("other_class_rate"), curves("ood_hinge")
    return Figure(
        "A million features, without training",
        "What the population model foretells. The other class is silenced completely only when the "
        "dimension outgrows the features; the OOD risk stays in both cases.",
        "Thm. 4.1",
        (
            _panel(rates, "Activation rate on the other class", "features d0", "activation rate"),
            _panel(risks, "OOD risk", "features d0", "hinge risk", log="x"),
        ),
        tuple(rows),
    )


def _dimensions(rows: list[dict[str, Any]]) -> Figure:
    rows = [row | {"largest": row["largest_background"] / math.sqrt(row["d"])} for row in rows]
    curve = _series(rows, "d", "largest", "largest background projection")
    first = curve[0]
    curve += [
        {"what": "1 / sqrt(d)", "x": row["x"], "y": first["y"] * math.sqrt(first["x"] / row["x"])}
        for row in list(curve)
    ]
    return Figure(
        "Linear networks feel no pull",
        "The largest projection of a linear network's neurons on any background feature, at the "
        "end of training.",
        "Thm. 4.4",
        (_panel(curve, "Largest background projection", "input dimension d", "projection"),),
        tuple(curve),
    )


def summarize(run: Run) -> str:
    """What happened, in two sentences."""
    config = Config.model_validate(run.config)
    large = run.read(_part("d = 4 d0", config.predicted[-1]))[0]
    by_size = over_seeds(
        [row for row in _rows(run, "size/") if row["activation"] == "relu"], ["d0"], "ood_hinge"
    )
    by_size.sort(key=lambda row: row["d0"])
    first, last = by_size[0], by_size[-1]
    return (
        f"Larger problems fail more, not less: the OOD hinge risk rises from "
        f"{first['ood_hinge']:.2f} at {first['d0']} features to {last['ood_hinge']:.2f} at "
        f"{last['d0']} (trained) and {large['ood_hinge']:.2f} at {config.predicted[-1]:,} "
        "(predicted). The time to learn follows m / (eta d0), as the theorems say."
    )


EXPERIMENT = Experiment(
    name="thm4_scaling",
    title="The theorems as slopes over size, width, step size and dimension",
    about="The theorems speak of orders of magnitude. Here they become slopes on logarithmic axes: "
    "networks of several sizes are trained, and the population model answers for a million "
    "features.",
    reproduces=("Thm. 4.1", "Thm. 4.2", "Thm. 4.3", "Thm. 4.4"),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
)
