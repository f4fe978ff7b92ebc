"""Chest X-rays whose drains give the disease away: AUC by group, and how early it shows."""

from contam.experiments.chest_xray.config import CHEXPERT, LAPTOP, PAPER, SMOKE, Config
from contam.experiments.chest_xray.experiment import EXPERIMENT

__all__ = ["CHEXPERT", "EXPERIMENT", "LAPTOP", "PAPER", "SMOKE", "Config"]
