"""The training monitor as a callback of Lightning and Hugging Face, which are never required."""

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
        start: from the model and `start=` to a monitor, such as a partial `watch`.
    """

    def __init__(self, start: Callable[..., TrainingMonitor]) -> None:
        self.monitor: TrainingMonitor | None = None
        """The monitor, once training has begun."""
        self._start = start

    def on_begin(self, model: nn.Module, step: int) -> None:
        self.monitor = self._start(model, start=step)

    def on_step(self, model: nn.Module, step: int) -> None:
        if self.monitor is not None:
            self.monitor.at(step)

    def on_end(self, model: nn.Module, epoch: int) -> None:
        if self.monitor is not None:
            self.monitor.close()

    def on_exception(self) -> None:
        if self.monitor is not None:
            self.monitor.close(snapshot=False)


def lightning(data: Any, **settings: Any) -> Any:
    """A Lightning callback that monitors the module that the trainer trains.

    Its `listener.monitor` is the `TrainingMonitor` once training has begun. Steps are the trainer's
    global steps. Of several processes only the first one monitors.

    Args:
        data: as for `watch`.
        settings: the other arguments of `watch`.

    Raises:
        ValueError: Lightning is not installed.
    """
    return lightning_callback(MonitorListener(partial(watch, data=data, **settings)))


def hugging_face(data: Any, **settings: Any) -> Any:
    """A `TrainerCallback` that monitors the model that a Hugging Face `Trainer` trains.

    Its `listener.monitor` is the `TrainingMonitor` once training has begun. Steps are the trainer's
    global steps. Of several processes only the first one monitors.

    Args:
        data: as for `watch`.
        settings: the other arguments of `watch`.

    Raises:
        ValueError: transformers is not installed.
    """
    return hugging_face_callback(MonitorListener(partial(watch, data=data, **settings)))
