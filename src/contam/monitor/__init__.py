"""Monitor any training: both papers' measures of a network, every so many steps.

`watch` makes a `TrainingMonitor`, which a plain loop steps, which wraps a generator of stages, or
which a callback calls from another trainer. A training with a monitor comes to the same weights as
one without, to the last bit.
"""

from contam.monitor.callbacks import hugging_face, lightning
from contam.monitor.sinks import Sink, tensorboard, weights_and_biases
from contam.monitor.snapshot import Snapshot
from contam.monitor.training_monitor import TrainingMonitor, watch, watching

__all__ = [
    "Sink",
    "Snapshot",
    "TrainingMonitor",
    "hugging_face",
    "lightning",
    "tensorboard",
    "watch",
    "watching",
    "weights_and_biases",
]
