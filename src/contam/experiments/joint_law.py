"""What a background costs, over its correlation with the label and the ease of seeing it.

One edge of the plane is the first paper: a background that is independent of the label harms
nevertheless. The other is the second paper: a background that predicts the label harms if it is
easy, and prediction depth shows it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from torch import Tensor, nn

from contam.batch import Batch, Domain, Shift
from contam.data.dominoes import CORE, NOISE, STRENGTH, background_patterns, dominoes
from contam.experiment import (
    NULL_STEP_SIZE,
    Claim,
    Experiment,
    NotJudged,
    Pooled,
    Stage,
    Statement,
    judge_all,
)
from contam.experiments.support.prediction_depth import depth_row, network
from contam.experiments.support.two_layer_runs import changed_fields, train_into
from contam.experiments.support.untrained_controls import (
    CALIBRATED,
    CONTROLS,
    DRAWN,
    TRAINED,
    controls,
    strictest,
)
from contam.measures.correlation import spearman
from contam.measures.depth import Rule
from contam.measures.layerwise import predictions
from contam.plots import Figure, bars, contact_sheet, lines, matrix, over_seeds
from contam.rng import bit_generator_for, generator_for
from contam.run import DataFrame, Run
from contam.theory.coverage import uncovered
from contam.theory.distribution import Uniform
from contam.theory.initialization import initial_network
from contam.theory.meanfield import Neurons, advance
from contam.theory.population import hinge_risk
from contam.theory.risks import held_out, risk
from contam.theory.setting import Setting
from contam.theory.trajectory import State
from contam.training.checkpointed import checkpointed
from contam.training.supervised import fit

MURALI = "Murali et al. (2023)"
RANDOMIZED, REVERSED = "backgrounds randomized", "backgrounds reversed"
"""Tests with backgrounds independent of the label: those of training, and those subtracted."""
LEARNED = 0.15
"""How far above guessing the ID accuracy of a network that learned is."""
CHANGES = {
    "trained_change": (TRAINED,), "untrained_change": (DRAWN,), "calibrated_change": (CALIBRATED,),
    **{f"beyond_{control}": (TRAINED, control) for control in CONTROLS},
}  # fmt: skip
"""Changes of depth by a background: of trained networks, of untrained ones, and the differences."""
BEYOND = tuple(f"beyond_{control}" for control in CONTROLS)
SHOWN = 10
"""Number of pictures of a background in the figure."""

SWEPT = ("data.background_weights", "data.ood_weights", "data.correlation")
"""Fields of the setting that sizes and correlations determine."""

UnitInterval = Annotated[float, Field(ge=0, le=1)]


class DeepNetworks(BaseModel, frozen=True, extra="forbid"):
    """Size and training of the deep networks."""

    width: PositiveInt = 12
    """Channels of the first stage."""
    epochs: PositiveInt = 8
    batch_size: PositiveInt = 32
    step_size: PositiveFloat = 3e-3
    """Maximum step size of AdamW."""
    weight_decay: NonNegativeFloat = 0.05


class Config(BaseModel, frozen=True, extra="forbid"):
    """The experiment is ours: neither paper varies both."""

    correlations: Annotated[tuple[UnitInterval, ...], Field(min_length=2)] = (0, 0.3, 0.6, 0.9, 1)
    """Correlations of background and label in training; 0 is the first paper, 1 a shortcut."""
    contrasts: Annotated[tuple[PositiveFloat, ...], Field(min_length=2)] = (
        0.01, 0.03, 0.1, 0.3, 1.0,
    )  # fmt: skip
    """Standard deviations of a background's pixels, from hard to see to easy."""
    sizes: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.25, 0.5, 1.0, 2.0)
    """Largest background weights in the theory, where that of a core feature is 1."""
    setting: Setting = Setting()
    """The two-layer networks; sizes and correlations change their data."""
    deep: DeepNetworks = DeepNetworks()
    """The deep networks."""
    train: PositiveInt = 1600
    """Training pictures of a deep network."""
    test: PositiveInt = 800
    per_class: PositiveInt = 500
    """Training pictures of each class in the support of prediction depth."""
    rule: Rule = Rule()
    seeds: PositiveInt = 5

    @model_validator(mode="after")
    def _is_the_theory_of_the_claims(self) -> "Config":
        if changed := changed_fields(self.setting, SWEPT):
            raise ValueError(
                f"{' and '.join(changed)} of the setting must keep the default: sizes and "
                "correlations set it"
            )
        if self.setting.loss != "hinge" or self.setting.data.classes != 2:
            raise ValueError("loss must be hinge and classes 2, which the claims are about")
        return self


