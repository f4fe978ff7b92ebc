"""Every remedy against every kind of failure: where it helps, and where it harms."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import isnan
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pandas
from pydantic import BaseModel, Field, PositiveInt
from scipy.stats import false_discovery_control

from contam.data.worlds import WORLDS
from contam.experiment import Claim, Experiment, NotJudged, Pooled, Stage, Statement, judge_all
from contam.experiments.support.world_networks import (
    ARMS,
    BASELINE,
    KINDS,
    PRETRAINED,
    WorldNetworks,
    WorldZoo,
    without_learning,
)
from contam.measures.paired_comparison import paired_difference
from contam.plots import Figure, bars, matrix
from contam.run import DataFrame, Run
from contam.training.optimize import Recipe

WorldName = Literal["contaminated", "spurious", "corrupted", "undertrained", "healthy"]
LEARNED = 0.5
"""ID accuracy from which on a network has learned its ten classes."""
LEARNED_LESS = 0.2
"""The same for the undertrained world."""
FALSE = 0.05
"""Expected share of effects called sure that are chance."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """The experiment is ours."""

    training: WorldNetworks = WorldNetworks(width=16, train=3600)
    worlds: Annotated[tuple[WorldName, ...], Field(min_length=1)] = (
        "contaminated", "spurious", "corrupted", "undertrained", "healthy",
    )  # fmt: skip
    seeds: PositiveInt = 10


FULL = Config()
HOUR = FULL.model_copy(update={"training": WorldNetworks(pretraining=1500), "seeds": 5})
"""All worlds, in about half an hour on one core."""
LAPTOP = HOUR.model_copy(update={"worlds": ("contaminated", "spurious", "corrupted")})
"""Three of these worlds, with the same numbers, in about three minutes a seed."""
SMOKE = Config(
    training=WorldNetworks(
        recipe=Recipe(1e-2, 0.05, 30, epochs=1),
        fine_tuning_recipe=Recipe(2e-3, 0.05, 30, epochs=1),
        width=4, train=90, pretraining=50, test=90,
    ),
    worlds=("contaminated", "healthy"),
    seeds=2,
)  # fmt: skip


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the networks of each world and seed, and repair them."""
    cases = [*product(range(config.seeds), config.worlds)]
    arms = (PRETRAINED, *ARMS)
    for place, (seed, name) in enumerate(cases):
        zoo = WorldZoo(config.training, name, seed, run)
        for index, arm in enumerate(arms):
            doing = f"{name}, seed {seed}: {arm.name}"
            for done in zoo.train(arm):
                share = 0.95 * (index + done) / len(arms)
                yield Stage((place + share) / len(cases), doing)
        yield Stage((place + 0.95) / len(cases), f"{name}, seed {seed}: repairs")
        zoo.repair()


class RemedyResults(NamedTuple):
    """What claims and figures read."""

    config: Config
    rows: DataFrame
    """A row for each world, seed and remedy: `id`, `ood`, and both without the remedy."""
    effects: DataFrame
    """A row for each remedy and world; see `effects`."""

    def change(self, world: str, remedy: str, test: str = "ood") -> list[float]:
        """The change of an accuracy by a remedy, in points, by seed.

        Raises:
            NotJudged: the run has no such world, or the remedy does not fit there.
        """
        rows = self.rows[(self.rows.world == world) & (self.rows.remedy == remedy)]
        if not len(rows):
            raise NotJudged(f"there is no {remedy} in the {world} world of this run")
        rows = rows.sort_values("seed")
        return (100 * (rows[test] - rows[f"{test}_before"])).tolist()


def _read_results(run: Run) -> RemedyResults:
    """Read a run.

    Source: ours, the rows of a run as one table, which claims and figures share.
    """
    config = Config.model_validate(run.config)
    rows, key = run.table("world/").drop(columns="part"), ["world", "seed"]
    baseline = rows[rows.remedy == BASELINE.name].set_index(key)
    before = baseline[["id", "ood"]].add_suffix("_before")
    repaired = rows.kind == "repair"  # They have the accuracies of the network that they repair.
    trained = rows[~repaired].drop(columns=["id_before", "ood_before"], errors="ignore")
    rows = pandas.concat([trained.join(before, on=key), rows[repaired]], ignore_index=True)
    return RemedyResults(config, rows, effects(rows))


