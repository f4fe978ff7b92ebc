"""A classifier is an encoder with a linear head; its first weights come from a named seed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contam.seeds import stream


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


@contextmanager
def drawing_from(seed: int, purpose: str) -> Iterator[None]:
    """Inside, torch draws on the CPU from the stream of one purpose; outside, nothing has moved.

    PyTorch's layers draw their weights and their dropout from the global stream alone, so this
    is how a network is built and trained from a seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(stream(seed, purpose).get_state())
        yield