FULL = Config()
LAPTOP = Config(correlations=(0, 0.5, 0.9, 1), seeds=3)
SMOKE = LAPTOP.model_copy(
    update={
        "correlations": (0, 1), "contrasts": (0.05, 1.0), "sizes": (0.5, 1.0),
        "setting": Setting(steps=40),
        "deep": DeepNetworks(width=4, epochs=2, batch_size=8, step_size=1e-2),
        "train": 80, "test": 40, "per_class": 30, "rule": Rule(k=9), "seeds": 1,
    }
)  # fmt: skip


def two_layer_part(size: float, correlation: float) -> str:
    """The parts of a run with two-layer networks, without the seed.

    >>> two_layer_part(0.5, 1.0)
    'theory/size0.5-correlation1'
    """
    return f"theory/size{size:g}-correlation{correlation:g}"


def predicted_part(size: float, correlation: float) -> str:
    """The part of a run with the prediction of two-layer networks.

    >>> predicted_part(0.5, 1.0)
    'predicted/size0.5-correlation1'
    """
    return f"predicted/size{size:g}-correlation{correlation:g}"


class DeepCell(NamedTuple):
    """What a deep network learns from."""

    contrast: float
    """Standard deviation of the background's pixels at strength 1; 0 for no background."""
    correlation: float
    """Correlation of background and label in training and ID test."""
    digits: bool = True
    """Whether there are digits; otherwise noise is in their place."""

    def part(self, seed: int) -> str:
        """The part of a run that holds a network's rows."""
        kind = "digits" if self.digits else "alone"
        return f"net/{kind}-contrast{self.contrast:g}-correlation{self.correlation:g}/seed{seed}"


def shift_of(config: Config, cell: DeepCell, seed: int) -> Shift:
    """Return digits on backgrounds that are correlated with the label in training.

    `Batch.domain` is the index of the background. It is the label with a probability of
    (1 + correlation) / 2. The OOD tests have the digits of the ID test, pixel for pixel, on
    backgrounds that are independent of the label: added as in training, or subtracted.

    Args:
        config: the sizes of the parts.
        cell: contrast and correlation of the backgrounds.
        seed: random seed.

    Source: ours, Def. 3.1 with correlated backgrounds, on the dominoes of Murali et al. (2023).
    """
    base = dominoes(
        NOISE, CORE if cell.digits else NOISE, train=config.train, validation=0, test=config.test,
        seed=seed,
    )  # fmt: skip
    train, test = base.train[0], base.id_test
    patterns = cell.contrast * background_patterns(test.data.x.shape[2], test.data.x.shape[3], seed)

    def shown(domain: Domain, rho: float, name: str, sign: int = 1) -> Domain:
        draws = generator_for(seed, f"joint law/{name}")
        agrees = torch.rand(len(domain), generator=draws) < (1 + rho) / 2
        which = torch.where(agrees, domain.y, 1 - domain.y)
        low, high = STRENGTH
        strength = low + (high - low) * torch.rand(len(domain), 1, 1, 1, generator=draws)
        x = domain.data.x + sign * strength * patterns[which]
        return Domain(name, Batch(x, domain.y, which))

    return Shift(
        f"digits on backgrounds of contrast {cell.contrast:g}, correlation {cell.correlation:g}",
        base.classes,
        (shown(train, cell.correlation, "training"),),
        shown(test, cell.correlation, "as in training"),
        (shown(test, 0, RANDOMIZED), shown(test, 0, REVERSED, sign=-1)),
    )


