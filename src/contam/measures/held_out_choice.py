"""Prediction of an outcome by the best of several measures, chosen and calibrated on other data.

The best of many measures looks good on the networks on which it was chosen. Here the measure and
its calibration come from other networks than those on which they are judged.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor


class HeldOutChoice(NamedTuple):
    """Predictions of an outcome for parts that were held out."""

    predicted: Float[Tensor, "*outcomes networks"]
    """Prediction for each network, from the other parts."""
    chosen: Int[Tensor, "*outcomes parts"]
    """Index of the measure that was chosen when each part was held out."""


def held_out_choice(
    measures: Float[Tensor, "measures networks"],
    outcome: Float[Tensor, "*outcomes networks"],
    parts: Int[Tensor, " networks"],
) -> HeldOutChoice:
    """Predict each part's outcome by the measure that has the highest rank correlation elsewhere.

    For each part, the measure with the largest absolute rank correlation on the other parts is
    chosen, and a least-squares line on the other parts turns it into a prediction.

    Args:
        measures: Candidate measures of each network; none is constant on the networks outside a
            part.
        outcome: Outcome of each network; several rows are treated separately, such as shuffled
            outcomes.
        parts: Part of each network, such as its architecture.

    Raises:
        ValueError: If a value is not finite, there are fewer than two parts, or a measure is
            constant outside a part.

    Source: ours, nested selection.

    >>> good = torch.arange(6.0)
    >>> bad = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0, -1.0])
    >>> parts = torch.tensor([0, 0, 1, 1, 2, 2])
    >>> choice = held_out_choice(torch.stack([bad, good]), 10 * good, parts)
    >>> choice.chosen.tolist(), [round(value) for value in choice.predicted.tolist()]
    ([1, 1, 1], [0, 10, 20, 30, 40, 50])
    """
    if not measures.isfinite().all() or not outcome.isfinite().all():
        raise ValueError("a value is not finite; leave out the networks that lack a measure")
    names = parts.unique()
    if len(names) < 2:
        raise ValueError("all networks are in one part; holding one out needs at least two")
    x, rows = measures.double(), outcome.double().reshape(-1, outcome.shape[-1])
    predicted, chosen = torch.empty_like(rows), []
    for name in names:
        out = parts == name
        known, known_rows = x[:, ~out], rows[:, ~out]
        if (known == known[:, :1]).all(dim=1).any():
            raise ValueError("a measure is constant outside a part; leave it out")
        best = (_unit_ranks(known_rows) @ _unit_ranks(known).T).abs().argmax(dim=1)
        picked = known[best]
        deviation = picked - picked.mean(dim=1, keepdim=True)
        slope = (deviation * known_rows).sum(dim=1) / deviation.square().sum(dim=1)
        offset = known_rows.mean(dim=1) - slope * picked.mean(dim=1)
        predicted[:, out] = offset[:, None] + slope[:, None] * x[:, out][best]
        chosen.append(best)
    return HeldOutChoice(
        predicted.view(outcome.shape), torch.stack(chosen, dim=1).view(*outcome.shape[:-1], -1)
    )


def _unit_ranks(rows: Float[Tensor, "rows networks"]) -> Float[Tensor, "rows networks"]:
    """Ranks of each row, centered and scaled so that a product of rows is a rank correlation."""
    ranks = torch.from_numpy(rankdata(rows.numpy(), axis=1))
    ranks = ranks - ranks.mean(dim=1, keepdim=True)
    return ranks / ranks.norm(dim=1, keepdim=True).clamp(min=1e-12)
