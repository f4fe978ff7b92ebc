"""Two-layer networks, ReLU against linear: the paper's theory, simulated and predicted."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal

from pydantic import BaseModel, PositiveFloat, PositiveInt, model_validator

from contam.experiment import (
    NULL_STEP_SIZE,
    SETTINGS_DIFFER,
    Claim,
    Experiment,
    NotJudged,
    Stage,
    Statement,
    difference,
    ratio,
)
from contam.experiments.support.two_layer_runs import NAMES, curve, ends, report_steps, train_into
from contam.plots import Figure, lines, over_seeds, scatter
from contam.run import Run
from contam.theory.coverage import uncovered
from contam.theory.distribution import Beta, DataModel
from contam.theory.features import FeatureModel
from contam.theory.initialization import initial_network
from contam.theory.population import Neurons, predict_contamination
from contam.theory.projections import class_correlations
from contam.theory.setting import Setting
from contam.theory.summary import summary
from contam.theory.trajectory import State, simulate
from contam.training.checkpointed import checkpointed

LINEAR = "identity"
LEARNED = 0.5
"""Share of the initial ID risk at which a network has learned. What networks do not learn is
claimed of those only."""
RESPONSE_TIMES = (0.0, 0.05, 0.1, 0.25, 1.0)
"""Shares of the training at which each neuron's responses are recorded. Ours: the paper says
"during training"."""
CLASSES = 4
"""Ours: classes of the networks that learn more than two."""
COUPLING, SKEWED = 0.3, Beta(2, 5)
"""Ours: coupling of the background weights, and core weights that are mostly small, for data that
are more general than those of Def. 3.1."""
KINDS = ("no class", "one class", "both classes")
"""How many classes a neuron has a positive mean response to."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Defaults are the paper's (App. F.1) unless a field says otherwise."""

    setting: Setting = Setting(examples=1000, optimizer="momentum", step_size=1e-3, steps=20_000)
    """The data, and the network that learns the classes; its linear twin and the regression differ
    from it in a few fields. The momentum and the number of steps are from the published code; the
    text says SGD and does not give the length. Section 3.2 has fresh examples: examples None."""
    regression_step_size: PositiveFloat = 1e-3
    """Step size of regression, for the squared error averaged over outputs."""
    regression_steps: PositiveInt = 20_000
    """Steps of regression, from the published code."""
    long_steps: PositiveInt = 3000
    """Ours: steps on fresh examples, for the background norm in the long run."""
    long_step_size: PositiveFloat = 1.0
    """Ours: their size."""
    test_examples: PositiveInt = 10_000
    """Ours: held-out examples for each risk and each rate."""
    points: PositiveInt = 40
    """Ours: measurements along each curve."""
    seeds: PositiveInt = 4
    """Ours: the paper does not give a number."""

    @model_validator(mode="after")
    def _is_classification(self) -> "Config":
        if self.setting.activation == LINEAR:
            raise ValueError("activation must not be identity, which is the linear twin's")
        if self.setting.loss == "squared":
            raise ValueError("loss must be hinge or logistic; regression is trained in any case")
        return self


PAPER = Config()
LAPTOP = PAPER.model_copy(
    update={
        "setting": Setting(batch_size=500),
        "regression_step_size": 0.2,
        "regression_steps": 1000,
        "test_examples": 3000,
        "points": 16,
    }
)
SMOKE = LAPTOP.model_copy(
    update={
        "setting": Setting(data=DataModel(FeatureModel(8, 8, 64)), width=64, batch_size=200),
        "regression_steps": 50,
        "long_steps": 300,
        "test_examples": 1000,
        "points": 5,
        "seeds": 2,
    }
)


def null(config: Config) -> Config:
    """The config with step sizes at which nothing is learned.

    >>> null(Config()).regression_step_size == NULL_STEP_SIZE
    True
    """
    return config.model_copy(
        update={
            "setting": replace(config.setting, step_size=NULL_STEP_SIZE),
            "regression_step_size": NULL_STEP_SIZE,
            "long_step_size": NULL_STEP_SIZE,
        }
    )


