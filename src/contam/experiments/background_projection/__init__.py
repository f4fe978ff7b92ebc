"""ProjectingProjecting the background's span out of a deep network: the theory's remedy on images.

In the paper's data model, gradients that are projected out of the span of counterfactual pairs
learn no background once there are as many pairs as background features. Here the span is estimated
in three places of a network for images: in the features after the training, in the gradients of
the features during the training, and in the patches that the first convolution reads.
"""

from contam.experiments.background_projection.config import FULL, LAPTOP, SMOKE, Config
from contam.experiments.background_projection.experiment import EXPERIMENT

__all__ = ["EXPERIMENT", "FULL", "LAPTOP", "SMOKE", "Config"]
