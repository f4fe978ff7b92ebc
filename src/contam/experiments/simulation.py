"""One network on the paper's data, for any setting: the unit of sweeps."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, PositiveInt

from contam.experiment import (
    Claim,
    Experiment,
    NotJudged,
    Stage,
    Statement,
    difference,
    judge_all,
    ratio,
)
from contam.experiments.support.two_layer_runs import curve, null_setting, train_into
from contam.plots import Figure, lines
from contam.run import Run
from contam.theory.distribution import DataModel
from contam.theory.features import FeatureModel
from contam.theory.setting import Setting
from contam.theory.summary import summary

LEARNED = 0.5
"""Share of the initial ID risk at which a network has learned. Contamination is judged in those
only."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """The published setting (App. F.1), and ours for what the paper does not give."""

    setting: Setting = Setting(examples=1000, optimizer="momentum", step_size=1e-3, steps=20_000)
    """The data, the network and the optimizer."""
    test_examples: PositiveInt = 10_000
    """Ours: held-out examples for each risk and each rate."""
    points: PositiveInt = 20
    """Ours: measurements after the initial one."""
    seeds: PositiveInt = 4
    """Ours: the paper does not give a number."""


PAPER = Config()
LAPTOP = Config(setting=Setting(batch_size=500), test_examples=3000, points=4)
SMOKE = Config(
    setting=Setting(data=DataModel(FeatureModel(8, 8, 64)), width=64, batch_size=200),
    test_examples=1000,
    points=1,
    seeds=2,
)


def compute(config: Config, run: Run) -> Iterator[Stage]:
    """Train the network from every seed."""
    for seed in range(config.seeds):
        for share in train_into(
            run,
            f"network/seed{seed}",
            config.setting,
            seed,
            points=config.points,
            measure=lambda state: summary(state, examples=config.test_examples),
        ):
            yield Stage((seed + share) / config.seeds, f"seed {seed}")


class SimulationResults:
    """The first and the last record of every seed."""

    def __init__(self, run: Run) -> None:
        self.config = Config.model_validate(run.config)
        rows = [run.read(part) for part in run.parts("network/")]
        self._ends = {"first": [r[0] for r in rows], "last": [r[-1] for r in rows]}

    def at(self, when: str, column: str) -> list[float]:
        """Values of a column, one per seed, before or after training."""
        column = column.format(loss=self.config.setting.loss)
        values = [row[column] for row in self._ends[when] if row.get(column) is not None]
        if len(values) < len(self._ends[when]):
            raise NotJudged(f"networks of this setting have no {column!r}")
        return values


Measure = Callable[[SimulationResults], list[float]]
"""One value per seed."""


def _last(column: str) -> Measure:
    """A column when training ends."""
    return lambda results: results.at("last", column)


SHARE_LEFT = ratio(_last("id_{loss}"), lambda results: results.at("first", "id_{loss}"))
"""ID risk after training over ID risk before."""


def _learned(results: SimulationResults) -> None:
    """Require that training at least halved the ID risk in every seed."""
    share = max(SHARE_LEFT(results))
    if not share <= LEARNED:
        raise NotJudged(f"the network did not learn: its ID risk is {share:.2f} of the initial one")


CLAIMS = (
    Statement(
        "Training solves the training distribution", "Thm. 4.3", "ID risk, end over start",
        SHARE_LEFT, high=LEARNED),
    Statement(
        "Neurons come to fire for one class", "Thm. 4.1",
        "activation asymmetry of the first layer, mean over neurons",
        _last("asymmetry_1"), low=0.6, given=_learned),
    Statement(
        "The network learns background features, which are independent of the label", "Thm. 4.2",
        "V/U, summed background over summed core projections",
        ratio(_last("V"), _last("U")), low=0.1, given=_learned),
    Statement(
        "The network's risk rises when the background shifts", "Thm. 4.3", "OOD - ID risk",
        difference(_last("ood_{loss}"), _last("id_{loss}")), low=0.1, given=_learned),
    Statement(
        "The shift raises the classification error little: the failure is one of risk", "ours",
        "OOD - ID classification error",
        difference(_last("ood_error"), _last("id_error")), high=0.1, given=_learned),
)  # fmt: skip
"""What contamination is, in five numbers; the ranges are ours, and the same for all settings."""


def claims(run: Run) -> Sequence[Claim]:
    """Judge the table of claims."""
    return judge_all(CLAIMS, SimulationResults(run))


def draw(run: Run) -> Sequence[Figure]:
    """Risks and learned features over training."""
    loss = Config.model_validate(run.config).setting.loss
    panels, rows = [], []
    for title, y, columns in (
        ("Risk", f"{loss} risk", {f"id_{loss}": "ID", f"ood_{loss}": "OOD"}),
        ("Learned features", "summed projections", {"U": "core (U)", "V": "background (V)"}),
    ):
        curves: list[dict[str, Any]] = [
            row
            for column, label in columns.items()
            for row in curve(run, "network", "time", column, label)
        ]
        time = ("time", "training time (steps × step size)")
        panels.append(lines(curves, title=title, x=time, y=("value", y), series=("what", "")))
        rows += curves
    return [
        Figure(
            "Training, and what a shift of the background costs",
            "Background features are independent of the label. A network that learns them has a "
            "larger risk when they shift. Bands: all seeds.",
            "ours",
            tuple(panels),
            tuple(rows),
        )
    ]


def summarize(run: Run) -> str:
    """The result in two sentences."""
    results = SimulationResults(run)
    of = {
        where: sum(values) / len(values)
        for where in ("id", "ood")
        for values in [results.at("last", f"{where}_{{loss}}")]
    }
    setting = results.config.setting
    return (
        f"A {setting.activation} network with {setting.width} neurons in each of {setting.depth} "
        f"hidden {'layer' if setting.depth == 1 else 'layers'} was trained on "
        f"{setting.data.features.core} core and {setting.data.features.background} background "
        f"features. Its {setting.loss} risk is {of['id']:.3f} on ID data and {of['ood']:.3f} "
        "after the background shifts."
    )


EXPERIMENT = Experiment(
    name="simulation",
    title="One network of any setting on the paper's data",
    about="Inputs are made of core features, which carry the label, and background features, which "
    "are independent of it. One network learns the classes; then the background shifts. Every "
    "field of the data, the network and the optimizer can be set, so that sweeps vary them.",
    reproduces=(),
    presets={"paper": PAPER, "laptop": LAPTOP, "smoke": SMOKE},
    compute=compute,
    claims=claims,
    draw=draw,
    summary=summarize,
    null=null_setting,
)
"""Source: ours, the unit of sweeps."""
