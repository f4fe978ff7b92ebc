"""A classifier is an encoder with a linear head."""

from jaxtyping import Float
from torch import Tensor, nn


class Classifier(nn.Module):
    """An encoder with a linear head on its features.

    Args:
        encoder: (batch, ...) -> (batch, width).
        classes: the number of logits, at least 2.
        width: the number of features.

    Source: ours, the form of every classifier here.

    Raises:
        ValueError: fewer than 2 classes, or no feature.

    >>> import torch
    >>> Classifier(nn.Flatten(), classes=3, width=4)(torch.zeros(2, 1, 2, 2)).shape
    torch.Size([2, 3])
    """

    def __init__(self, encoder: nn.Module, classes: int, width: int) -> None:
        super().__init__()
        if classes < 2 or width < 1:
            raise ValueError(
                f"a classifier needs at least 2 classes and 1 feature, not {classes} and {width}"
            )
        self.encoder = encoder
        self.head = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch classes"]:
        return self.head(self.encoder(x))
