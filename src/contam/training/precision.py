"""Precision, gradient accumulation and memory layout of a training."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from contam.models.memory_format import BLOCK, channels_last, unsafe_in_channels_last


@dataclass(frozen=True)
class ComputeConfig:
    """Settings that make a training faster or smaller and change the result only by rounding.

    The exception is batch norm with `accumulate` above 1: it uses the statistics of each part.

    >>> ComputeConfig(precision="bfloat16", accumulate=2)
    ComputeConfig(precision='bfloat16', accumulate=2, channels_last=False)
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of products in the networks; weights, optimizer and loss keep theirs."""
    accumulate: int = 1
    """Number of micro-batches into which a process splits its part of a minibatch."""
    channels_last: bool = False
    """Whether images and filters use the channels-last memory format."""

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16") or self.accumulate < 1:
            raise ValueError(
                "precision must be float32 or bfloat16 and accumulate at least 1, got "
                f"precision={self.precision!r}, accumulate={self.accumulate}"
            )

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return a context in which networks compute products in this precision."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def inputs(self, x: Tensor) -> Tensor:
        """Return inputs in the memory format; tensors that are not images stay the same."""
        if self.channels_last and x.ndim == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def convert(self, model: nn.Module) -> None:
        """Convert the model's filters to the memory format, in place.

        Raises:
            ValueError: a convolution of the model is unsafe in the channels-last format.
        """
        if not self.channels_last:
            return
        if unsafe := unsafe_in_channels_last(model):
            raise ValueError(
                f"channels_last: {unsafe[0]} is a strided 1 x 1 convolution of fewer than {BLOCK} "
                "channels, where oneDNN corrupts memory on processors without AVX-512; train with "
                "channels_last=False"
            )
        channels_last(model)


PLAIN = ComputeConfig()


def full(values: Tensor) -> Tensor:
    """Return values in single precision, or in double precision if they already are.

    Args:
        values: Values of any floating-point type.

    >>> full(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def available_device() -> torch.device:
    """Return the device on which experiments train: a GPU where torch finds one, else the CPU.

    >>> available_device().type in {"cpu", "cuda"}
    True
    """
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
