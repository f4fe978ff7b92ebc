"""Callbacks for Lightning's and Hugging Face's trainers, which are never required.

A `TrainingListener` says what to do; `lightning_callback` and `hugging_face_callback` make it a
callback of either trainer. Of several processes only the first one calls the listener.
"""

import math
from contextlib import suppress
from importlib import import_module
from typing import Any

from torch import nn

from contam.models.torchvision_import import import_torchvision


class TrainingListener:
    """What happens during a training; a subclass overrides what it needs.

    Source: ours, so that an audit and a monitor follow any trainer alike.
    """

    def on_begin(self, model: nn.Module, step: int) -> None:
        """Training begins, or resumes at a step."""

    def on_step(self, model: nn.Module, step: int) -> None:
        """`step` optimizer steps are done; called more often where gradients are accumulated."""

    def on_epoch(self, model: nn.Module, epoch: int) -> None:
        """`epoch` epochs are done."""

    def on_end(self, model: nn.Module, epoch: int) -> None:
        """Training is complete, after `epoch` epochs."""

    def on_exception(self) -> None:
        """An exception ended the training."""


def lightning_callback(listener: TrainingListener) -> Any:
    """Return a Lightning callback that calls a listener.

    Args:
        listener: what to do during the training.

    Returns:
        The callback; its `listener` is the listener.

    Raises:
        ValueError: Lightning is not installed.

    >>> listener = TrainingListener()
    >>> lightning_callback(listener).listener is listener  # for Trainer(callbacks=[...])
    True
    """
    base: Any = _base_class("Callback", "lightning.pytorch", "pytorch_lightning")

    class LightningCallback(base):
        """Calls a listener."""

        def __init__(self) -> None:
            super().__init__()
            self.listener = listener
            self._epochs = 0

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero:
                listener.on_begin(pl_module, trainer.global_step)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
            if trainer.is_global_zero:
                listener.on_step(pl_module, trainer.global_step)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self._epochs = trainer.current_epoch + 1
            if trainer.is_global_zero:
                listener.on_epoch(pl_module, self._epochs)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero:
                listener.on_end(pl_module, self._epochs)

        def on_exception(self, trainer: Any, *_: Any, **__: Any) -> None:
            if trainer.is_global_zero:
                listener.on_exception()

    return LightningCallback()


def hugging_face_callback(listener: TrainingListener) -> Any:
    """Return a `TrainerCallback` of Hugging Face that calls a listener.

    Args:
        listener: what to do during the training.

    Returns:
        The callback; its `listener` is the listener.

    Raises:
        ValueError: transformers is not installed.

    >>> listener = TrainingListener()
    >>> hugging_face_callback(listener).listener is listener  # for Trainer(callbacks=[...])
    True
    """
    base: Any = _base_class("TrainerCallback", "transformers")

    class HuggingFaceCallback(base):
        """Calls a listener."""

        def __init__(self) -> None:
            super().__init__()
            self.listener = listener

        def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
            if state.is_world_process_zero:
                listener.on_begin(objects["model"], state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
            if state.is_world_process_zero:
                listener.on_step(objects["model"], state.global_step)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
            if state.is_world_process_zero:
                listener.on_epoch(objects["model"], _epochs(state))

        def on_train_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
            if state.is_world_process_zero:
                listener.on_end(objects["model"], _epochs(state))

    return HuggingFaceCallback()


def _epochs(state: Any) -> int:
    """Epochs that are done; one that `max_steps` cut short counts."""
    return math.ceil((state.epoch or 0) - 1e-6)


def _base_class(name: str, *modules: str) -> type:
    """The class of that name in the first of the modules that is installed."""
    with suppress(ImportError):
        # Both import torchvision where there is one.
        import_torchvision()
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except ImportError:
            continue
    raise ValueError(f"{modules[0].partition('.')[0]} is not installed; this callback needs it")
