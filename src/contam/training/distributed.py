"""The processes that train one network together, as `accelerate launch` or torchrun start them.

Each takes its share of every minibatch, and gradients are averaged in the backward pass (DDP). All
else is done by each of them in the same way, so all of them come to the same network.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator


def processes() -> int:
    """How many processes the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them; 0 is the main one, which alone writes and prints."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


def meet() -> None:
    """Wait until all processes have come here; alone, go on."""
    if processes() > 1:
        _accelerator().wait_for_everyone()


class ProcessGroup:
    """This process among those that train with it; alone, it changes nothing."""

    def __init__(self) -> None:
        self.size = processes()
        self.rank = rank()
        self._accelerator = _accelerator() if self.size > 1 else None

    def device(self, model: nn.Module) -> torch.device:
        """Where training takes place: the process's device; alone, the model's."""
        if self._accelerator is not None:
            return self._accelerator.device
        return next((p.device for p in model.parameters()), torch.device("cpu"))

    def join(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the processes, on this one's device.

        On CUDA, batch norm then uses the whole minibatch's statistics, too; on the CPU it uses
        those of the share.
        """
        if self._accelerator is None:
            return module
        if self._accelerator.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return self._accelerator.prepare(module)

    def apart(self, module: nn.Module) -> AbstractContextManager[None]:
        """Inside, gradients stay in each process, to be averaged with those that come later."""
        return nullcontext() if self._accelerator is None else self._accelerator.no_sync(module)

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes, where the values were."""
        if self._accelerator is None:
            return values
        there = values.to(self._accelerator.device)
        found = self._accelerator.reduce(there, reduction="sum")
        assert isinstance(found, Tensor)
        return found.to(values.device)


def _accelerator() -> "Accelerator":
    try:
        from accelerate import Accelerator
    except ImportError:
        raise ValueError(
            f"training in {processes()} processes needs accelerate: pip install 'contam[scale]'"
        ) from None
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    # The precision belongs to what is computed, so the launcher's settings don't change it.
    return Accelerator(cpu=asked or not torch.cuda.is_available(), mixed_precision="no")