def _networks(config: Config) -> dict[str, Setting]:
    """The setting of every network of the experiment, by the name of its part."""
    classification = config.setting
    regression = replace(
        classification,
        loss="squared",
        head="trained",
        # The simulation's loss is half the sum over the outputs, not their mean, so that the same
        # flow and the same decay in a step ask for other values of both.
        step_size=config.regression_step_size * 2 / classification.data.features.core,
        weight_decay=classification.weight_decay * classification.data.features.core / 2,
        steps=config.regression_steps,
    )
    long = replace(
        classification,
        optimizer="sgd",
        step_size=config.long_step_size,
        examples=None,
        steps=config.long_steps,
    )
    tasks = {"classification": classification, "regression": regression, "long": long}
    data = classification.data
    if _has_several_classes(data):
        tasks["several"] = replace(
            classification, data=replace(data, classes=CLASSES), loss="logistic", head="trained"
        )
    tasks["general"] = replace(
        classification, data=replace(data, core_weights=SKEWED, coupling=COUPLING)
    )
    settings = {
        f"{task}/{activation}": replace(setting, activation=activation)
        for activation in (classification.activation, LINEAR)
        for task, setting in tasks.items()
    }
    # The published code's own initialization: PyTorch's default, with a bias.
    examples = classification.examples or classification.batch_size
    script = {"initialization": "uniform", "examples": examples}
    settings["script/relu"] = replace(classification, bias="hidden", **script)
    settings["script-regression/relu"] = replace(regression, bias="all", **script)
    return settings


def _has_several_classes(data: DataModel) -> bool:
    """Whether the data can have `CLASSES` classes instead of two."""
    fits = data.classes == 2 and data.features.core % CLASSES == 0
    return fits and data.correlation == 0 and data.core_shape == "weights"


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train every network from every seed, and predict the classification without training."""
    parts = [
        (f"{name}/seed{seed}", setting, seed)
        for seed in range(config.seeds)
        for name, setting in _networks(config).items()
    ]
    for index, (part, setting, seed) in enumerate(parts):
        for share in train_into(
            run,
            part,
            setting,
            seed,
            points=config.points,
            measure=lambda state: summary(state, examples=config.test_examples),
            arrays=lambda state: {"W": state.W},
        ):
            yield Stage((index + share) / len(parts), part)
    for seed in range(config.seeds):
        for _ in _responses(config, run, f"responses/seed{seed}", seed):
            yield Stage(1.0, "each neuron's responses")
        if uncovered(_flow(config)) is None and not run.has(f"prediction/seed{seed}"):
            yield Stage(1.0, "the population model")
            run.write(f"prediction/seed{seed}", _predicted(config, seed))


def _responses(config: Config, run: Run, part: str, seed: int) -> Iterator[float]:
    """Write each neuron's mean response to both classes at several times of the classification."""
    if run.has(part):
        return
    setting = config.setting
    steps = {round(share * setting.steps) for share in RESPONSE_TIMES}
    _, records = yield from checkpointed(
        run, part, partial(simulate, setting, seed, steps), measure=_response_rows
    )
    run.write(part, records)


def _response_rows(state: State) -> list[dict[str, Any]]:
    """Each neuron's mean response to both classes, and how many of the two are positive."""
    by_class = class_correlations(state.W, state.setting.data)
    return [
        {"time": state.step * state.setting.time_per_step, "neuron": neuron,
         "positive": positive, "negative": negative, "kind": KINDS[(positive > 0) + (negative > 0)]}
        for neuron, (negative, positive) in enumerate(by_class.T.tolist())
    ]  # fmt: skip


def _flow(config: Config) -> Setting:
    """Plain SGD on fresh examples over the training time of the classification."""
    setting = config.setting
    time = setting.steps * setting.time_per_step
    steps = max(1, round(time))
    return replace(setting, optimizer="sgd", step_size=time / steps, steps=steps, examples=None)


def _predicted(config: Config, seed: int) -> list[dict[str, Any]]:
    """The population model's curve, from the initial weights of the trained network."""
    setting = _flow(config)
    network = initial_network(config.setting, seed)
    a = network.head.weight.detach()[0]
    prediction = predict_contamination(
        setting,
        start=Neurons.read(network.projections, a, core=setting.data.features.core),
        report_at=report_steps(setting.steps, config.points),
    )
    return [
        {"time": point["step"] * setting.step_size} | point  # pyright: ignore[reportOptionalOperand]
        for point in prediction.records()
    ]


