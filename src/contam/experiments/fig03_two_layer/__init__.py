"""Two-layer networks, ReLU against linear: the paper's theory, simulated and predicted."""

from contam.experiments.fig03_two_layer.claims import CLAIMS
from contam.experiments.fig03_two_layer.config import LAPTOP, PAPER, SMOKE, Config
from contam.experiments.fig03_two_layer.experiment import EXPERIMENT
from contam.experiments.fig03_two_layer.results import TwoLayerResults

__all__ = ["CLAIMS", "EXPERIMENT", "LAPTOP", "PAPER", "SMOKE", "Config", "TwoLayerResults"]
