"""Callbacks of Lightning and Hugging Face for the training monitor; neither is required."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from contam.monitor.training_monitor import TrainingMonitor, watch
from contam.training.trainer_callbacks import (
    TrainingListener,
    hugging_face_callback,
    lightning_callback,
)


class MonitorListener(TrainingListener):
    """Starts a monitor when a training begins, and takes snapshots while it runs.

    Args:
        start: function from the model and the keyword `start` to a monitor, such as a partial
            `watch`.
    """

    def __init__(self, start: Callable[..., TrainingMonitor]) -> None:
        self.monitor: TrainingMonitor | None = None
        """The monitor; None before training begins."""
        self._start = start

    def on_begin(self, model: nn.Module, step: int) -> None:
        """Start the monitor at a step."""
        self.monitor = self._start(model, start=step)

    def on_step(self, model: nn.Module, step: int) -> None:
        """Take a snapshot if it is time."""
        if self.monitor is not None:
            self.monitor.at(step)

    def on_end(self, model: nn.Module, epoch: int) -> None:
        """Take the last snapshot and close the monitor."""
        if self.monitor is not None:
            self.monitor.close()

    def on_exception(self) -> None:
        """Close the monitor without a snapshot."""
        if self.monitor is not None:
            self.monitor.close(snapshot=False)


def lightning(data: Any, **settings: Any) -> Any:
    """Return a Lightning callback that monitors the module in training.

    Steps are the trainer's global steps. Only the first of several processes monitors.

    Args:
        data: as for `watch`.
        settings: the other arguments of `watch`.

    Returns:
        The callback; its `listener.monitor` is the `TrainingMonitor` once training has begun.

    Raises:
        ValueError: Lightning is not installed.

    >>> import torch
    >>> y = torch.arange(40) % 2
    >>> callback = lightning((torch.eye(2)[y], y), every=100)  # for Trainer(callbacks=[callback])
    >>> callback.listener.monitor is None  # until training begins
    True
    """
    return lightning_callback(MonitorListener(partial(watch, data=data, **settings)))


def hugging_face(data: Any, **settings: Any) -> Any:
    """Return a `TrainerCallback` that monitors the model of a Hugging Face `Trainer`.

    Steps are the trainer's global steps. Only the first of several processes monitors.

    Args:
        data: as for `watch`.
        settings: the other arguments of `watch`.

    Returns:
        The callback; its `listener.monitor` is the `TrainingMonitor` once training has begun.

    Raises:
        ValueError: transformers is not installed.

    >>> import torch
    >>> y = torch.arange(40) % 2
    >>> callback = hugging_face((torch.eye(2)[y], y), every=100)  # for Trainer(callbacks=[...])
    >>> callback.listener.monitor is None  # until training begins
    True
    """
    return hugging_face_callback(MonitorListener(partial(watch, data=data, **settings)))
