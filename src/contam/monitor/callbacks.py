"""A watch for trainers that call back: Lightning's and Hugging Face's, which are never required."""

from typing import Any

from contam.monitor.examples import Data
from contam.monitor.training_monitor import TrainingMonitor, watch
from contam.training.trainer_callbacks import base_of


def lightning(data: Data, **settings: Any) -> Any:
    """A Lightning callback that watches the module that the trainer trains.

    `settings` are those of `watch`; steps are the trainer's global ones.

    Source: ours.

    Raises:
        ValueError: Lightning is not installed.
    """
    kind: Any = base_of("Callback", "lightning.pytorch", "pytorch_lightning")

    class WatchingCallback(kind):
        """Looks after batches; the watch is there as `watch` once training has begun."""

        watch: TrainingMonitor | None = None

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.watch = watch(pl_module, data, start=trainer.global_step, **settings)

        def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
            if self.watch is not None:
                self.watch.at(trainer.global_step)

        def on_train_end(self, *_: Any, **__: Any) -> None:
            if self.watch is not None:
                self.watch.close()

        def on_exception(self, *_: Any, **__: Any) -> None:
            if self.watch is not None:
                self.watch.close(look=False)

    return WatchingCallback()


def hugging_face(data: Data, **settings: Any) -> Any:
    """A `TrainerCallback` that watches the model that a Hugging Face `Trainer` trains.

    `settings` are those of `watch`; steps are the trainer's global ones.

    Source: ours.

    Raises:
        ValueError: transformers is not installed.
    """
    kind: Any = base_of("TrainerCallback", "transformers")

    class WatchingCallback(kind):
        """Looks after steps; the watch is there as `watch` once training has begun."""

        watch: TrainingMonitor | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.watch = watch(given["model"], data, start=state.global_step, **settings)

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if self.watch is not None:
                self.watch.at(state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if self.watch is not None:
                self.watch.close()

    return WatchingCallback()
