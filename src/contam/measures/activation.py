"""Activation rates of neurons for each class, and their asymmetry between classes.

`ClassMeans` of the readings `rate_over_space` or `rate_over_tokens` gives a table of rates: entry
[c, j] is the share of (example of class c, position) at which channel j is positive. ReLU and GELU
are positive exactly where their inputs are.

The formula of the activation rate in App. F.2 is lost in the available text; "the share at which
the activation is positive" is our reading of it.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def class_rates(rates: Float[Tensor, "classes neurons"]) -> Float[Tensor, " classes"]:
    """Return a layer's activation rate for each class, averaged over its channels, in [0, 1].

    The paper draws their histogram over the classes for every block.

    Args:
        rates: Activation rate of each neuron for each class.

    Raises:
        ValueError: If an entry is not in [0, 1].

    Source: App. F.2.

    >>> import torch
    >>> class_rates(torch.tensor([[1.0, 0.5], [0.0, 0.5]])).tolist()
    [0.75, 0.25]
    """
    return _checked(rates).mean(dim=1)


def activation_asymmetry(rates: Float[Tensor, "classes neurons"]) -> Float[Tensor, " neurons"]:
    """Return the highest class rate of each neuron minus its mean over classes, in [0, 1).

    It is 0 for a neuron that fires equally often for every class, and 1 - 1 / K for one that always
    fires for one of K classes and never for another.

    Args:
        rates: Activation rate of each neuron for each class.

    Raises:
        ValueError: If an entry is not in [0, 1].

    Source: ours, one number for the asymmetry that the paper shows in histograms.

    >>> import torch
    >>> activation_asymmetry(torch.tensor([[1.0, 0.5], [0.0, 0.5]])).tolist()
    [0.5, 0.0]
    """
    rates = _checked(rates)
    return rates.amax(dim=0) - rates.mean(dim=0)


def _checked(rates: Tensor) -> Tensor:
    # Double precision may round the mean of ones a little above one.
    if not torch.all((rates >= -1e-9) & (rates <= 1 + 1e-9)):
        raise ValueError(
            f"activation rates must lie in [0, 1], got [{float(rates.min()):.3g}, "
            f"{float(rates.max()):.3g}]; read the layer with rate_over_space or rate_over_tokens"
        )
    return rates