def effects(rows: DataFrame) -> DataFrame:
    """The mean effect of each remedy in each world, with its interval over seeds.

    Args:
        rows: accuracies by `world`, `seed` and `remedy`.

    Returns:
        Columns `remedy`, `kind`, `world`, `seeds`, `labels` of OOD images that are used, and for
        both tests the accuracy before, and the change with both ends of the 95 % interval of
        Student's t, all in points; and `ood_sure` and `id_sure`, whether the change is beyond
        chance. So many effects are compared that a twentieth of those without any would look sure;
        the sure ones are chosen so that at most `FALSE` of them are expected to be chance.

    Source: ours; Benjamini and Hochberg (1995).
    """
    table, p_values = [], {"id": [], "ood": []}
    for (remedy, world), own in rows.groupby(["remedy", "world"], sort=False):
        if own.kind.iloc[0] == "baseline":
            continue
        row = {"remedy": remedy, "kind": own.kind.iloc[0], "world": world}
        row |= {"seeds": len(own), "labels": int(own.labels.max())}
        for test in ("id", "ood"):
            # Rounded, so that equal differences are equal numbers.
            change = (100 * (own[test] - own[f"{test}_before"])).round(9).to_numpy()
            effect = paired_difference(change, 0 * change)
            row |= {f"{test}_before": 100 * own[f"{test}_before"].mean()}
            row |= {f"{test}_change": effect.value}
            row |= {f"{test}_low": effect.low, f"{test}_high": effect.high}
            p_values[test].append(1.0 if isnan(effect.p) else effect.p)
        table.append(row)
    frame = pandas.DataFrame(table)
    for test, p in p_values.items():
        frame[f"{test}_sure"] = false_discovery_control(p) <= FALSE
    words = np.where(frame.ood_change > 0, "helps", "harms")
    return frame.assign(effect=np.where(frame.ood_sure, words, "not shown"))


def _learned(*worlds: str) -> Callable[[RemedyResults], None]:
    def require(results: RemedyResults) -> None:
        base = results.rows[results.rows.remedy == BASELINE.name].groupby("world").id.mean()
        for world in worlds or results.config.worlds:
            if world not in base:
                raise NotJudged(f"there is no {world} world in this run")
            least = LEARNED_LESS if world == "undertrained" else LEARNED
            if base[world] < least:
                raise NotJudged(
                    f"the network of the {world} world did not learn: its ID accuracy is "
                    f"{base[world]:.2f}"
                )

    return require


def _helps(remedy: str, world: str, says: str, low: float) -> Statement:
    return Statement(
        says, "ours", f"OOD accuracy, {world} world: {remedy} minus no remedy, points",
        lambda results: results.change(world, remedy), low, given=_learned(world),
    )  # fmt: skip


def _helping_healthy(results: RemedyResults) -> Pooled:
    table = results.effects[results.effects.world == "healthy"]
    helping = (table.effect == "helps") & (table.ood_change > 1)
    return Pooled(int(helping.sum()), len(table), "remedy")


def _universal(results: RemedyResults) -> Pooled:
    """How many changes of the training and repairs help in every failing world."""
    failing = [world for world in results.config.worlds if WORLDS[world].cause]
    if len(failing) < 3:
        raise NotJudged("this run has fewer than three failing worlds")
    table = results.effects[results.effects.world.isin(failing) & (results.effects.kind != "data")]
    helps = table[table.effect == "helps"].groupby("remedy").world.nunique()
    return Pooled(int((helps == len(failing)).sum()), table.remedy.nunique(), "remedy")


def _harming(results: RemedyResults) -> Pooled:
    harm = results.effects[results.effects.effect == "harms"]
    return Pooled(harm.remedy.nunique(), results.effects.remedy.nunique(), "remedy")


STATEMENTS = (
    _helps("centering", "contaminated", "Centered maps help a network on new backgrounds", 5.0),
    _helps("background negatives", "contaminated",
           "Negatives of backgrounds help a network on new backgrounds", 5.0),
    _helps("stop gradient", "spurious",
           "No gradient outside the object helps a network that relies on the background", 10.0),
    _helps("batch-norm statistics", "corrupted",
           "Batch-norm statistics of OOD images help against corruption", 2.0),
    _helps("more training images", "undertrained", "More images help an undertrained network",
           10.0),
    _helps("training images of the shift", "contaminated",
           "Training images of the shift help on new backgrounds", 10.0),
    _helps("training images of the shift", "spurious",
           "Training images of the shift help against a spurious background", 10.0),
    Statement("No remedy helps a healthy network by more than a point", "ours",
              "remedies that raise OOD accuracy in the healthy world by more than a point beyond "
              "chance", _helping_healthy, high=0.0, given=_learned("healthy")),
    Statement("No change of the training and no repair helps against every failure", "ours",
              "remedies that help in every failing world", _universal, high=0.0,
              given=_learned()),
    Statement("Some remedies harm where they do not belong", "ours",
              "remedies that lower OOD accuracy in some world beyond chance", _harming, low=1.0,
              given=_learned()),
)  # fmt: skip