def _setting_of(config: Config, size: float, correlation: float) -> Setting:
    """The setting of a two-layer network whose background weights go up to `size`."""
    data = replace(
        config.setting.data, background_weights=Uniform(0.0, size),
        ood_weights=Uniform(-size, 0.0), correlation=correlation,
    )  # fmt: skip
    return replace(config.setting, data=data)


def deep_cells(config: Config) -> list[DeepCell]:
    """What the deep networks of a seed learn from: no background, it alone, and the plane.

    >>> cells = deep_cells(Config(contrasts=(0.5, 1.0), correlations=(0.0, 0.9)))
    >>> [cell.contrast for cell in cells if cell.digits]
    [0.0, 0.5, 0.5, 1.0, 1.0]
    """
    plane = product(config.contrasts, config.correlations)
    return [
        DeepCell(0.0, 0.0),
        *(DeepCell(contrast, 1.0, digits=False) for contrast in config.contrasts),
        *(DeepCell(*place) for place in plane),
    ]


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train two-layer networks and deep networks over the plane, and measure each."""
    plane = list(product(config.sizes, config.correlations))
    works: list[tuple[str, float, Callable[[], Iterator[float]]]] = []
    for size, rho in plane:
        if uncovered(_setting_of(config, size, rho)) is None:
            works.append(("prediction of two-layer networks", 0.1,
                          partial(_predict, config, run, size, rho)))  # fmt: skip
    for seed in range(config.seeds):
        for size, rho in plane:
            works.append((f"seed {seed}: two-layer network", 0.1,
                          partial(_two_layer, config, run, size, rho, seed)))  # fmt: skip
        for cell in deep_cells(config):
            doing = f"seed {seed}: contrast {cell.contrast:g}, correlation {cell.correlation:g}"
            works.append((doing, 1.0, partial(_deep, config, run, cell, seed)))
    total, finished = sum(weight for _, weight, _ in works), 0.0
    for doing, weight, work in works:
        for done in work():
            yield Stage((finished + weight * done) / total, doing)
        finished += weight


def _predict(config: Config, run: Run, size: float, rho: float) -> Iterator[float]:
    """Predict the losses of a two-layer network from its initial weights, without training it."""
    part = predicted_part(size, rho)
    if run.has(part):
        return
    setting = _setting_of(config, size, rho)
    network = initial_network(setting, seed=0)
    weights = network.head.weight.detach()[0]
    neurons = Neurons.read(network.projections, weights, core=setting.data.features.core)
    for step in range(setting.steps):
        neurons = advance(neurons, setting)
        yield (step + 1) / setting.steps
    randomized = replace(setting, data=replace(setting.data, correlation=0.0))
    run.write(part, [{
        "size": size, "correlation": rho, "id": hinge_risk(neurons, setting).hinge,
        "randomized": hinge_risk(neurons, randomized).hinge,
        "reversed": hinge_risk(neurons, setting, "ood").hinge,
    }])  # fmt: skip


def _two_layer(config: Config, run: Run, size: float, rho: float, seed: int) -> Iterator[float]:
    setting = _setting_of(config, size, rho)
    randomized = replace(setting.data, correlation=0.0)

    def measured(state: State) -> dict[str, float]:
        draws = bit_generator_for(seed, f"held out {RANDOMIZED}")
        samples = {
            "id": held_out(state, "id"),
            "randomized": randomized.sample(8192, draws, "id", dtype=setting.dtype),
            "reversed": held_out(state, "ood"),
        }
        return {name: risk(state, sample).loss for name, sample in samples.items()} | {
            "size": size, "correlation": rho, "seed": seed,
        }  # fmt: skip

    part = f"{two_layer_part(size, rho)}/seed{seed}"
    yield from train_into(run, part, setting, seed, points=1, measure=measured)


def _deep(config: Config, run: Run, cell: DeepCell, seed: int) -> Iterator[float]:
    part = cell.part(seed)
    if run.has(part):
        return
    shift = shift_of(config, cell, seed)
    tests = {"id": shift.id_test, "randomized": shift.ood_tests[0], "reversed": shift.ood_tests[1]}
    deep = config.deep
    model = network("resnet8", deep.width, seed)
    epoch = config.train // deep.batch_size

    def measured(state: str, one: nn.Module) -> dict[str, Any]:
        row = cell._asdict() | {"seed": seed, "state": state}
        accuracies = {
            name: float((predictions(one, test) == test.y).double().mean())
            for name, test in tests.items()
        }
        depth = depth_row(one, shift, per_class=config.per_class, rule=config.rule, seed=seed)
        return row | accuracies | depth

    def before() -> list[dict[str, Any]]:
        return [measured(*control) for control in controls(model, shift.train, seed).items()]

    _, rows = yield from checkpointed(
        run,
        part,
        partial(
            fit, model, shift, epochs=deep.epochs, batch_size=deep.batch_size,
            step_size=deep.step_size, weight_decay=deep.weight_decay, seed=seed,
            report_every=deep.epochs * epoch,
        ),
        measure=lambda stage: [measured(TRAINED, model)],
        before=before,
    )  # fmt: skip
    keep = seed == 0 and cell.digits and cell.correlation == config.correlations[0]
    run.write(part, rows, _pictures(shift) if keep else None)


def _pictures(shift: Shift) -> dict[str, Tensor]:
    tests = (shift.id_test, shift.ood_tests[1])
    return {"pictures": torch.stack([test.data.x[:SHOWN] for test in tests])}


class JointLawResults:
    """The rows of a run, and what a background costs in each cell of the plane."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        self.two_layer = run.table("theory/").groupby("part", sort=False).tail(1)
        self.predicted = run.table("predicted/")
        self.table = run.table("net/")
        index = ["digits", "state", "contrast", "correlation", "seed"]
        self.deep = self.table.set_index(index).sort_index()

    def accuracy(
        self, column: str, contrast: float, rho: float, *, state: str = TRAINED, digits: bool = True
    ) -> np.ndarray:
        """(seeds,) a column of deep networks.

        Raises:
            NotJudged: the run has no such cell.
        """
        key = (digits, state, contrast, float(rho))
        if key not in self.deep.index:
            raise NotJudged(f"the run has no contrast {contrast:g} at correlation {rho:g}")
        return self.deep.loc[key, column].to_numpy(dtype=float)

    def require_learning(self, contrast: float, rho: float) -> None:
        """Require networks whose ID accuracy is above guessing.

        Raises:
            NotJudged: one did not learn.
        """
        lowest = self.accuracy("id", contrast, rho).min()
        if lowest < 0.5 + LEARNED:
            raise NotJudged(f"a network did not learn: its ID accuracy is {lowest:.2f}")

    def harm(self, contrast: float, rho: float, part: str = "all") -> np.ndarray:
        """(seeds,) ID accuracy that a background costs: by correlation, by reversal, or in all."""
        first, last = {"all": ("id", "reversed"), "correlation": ("id", "randomized"),
                       "reversal": ("randomized", "reversed")}[part]  # fmt: skip
        return self.accuracy(first, contrast, rho) - self.accuracy(last, contrast, rho)

    def deepening(
        self, contrast: float, rho: float, *, states: Sequence[str] = (TRAINED,)
    ) -> np.ndarray:
        """(seeds,) mean depth minus that without a background.

        With two states, trained and a control, it is the first minus the second.
        """
        changes = [
            self.accuracy("depth", contrast, rho, state=state)
            - self.accuracy("depth", 0.0, 0.0, state=state)
            for state in states
        ]
        return changes[0] - sum(changes[1:])

    def loss(self, size: float, rho: float, *, first: str, last: str) -> np.ndarray:
        """(seeds,) difference of two losses of two-layer networks, of `last` minus of `first`."""
        rows = self.two_layer
        rows = rows[(rows["size"] == size) & (rows.correlation == rho)]
        if not len(rows):
            raise NotJudged(f"the run has no size {size:g} at correlation {rho:g}")
        return (rows[last] - rows[first]).to_numpy(dtype=float)

    def prediction_error(self) -> float:
        """Largest |predicted - trained| loss of two-layer networks on a test, means over seeds.

        Raises:
            NotJudged: there are no predictions, or the networks did not learn.
        """
        if not len(self.predicted):
            raise NotJudged("the population model does not cover the two-layer networks")
        losses = ["id", "randomized", "reversed"]
        trained = self.two_layer.groupby(["size", "correlation"])[losses].mean()
        if not trained["id"].max() <= 0.5:
            raise NotJudged("a two-layer network did not learn")
        predicted = self.predicted.set_index(["size", "correlation"])[losses]
        return float((predicted - trained).abs().to_numpy().max())

    def cells(self) -> DataFrame:
        """A row for each deep network on backgrounds: its costs and the change of its depth."""
        table = self.table
        rows = table[table.digits & (table.state == TRAINED) & (table.contrast > 0)]
        rows = rows.assign(
            harm=rows.id - rows.reversed,
            by_correlation=rows.id - rows.randomized,
            by_reversal=rows.randomized - rows.reversed,
        )
        places = list(product(self.config.contrasts, self.config.correlations))
        for column, states in CHANGES.items():
            changes = {place: self.deepening(*place, states=states) for place in places}
            rows[column] = [
                changes[row.contrast, row.correlation][row.seed] for row in rows.itertuples()
            ]
        return rows

    def alarm(self, *, correlated: bool, column: str) -> Pooled:
        """Rank correlation of cost and decrease of depth, with correlated backgrounds or without.

        The decrease is that of trained networks, or what they have beyond an untrained one.

        Raises:
            NotJudged: too few cells, or no network learned.
        """
        cells = self.cells()
        cells = cells[(cells.correlation > 0) if correlated else (cells.correlation == 0)]
        cells = cells[cells[column].notna()]
        accuracy = cells.id.mean()
        if accuracy < 0.5 + LEARNED:
            raise NotJudged(f"the networks did not learn: their ID accuracy is {accuracy:.2f}")
        if len(cells) < 9 or cells.harm.nunique() < 2 or cells[column].nunique() < 2:
            raise NotJudged("there are fewer networks than a correlation needs")
        harm, change = (torch.tensor(cells[key].tolist()) for key in ("harm", column))
        return Pooled(spearman(harm, -change), len(cells), "network")


