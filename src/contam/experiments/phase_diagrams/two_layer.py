"""Trains and predicts the cells of two-layer networks, and measures the order parameters."""

import math
from collections.abc import Iterator
from typing import Any

from contam.experiments.phase_diagrams.cells import Cell
from contam.theory.coverage import uncovered
from contam.theory.distribution import Sample
from contam.theory.initialization import initial_network
from contam.theory.phases import predict_phases
from contam.theory.population import Neurons, predict_contamination
from contam.theory.projections import learned_sums, own_class
from contam.theory.risks import held_out, risk
from contam.theory.trajectory import State, simulate


def trained(cell: Cell, seed: int, examples: int) -> Iterator[dict[str, Any]]:
    """Train a network and yield a row for each step at which the cell is measured.

    Args:
        cell: the setting.
        seed: seed of all random numbers.
        examples: held-out examples of each distribution.
    """
    for state in simulate(cell.setting, seed, cell.report_at or None):
        yield {
            "kind": "trained", "x": cell.x, "series": cell.series, "seed": seed,
            "time": state.step * cell.setting.time_per_step,
        } | order_parameters(state, examples)  # fmt: skip


CHECK_EVERY = 8.0
"""Training time between two measurements of a network that is trained until it fits."""


def trained_to_fit(cell: Cell, seed: int, examples: int) -> dict[str, Any]:
    """Train a network until its mean margin on ID data is 1, and measure it there.

    Args:
        cell: the setting.
        seed: seed of all random numbers.
        examples: held-out examples of each distribution.

    Returns:
        A row, interpolated between two measurements; that of the last step if the margin stays
        below 1.
    """
    setting = cell.setting
    every = min(max(1, round(CHECK_EVERY / setting.time_per_step)), setting.steps)
    checks = sorted({*range(0, setting.steps, every), setting.steps})
    sample, ends, margins = None, [], []
    for state in simulate(setting, seed, checks):
        sample = sample or held_out(state, "id", examples)
        ends, margins = [*ends[-1:], state], [*margins[-1:], _mean_margin(state, sample)]
        if margins[-1] >= 1:
            break
    share = (1 - margins[0]) / (margins[1] - margins[0]) if margins[-1] >= 1 else 1.0
    first, last = (
        {"time": state.step * setting.time_per_step, "margin": margin}
        | order_parameters(state, examples)
        for state, margin in zip(ends, margins, strict=True)
    )
    labels = {"kind": "trained", "x": cell.x, "series": cell.series, "seed": seed}
    return labels | {name: first[name] + share * (last[name] - first[name]) for name in last}


def _mean_margin(state: State, sample: Sample) -> float:
    return float((sample.y * state(sample.f)).mean())


def predicted_at_fit(cell: Cell) -> Iterator[dict[str, Any]]:
    """Yield what the theory's formulas predict at the fit; nothing where they do not apply.

    Args:
        cell: the setting.
    """
    if uncovered(cell.setting) or (fit := predict_phases(cell.setting).fit) is None:
        return
    yield {
        "kind": "predicted", "x": cell.x, "series": cell.series,
        "time": fit.step * cell.setting.time_per_step, "U": fit.U, "V": fit.V,
        "contamination": fit.contamination, "ood_risk": fit.ood_hinge,
    }  # fmt: skip


def order_parameters(state: State, examples: int) -> dict[str, float]:
    """Measure what a network learned of core and background, and what a shift costs it.

    Args:
        state: a state of a training.
        examples: held-out examples of each distribution.

    Returns:
        U and V; shortcut, V in the sign of the output weight; contamination, V / U; the ID and OOD
        risks and errors; gap, the difference of the risks; and remaining, the ID risk over that of
        an output of 0.

    >>> from contam.theory.setting import Setting
    >>> (state,) = simulate(Setting(), seed=0)
    >>> measured = order_parameters(state, examples=1000)
    >>> measured["contamination"] > 0.5 and measured["gap"] > 0.5
    True
    """
    setting, data, W = state.setting, state.setting.data, state.W
    single = setting.outputs == 1
    u, v = learned_sums(W, own_class(W, data, state.a if single else None), data)
    inside, outside = (risk(state, held_out(state, where, examples)) for where in ("id", "ood"))
    row = {"U": u, "V": v, "contamination": v / u}
    if single:
        background = W[:, data.features.core :].sum(dim=1)
        row["shortcut"] = float((state.a.sign() * background).mean())
    untrained = 1.0 if setting.loss == "hinge" else math.log(data.classes)
    row |= {"id_risk": inside.loss, "ood_risk": outside.loss, "gap": outside.loss - inside.loss,
            "remaining": inside.loss / untrained}  # fmt: skip
    if inside.error is not None and outside.error is not None:
        row |= {"id_error": inside.error, "ood_error": outside.error}
    return row


def predicted(cell: Cell, neurons: int) -> Iterator[dict[str, Any]]:
    """Yield the population model's rows for the same steps; none where it does not apply.

    Args:
        cell: the setting.
        neurons: largest number of neurons to follow.
    """
    setting = cell.setting
    if uncovered(setting):
        return
    steps = cell.report_at or (setting.steps,)
    start = None
    if setting.width <= neurons:
        network = initial_network(setting, seed=0)
        a = network.head.weight.detach()[0]
        start = Neurons.read(network.projections, a, core=setting.data.features.core)
    prediction = predict_contamination(setting, neurons=neurons, report_at=steps, start=start)
    for point in prediction.curve:
        yield {
            "kind": "predicted", "x": cell.x, "series": cell.series,
            "time": point.step * setting.time_per_step, "U": point.U, "V": point.V,
            "shortcut": point.spurious, "contamination": point.V / point.U,
            "id_risk": point.id_hinge, "ood_risk": point.ood_hinge,
            "gap": point.ood_hinge - point.id_hinge,
        }  # fmt: skip
