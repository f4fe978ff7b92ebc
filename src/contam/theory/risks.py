"""Risks in and out of distribution, on held-out examples."""

from collections.abc import Mapping
from typing import NamedTuple

from contam.rng import bit_generator_for
from contam.theory.distribution import Sample, Where
from contam.theory.engines import LOSSES
from contam.theory.trajectory import State


class Risk(NamedTuple):
    """Mean loss and classification error on one distribution.

    Source: ours, the result of `risk`.
    """

    loss: float
    """Mean of the training loss; in regression, the mean squared error per output."""
    error: float | None
    """Share of misclassified examples; None in regression."""


def held_out(state: State, where: Where, examples: int = 8192) -> Sample:
    """Draw held-out examples of one distribution, the same ones for all steps of a run.

    Args:
        state: a state of the run.
        where: "id", "ood" or "worst".
        examples: number of examples.

    Returns:
        The examples, in the precision of the setting.

    Source: ours, one sample for each run and distribution.

    >>> from contam.theory.trajectory import Setting, simulate
    >>> (state,) = simulate(Setting(width=32, steps=1), seed=0)
    >>> held_out(state, "ood", examples=100).f.shape
    torch.Size([100, 64])
    """
    draws = bit_generator_for(state.seed, f"held out {where}")
    return state.setting.data.sample(examples, draws, where, dtype=state.setting.dtype)


def risk(state: State, sample: Sample) -> Risk:
    """Measure the loss and the classification error of a state on a sample.

    Args:
        state: a state of a run.
        sample: held-out examples of one distribution.

    Returns:
        The two risks.

    Source: Thm. 4.3, Eq. 9.

    >>> from contam.theory.trajectory import Setting, simulate
    >>> (state,) = simulate(Setting(), seed=0)
    >>> risk(state, held_out(state, "id")).loss < 0.1 < risk(state, held_out(state, "ood")).loss
    True
    """
    h = state(sample.f)
    loss = float(LOSSES[state.setting.loss](h, sample).mean())
    if state.setting.loss == "squared":
        return Risk(2 * loss / sample.target.shape[1], None)
    wrong = sample.y * h <= 0 if h.ndim == 1 else h.argmax(dim=1) != sample.y
    return Risk(loss, float(wrong.double().mean()))


def ood_risk(losses: Mapping[str, float]) -> float:
    """The largest of the expected losses over a set of distributions.

    Args:
        losses: expected loss on each distribution, by its name.

    Returns:
        The largest one.

    Source: Eq. 1, Sec. 3.1.

    >>> ood_risk({"id": 0.1, "ood": 0.8, "worst": 1.0})
    1.0
    """
    return max(losses.values())