def claims(run: Run) -> Sequence[Claim]:
    """Remedies help against the failure that they belong to, and some harm elsewhere."""
    return judge_all(STATEMENTS, _read_results(run))


def draw(run: Run) -> Sequence[Figure]:
    """The effect of each remedy in each world, its price on ID data, and the worlds."""
    results = _read_results(run)
    return [_effects_figure(results), _worlds_figure(results)]


def _effects_figure(results: RemedyResults) -> Figure:
    table = results.effects
    order = {name: place for place, name in enumerate(KINDS)}
    table = table.assign(order=table.kind.map(order)).sort_values("order", kind="stable")
    rows = table.drop(columns="order").to_dict("records")
    panels = []
    for test, title in (("ood", "OOD accuracy"), ("id", "ID accuracy")):
        panels.append(
            matrix(rows, title=f"Change of {title}, points", x=("world", ""), y=("remedy", ""),
                   value=(f"{test}_change", f"change of {title}, points"), signed=True,
                   sure=f"{test}_sure")
        )  # fmt: skip
    return Figure(
        "Remedies: where they help and where they harm",
        "Mean change in accuracy, in points, over "
        f"{results.config.seeds} seed{'s' if results.config.seeds > 1 else ''}. Bold changes are "
        "beyond chance (paired t-tests over seeds; at most 5 % of the bold ones are expected to be "
        "chance, by the method of Benjamini and Hochberg). Blue cells help, orange cells harm; a "
        "dash is a remedy that does not fit. The effect of weight interpolation is measured from "
        "the network that was pre-trained on diverse backgrounds and fine-tuned.",
        "ours",
        tuple(panels),
        tuple(rows),
    )


def _worlds_figure(results: RemedyResults) -> Figure:
    base = results.rows[results.rows.remedy == BASELINE.name]
    rows = []
    for world, test in product(results.config.worlds, ("id", "ood")):
        values = base[base.world == world][test]
        rows.append({"world": world, "test": test.upper(), "accuracy": float(values.mean()),
                     "low": float(values.min()), "high": float(values.max())})  # fmt: skip
    return Figure(
        "The worlds without a remedy",
        " ".join(f"{world.capitalize()}: {WORLDS[world].what}" for world in results.config.worlds)
        + " Whiskers: all seeds.",
        "ours",
        (bars(rows, title="Accuracy without a remedy", x=("world", ""), y=("accuracy", "accuracy"),
              series=("test", "")),),
        tuple(rows),
    )  # fmt: skip


def summarize(run: Run) -> str:
    """The best remedy of each world, and how many harm."""
    results = _read_results(run)
    parts = []
    for world in results.config.worlds:
        table = results.effects[(results.effects.world == world) & (results.effects.kind != "data")]
        best = table.loc[table.ood_change.idxmax()]
        parts.append(f"{world}: {best.remedy} ({best.ood_change:+.1f} points)")
    helps, harms = ((results.effects.effect == word).sum() for word in ("helps", "harms"))
    return (
        f"The largest mean gains in OOD accuracy without other training data are {'; '.join(parts)}"
        f". Of {len(results.effects)} pairs of a remedy and a world, {helps} help and {harms} harm "
        "beyond chance."
    )


def null(config: Config) -> Config:
    """The config without any learning.

    Source: ours, the same remedies on networks that learn nothing.
    """
    return config.model_copy(update={"training": without_learning(config.training)})


EXPERIMENT = Experiment(
    name="remedy_effects",
    title="Remedies: which one helps against which failure, and which harm",
    about="A network can fail on new backgrounds, on a spurious background, on corrupted images, "
    "or because it has too few training images; or it does not fail. Every repair, every change of "
    "the training and other training data are tried in each of these worlds, with the same images "
    "and initial weights.",
    reproduces=(),
    presets={"full": FULL, "hour": HOUR, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null,
)
"""Source: ours, the effects of remedies on failures of known cause."""