def _easy(results: JointLawResults) -> float:
    return results.config.contrasts[-1]


def _deep_harm(rho: float, part: str = "all") -> Callable[[JointLawResults], list[float]]:
    def measure(results: JointLawResults) -> list[float]:
        results.require_learning(_easy(results), rho)
        return results.harm(_easy(results), rho, part).tolist()

    return measure


def _deepening(rho: float) -> Callable[[JointLawResults], list[float]]:
    def measure(results: JointLawResults) -> list[float]:
        results.require_learning(_easy(results), rho)
        return results.deepening(_easy(results), rho).tolist()

    return measure


def _deepening_learned(rho: float, *, at_least: bool) -> Callable[[JointLawResults], list[float]]:
    """The change of depth beyond the untrained network that supports the claim the least."""

    def measure(results: JointLawResults) -> list[float]:
        results.require_learning(_easy(results), rho)
        changes = [results.deepening(_easy(results), rho, states=CHANGES[key]) for key in BEYOND]
        return strictest(changes, at_least=at_least).tolist()

    return measure


def _alarm_learned(results: JointLawResults) -> Pooled:
    alarms = [results.alarm(correlated=True, column=column) for column in BEYOND]
    return min(alarms, key=lambda alarm: alarm.value)


def _faint(results: JointLawResults) -> list[float]:
    contrast = results.config.contrasts[0]
    results.require_learning(contrast, 1)
    return results.harm(contrast, 1).tolist()


