"""Correction of the head for other class shares, which are estimated without labels."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

from contam.batch import Batch
from contam.models.linear_head import LinearHead
from contam.remedies.repair import HeadRepair

ITERATIONS = 200
LEAST_SHARE = 1e-4
"""Estimated share of a class at least."""


@final
@dataclass(frozen=True)
class PriorCorrection(HeadRepair):
    """A head whose biases are corrected for the class shares of the OOD data.

    The shares are estimated from the predicted probabilities alone, after a temperature has been
    fitted to ID data, because the estimate needs calibrated probabilities.

    Source: ours, the EM algorithm of Saerens et al. (2002) with the calibration that
    Alexandari et al. (2020) recommend.
    """

    name = "prior correction"
    needs = frozenset({"linear head", "ID labels", "OOD inputs"})

    def fit_head(self, head: LinearHead, id: Batch, ood: Batch) -> LinearHead:
        known, new = head(id.x).double(), head(ood.x).double()
        temperature = fit_temperature(known, id.y)
        own = (known / temperature).softmax(dim=1).mean(dim=0)
        shares = class_shares(new / temperature, own)
        shift = temperature * (shares.clamp(min=LEAST_SHARE) / own.clamp(min=LEAST_SHARE)).log()
        return LinearHead(head.weight, head.bias + shift.float())


def fit_temperature(logits: Float[Tensor, "n classes"], y: Int[Tensor, " n"]) -> float:
    """Return the temperature that calibrates logits, within [0.05, 20].

    Args:
        logits: logits of each example.
        y: class indices.

    Source: ours, temperature scaling (Guo et al., 2017).

    >>> logits, y = 10 * torch.eye(2).repeat(10, 1), torch.tensor([0] + [0, 1] * 9 + [0])
    >>> 1 < fit_temperature(logits, y) < 20
    True
    """
    best = minimize_scalar(
        lambda log: float(cross_entropy(logits / 2.0**log, y)), bounds=(-4.3, 4.3), method="bounded"
    )
    return 2.0 ** float(best.x)  # pyright: ignore[reportAttributeAccessIssue]


def class_shares(
    logits: Float[Tensor, "n classes"], own: Float[Tensor, " classes"]
) -> Float[Tensor, " classes"]:
    """Estimate the class shares of unlabeled data by expectation maximization.

    Args:
        logits: calibrated logits of the unlabeled examples.
        own: class shares of the data that the network was trained on.

    Source: ours, Saerens et al. (2002).

    >>> logits = torch.tensor([[9.0, -9.0]] * 3 + [[-9.0, 9.0]])
    >>> class_shares(logits, torch.tensor([0.5, 0.5])).tolist()
    [0.75, 0.25]
    """
    shares = own
    for _ in range(ITERATIONS):
        posterior = (logits + (shares / own.clamp(min=LEAST_SHARE)).log()).softmax(dim=1)
        new = posterior.mean(dim=0)
        if torch.allclose(new, shares, rtol=0, atol=1e-7):
            break
        shares = new
    return shares
