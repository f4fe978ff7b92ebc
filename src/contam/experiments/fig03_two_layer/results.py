"""Results of a run of two-layer networks, read from disk."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Literal

from contam.experiment import NotJudged, ratio
from contam.experiments.fig03_two_layer.config import Config, flow
from contam.experiments.support.two_layer_runs import ends
from contam.run import Run
from contam.theory.coverage import uncovered
from contam.theory.setting import Setting

LEARNED = 0.5
"""Share of the initial ID risk at which a network has learned. What networks do not learn is
claimed of those only."""


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
        if network == "prediction" and (reason := uncovered(flow(self.config))):
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


def at_end(column: str, network: str = "classification") -> Measure:
    """A column when training ends."""
    return lambda results: results.at("last", network, column)


def at_start(column: str, network: str = "classification") -> Measure:
    """A column before training."""
    return lambda results: results.at("first", network, column)


def learned(network: str = "classification", loss: str = "{loss}") -> Measure:
    """Require that training at least halved a network's ID risk, in every seed."""

    def require(results: TwoLayerResults) -> list[float]:
        shares = ratio(at_end(f"id_{loss}", network), at_start(f"id_{loss}", network))(results)
        if not max(shares) <= LEARNED:
            raise NotJudged(
                f"the network of {network!r} did not learn: its ID risk is {max(shares):.2f} of "
                "the initial one"
            )
        return shares

    return require