def _theory_harm(results: JointLawResults) -> list[float]:
    return results.loss(1.0, 0, first="id", last="reversed").tolist()


def _theory_growth(results: JointLawResults) -> list[float]:
    correlated, independent = (
        results.loss(1.0, rho, first="id", last="randomized") for rho in (1, 0)
    )
    return (correlated - independent).tolist()


def _theory_reversal(results: JointLawResults) -> list[float]:
    reversal = results.loss(1.0, 1, first="randomized", last="reversed")
    return (reversal - results.loss(1.0, 1, first="id", last="randomized")).tolist()


STATEMENTS = (
    Statement("Two-layer networks: a background that is independent of the label harms", "Thm. 4.3",
              "OOD minus ID hinge loss at correlation 0, weights up to 1", _theory_harm,
              low=0.7, high=1.0),
    Statement("Two-layer networks: a shortcut adds harm when its correlation ends", "ours",
              "hinge loss with randomized minus as in training, at correlation 1 minus at 0",
              _theory_growth, low=0.05),
    Statement("Two-layer networks: reversal costs more than the end of the correlation, even of a "
              "perfect shortcut", "ours",
              "hinge loss at correlation 1: reversed minus twice randomized plus as in training",
              _theory_reversal, low=0.3),
    Statement("The population model predicts the two-layer networks over the whole plane", "ours",
              "largest |predicted - trained| hinge loss over the plane and the three tests, means "
              "over seeds", lambda r: [r.prediction_error()], high=0.03),
    Statement("Deep networks: an easy background that is independent of the label harms",
              "Thm. 4.3", "accuracy that reversal costs at correlation 0, highest contrast",
              _deep_harm(0), low=0.15),
    Statement("Deep networks: an easy background that predicts the label harms", MURALI,
              "accuracy that randomized backgrounds cost at correlation 1, highest contrast",
              _deep_harm(1, "correlation"), low=0.3, every_seed=True),
    Statement("Deep networks: a background too faint to see does not harm, even if it predicts the "
              "label", MURALI, "accuracy that reversal costs at correlation 1, lowest contrast",
              _faint, high=0.05),
    Statement("Prediction depth shows the easy shortcut", MURALI,
              "mean depth at correlation 1 and the highest contrast minus without a background, "
              "probes", _deepening(1), high=-0.3, every_seed=True),
    Statement("That decrease is a trace of learning", MURALI,
              "the same minus the same of untrained networks, probes",
              _deepening_learned(1, at_least=False), high=-0.3, every_seed=True),
    Statement("Prediction depth does not show contamination: decisions are later, not earlier",
              "ours", "mean depth at correlation 0 and the highest contrast minus without a "
              "background, probes", _deepening(0), low=0.0, every_seed=True),
    Statement("They are later beyond untrained networks, too", "ours",
              "the same at correlation 0, minus the same of untrained networks, probes",
              _deepening_learned(0, at_least=True), low=0.0, every_seed=True),
    Statement("Where background and label are correlated, networks with more harm decide earlier",
              MURALI, "rank correlation of harm and decrease of depth, correlation above 0",
              lambda r: r.alarm(correlated=True, column="trained_change"), low=0.5),
    Statement("They also do beyond untrained networks", MURALI,
              "rank correlation of harm and decrease of depth minus that of untrained networks, "
              "correlation above 0", _alarm_learned, low=0.5),
    Statement("Where they are independent, networks with more harm do not decide earlier", "ours",
              "rank correlation of harm and decrease of depth, correlation 0",
              lambda r: r.alarm(correlated=False, column="trained_change"), high=0.0),
)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """Judge both edges of the plane, and where prediction depth shows the harm."""
    return judge_all(STATEMENTS, JointLawResults(run))