class TwoLayerResults:
    """The first and the last measurements of every network, one value per seed."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        self._ends = cache(lambda name: ends(run, name))
        self._has = cache(lambda name: bool(run.parts(f"{name}/seed")))
        self.responses: Any = run.table("responses/seed")

    def at(self, when: Literal["first", "last"], network: str, column: str) -> list[float]:
        """Values of a column; a network without an activation function has the config's."""
        setting = self.config.setting
        if network == "prediction" and (reason := uncovered(_flow(self.config))):
            raise NotJudged(f"the population model does not cover this setting: {reason}")
        if "/" not in network and network != "prediction":
            network = f"{network}/{setting.activation}"
        if not self._has(network):
            raise NotJudged(f"the run has no network {network!r}")
        return self._ends(network)[when == "last"](column.format(loss=setting.loss))

    @property
    def decay(self) -> float:
        """The factor by which weight decay alone shrinks a weight over the training."""
        setting = self.config.setting
        return (1 - setting.time_per_step * setting.weight_decay) ** setting.steps

    @property
    def is_standard(self) -> bool:
        """Whether sizes and training time are those of the claims' ranges."""
        setting = self.config.setting
        free = ("optimizer", "step_size", "momentum", "steps", "batch_size", "examples")
        standard = replace(Setting(), **{name: getattr(setting, name) for name in free})
        return setting == standard and math.isclose(setting.steps * setting.time_per_step, 200)


Measure = Callable[[TwoLayerResults], list[float]]
"""One value per seed."""


def _last(column: str, network: str = "classification") -> Measure:
    """A column when training ends."""
    return lambda results: results.at("last", network, column)


def _first(column: str, network: str = "classification") -> Measure:
    """A column before training."""
    return lambda results: results.at("first", network, column)


def _share_of_neurons(kind: str, when: Literal["first", "last"]) -> Measure:
    """The share of neurons that respond to as many classes, before or after training."""

    def shares(results: TwoLayerResults) -> list[float]:
        table = results.responses
        at = table["time"].min() if when == "first" else table["time"].max()
        return (table[table["time"] == at]["kind"] == kind).groupby(table["part"]).mean().tolist()

    return shares


def _magnitude(measure: Measure, minus: float = 0.0) -> Measure:
    """Absolute values of the differences to a number."""
    return lambda r: [abs(value - minus) for value in measure(r)]


def _excess_over_decay(results: TwoLayerResults) -> list[float]:
    """Final background norm of the linear network over its decayed initial one, minus 1."""
    norms = (
        when("background_norm", "classification/identity")(results) for when in (_last, _first)
    )
    return [end / (start * results.decay) - 1 for end, start in zip(*norms, strict=True)]


def _learned(network: str = "classification", loss: str = "{loss}") -> Measure:
    """Require that training at least halved a network's ID risk, in every seed."""

    def require(results: TwoLayerResults) -> list[float]:
        shares = ratio(_last(f"id_{loss}", network), _first(f"id_{loss}", network))(results)
        if not max(shares) <= LEARNED:
            raise NotJudged(
                f"the network of {network!r} did not learn: its ID risk is {max(shares):.2f} of "
                "the initial one"
            )
        return shares

    return require


STANDARD, ANY = "standard sizes", "any size"
"""Whether a claim's range is known at the standard sizes only."""

