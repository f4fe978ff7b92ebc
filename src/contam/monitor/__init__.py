"""Monitor any training: measure a network at an interval of steps.

`watch` makes a `TrainingMonitor`. Call its `step` in a plain loop, wrap a training generator with
`monitored`, or pass a callback to Lightning or Hugging Face. Monitoring does not change the weights
of a training, bit for bit.
"""

from contam.monitor.callbacks import hugging_face, lightning
from contam.monitor.sinks import Sink, tensorboard, weights_and_biases
from contam.monitor.snapshot import Snapshot
from contam.monitor.training_monitor import TrainingMonitor, monitored, watch

__all__ = [
    "Sink",
    "Snapshot",
    "TrainingMonitor",
    "hugging_face",
    "lightning",
    "monitored",
    "tensorboard",
    "watch",
    "weights_and_biases",
]