def draw(run: Run) -> Sequence[Figure]:
    """The pictures, the cost over the plane, its two parts, and the change of depth."""
    results = JointLawResults(run)
    return [_pictures_figure(run, results), _surfaces(results), _parts(results), _depths(results)]


def _pictures_figure(run: Run, results: JointLawResults) -> Figure:
    first = results.config.correlations[0]
    rows = [
        [x.permute(1, 2, 0).clamp(0, 1).numpy() for x in images]
        for contrast in results.config.contrasts
        for images in run.arrays(DeepCell(contrast, first).part(0))["pictures"]
    ]
    names = ", ".join(f"{contrast:g}" for contrast in results.config.contrasts)
    return Figure(
        "Digits on backgrounds",
        f"Test pictures at contrasts of {names}, from top to bottom: first as in training, then "
        "with the background subtracted. The digit below determines the class; noise is above it.",
        "ours",
        (contact_sheet(rows, title="As in training, and reversed"),),
    )


def _surfaces(results: JointLawResults) -> Figure:
    cells = results.cells()
    deep = over_seeds(cells, ["contrast", "correlation"], "harm")
    losses = results.two_layer.assign(harm=results.two_layer.reversed - results.two_layer.id)
    theory = over_seeds(losses, ["size", "correlation"], "harm")
    panels = (
        matrix(deep, title="Deep networks", x=("correlation", "correlation with the label"),
               y=("contrast", "contrast of the background"),
               value=("harm", "accuracy lost"), wide=False),
        matrix(theory, title="Two-layer networks", x=("correlation", "correlation with the label"),
               y=("size", "largest background weight"), value=("harm", "hinge loss gained"),
               wide=False),
    )  # fmt: skip
    about, formula = "", []
    if len(results.predicted):
        losses = results.predicted.assign(harm=results.predicted.reversed - results.predicted.id)
        formula = over_seeds(losses, ["size", "correlation"], "harm")
        predicted = matrix(
            formula, title="Two-layer networks, predicted",
            x=("correlation", "correlation with the label"),
            y=("size", "largest background weight"), value=("harm", "hinge loss gained"),
            wide=False,
        )  # fmt: skip
        panels, about = (*panels, predicted), " Last: what the population model predicts for them."
    return Figure(
        "What a background costs",
        "First: ID accuracy minus accuracy with reversed backgrounds that are independent of the "
        "label (0.5 is all that networks of two classes can lose). Second: the same as an "
        "increase of the hinge loss, for networks on the data model of the paper. The first column "
        f"is feature contamination, the last a shortcut. Means over seeds.{about}",
        "ours",
        panels,
        tuple([*({"networks": "deep"} | row for row in deep),
               *({"networks": "two-layer"} | row for row in theory),
               *({"networks": "two-layer, predicted"} | row for row in formula)]),
    )  # fmt: skip


