"""Can a measure tell contamination from a lack of coverage, without training a second network?

Both make a network fail on new backgrounds. The networks of a pair lack the same backgrounds, and
contamination is blocked in one of them; the difference in OOD accuracy is what contamination costs.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Annotated, Any, NamedTuple

import pandas
import torch
from jaxtyping import Float
from pydantic import BaseModel, Field, PositiveInt, model_validator
from torch import Tensor

from contam.data.objects import Core
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
from contam.experiments.support.background_readings import (
    FROM_ANSWERS,
    FROM_FEATURES,
    centering_gain,
    changed_images,
    network_readings,
    two_layer_readings,
)
from contam.experiments.support.paired_networks import (
    BLOCKED,
    Architecture,
    PairData,
    PairedNetworks,
    PairSetting,
    PairZoo,
    Variant,
    Way,
    accuracy,
    without_learning,
)
from contam.experiments.support.two_layer_runs import changed_fields
from contam.experiments.support.untrained_controls import CONTROLS
from contam.measures.attenuation import above_one
from contam.measures.correlation import Correlation, rank_correlation, spearman
from contam.measures.held_out_choice import held_out_choice
from contam.measures.intervals import Estimate, bootstrap
from contam.plots import Figure, bars, matrix, scatter, share_axes
from contam.rng import generator_for
from contam.run import DataFrame, Run
from contam.theory.distribution import Uniform
from contam.theory.setting import Setting
from contam.theory.trajectory import simulate

TWO_LAYER = (
    "ReLU", "leaky ReLU 0.1", "leaky ReLU 0.3", "leaky ReLU 0.5", "leaky ReLU 0.8", "linear",
    "ReLU, centered inputs",
)  # fmt: skip
"""Two-layer networks: from the most contaminated to two that are not contaminated."""
FIXED = (
    "activation", "slope", "depth", "bias", "head", "initialization", "loss", "optimizer",
    "ambient", "intervention", "data.features.dictionary", "data.features.coherence",
    "data.core_weights", "data.background_weights", "data.ood_weights", "data.classes",
    "data.core_shape",
)  # fmt: skip
"""Fields of the setting that `TWO_LAYER` varies, or for which the measures are not defined."""
RISKS = {
    "id": "ID",
    "flipped": "background flipped",
    "added": "new directions added",
    "added 4": "new directions added, four times the size",
    "replaced": "new directions instead of the background",
}
"""Test distributions of two-layer networks, and their names."""
MEASURES = {
    "loss": "OOD loss",
    **FROM_FEATURES,
    **FROM_ANSWERS,
    "centering": "OOD accuracy gained by centering without training",
    "product": "OOD loss times relative background variance",
}
"""Measures of the plain network that may predict the gap, and their names."""
KNOWN = {key: name for key, name in MEASURES.items() if key in FROM_FEATURES | FROM_ANSWERS}
"""The measures that two-layer networks have, too."""
MEAN = "mean"
"""The mean of the gaps over all ways to block contamination."""
FEW = 8
"""The fewest pair settings for a correlation."""
SHUFFLES = 400
"""Shufflings of the gaps among pairs."""
LEARNED = 0.3
"""The smallest mean ID accuracy of plain networks that learned; guessing gives 0.1."""
PARTS = {"setting": "pair settings", "core": "contents", "architecture": "architectures"}
"""What is held out, and its name."""
ENOUGH = 6
"""The fewest pair settings on which a measure is chosen."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """The experiment is ours."""

    networks: PairedNetworks = PairedNetworks()
    tasks: Annotated[tuple[tuple[Core, Architecture], ...], Field(min_length=1)] = (
        ("shapes", "resnet8-8"),
        ("digits", "resnet8-8"),
        ("shapes", "small_cnn-10"),
        ("shapes", "resnet8-12"),
        ("digits", "resnet8-12"),
    )
    """Contents with an architecture that learns them; the small CNN does not learn the digits."""
    families: Annotated[
        tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1)
    ] = (1, 2, 3, 4, 5)  # fmt: skip
    """Numbers of families of backgrounds in the training data."""
    ways: Annotated[tuple[Way, ...], Field(min_length=1)] = (
        "centered", "instance", "masked", "leaky",
    )  # fmt: skip
    """Ways to block contamination."""
    images: PositiveInt = 400
    """Images of the ID test whose backgrounds are changed."""
    objects: Annotated[int, Field(gt=0, multiple_of=10)] = 50
    """Objects that are shown on every background of a list, a multiple of 10."""
    setting: Setting = Setting(batch_size=500)
    """The two-layer networks; their activation function and the center of their inputs vary."""
    two_layer_seeds: PositiveInt = 4
    """Repetitions of every two-layer network."""
    least_id: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Pairs whose plain network has a lower ID accuracy are left out: it has too little to lose."""
    seeds: PositiveInt = 1
    """Repetitions of every pair with other images and weights, on the same families."""

    @model_validator(mode="after")
    def _is_the_theory_of_the_readings(self) -> "Config":
        if changed := changed_fields(self.setting, FIXED):
            raise ValueError(
                f"{' and '.join(changed)} of the setting must keep the default: the two-layer "
                "networks vary it, or their measures are not defined for other values"
            )
        return self

    @property
    def settings(self) -> list[PairSetting]:
        """What the networks of each pair share."""
        return [PairSetting(*task, k) for task, k in product(self.tasks, self.families)]


