"""What a background costs, over its correlation with the label and the ease of seeing it.

One edge of the plane is the first paper: a background that is independent of the label harms
nevertheless. The other is the second paper: a background that predicts the label harms if it is
easy, and prediction depth shows it.
"""

from contam.experiments.joint_law.config import FULL, LAPTOP, SMOKE, Config
from contam.experiments.joint_law.experiment import EXPERIMENT

__all__ = ["EXPERIMENT", "FULL", "LAPTOP", "SMOKE", "Config"]
