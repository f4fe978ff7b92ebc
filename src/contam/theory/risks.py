"""What a network loses in and out of distribution, on examples that it has never seen."""

from collections.abc import Mapping
from typing import NamedTuple

from contam.rng import bit_generator_for
from contam.theory.distribution import Sample, Where
from contam.theory.engines import LOSSES
from contam.theory.trajectory import State


class Risk(NamedTuple):
    """What a network loses on one distribution."""

    loss: float
    """Mean of the loss that it was trained on; in regression, mean squared error per output."""
    error: float | None
    """Share of misclassified examples; None in regression."""


def held_out(state: State, where: Where, examples: int = 8192) -> Sample:
    """Fresh examples of one distribution, the same ones for all steps of a run."""
    draws = bit_generator_for(state.seed, f"held out {where}")
    return state.setting.data.sample(examples, draws, where, dtype=state.setting.dtype)


def risk(state: State, sample: Sample) -> Risk:
    """Loss and 0-1 error of a state on a sample.

    Source: Thm. 4.3, Eq. 9.
    """
    h = state(sample.f)
    loss = float(LOSSES[state.setting.loss](h, sample).mean())
    if state.setting.loss == "squared":
        return Risk(2 * loss / sample.target.shape[1], None)
    wrong = sample.y * h <= 0 if h.ndim == 1 else h.argmax(dim=1) != sample.y
    return Risk(loss, float(wrong.double().mean()))


def ood_risk(losses: Mapping[str, float]) -> float:
    """The worst of the expected losses over a set of distributions.

    Source: Eq. 1, Sec. 3.1.
    """
    return max(losses.values())
