"""Remedies in the paper's data model: which of them keep a two-layer network free of background."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, NonNegativeFloat, PositiveInt, model_validator

from contam.experiment import (
    NULL_STEP_SIZE,
    Claim,
    Experiment,
    NotJudged,
    Stage,
    Statement,
    judge_all,
)
from contam.plots import Figure, bars, lines, over_seeds
from contam.run import Run
from contam.theory.coverage import uncovered
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.intervention import Intervention
from contam.theory.phases import predict_phases
from contam.theory.setting import Setting
from contam.theory.summary import summary
from contam.theory.trajectory import simulate

LEARNED = 0.5
"""ID hinge risk below which a network counts as having learned: half of its initial value."""
GAIN = 4.0
"""Gain of the head with batch norm of pre-activations, and of its control without."""
ENVIRONMENT_EXAMPLES = 4000
"""Examples of each environment that covariances are estimated from."""
UNKNOWN_CORE = ("environment_means", "environments", "mean_projection", "centering")
"""Remedies that are told neither which features are core nor which examples form pairs."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """All ours: the paper proposes the projection on the core features and leaves it open."""

    setting: Setting = Setting(steps=400)
    """The data and the training that every remedy changes."""
    pairs: tuple[PositiveInt, ...] = (4, 8, 16, 24, 28, 31, 32)
    """Numbers of counterfactual pairs."""
    decays: tuple[NonNegativeFloat, ...] = (1e-2, 1e-1)
    """Strengths of weight decay."""
    slopes: tuple[NonNegativeFloat, ...] = (0.1, 0.3, 0.5, 0.8)
    """Slopes of leaky ReLU."""
    test_examples: PositiveInt = 20_000
    """Held-out examples for each risk."""
    seeds: PositiveInt = 6

    @model_validator(mode="after")
    def _has_as_many_pairs_as_background_features(self) -> "Config":
        background = self.setting.data.features.background
        if background not in self.pairs:
            raise ValueError(f"pairs must contain {background}, the number of background features")
        if self.setting.activation != "relu" or self.setting.loss != "hinge":
            raise ValueError("activation must be relu and loss hinge, which the claims are about")
        return self


FULL = Config()
LAPTOP = FULL.model_copy(
    update={
        "setting": Setting(batch_size=500, steps=400),
        "pairs": (8, 16, 24, 31, 32),
        "test_examples": 8192,
        "seeds": 3,
    }
)
SMOKE = LAPTOP.model_copy(
    update={
        "setting": Setting(
            data=DataModel(FeatureModel(8, 8, 64)), width=64, batch_size=200, steps=200
        ),
        "pairs": (4, 8),
        "decays": (1e-2,),
        "slopes": (0.5,),
        "test_examples": 1000,
        "seeds": 2,
    }
)


def null(config: Config) -> Config:
    """The config with a step size at which nothing is learned."""
    setting = replace(config.setting, step_size=NULL_STEP_SIZE)
    return config.model_copy(update={"setting": setting})


def networks(config: Config) -> dict[str, Setting]:
    """The setting of every remedy, by the name of its part."""
    base = config.setting
    background = base.data.features.background
    interventions = {
        "core_projection": Intervention(project="core"),
        "mean_projection": Intervention(project="mean"),
        "environment_means": Intervention(project="environment_means"),
        "environments": Intervention(
            project="environments", directions=background, estimated_from=ENVIRONMENT_EXAMPLES
        ),
        "centering": Intervention(inputs="centered"),
        "centering_by_10_examples": Intervention(inputs="centered", estimated_from=10),
        "input_batch_norm": Intervention(inputs="batch_norm"),
        "batch_norm": Intervention(hidden="batch_norm", gain=GAIN),
        "gain_of_batch_norm_alone": Intervention(gain=GAIN),
        "flip_half": Intervention(augment="flip"),
        "flip_a_tenth": Intervention(augment="flip", augmented=0.1),
        "erase_half": Intervention(augment="erase"),
        "swap_half": Intervention(augment="swap"),
    }
    interventions |= {
        f"pairs_{k}": Intervention(project="pairs", directions=k) for k in config.pairs
    }
    return {
        "no_change": base,
        **{name: replace(base, intervention=change) for name, change in interventions.items()},
        **{f"decay_{decay:g}": replace(base, weight_decay=decay) for decay in config.decays},
        **{
            f"slope_{slope:g}": replace(base, activation="leaky_relu", slope=slope)
            for slope in config.slopes
        },
    }


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train one network for each remedy and seed, and predict the effect of pairs."""
    parts = [
        (f"remedy/{name}/seed{seed}", name, setting, seed)
        for seed in range(config.seeds)
        for name, setting in networks(config).items()
    ]
    for index, (part, name, setting, seed) in enumerate(parts):
        yield Stage(index / len(parts), part)
        if not run.has(part):
            (state,) = simulate(setting, seed)
            row = {"remedy": name, "seed": seed} | summary(state, examples=config.test_examples)
            run.write(part, [row])
    if uncovered(config.setting) is None and not run.has("predicted"):
        yield Stage(1.0, "prediction")
        run.write("predicted", predicted_pairs(config))


