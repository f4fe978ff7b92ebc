"""How often neurons fire for each class, and how unequally.

A table of rates is what `ClassMeans` makes of the readings `rate_over_space` or `rate_over_tokens`:
entry [c, j] is the share of (example of class c, position) at which channel j is positive. ReLU
and GELU are positive exactly where what comes into them is.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def class_rates(rates: Float[Tensor, "classes neurons"]) -> Float[Tensor, " classes"]:
    """A layer's activation rate for each class, averaged over its channels, in [0, 1].

    Their histogram over the classes is what the paper draws for every block.

    Source: App. F.2.

    Raises:
        ValueError: an entry is no rate.
    """
    return _checked(rates).mean(dim=1)


def activation_asymmetry(rates: Float[Tensor, "classes neurons"]) -> Float[Tensor, " neurons"]:
    """How much more often a neuron fires for its most frequent class than on average, in [0, 1).

    0 for a neuron that fires equally often for every class, 1 - 1 / K for one that always fires
    for one of K classes and never for another.

    Source: ours, one number for the asymmetry that the paper shows in histograms.

    Raises:
        ValueError: an entry is no rate.
    """
    rates = _checked(rates)
    return rates.amax(dim=0) - rates.mean(dim=0)


def _checked(rates: Tensor) -> Tensor:
    # Double precision may round the mean of ones a little above one.
    if not torch.all((rates >= -1e-9) & (rates <= 1 + 1e-9)):
        raise ValueError(
            f"activation rates lie in [0, 1], not in [{float(rates.min()):.3g}, "
            f"{float(rates.max()):.3g}]; read the layer with rate_over_space or rate_over_tokens"
        )
    return rates