LINEAR_CLASSIFIER, LINEAR_REGRESSION = "classification/identity", "regression/identity"
CLAIMS: tuple[tuple[str, Statement], ...] = (
    (STANDARD, Statement(
        "Most {name} neurons end up active for one class only", "Thm. 4.1",
        "share of neurons active on over 90 % of one class and under 10 % of the other",
        _last("good_share"), low=0.75, published="Θ(m) neurons")),
    (STANDARD, Statement(
        "Neurons that are active for one class are rarely active for the other", "Thm. 4.1",
        "their activation rate on the other class",
        _last("other_class_rate"), high=0.08, published="o(1)", given=_learned())),
    (ANY, Statement(
        "Neurons of {name} networks come to respond to one class only during training", "Fig. 7",
        "share of neurons with a positive mean response to one class only, end minus start",
        difference(_share_of_neurons("one class", "last"), _share_of_neurons("one class", "first")),
        low=0.2, every_seed=True)),
    (ANY, Statement(
        "Neurons of {name} networks end with a positive response to at most one class", "Fig. 7",
        "share of neurons with a positive mean response to both classes, after training",
        _share_of_neurons("both classes", "last"), high=0.05, every_seed=True,
        published="at most one class of examples")),
    (STANDARD, Statement(
        "{name} networks learn the core features", "Thm. 4.2",
        "U, the summed core projections in the sign of the output weight, mean over neurons",
        _last("U"), low=2.45, high=2.58, published="Θ(1)")),
    (STANDARD, Statement(
        "{name} networks also learn background features, which are independent of the label",
        "Thm. 4.2", "V, the summed background projections, mean over neurons",
        _last("V"), low=1.75, high=1.95, published="Θ(1), up to logarithms")),
    (STANDARD, Statement(
        "{name} networks solve the training distribution", "Thm. 4.3", "ID {loss} risk",
        _last("id_{loss}"), high=0.008, published="o(1)")),
    (STANDARD, Statement(
        "{name} networks fail when the background shifts", "Thm. 4.3", "OOD {loss} risk",
        _last("ood_{loss}"), low=0.82, high=0.88, published="Θ(1)")),
    (STANDARD, Statement(
        "{name} networks fail most under the worst background", "Eq. 1",
        "{loss} risk with every background weight at -1, minus ID risk",
        difference(_last("worst_{loss}"), _last("id_{loss}")), low=0.97, high=1.03)),
    (STANDARD, Statement(
        "The failure is one of risk: few shifted examples are misclassified", "ours",
        "OOD classification error", _last("ood_error"), high=0.02)),
    (STANDARD, Statement(
        "Linear networks learn no background", "Thm. 4.4", "|V| of the linear network",
        _magnitude(_last("V", LINEAR_CLASSIFIER)), high=0.08, given=_learned(LINEAR_CLASSIFIER))),
    (STANDARD, Statement(
        "No background projection of a linear network exceeds the order of its initial value",
        "Thm. 4.4",
        "largest background projection of the linear network, times the square root of d",
        _last("largest_background", LINEAR_CLASSIFIER), high=4.5,
        published="O(1), up to logarithms", given=_learned(LINEAR_CLASSIFIER))),
    (ANY, Statement(
        "The initial background of a linear network only decays", "Thm. 4.4",
        "background norm over start times weight decay, minus 1",
        _excess_over_decay, low=-0.02, high=0.02, given=_learned(LINEAR_CLASSIFIER))),
    (STANDARD, Statement(
        "The shift costs a linear network nothing", "Thm. 4.4",
        "|OOD - ID| {loss} risk of the linear network",
        _magnitude(difference(_last("ood_{loss}", LINEAR_CLASSIFIER),
                             _last("id_{loss}", LINEAR_CLASSIFIER))), high=0.003,
        given=_learned(LINEAR_CLASSIFIER))),
    (STANDARD, Statement(
        "{name} networks have a larger background norm than linear ones", "Fig. 8",
        "background norm, {name} over linear",
        ratio(_last("background_norm"), _last("background_norm", LINEAR_CLASSIFIER)),
        low=1.5, high=1.7)),
    (STANDARD, Statement(
        "{name} networks keep the background against weight decay, long after learning", "ours",
        "background norm, {name} over linear, after {long_steps} steps of size 1",
        ratio(_last("background_norm", "long"), _last("background_norm", "long/identity")),
        low=15.0)),
    (ANY, Statement(
        "{name} networks that regress on the core features learn background features, too",
        "Fig. 9", "V in regression, {name} minus linear",
        difference(_last("V", "regression"), _last("V", LINEAR_REGRESSION)),
        low=0.05, every_seed=True)),
    (ANY, Statement(
        "The norm of the background in {name} regression grows over training", "Fig. 9",
        "background norm in {name} regression, end over start",
        ratio(_last("background_norm", "regression"), _first("background_norm", "regression")),
        low=1.05)),
    (STANDARD, Statement(
        "It grows from the published code's initialization (biases, uniform weights)", "Fig. 9",
        "background norm in {name} regression from that initialization, end over start",
        ratio(_last("background_norm", "script-regression/relu"),
              _first("background_norm", "script-regression/relu")), low=1.05)),
    (ANY, Statement(
        "The shift costs {name} regression many times its ID error", "Fig. 9",
        "squared error of the {name} network, OOD over ID",
        ratio(_last("ood_squared", "regression"), _last("id_squared", "regression")),
        low=5.0, every_seed=True)),
    (ANY, Statement(
        "The shift costs linear regression nothing", "Fig. 9",
        "|OOD - ID| squared error of the linear network, per output",
        _magnitude(difference(_last("ood_squared", LINEAR_REGRESSION),
                             _last("id_squared", LINEAR_REGRESSION))), high=0.002, every_seed=True,
        given=_learned(LINEAR_REGRESSION, "squared"))),
    (STANDARD, Statement(
        "The population model predicts the core projections without training", "ours",
        "predicted over trained U, minus 1",
        _magnitude(ratio(_last("U", "prediction"), _last("U")), minus=1), high=0.01,
        given=_learned())),
    (STANDARD, Statement(
        "The population model predicts the background projections", "ours",
        "predicted over trained V, minus 1",
        _magnitude(ratio(_last("V", "prediction"), _last("V")), minus=1), high=0.01,
        given=_learned())),
    (STANDARD, Statement(
        "The population model predicts the OOD risk", "ours",
        "|predicted - trained| OOD hinge risk",
        _magnitude(difference(_last("ood_hinge", "prediction"), _last("ood_hinge"))), high=0.012,
        given=_learned())),
    (STANDARD, Statement(
        "The published code's initialization (a bias, uniform weights) shows the same failure",
        "ours", "OOD {loss} risk from the published code's initialization",
        _last("ood_{loss}", "script/relu"), low=0.75, high=0.79)),
    (STANDARD, Statement(
        "From that initialization, core norms agree with the published code", "ours",
        "norm of the core projections from that initialization, mean over neurons",
        _last("core_norm", "script/relu"), low=0.465, high=0.485)),
    (STANDARD, Statement(
        "From that initialization, background norms agree with the published code", "ours",
        "norm of the background projections from that initialization, mean over neurons",
        _last("background_norm", "script/relu"), low=0.35, high=0.37)),
    (ANY, Statement(
        "With {classes} classes, {name} networks learn background features, too", "ours",
        "V with {classes} classes, {name} minus linear",
        difference(_last("V", "several"), _last("V", "several/identity")),
        low=0.1, every_seed=True)),
    (ANY, Statement(
        "With {classes} classes, the shift costs {name} networks risk", "ours",
        "OOD - ID logistic risk with {classes} classes",
        difference(_last("ood_logistic", "several"), _last("id_logistic", "several")),
        low=0.05, every_seed=True, given=_learned("several", "logistic"))),
    (ANY, Statement(
        "With {classes} classes, the shift costs linear networks nothing", "ours",
        "|OOD - ID| logistic risk of the linear network with {classes} classes",
        _magnitude(difference(_last("ood_logistic", "several/identity"),
                             _last("id_logistic", "several/identity"))),
        high=0.01, given=_learned("several/identity", "logistic"))),
    (STANDARD, Statement(
        "With dependent background features, {name} networks learn the background, too", "ours",
        "V with dependent backgrounds and skewed core weights, {name} minus linear",
        difference(_last("V", "general"), _last("V", "general/identity")),
        low=1.0, every_seed=True)),
    (STANDARD, Statement(
        "With dependent background features, {name} networks misclassify shifted examples", "ours",
        "OOD - ID error with dependent backgrounds and skewed core weights",
        difference(_last("ood_error", "general"), _last("id_error", "general")),
        low=0.05, every_seed=True, given=_learned("general"))),
    (STANDARD, Statement(
        "With dependent background features, the shift costs linear networks nothing", "ours",
        "|OOD - ID| {loss} risk of the linear network with dependent backgrounds",
        _magnitude(difference(_last("ood_{loss}", "general/identity"),
                             _last("id_{loss}", "general/identity"))),
        high=0.01, given=_learned("general/identity"))),
)  # fmt: skip
"""The four theorems, the numbers of the standard setting, and Appendix F.1."""


