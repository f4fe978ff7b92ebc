"""How a training uses the machine that it runs on."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ComputeConfig:
    """What makes a training faster or smaller; what is learned stays the same up to rounding.

    Batch norm is the exception where `accumulate` is above 1: its statistics are each part's own.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the products in the networks; weights, the optimizer and the loss keep their own."""
    accumulate: int = 1
    """Parts in which a process takes its share of a minibatch, one after the other."""
    channels_last: bool = False
    """Whether images and filters lie in memory with a pixel's channels side by side."""

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16") or self.accumulate < 1:
            raise ValueError(
                f"can't train with precision={self.precision!r}, accumulate={self.accumulate}; "
                "want float32 or bfloat16, and at least 1 part"
            )

    def passing(self, device: torch.device) -> AbstractContextManager[object]:
        """Inside, networks multiply in this precision."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def arranged(self, x: Tensor) -> Tensor:
        """Inputs as they lie in memory; what is no batch of images stays."""
        if self.channels_last and x.ndim == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def arrange(self, model: nn.Module) -> None:
        """Lay the model's filters out in memory; their values stay."""
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


PLAIN = ComputeConfig()


def full(values: Tensor) -> Tensor:
    """The values in single precision, or in double if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
