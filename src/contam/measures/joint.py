"""Two questions that two papers ask, side by side, since neither answer follows from the other.

Does the network use a feature that goes with the label (Murali et al., 2023)? And does a background
that says nothing of the label change its response to the class (feature contamination)? The first
is asked by making the feature random, the second by altering the background of the same objects.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contam.measures.coupling import attenuation
from contam.measures.intervals import Estimate, bootstrap

Answer = Literal["yes", "no", "undecided"]


@dataclass(frozen=True)
class Joint:
    """Both answers, and what they rest on."""

    harm: Estimate
    """Accuracy that is lost when the feature says nothing any more, in [-1, 1]."""
    coupling: Estimate
    """Share of the class profile that is lost under altered backgrounds."""
    untrained: Estimate | None
    """The same of the untrained network, if it was given."""
    uses: Answer
    """Whether the network uses the correlated feature."""
    coupled: Answer
    """Whether its class response is coupled to the uncorrelated background."""


def harm(
    right: Bool[Tensor, " examples"],
    right_randomized: Bool[Tensor, " examples"],
    *,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """The accuracy lost when a feature is made random in the same examples, with its interval.

    Randomize it, rather than blank it: what is blank is a shift of its own.

    Source: ours; Murali et al. (2023).

    Raises:
        ValueError: no example, or what `bootstrap` refuses.
    """
    lost = right.double() - right_randomized.double()
    return bootstrap(
        lambda rows: lost[rows].mean(), (len(lost),),
        seed=seed, resamples=resamples, confidence=confidence,
    )  # fmt: skip


def coupling(
    values: Float[Tensor, "objects neurons"],
    altered: Float[Tensor, "objects neurons"],
    y: Int[Tensor, " objects"],
    *,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """A layer's attenuation under altered backgrounds of the same objects, with its interval.

    Objects are resampled with both their pictures; a resample that lacks a class is left out.

    Source: ours, `attenuation` with what finite data leave open.

    Raises:
        ValueError: fewer than two classes, or no neuron tells them apart.
    """
    classes, group = y.cpu().unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"want objects of at least two classes, not of {classes.tolist()}")
    both = torch.stack([values, altered]).detach().cpu().double()
    member = torch.nn.functional.one_hot(group).double()

    def lost(rows: Tensor) -> Tensor:
        # Weights of repeated objects, so that no picture is copied.
        times = torch.bincount(rows, minlength=len(group)).double()[:, None] * member
        count = times.sum(dim=0)
        if not count.all():
            return torch.tensor(torch.nan)
        familiar, new = (times.T @ both) / count[:, None]
        return attenuation(familiar, new)

    return bootstrap(lost, (len(group),), seed=seed, resamples=resamples, confidence=confidence)


def joint_question(
    right: Bool[Tensor, " examples"],
    right_randomized: Bool[Tensor, " examples"],
    values: Float[Tensor, "objects neurons"],
    altered: Float[Tensor, "objects neurons"],
    y: Int[Tensor, " objects"],
    *,
    least_harm: float,
    least_coupling: float,
    untrained: tuple[Float[Tensor, "objects wide"], Float[Tensor, "objects wide"]] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Joint:
    """Whether a network uses a correlated feature, and whether a background gates its classes.

    The first two say which answers were right before and after the feature was made random, the
    next two what a layer's neurons did for objects before and after their background was altered.
    An answer is yes if the whole interval is above the least effect that counts, no if it is all
    below, else undecided. What effects count depends on the data, so the caller says it.

    Source: ours, since harm is blind to what is not correlated, and coupling to what is additive.

    Raises:
        ValueError: what `harm` and `coupling` refuse.
    """

    def of(familiar: Tensor, new: Tensor) -> Estimate:
        return coupling(familiar, new, y, seed=seed, resamples=resamples, confidence=confidence)

    lost = harm(right, right_randomized, seed=seed, resamples=resamples, confidence=confidence)
    gated = of(values, altered)
    return Joint(
        harm=lost,
        coupling=gated,
        untrained=None if untrained is None else of(*untrained),
        uses=_answer(lost, least_harm),
        coupled=_answer(gated, least_coupling),
    )


def _answer(found: Estimate, least: float) -> Answer:
    if found.low > least:
        return "yes"
    return "no" if found.high < least else "undecided"