def claims(run: Run) -> Sequence[Claim]:
    """Judge the table of claims."""
    results = TwoLayerResults(run)
    setting, long_steps = results.config.setting, results.config.long_steps
    words = {"name": NAMES[setting.activation], "loss": setting.loss, "long_steps": long_steps,
             "classes": CLASSES}  # fmt: skip
    differ = f"{SETTINGS_DIFFER}: d0 64 of d 256, m 256 and training time 200"
    judged = []
    for sizes, statement in CLAIMS:
        claim = statement.judge(results, **words)
        if sizes == STANDARD and not results.is_standard:
            claim = replace(claim, not_judged=claim.not_judged or differ)
        judged.append(claim)
    return judged


TIME = ("time", "training time (steps × step size)")


def draw(run: Run) -> Sequence[Figure]:
    """Figures 3a, 7, 8 and 9, the long run, and the prediction over the simulated curves."""
    setting = Config.model_validate(run.config).setting
    name = NAMES[setting.activation]
    long = _compared(run, setting, "long", "background_norm")
    long_panel = _panel(long, "Background norm over a long training",
                        "norm of the background projections", wide=True)  # fmt: skip
    sums = _compared(run, setting, "regression", "V")
    sums_panel = _panel(sums, "Background, summed with its sign",
                        "V, summed background projections", wide=True)  # fmt: skip
    classification = _task(run, setting, "classification", setting.loss, f"{setting.loss} risk")
    regression = _task(run, setting, "regression", "squared", "squared error per output")
    return [
        _asymmetry(run, setting),
        Figure(
            "Classification: the learned features, and the cost of a shift",
            f"The {name} network's neurons learn background features although these are "
            "independent of the label, and its OOD risk stays high; the linear network's do not. "
            "Predicted: by the population model, without training. Bands: all seeds.",
            "Fig. 8",
            *classification,
        ),
        Figure(
            "Regression on the ideal representation",
            "Trained to output the core features themselves (the ideal representation), the "
            f"{name} network still learns background features, which raises its OOD error; the "
            "linear network does not. Bands: all seeds.",
            "Fig. 9",
            (*regression[0], sums_panel),
            (*regression[1], *({"network": "both"} | row for row in sums)),
        ),
        Figure(
            "The long run",
            "The training risk is close to zero after 200 steps. From then on weight decay removes "
            f"the background from the linear network, and the {name} network keeps it.",
            "ours",
            (long_panel,),
            tuple(long),
        ),
        _other_data(run, setting),
    ]


