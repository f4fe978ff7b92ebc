"""Can a measure tell contamination from a lack of coverage, without training a second network?

Both make a network fail on new backgrounds. The networks of a pair lack the same backgrounds, and
contamination is blocked in one of them; the difference in OOD accuracy is what contamination costs.
"""

from contam.experiments.contamination_pairs.config import FULL, LAPTOP, SMOKE, Config
from contam.experiments.contamination_pairs.experiment import EXPERIMENT

__all__ = ["EXPERIMENT", "FULL", "LAPTOP", "SMOKE", "Config"]
