"""Distributed training in the processes that `accelerate launch` or torchrun starts.

Each process takes a part of every minibatch, and gradients are averaged in the backward pass (DDP).
Everything else is the same in all processes, so all of them compute the same network.
"""

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn

if TYPE_CHECKING:
    from accelerate import Accelerator

FREEING = 0.2
"""Seconds in which a thread of Gloo frees its last tensors, which takes it a few milliseconds."""


def processes() -> int:
    """Return the number of processes that the launcher started; 1 without a launcher.

    >>> processes()
    1
    """
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the rank of this process; only rank 0 writes and prints.

    >>> rank()
    0
    """
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0


class OtherProcessError(ValueError):
    """Another process of the group has failed, and says why."""


@contextmanager
def together() -> Iterator[None]:
    """Leave the block when all processes have left it; where one fails, all of them stop.

    Without this, the others would wait for it until the launcher kills them.

    Raises:
        OtherProcessError: another process has failed in this block.

    >>> with together():
    ...     print("alone")
    alone
    """
    try:
        yield
    except Exception:
        if processes() > 1:
            _failures(1)
        raise
    if processes() > 1 and _failures(0):
        raise OtherProcessError("stopped, since another process failed; it says why")


def _failures(own: int) -> int:
    """How many processes failed."""
    accelerator = _accelerator()
    count = accelerator.reduce(torch.tensor(own, device=accelerator.device), reduction="sum")
    assert isinstance(count, Tensor)
    return int(count)


class ProcessGroup:
    """The processes that train one network together; with a single process, it does nothing."""

    def __init__(self) -> None:
        self.size = processes()
        self.rank = rank()
        self._accelerator = _accelerator() if self.size > 1 else None

    def device(self, model: nn.Module) -> torch.device:
        """Return the device of this process, or that of the model for a single process."""
        if self._accelerator is not None:
            return self._accelerator.device
        return next((p.device for p in model.parameters()), torch.device("cpu"))

    def join(self, module: nn.Module) -> nn.Module:
        """Wrap a module so that its gradients are averaged over the processes.

        On CUDA, batch norm then uses the statistics of the whole minibatch; on the CPU it uses
        those of the process's part.
        """
        if self._accelerator is None:
            return module
        if self._accelerator.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return self._accelerator.prepare(module)

    def no_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        """Accumulate gradients without averaging them; a later backward pass averages them."""
        return nullcontext() if self._accelerator is None else self._accelerator.no_sync(module)

    def all_reduce(self, values: Tensor) -> Tensor:
        """Return the sum over the processes, on the device of the values."""
        if self._accelerator is None:
            return values
        total = self._accelerator.reduce(values.to(self._accelerator.device), reduction="sum")
        assert isinstance(total, Tensor)
        return total.to(values.device)


def _accelerator() -> "Accelerator":
    try:
        from accelerate import Accelerator
    except ImportError:
        raise ValueError(
            f"training in {processes()} processes needs accelerate: run pip install -e '.[scale]' "
            "in a clone of contam"
        ) from None
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    is_first = not distributed.is_initialized()
    # The precision is part of the recipe, so the launcher's settings don't change it.
    accelerator = Accelerator(cpu=on_cpu or not torch.cuda.is_available(), mixed_precision="no")
    if is_first:
        atexit.register(_leave, accelerator)
    return accelerator


def _leave(accelerator: "Accelerator") -> None:
    """Leave the process group before Python ends.

    A thread of Gloo frees the tensors of the last collective after the process has its result. It
    needs Python's lock for that, and aborts the process if Python ends while it waits. Networks
    under DDP keep the thread alive even without the group, so it gets the lock here.
    """
    time.sleep(FREEING)
    accelerator.state.destroy_process_group()