def _parts(results: JointLawResults) -> Figure:
    cells = results.cells()
    kinds = {"by_correlation": "the correlation ends", "by_reversal": "the background is reversed"}
    long = [
        {"contrast": row["contrast"], "correlation": row["correlation"], "cost": kind}
        | {"accuracy": row[key], "low": row["low"], "high": row["high"]}
        for key, kind in kinds.items()
        for row in over_seeds(cells, ["contrast", "correlation"], key)
    ]
    panels = tuple(
        lines(
            [row for row in long if row["contrast"] == contrast],
            title=f"Contrast {contrast:g}",
            x=("correlation", "correlation with the label"),
            y=("accuracy", "accuracy lost"),
            series=("cost", "lost when"),
            points=True,
        )
        for contrast in results.config.contrasts
    )
    return Figure(
        "Two ways to lose accuracy",
        "Deep networks. The end of the correlation keeps the backgrounds and makes them "
        "independent of the label. Reversal then subtracts them. Bands: range over seeds.",
        "ours",
        panels,
        tuple(long),
    )


def _depths(results: JointLawResults) -> Figure:
    cells = results.cells()
    titles = {
        "trained_change": "Change of depth, trained", "untrained_change": "Untrained",
        "calibrated_change": "Calibrated",
    }  # fmt: skip
    panels, rows = [], []
    for column, title in titles.items():
        change = [
            row | {"contrast": f"{row['contrast']:g}"}
            for row in over_seeds(cells, ["contrast", "correlation"], column)
        ]
        panels.append(
            lines(change, title=title, x=("correlation", "correlation with the label"),
                  y=(column, "probes, against no background"), series=("contrast", "contrast"),
                  points=True)
        )  # fmt: skip
        rows += change
    depths = over_seeds(cells, ["contrast", "correlation"], "depth")
    none = float(np.mean(results.accuracy("depth", 0.0, 0.0)))
    panels.insert(0, matrix(
        depths, title="Mean prediction depth, trained",
        x=("correlation", "correlation with the label"),
        y=("contrast", "contrast of the background"), value=("depth", "probes"), wide=False,
    ))  # fmt: skip
    alone = results.table[~results.table.digits]
    difficulty = [
        row | {"contrast": f"{row['contrast']:g}"}
        for row in over_seeds(alone, ["contrast", "state"], "depth")
    ]
    last = bars(difficulty, title="Depth of a background alone", x=("contrast", "contrast"),
                y=("depth", "mean prediction depth (probes)"), series=("state", ""))  # fmt: skip
    return Figure(
        "Where prediction depth shows the harm",
        f"First: mean depth of ID test pictures; without backgrounds it is {none:.2f}. Then: the "
        "change against networks without backgrounds. A decrease is the alarm of the second paper; "
        "untrained networks, as drawn and with calibrated batch norms, show what neighbors in the "
        "pictures decide alone. Last: how hard a background is to learn when nothing else predicts "
        "the label.",
        MURALI,
        (*panels, last),
        tuple([*depths, *rows, *difficulty]),
    )


