"""A classifier is an encoder with a linear head."""

from jaxtyping import Float
from torch import Tensor, nn


class Classifier(nn.Module):
    """An encoder `(batch, ...) -> (batch, width)` and a linear head on its features.

    Source: ours, the shape that every classifier here has.
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
