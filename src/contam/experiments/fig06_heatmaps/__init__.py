"""Heat maps while the background shifts: on ID images, on OOD images, and between."""

from contam.experiments.fig06_heatmaps.config import LAPTOP, PAPER, SMOKE, Config
from contam.experiments.fig06_heatmaps.experiment import EXPERIMENT

__all__ = ["EXPERIMENT", "LAPTOP", "PAPER", "SMOKE", "Config"]