def summarize(run: Run) -> str:
    """The costs at the corners of the plane and what depth shows there, in two sentences."""
    results = JointLawResults(run)
    easy = _easy(results)
    ends = (results.config.correlations[0], results.config.correlations[-1])
    harm = " and ".join(f"{results.harm(easy, rho).mean():.0%} at {rho:g}" for rho in ends)
    change = " and ".join(f"{results.deepening(easy, rho).mean():+.2f} at {rho:g}" for rho in ends)
    return (
        "At the highest contrast, reversed backgrounds cost this share of the test pictures by "
        f"the background's correlation with the label: {harm}. The mean prediction depth changes "
        f"by this number of probes: {change}."
    )


def _null(config: Config) -> Config:
    deep = config.deep.model_copy(update={"step_size": NULL_STEP_SIZE})
    setting = replace(config.setting, step_size=NULL_STEP_SIZE)
    return config.model_copy(update={"deep": deep, "setting": setting})


EXPERIMENT = Experiment(
    name="joint_law",
    title="Both papers in one plane: correlation with the label and ease of the background",
    about="Feature contamination says that a background harms although it is independent of the "
    "label. Murali et al. (2023) say that a feature that predicts the label harms if it is easier "
    "than the core. Here the same background goes from independent to perfectly predictive, and "
    "from too faint to see to easy, in two-layer networks and in deep ones.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=_null,
)
"""Source: ours; Thm. 4.3 at correlation 0, Murali et al. (2023) at correlation 1."""