def predicted_pairs(config: Config) -> list[dict[str, Any]]:
    """OOD hinge risk at the fit and at convergence, for each number of pairs."""
    rows = []
    for pairs in config.pairs:
        change = Intervention(project="pairs", directions=pairs)
        phases = predict_phases(replace(config.setting, intervention=change))
        fit = None if phases.fit is None else phases.fit.ood_hinge
        rows.append({"pairs": pairs, "fit": fit, "limit": phases.limit.ood_hinge})
    return rows


class TheoryRemedyResults:
    """The risks of every network, one value per seed."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        table: Any = run.table("remedy/")
        self.table = table.sort_values("seed")
        self.predicted: Any = run.table("predicted") if run.has("predicted") else None

    def values(self, remedy: str, column: str = "ood_hinge") -> list[float]:
        """A column of one remedy, in the order of the seeds."""
        return self.table[self.table["remedy"] == remedy][column].tolist()


Measure = Callable[[TheoryRemedyResults], list[float]]
"""One value per seed."""


def risk(*remedies: str) -> Measure:
    """The largest OOD hinge risk of several remedies."""
    return lambda r: [max(values) for values in zip(*map(r.values, remedies), strict=True)]


def reduction(remedy: str) -> Measure:
    """OOD hinge risk without change minus that with a remedy."""
    return lambda r: [
        plain - changed
        for plain, changed in zip(r.values("no_change"), r.values(remedy), strict=True)
    ]


def smallest_reduction(kind: str, sign: int = 1) -> Measure:
    """The smallest reduction (or rise, with sign -1) among the remedies of a kind."""

    def smallest(results: TheoryRemedyResults) -> list[float]:
        remedies = [name for name in networks(results.config) if name.startswith(kind)]
        reductions = [reduction(name)(results) for name in remedies]
        return [min(sign * value for value in values) for values in zip(*reductions, strict=True)]

    return smallest


def cliff(results: TheoryRemedyResults) -> list[float]:
    """OOD hinge risk with half of the background's pairs minus that with all of them."""
    background = results.config.setting.data.features.background
    half, whole = (results.values(f"pairs_{k}") for k in (background // 2, background))
    if not half:
        raise NotJudged("the run has no network with half as many pairs as background features")
    return [a - b for a, b in zip(half, whole, strict=True)]


def prediction_error(results: TheoryRemedyResults) -> list[float]:
    """Distance of the risk to the interval between fit and convergence, mean over pairs."""
    if results.predicted is None or results.predicted["fit"].isna().any():
        raise NotJudged("the theory does not cover this setting")
    errors = []
    for pairs, fit, limit in results.predicted[["pairs", "fit", "limit"]].itertuples(index=False):
        low, high = min(fit, limit), max(fit, limit)
        errors.append([max(low - value, value - high, 0.0)
                       for value in results.values(f"pairs_{pairs}")])  # fmt: skip
    return [sum(values) / len(values) for values in zip(*errors, strict=True)]


def learned(*remedies: str) -> Callable[[TheoryRemedyResults], None]:
    """Require that networks learned: their ID hinge risk is below `LEARNED`."""

    def require(results: TheoryRemedyResults) -> None:
        worst = max(max(results.values(name, "id_hinge")) for name in remedies)
        if not worst < LEARNED:
            raise NotJudged(f"a network did not learn: ID hinge risk {worst:.2f}")

    return require


CLAIMS: tuple[Statement, ...] = (
    Statement(
        "Gradients in the space of the core features learn no background", "Sec. 5",
        "OOD hinge risk, gradients projected on the core features (oracle)",
        risk("core_projection"), high=0.15, given=learned("core_projection")),
    Statement(
        "The core space need not be known: unlabeled examples or two environments suffice here",
        "ours", "largest OOD hinge risk of: difference of two environments' means or covariances "
        "projected out of gradients, mean input projected out, inputs centered",
        risk(*UNKNOWN_CORE), high=0.25, given=learned(*UNKNOWN_CORE)),
    Statement(
        "A mean of ten examples is enough to center inputs", "ours",
        "OOD hinge risk, inputs centered by the mean of 10 examples",
        risk("centering_by_10_examples"), high=0.2, given=learned("centering_by_10_examples")),
    Statement(
        "Batch norm of pre-activations prevents contamination, and not by the larger gain", "ours",
        "OOD hinge risk with the gain alone minus that with batch norm",
        lambda r: [a - b for a, b in zip(r.values("gain_of_batch_norm_alone"),
                                         r.values("batch_norm"), strict=True)],
        low=0.3),
    Statement(
        "Counterfactual pairs help little until they span the background", "ours",
        "OOD hinge risk with half as many pairs as background features minus that with as many",
        cliff, low=0.3),
    Statement(
        "The theory predicts the effect of pairs: background / core falls linearly with them",
        "ours", "mean distance of the OOD hinge risk to the range from fit to convergence",
        prediction_error, high=0.08, given=learned("no_change")),
    Statement(
        "Swapping backgrounds between examples does not help: they are independent of the label",
        "ours", "OOD hinge risk without change minus that with swapped backgrounds",
        reduction("swap_half"), low=-0.05, high=0.05, given=learned("no_change", "swap_half")),
    Statement(
        "Flipping the background of half of the examples prevents contamination", "ours",
        "reduction of the OOD hinge risk", reduction("flip_half"), low=0.4),
    Statement(
        "Weight decay makes contamination worse", "ours",
        "smallest rise of the OOD hinge risk with weight decay",
        smallest_reduction("decay_", sign=-1), low=0.02),
    Statement(
        "A leaky slope reduces contamination", "ours",
        "smallest reduction of the OOD hinge risk by a slope",
        smallest_reduction("slope_"), low=0.1),
)  # fmt: skip
"""Sources are the paper where it states the remedy."""


def claims(run: Run) -> Sequence[Claim]:
    """Judge the table of claims."""
    return judge_all(CLAIMS, TheoryRemedyResults(run))


def draw(run: Run) -> Sequence[Figure]:
    """Draw the risks of every remedy, and the risk over the number of pairs."""
    results = TheoryRemedyResults(run)
    rows = []
    for column, where in (("id_hinge", "ID"), ("ood_hinge", "OOD")):
        for row in over_seeds(results.table.to_dict("records"), ["remedy"], column):
            name = str(row["remedy"]).replace("_", " ")
            rows.append({"remedy": name, "data": where, "risk": row[column],
                         "low": row["low"], "high": row["high"]})  # fmt: skip
    order = [name.replace("_", " ") for name in networks(results.config)]
    rows.sort(key=lambda row: order.index(row["remedy"]))
    overview = bars(
        rows,
        title="Risk with each remedy",
        x=("remedy", ""),
        y=("risk", "hinge risk"),
        series=("data", ""),
        wide=True,
    )
    pairs = [
        {"pairs": 0 if row["remedy"] == "no_change" else int(row["remedy"].split("_")[1]),
         "what": "SGD", "risk": row["ood_hinge"], "low": row["low"], "high": row["high"]}
        for row in over_seeds(results.table.to_dict("records"), ["remedy"], "ood_hinge")
        if row["remedy"] == "no_change" or row["remedy"].startswith("pairs_")
    ]  # fmt: skip
    if results.predicted is not None:
        for column, what in (("fit", "theory, at the fit"), ("limit", "theory, at convergence")):
            pairs += [
                {"pairs": row["pairs"], "what": what, "risk": row[column]}
                for row in results.predicted.to_dict("records")
                if row[column] is not None
            ]
    pairs.sort(key=lambda row: row["pairs"])
    curve = lines(
        pairs,
        title="Counterfactual pairs",
        x=("pairs", "pairs"),
        y=("risk", "OOD hinge risk"),
        series=("what", ""),
        points=True,
    )
    return [
        Figure(
            "Remedies in the paper's data model",
            "Whiskers: all seeds. Every network has the same data, width and number of steps.",
            "ours",
            (overview,),
            tuple(rows),
        ),
        Figure(
            "Pairs remove contamination linearly, and the risk at a cliff",
            "Gradients are orthogonal to the differences of pairs with the same core. Bands: all "
            "seeds.",
            "ours",
            (curve,),
            tuple(pairs),
        ),
    ]


def summarize(run: Run) -> str:
    """The result in two sentences."""
    results = TheoryRemedyResults(run)

    def mean(remedy: str) -> float:
        values = results.values(remedy)
        return sum(values) / len(values)

    return (
        f"Without a remedy, the OOD hinge risk was {mean('no_change'):.2f}. It was "
        f"{mean('core_projection'):.2f} with gradients in the core features' space, and "
        f"{mean('environments'):.2f} with a space that two environments determine without "
        f"knowledge of the features; centered inputs had {mean('centering'):.2f}, swapped "
        f"backgrounds {mean('swap_half'):.2f}."
    )


EXPERIMENT = Experiment(
    name="theory_remedies",
    title="Remedies in the paper's data model",
    about="Two-layer ReLU networks learn background features that are independent of the label. "
    "Projected gradients, normalization, augmentation, weight decay and leaky slopes are compared "
    "on the same data. The paper asks for a core space that is found without knowing the features.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: ours: the paper proposes the projection in Sec. 5 and evaluates none."""