FULL = Config()
LAPTOP = FULL.model_copy(
    update={
        "tasks": FULL.tasks[:3],
        "families": (1, 2, 4),
        "ways": ("centered", "instance"),
    }
)
SMOKE = FULL.model_copy(
    update={
        "networks": PairedNetworks(
            recipe=replace(FULL.networks.recipe, epochs=1),
            examples=80,
            id_examples=80,
            ood_examples=80,
        ),
        "tasks": FULL.tasks[:1],
        "families": (1, 2),
        "ways": ("centered", "masked"),
        "images": 40,
        "objects": 20,
        "setting": Setting(steps=60, batch_size=128),
        "two_layer_seeds": 1,
        "least_id": 0.0,
    }
)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train and measure two-layer networks, then the pairs."""
    two_layer = [(name, seed) for name in TWO_LAYER for seed in range(config.two_layer_seeds)]
    pairs = [(setting, seed) for seed in range(config.seeds) for setting in config.settings]
    total = len(two_layer) / 10 + len(pairs)
    for index, (name, seed) in enumerate(two_layer):
        yield Stage(index / 10 / total, f"two-layer network, {name}, seed {seed}")
        part = f"theory/{name.replace(' ', '_').replace(',', '')}/seed{seed}"
        if not run.has(part):
            (state,) = simulate(two_layer_setting(config, name), seed)
            run.write(part, [{"network": name, "seed": seed} | two_layer_readings(state)])
    for index, (setting, seed) in enumerate(pairs):
        before = len(two_layer) / 10 + index
        variants: tuple[Variant, ...] = ("plain", *CONTROLS, *config.ways)
        names = [f"pair/{setting.name}/{variant}/seed{seed}" for variant in variants]
        parts: dict[str, Variant] = dict(zip(names, variants, strict=True))
        parts = {part: variant for part, variant in parts.items() if not run.has(part)}
        zoo = PairZoo(config.networks, seed, run.folder.parent)
        for stage in zoo.train(setting, [*parts.values()]):
            yield Stage((before + 0.8 * stage.done) / total, stage.doing)
        data = PairData(config.networks, setting, seed)
        for place, (part, variant) in enumerate(parts.items()):
            yield Stage((before + 0.8 + 0.2 * place / len(parts)) / total, f"measuring {part}")
            run.write(part, [_network_row(config, zoo, setting, variant, data)])


def two_layer_setting(config: Config, name: str) -> Setting:
    """The setting of a two-layer network of `TWO_LAYER`.

    Source: ours, the theory's network beside the trained ones, with equal parameters.

    >>> two_layer_setting(Config(), "leaky ReLU 0.3").slope
    0.3
    """
    setting = config.setting
    if name == "linear":
        return replace(setting, activation="identity")
    if name.startswith("leaky ReLU "):
        return replace(setting, activation="leaky_relu", slope=float(name.rpartition(" ")[2]))
    if "centered" not in name:
        return setting
    background, ood = Uniform(-0.5, 0.5), Uniform(-1.5, -0.5)
    return replace(
        setting, data=replace(setting.data, background_weights=background, ood_weights=ood)
    )


def _network_row(
    config: Config, zoo: PairZoo, setting: PairSetting, variant: Variant, data: PairData
) -> dict[str, Any]:
    """The accuracies of a network; the plain and the untrained ones have measures, too.

    Source: ours, what is measured of one network, as a row.
    """
    model = zoo.network(setting, variant)
    row: dict[str, Any] = {"setting": setting.name, "seed": zoo.seed, "variant": variant}
    row |= setting._asdict()
    row["id"], row["ood"] = (accuracy(model, t.x, t.y) for t in (data.id_test, data.ood_test))
    if variant in ("plain", *CONTROLS):
        images = changed_images(data, setting, zoo.seed, images=config.images, shown=config.objects)
        row |= network_readings(model, images, answers=variant == "plain")
    if variant == "plain":
        row["loss"] = row["id"] - row["ood"]
        row["product"] = row["loss"] * row["relative"]
        row["centering"] = centering_gain(model, data)
    return row


class GapPrediction(NamedTuple):
    """How well the gap is predicted for contents or architectures that were held out."""

    correlation: Correlation
    """Rank correlation of predictions and gaps."""
    shuffled: float
    """The 95 % quantile of this correlation with shuffled gaps."""
    chosen: list[str]
    """The measure that was chosen when each part was held out."""
    error: float
    """Mean absolute error of the predictions, in accuracy."""


class PairResults(NamedTuple):
    """What claims and figures read."""

    config: Config
    theory: DataFrame
    """A row for each two-layer network."""
    networks: DataFrame
    """A row for each network of the pairs."""
    pairs: DataFrame
    """A row for each pair and for the mean of the ways: `way`, `gap`, `id gap`, measures."""

    def of(self, way: str) -> DataFrame:
        """The pairs of one way to block contamination, or of the mean of all."""
        return self.pairs[self.pairs.way == way]


def _read_results(run: Run) -> PairResults:
    """Read a run.

    Source: ours, the rows of a run joined to pairs of plain and blocked networks.
    """
    config = Config.model_validate(run.config)
    theory = run.table("theory/")
    order = theory.network.map(TWO_LAYER.index)
    theory = theory.assign(order=order).sort_values(["seed", "order"], ignore_index=True)
    networks = run.table("pair/")
    key = ["setting", "seed"]
    by_variant = {name: table.set_index(key) for name, table in networks.groupby("variant")}
    plain = by_variant["plain"]
    plain = plain[plain.id >= config.least_id]
    common = plain[["core", "architecture", "families", "id", "ood", *MEASURES]]
    for name in CONTROLS:
        common = common.join(by_variant[name][[*FROM_FEATURES]].add_prefix(f"{name} "))
    pairs = []
    for way in config.ways:
        blocked = by_variant[way].loc[plain.index]
        pairs.append(
            common.assign(way=way, gap=blocked.ood - plain.ood, id_gap=blocked.id - plain.id)
        )
    mean = common.assign(
        way=MEAN, gap=sum(p.gap for p in pairs) / len(pairs),
        id_gap=sum(p.id_gap for p in pairs) / len(pairs),
    )  # fmt: skip
    return PairResults(config, theory, networks, pandas.concat([*pairs, mean]).reset_index())


def column(table: DataFrame, name: str) -> Float[Tensor, " rows"]:
    """A column as a tensor.

    Source: ours, one measure of every pair, in a fixed order.

    >>> import pandas
    >>> column(pandas.DataFrame({"gap": [1, 2]}), "gap")
    tensor([1., 2.], dtype=torch.float64)
    """
    return torch.tensor(table[name].tolist(), dtype=torch.float64)


def _groups(table: DataFrame, name: str) -> Tensor:
    return torch.tensor(table.groupby(name, sort=True).ngroup().tolist())


def _require_learning(results: PairResults) -> None:
    """Require plain networks that learned.

    Source: ours, networks that did not learn are no evidence about contamination.

    Raises:
        NotJudged: their mean ID accuracy is below `LEARNED`, or none reaches `least_id`.
    """
    table = results.networks[results.networks.variant == "plain"]
    if (score := table.id.mean()) < LEARNED or not len(results.pairs):
        raise NotJudged(f"the plain networks did not learn: their ID accuracy is {score:.2f}")


def require_pairs(results: PairResults, part: str | None = None) -> None:
    """Require enough pairs of networks that learned.

    Args:
        results: the results.
        part: what is held out; enough pair settings have to remain.

    Source: ours, a correlation over few pairs says nothing.

    Raises:
        NotJudged: the networks did not learn, or there are too few pairs.
    """
    _require_learning(results)
    table = results.of(MEAN)
    if table.setting.nunique() < FEW:
        raise NotJudged(f"a correlation needs {FEW} pair settings, not {table.setting.nunique()}")
    if part is None:
        return
    outside = table.setting.nunique() - table.groupby(part).setting.nunique().max()
    if outside < ENOUGH:
        raise NotJudged(
            f"choosing a measure needs {ENOUGH} pair settings outside each of {PARTS[part]}, not "
            f"{outside}"
        )


def _correlated(
    results: PairResults, measure: str, way: str = MEAN, *, given: str | None = None
) -> Correlation:
    """Rank correlation of a measure with the gap; pairs of one setting are resampled together.

    Source: ours, rank correlations, because measures have other units than gaps.
    """
    table = results.of(way)
    return rank_correlation(
        column(table, measure), column(table, "gap"), groups=_groups(table, "setting"),
        given=None if given is None else column(table, given),
    )  # fmt: skip


def predicted(
    results: PairResults, part: str, way: str = MEAN, measures: Sequence[str] = (*MEASURES,)
) -> GapPrediction:
    """Predict the gaps of each content or architecture by a measure chosen on the others.

    Args:
        results: the results.
        part: `setting`, `core` or `architecture`.
        way: the way to block contamination.
        measures: the candidates.

    Source: ours, measures are chosen on other pairs than they are judged on.
    """
    table = results.of(way)
    values = torch.stack([column(table, name) for name in measures])
    gap, parts = column(table, "gap"), _groups(table, part)
    choice = held_out_choice(values, gap, parts)
    draws = generator_for(0, "pairs/shuffled")
    order = torch.stack([torch.randperm(len(gap), generator=draws) for _ in range(SHUFFLES)])
    shuffled = held_out_choice(values, gap[order], parts).predicted
    null = [spearman(one, gap[row]) for one, row in zip(shuffled, order, strict=True)]
    return GapPrediction(
        rank_correlation(choice.predicted, gap, groups=_groups(table, "setting")),
        float(torch.tensor(null, dtype=torch.float64).quantile(0.95)),
        [measures[int(k)] for k in choice.chosen],
        float((choice.predicted - gap).abs().mean()),
    )


def _judged_parts(results: PairResults) -> list[str]:
    """The parts of `PARTS` that a run is large enough to hold out.

    Source: ours, parts of a few pairs can't be judged.
    """
    parts = []
    for part in PARTS:
        with contextlib.suppress(NotJudged):
            require_pairs(results, part)
            parts.append(part)
    return parts


def _gap_estimate(results: PairResults, way: str, name: str = "gap") -> Estimate:
    """The mean gap of a way with its interval over pairs.

    Source: ours, the mean gap of the pairs with an interval over pairs.
    """
    values = column(results.of(way), name)
    return bootstrap(lambda rows: values[rows].mean(), [len(values)])


def reproduced(results: PairResults, measure: str) -> tuple[float, float]:
    """How well a measure reproduces the known answer of the theory.

    Args:
        results: the results.
        measure: one of `KNOWN`.

    Returns:
        The rank correlation with the risk that flipped backgrounds add, over two-layer networks,
        and the measure of linear networks relative to that of ReLU networks.

    Source: ours; Thm. 4.3, Thm. 4.4.
    """
    table = results.theory
    values = column(table, measure)
    means = table.groupby("network")[measure].mean()
    ratio = float(means["linear"] / means["ReLU"]) if means["ReLU"] else float("nan")
    constant = bool((values == values[0]).all())
    return 0.0 if constant else spearman(values, column(table, "negative")), ratio


def _risk(network: str, one: str, other: str) -> Callable[[PairResults], list[float]]:
    def measure(results: PairResults) -> list[float]:
        rows = results.theory[results.theory.network == network]
        return (rows[one] - rows[other]).tolist()

    return measure


def _two_layer_learned(results: PairResults) -> None:
    if (risk := results.theory.id.mean()) > 0.3:
        raise NotJudged(f"the two-layer networks did not learn: their ID risk is {risk:.2f}")


def _theory(says: str, network: str, one: str, source: str, *, low: float | None = None,
            high: float | None = None) -> Statement:  # fmt: skip
    return Statement(
        says, source, f"hinge risk of {network} networks: {RISKS[one]} minus ID",
        _risk(network, one, "id"), low, high, every_seed=True,
        given=_two_layer_learned if high is not None else None,
    )  # fmt: skip


def _reproduces(measure: str) -> Statement:
    def value(results: PairResults) -> Pooled:
        _two_layer_learned(results)
        return Pooled(reproduced(results, measure)[0], len(results.theory), "network")

    return Statement(
        "The measure reproduces the known answer of the theory", "ours",
        "rank correlation with the risk that flipped backgrounds add to two-layer networks: "
        f"{KNOWN[measure]}",
        value, low=0.8,
    )  # fmt: skip


def _gap(way: str) -> Statement:
    def value(results: PairResults) -> Pooled:
        if way not in results.config.ways:
            raise NotJudged(f"this run does not block contamination by {BLOCKED[way]}")
        _require_learning(results)
        estimate = _gap_estimate(results, way)
        return Pooled(estimate.low, len(results.of(way)), "pair")

    return Statement(
        f"At equal coverage, OOD accuracy is higher with {BLOCKED[way]}", "ours",
        f"gap of pairs, {BLOCKED[way]}: lower end of the 95 % interval of the mean", value, low=0.0,
    )  # fmt: skip


def _correlation(measure: str, *, given: str | None = None, low: float) -> Statement:
    def value(results: PairResults) -> Pooled:
        require_pairs(results)
        return Pooled(
            _correlated(results, measure, given=given).value, len(results.of(MEAN)), "pair"
        )

    more = "" if given is None else f" given {MEASURES[given]}"
    return Statement(
        "The measure predicts what contamination costs" if given is None else
        "The measure adds to what the loss predicts", "ours",
        f"rank correlation with the mean gap{more}: {MEASURES[measure]}", value, low,
    )  # fmt: skip


def _out_of_sample(part: str) -> tuple[Statement, Statement]:
    def value(results: PairResults) -> Pooled:
        require_pairs(results, part)
        return Pooled(predicted(results, part).correlation.value, len(results.of(MEAN)), "pair")

    def beyond(results: PairResults) -> Pooled:
        require_pairs(results, part)
        result = predicted(results, part)
        return Pooled(result.correlation.value - result.shuffled, len(results.of(MEAN)), "pair")

    return (
        Statement(
            "A measure that was chosen on other networks predicts what contamination costs", "ours",
            f"rank correlation of predicted and measured mean gap, {PARTS[part]} held out", value,
            low=0.8,
        ),
        Statement(
            "The prediction is better than those of shuffled pairs", "ours",
            f"the same, {PARTS[part]} held out, minus the 95 % quantile of shuffled pairs", beyond,
            low=0.0,
        ),
    )  # fmt: skip


def _agreement(one: str, other: str) -> Statement:
    def value(results: PairResults) -> Pooled:
        require_pairs(results)
        for way in (one, other):
            if way not in results.config.ways:
                raise NotJudged(f"this run does not block contamination by {BLOCKED[way]}")
        first, second = (column(results.of(way), "gap") for way in (one, other))
        return Pooled(spearman(first, second), len(first), "pair")

    return Statement(
        "What contamination costs does not depend on how it is blocked", "ours",
        f"rank correlation of the gaps: {BLOCKED[one]} and {BLOCKED[other]}", value, low=0.8,
    )  # fmt: skip


def _control(results: PairResults) -> Pooled:
    require_pairs(results)
    values = [
        abs(_correlated(results, f"{control} {measure}").value)
        for measure in FROM_FEATURES
        for control in CONTROLS
    ]
    return Pooled(max(values), len(results.of(MEAN)), "pair")


STATEMENTS = (
    _theory("A flipped background costs ReLU networks risk", "ReLU", "flipped", "Thm. 4.3",
            low=0.5),
    _theory("New directions beside the background cost nothing", "ReLU", "added", "ours",
            high=0.02),
    _theory("Nor do new directions of four times the size", "ReLU", "added 4", "ours", high=0.05),
    _theory("A missing background costs ReLU networks risk, too", "ReLU", "replaced", "ours",
            low=0.2),
    _theory("Linear networks lose nothing", "linear", "flipped", "Thm. 4.4", high=0.02),
    _theory("Linear networks lose nothing in new directions", "linear", "added 4", "ours",
            high=0.02),
    *map(_reproduces, KNOWN),
    *map(_gap, BLOCKED),
    *(_agreement("centered", way) for way in BLOCKED if way != "centered"),
    _correlation("loss", low=0.5),
    _correlation("relative", low=0.5),
    _correlation("relative", given="loss", low=0.3),
    *(statement for part in PARTS for statement in _out_of_sample(part)),
    Statement(
        "The same measures of untrained networks predict nothing", "ours",
        "largest absolute rank correlation with the mean gap, untrained networks", _control,
        high=0.4,
    ),
)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """The known answer, the gaps, and what predicts them."""
    return judge_all(STATEMENTS, _read_results(run))


def draw(run: Run) -> Sequence[Figure]:
    """The known answer, the gaps of the pairs, and how well each measure predicts them."""
    results = _read_results(run)
    figures = [_known_answer(results)]
    if len(results.pairs):
        figures.append(_gaps(results))
    try:
        require_pairs(results)
    except NotJudged:
        return figures
    return [*figures, _against_gap(results), _correlations(results), _held_out(results)]


def _known_answer(results: PairResults) -> Figure:
    table = results.theory
    risks = [
        {"network": name, "test": label, "risk": float(rows[key].mean()),
         "low": float(rows[key].min()), "high": float(rows[key].max())}
        for name, rows in table.groupby("network", sort=False)
        for key, label in RISKS.items()
    ]  # fmt: skip
    scores = [
        {"measure": name, "correlation": reproduced(results, key)[0]}
        | {"linear over ReLU": reproduced(results, key)[1]}
        for key, name in KNOWN.items()
    ]
    return Figure(
        "The known answer: two-layer networks of the theory",
        "Left, hinge risk on each test distribution (mean and range of the seeds). New directions "
        "are a change of background without contamination. Right, rank correlation of each measure "
        "with the risk that flipped backgrounds add. Here losses are of hinge risk, negative ID "
        "backgrounds are the flip itself, and noise is new directions instead of the background.",
        "Thm. 4.3",
        (
            bars(risks, title="Risk of two-layer networks", x=("network", ""),
                 y=("risk", "hinge risk"), series=("test", "")),
            bars(scores, title="Measures against the known answer", x=("measure", ""),
                 y=("correlation", "rank correlation")),
        ),
        tuple(scores) + tuple(risks),
    )  # fmt: skip


def _gaps(results: PairResults) -> Figure:
    rows = [
        {"way": BLOCKED[way], "accuracy": label, "n": len(results.of(way))}
        | vars(_gap_estimate(results, way, key))
        for way in results.config.ways
        for key, label in (("gap", "OOD"), ("id_gap", "ID"))
    ]
    gaps = {way: column(results.of(way), "gap") for way in results.config.ways}
    cells = []
    for one, other in product(gaps, gaps):
        if len(gaps[one]) >= FEW:
            cells.append({"one": BLOCKED[one], "other": BLOCKED[other],
                          "agreement": spearman(gaps[one], gaps[other])})  # fmt: skip
    panels = [
        bars(rows, title="Accuracy gained when contamination is blocked", x=("way", ""),
             y=("value", "accuracy, blocked minus plain"), series=("accuracy", ""))
    ]  # fmt: skip
    if cells:
        panels.append(
            matrix(cells, title="Rank correlation of the gaps of two ways", x=("other", ""),
                   y=("one", ""), value=("agreement", "rank correlation"), wide=False)
        )  # fmt: skip
    return Figure(
        "What contamination costs, by the way it is blocked",
        "Both networks of a pair learn from identical images in the same order, from the same "
        "initial weights. Whiskers are 95 % bootstrap intervals over pairs.",
        "ours",
        tuple(panels),
        tuple(rows),
    )


def _against_gap(results: PairResults) -> Figure:
    table = results.of(MEAN)
    panels = [
        scatter(table, title=name[0].upper() + name[1:], x=(key, name),
                y=("gap", "mean gap in OOD accuracy"), series=("core", ""),
                shape=("architecture", ""))
        for key, name in MEASURES.items()
    ]  # fmt: skip
    return Figure(
        "Measures of plain networks against the gap",
        "Every mark is a pair setting; the gap is the mean over the ways to block contamination.",
        "ours",
        share_axes(panels, "y"),
        tuple(table.drop(columns=["way"]).to_dict("records")),
        above_one(table.attenuation),
    )


def _correlations(results: PairResults) -> Figure:
    rows = []
    for key, name in MEASURES.items():
        for label, measure, given in (
            ("alone", key, None), ("given the OOD loss", key, "loss"),
            ("of untrained networks", f"untrained {key}", None),
            ("of calibrated networks", f"calibrated {key}", None),
        ):  # fmt: skip
            if measure not in results.pairs or (given and key == given):
                continue
            value = _correlated(results, measure, given=given)
            rows.append({"measure": name, "kind": label, "correlation": value.value,
                         "low": value.low, "high": value.high, "n": value.count})  # fmt: skip
    return Figure(
        "Rank correlation of each measure with the gap",
        f"{rows[0]['n']} pairs. Whiskers are 95 % bootstrap intervals over pair settings. These "
        "are correlations on the networks on which a measure would be chosen.",
        "ours",
        (bars(rows, title="Rank correlation with the mean gap", x=("measure", ""),
              y=("correlation", "rank correlation"), series=("kind", ""), wide=True),),
        tuple(rows),
    )  # fmt: skip


def _held_out(results: PairResults) -> Figure:
    rows = []
    for part, way in product(_judged_parts(results), [MEAN, *results.config.ways]):
        result = predicted(results, part, way)
        rows.append(
            {"way": BLOCKED.get(way, "mean of the ways"), "held out": PARTS[part],
             "correlation": result.correlation.value, "low": result.correlation.low,
             "high": result.correlation.high, "n": result.correlation.count,
             "shuffled, 95 %": result.shuffled, "mean absolute error": result.error,
             "chosen": ", ".join(MEASURES[key] for key in dict.fromkeys(result.chosen))}
        )  # fmt: skip
    return Figure(
        "Predicting the gap out of sample",
        "The measure and its calibration come from the other pair settings, contents or "
        "architectures. Whiskers "
        "are 95 % bootstrap intervals over pair settings; the table gives the 95 % quantile of "
        "shuffled pairs.",
        "ours",
        (bars(rows, title="Rank correlation of predicted and measured gap", x=("way", ""),
              y=("correlation", "rank correlation"), series=("held out", "")),),
        tuple(rows),
    )  # fmt: skip


def summarize(run: Run) -> str:
    """The known answer, the gaps, and the prediction out of sample."""
    results = _read_results(run)
    risks = results.theory[results.theory.network == "ReLU"][[*RISKS]].mean()
    gaps = ", ".join(
        f"{BLOCKED[way]} {results.of(way).gap.mean():+.3f}" for way in results.config.ways
    )
    text = (
        f"Two-layer ReLU networks have an OOD hinge risk of {risks['flipped']:.2f} on flipped "
        f"backgrounds and {risks['added']:.2f} with new directions. Accuracy gained by blocking "
        f"contamination: {gaps}."
    )
    try:
        require_pairs(results)
    except NotJudged as reason:
        return f"{text} No prediction is judged: {reason}."
    numbers = ", ".join(
        f"{predicted(results, part).correlation.value:.2f} with {PARTS[part]} held out"
        for part in _judged_parts(results)
    )
    return f"{text} Rank correlation of predicted and measured gaps: {numbers}."


def null(config: Config) -> Config:
    """The config without any learning.

    Source: ours, the same networks without learning, where no claim about it may hold.

    >>> null(Config()).setting.step_size == NULL_STEP_SIZE
    True
    """
    return config.model_copy(
        update={
            "networks": without_learning(config.networks),
            "setting": replace(config.setting, step_size=NULL_STEP_SIZE),
        }
    )


EXPERIMENT = Experiment(
    name="contamination_pairs",
    title="Contamination or coverage: which measure tells them apart?",
    about="A network fails on new backgrounds because learning mixed backgrounds into its "
    "features, or because its training images do not cover them. Pairs of networks that learn from "
    "identical images differ only in whether contamination is blocked. The experiment asks which "
    "measure of the plain network predicts the difference in OOD accuracy, first where the theory "
    "knows the answer, then on small image networks, out of sample.",
    reproduces=(),
    presets={"full": FULL, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: ours, contamination told from a lack of coverage."""