def _panel(rows: list[dict[str, Any]], title: str, y: str, *, wide: bool = False) -> Any:
    return lines(rows, title=title, x=TIME, y=("value", y), series=("what", ""), wide=wide)


def _compared(run: Run, setting: Setting, task: str, column: str) -> list[dict[str, Any]]:
    """A column of the network and of its linear twin over training time."""
    return [
        row
        for activation in (setting.activation, LINEAR)
        for row in curve(run, f"{task}/{activation}", "time", column, NAMES[activation])
    ]


def _task(
    run: Run, setting: Setting, task: str, loss: str, loss_name: str
) -> tuple[tuple[Any, ...], tuple[dict[str, Any], ...]]:
    """Panels and rows of norms and risks, for the network and for its linear twin."""
    panels, rows = [], []
    for activation in (setting.activation, LINEAR):
        part, name = f"{task}/{activation}", NAMES[activation]
        sources = {part: ""}
        if part == f"classification/{setting.activation}" and run.parts("prediction/"):
            sources["prediction"] = ", predicted"
        for title, y, columns in (
            ("learned features", "norm of the projections",
             {"core_norm": "core", "background_norm": "background"}),
            ("risk", loss_name, {f"id_{loss}": "ID", f"ood_{loss}": "OOD"}),
        ):  # fmt: skip
            curves = [
                row
                for source, suffix in sources.items()
                for column, label in columns.items()
                for row in curve(run, source, "time", column, label + suffix)
            ]
            panels.append(_panel(curves, f"{name}: {title}", y))
            rows += [{"network": name} | row for row in curves]
    return tuple(panels), tuple(rows)


