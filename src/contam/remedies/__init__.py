"""Repairs of trained networks, and their effects on examples that they were not fitted to.

Each repair is one file. `repair.fit(network, id=..., ood=...)` returns a repaired copy.
"""

from contam.remedies.batch_norm import BatchNormStatistics
from contam.remedies.centering import CenteredMaps
from contam.remedies.core_projection import CoreProjection
from contam.remedies.cross_fit import RepairEffect, cross_fit
from contam.remedies.domain_erasure import DomainErasure
from contam.remedies.fresh_head import FreshHead
from contam.remedies.last_layer import GroupBalancedHead, LastLayerRetraining
from contam.remedies.prior_correction import PriorCorrection
from contam.remedies.repair import Conversion, HeadRepair, ImageRepair, Repair
from contam.remedies.weight_interpolation import WeightInterpolation

__all__ = [
    "REPAIRS",
    "BatchNormStatistics",
    "CenteredMaps",
    "Conversion",
    "CoreProjection",
    "DomainErasure",
    "FreshHead",
    "GroupBalancedHead",
    "HeadRepair",
    "ImageRepair",
    "LastLayerRetraining",
    "PriorCorrection",
    "Repair",
    "RepairEffect",
    "WeightInterpolation",
    "cross_fit",
]

REPAIRS: tuple[Repair, ...] = (
    FreshHead(),
    LastLayerRetraining(per_class=8),
    LastLayerRetraining(per_class=32),
    GroupBalancedHead(),
    PriorCorrection(),
    DomainErasure(),
    CoreProjection(),
    BatchNormStatistics(),
    CenteredMaps(),
)
"""The repairs that need nothing but a network and data; an audit measures those that fit."""
