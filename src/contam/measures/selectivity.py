"""How much a neuron prefers one class."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor


def selectivity(
    class_means: Float[Tensor, "classes neurons"],
    *,
    against: Literal["all", "others"] = "all",
    stability: float = 1e-6,
) -> Float[Tensor, " neurons"]:
    """How much more a neuron fires for its favorite class than for the average class.

    Entry [c, j] is the mean of neuron j, after its nonlinearity, over the examples of class c.
    The average is taken over `all` classes, as in the paper, or over all `others` than the
    favorite, as in Morcos et al. (2018). For means that are never negative and K classes the
    result lies in [0, (K - 1) / (K + 1)], with `others` in [0, 1]: 0 for a neuron that ignores the
    class, the top for one that fires for a single class. Activations that go below zero (GELU)
    can leave this range.

    Source: Eq. 61, App. F.3.

    Raises:
        ValueError: fewer than two classes, or another word for `against`.
    """
    classes = len(class_means)
    if classes < 2:
        raise ValueError(f"a preference needs at least 2 classes to choose from, not {classes}")
    favorite = class_means.amax(dim=0)
    if against == "all":
        average = class_means.mean(dim=0)
    elif against == "others":
        average = (class_means.sum(dim=0) - favorite) / (classes - 1)
    else:
        raise ValueError(f"against is 'all' or 'others', not {against!r}")
    return (favorite - average) / (favorite + average + stability)
