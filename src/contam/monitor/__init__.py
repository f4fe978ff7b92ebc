"""What both papers would ask of a network, asked every so many steps of any training.

`watch` gives a `Watch`, which a plain loop steps, which goes around a generator of stages, or which
an adapter calls for another trainer. It changes nothing: with and without one, a training comes to
the same weights, to the last bit.
"""

from contam.monitor.callbacks import hugging_face, lightning
from contam.monitor.sinks import Sink, tensorboard, weights_and_biases
from contam.monitor.training_monitor import TrainingMonitor, watch, watching

__all__ = [
    "Sink",
    "TrainingMonitor",
    "hugging_face",
    "lightning",
    "tensorboard",
    "watch",
    "watching",
    "weights_and_biases",
]