def _other_data(run: Run, setting: Setting) -> Figure:
    """Risks with several classes, and with more general data."""
    panels, rows = [], []
    for task, loss, title in (
        ("several", "logistic", f"{CLASSES} classes"),
        ("general", setting.loss, "Dependent backgrounds, skewed core weights"),
    ):
        if not run.parts(f"{task}/"):
            continue
        curves = [
            row
            for activation in (setting.activation, LINEAR)
            for where in ("id", "ood")
            for row in curve(run, f"{task}/{activation}", "time", f"{where}_{loss}",
                             f"{NAMES[activation]}, {where.upper()}")
        ]  # fmt: skip
        panels.append(_panel(curves, title, f"{loss} risk"))
        rows += [{"data": title} | row for row in curves]
    return Figure(
        "More classes, and more general data",
        f"{NAMES[setting.activation]} networks also fail with {CLASSES} classes (logistic loss, "
        f"trained head), and with background features that share a quantile with probability "
        f"{COUPLING}; linear networks do not. Bands: all seeds.",
        "ours",
        tuple(panels),
        tuple(rows),
    )


def _asymmetry(run: Run, setting: Setting) -> Figure:
    """Each neuron's mean response to the two classes over training, and shares over seeds."""
    table = run.table("responses/seed")
    panels, rows = [], []
    for time, neurons in table[table["part"] == "responses/seed0"].groupby("time"):
        marks = neurons.sort_values("kind")[["time", "positive", "negative", "kind"]]
        panels.append(
            scatter(
                marks.to_dict("records"),
                title=f"Neurons at training time {time:g}",
                x=("positive", "mean response to class +1"),
                y=("negative", "mean response to class −1"),
                series=("kind", "responds to"),
            )
        )
        rows += marks.to_dict("records")
    shares = (
        table.groupby(["part", "time"])["kind"].value_counts(normalize=True)
        .unstack(fill_value=0.0).stack().rename("share").reset_index()
    )  # fmt: skip
    curves = [
        row | {"what": row["kind"], "value": row["share"]}
        for row in over_seeds(shares.to_dict("records"), ["kind", "time"], "share")
    ]
    panels.append(_panel(curves, "Neurons that respond to", "share of neurons", wide=True))
    return Figure(
        "Activation becomes asymmetric",
        f"Each mark is a neuron of the {NAMES[setting.activation]} network (seed 0). Before "
        "training, a quarter of the neurons has a positive mean response to both classes; after "
        "training, almost none has. The curves are shares of neurons, with bands over all seeds.",
        "Fig. 7",
        tuple(panels),
        tuple(rows + curves),
    )


def summarize(run: Run) -> str:
    """The result in two sentences."""
    results = TwoLayerResults(run)
    setting = results.config.setting

    def mean(column: str, network: str = "classification") -> float:
        return statistics.fmean(_last(column, network)(results))

    text = (
        f"A {NAMES[setting.activation]} network with {setting.width} neurons learned to tell two "
        f"classes apart (ID {setting.loss} risk {mean('id_{loss}'):.3f}), learned background "
        f"features that are independent of the class, and had a risk of {mean('ood_{loss}'):.2f} "
        f"after the background shifted; the linear network's was "
        f"{mean('ood_{loss}', LINEAR_CLASSIFIER):.3f}."
    )
    if uncovered(_flow(results.config)) is None:
        risk = mean("ood_hinge", "prediction")
        text += f" The population model predicted {risk:.2f} without training."
    return text


EXPERIMENT = Experiment(
    name="fig03_two_layer",
    title="Two-layer networks: ReLU learns the background, linear does not",
    about="Inputs are made of core features, which carry the label, and background features, which "
    "are independent of it. Two-layer networks learn to classify them, or to recover the core "
    "features; then the background shifts. The paper gives orders of magnitude; expected ranges "
    "are ours.",
    reproduces=("Fig. 3", "Fig. 7", "Fig. 8", "Fig. 9"),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: Fig. 3, Fig. 7, Fig. 8, Fig. 9."""
