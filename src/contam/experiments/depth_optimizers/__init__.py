"""Where in depth the class response becomes dependent on the background, and with which optimizer.

Perceptrons of several depths are trained on the paper's data, where V / U is known in every layer;
residual networks and vision transformers on the embedded benchmark, where features are unknown and
the attenuation and the interaction stand for it. Every layer or block is measured before and after
training.
"""

from contam.experiments.depth_optimizers.config import FULL, LAPTOP, SMOKE, Config
from contam.experiments.depth_optimizers.experiment import EXPERIMENT

__all__ = ["EXPERIMENT", "FULL", "LAPTOP", "SMOKE", "Config"]
