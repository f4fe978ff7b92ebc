"""Class selectivity of neurons."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor


def selectivity(
    class_means: Float[Tensor, "classes neurons"],
    *,
    against: Literal["all", "others"] = "all",
    stability: float = 1e-6,
) -> Float[Tensor, " neurons"]:
    """Return the class selectivity of each neuron: preferred class against the average class.

    For nonnegative means and K classes the result lies in [0, (K - 1) / (K + 1)], and with
    `against="others"` in [0, 1]: 0 for a neuron that ignores the class, the maximum for one that
    fires for a single class. Means of both signs, as those of CLIP's attention pool or of GELU, can
    leave this range without bound, since the denominator can vanish. Then report the median over
    neurons and the share of neurons outside the range.

    Args:
        class_means: Mean activation of each neuron, after its nonlinearity, for each class.
        against: Whether the average is over all classes, as in the paper, or over all classes
            except the preferred one, as in Morcos et al. (2018).
        stability: Number added to the denominator.

    Raises:
        ValueError: If there are fewer than two classes or `against` is unknown.

    Source: Eq. 61, App. F.3.

    >>> import torch
    >>> selectivity(torch.tensor([[3.0, 1.0], [1.0, 1.0]]), stability=0.0)
    tensor([0.2000, 0.0000])
    """
    classes = len(class_means)
    if classes < 2:
        raise ValueError(f"selectivity needs at least 2 classes, got {classes}")
    favorite = class_means.amax(dim=0)
    if against == "all":
        average = class_means.mean(dim=0)
    elif against == "others":
        average = (class_means.sum(dim=0) - favorite) / (classes - 1)
    else:
        raise ValueError(f"against must be 'all' or 'others', got {against!r}")
    return (favorite - average) / (favorite + average + stability)
